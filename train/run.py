"""A run: a folder in which videos become a world, part by part. The same call goes on where it stopped.

run.json        what is learned from what, and which parts are finished
config.json     the model
data/           the frames (dataset.py)
*.csv           losses; *.training.pt: states to go on from; tokens.npz: the frames as tokens
samples/        pictures of how far it is; report.html shows them with the losses
checkpoint/     the native checkpoint; world.gguf is made from it, world/ has pictures to start from
"""

from __future__ import annotations

import functools
import json
import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from genie_cpp.convert.reference import checkpoint
from genie_cpp.convert.reference.config import GenieConfig
from genie_cpp.convert.reference.model import Genie
from genie_cpp.convert.writer import convert
from genie_cpp.evaluate import Play, sweep, truth
from genie_cpp.evaluate.report import Report
from genie_cpp.leftovers import file_beside
from genie_cpp.model import Model
from genie_cpp.train import checks, export, losses, report
from genie_cpp.train.begin import begin
from genie_cpp.train.dataset import Dataset, to_float
from genie_cpp.train.errors import TrainError
from genie_cpp.train.loop import Step, Training
from genie_cpp.train.played import Played, opened
from genie_cpp.train.settings import PARTS, Listener, Settings
from genie_cpp.train.starting import begin_from, parts_of_steps, same_everywhere, spread, waves
from genie_cpp.train.tokens import moved_alike, rarity_of, tokenized
from genie_cpp.words import quoted
from genie_cpp.world import World

SHARES = {"tokenizer": 0.15, "lam": 0.15}  # of the minutes; the dynamics have the rest
CLIPS_AT_A_TIME = {
    "cpu": {"tokenizer": 4, "lam": 8, "dynamics": 4},
    "gpu": {"tokenizer": 48, "lam": 64, "dynamics": 32},
}
REPORT_EVERY, SHEET_EVERY = 60.0, 600.0  # seconds
SAMPLERS: dict[str, list[Any]] = {"steps": [1, 2, 4, 8], "temperature": [0.0, 0.3]}


def train(paths: Sequence[Path], output: Path, settings: Settings, tell: Listener) -> dict[str, Any]:
    """Make a world of videos, or go on with the run in `output`. Returns the figures on held-out clips.

    Raises TrainError, ImageError, OutputError, OSError, ConfigError. On KeyboardInterrupt what exists is kept.
    """
    return Run(paths, output, settings, tell).run()


class Run:
    def __init__(self, paths: Sequence[Path], output: Path, settings: Settings, tell: Listener) -> None:
        self.folder, self.settings, self.tell = output, settings, tell
        self.device = settings.device or ("cuda" if torch.cuda.is_available() else "cpu")
        try:
            torch.zeros(1, device=self.device)
        except (RuntimeError, AssertionError) as error:
            why = str(error).splitlines()[0][:160]
            raise TrainError(f"the device {quoted(self.device)} cannot be used: {why}", "--device cpu") from None
        if settings.threads is not None:
            torch.set_num_threads(settings.threads)
        torch.set_float32_matmul_precision("high")
        torch.manual_seed(settings.seed)
        self.parts = settings.parts or PARTS
        self.facts = begin(paths, output, settings, tell)
        self.config = GenieConfig.load(output / "config.json")
        self.finished: list[str] = self.facts["finished"]
        self.figures: dict[str, Any] = self.facts["figures"]
        self._reported = time.monotonic()

    def _save(self) -> None:
        part = file_beside(self.folder / "run.json")
        part.write_text(json.dumps(self.facts, indent=1), encoding="utf-8")
        os.replace(part, self.folder / "run.json")

    def run(self) -> dict[str, Any]:
        g = self.config
        clips, self.held = (
            Dataset(self.folder / "data", g.context_length, held, self.device) for held in (False, True)
        )
        self.tell.say(
            f"{len(clips)} windows of {g.context_length} frames to learn from, {len(self.held)} held out; frames of "
            f"{g.frame_width}x{g.frame_height}, {g.token_count} tokens"
        )
        genie = self._new().to(self.device)
        for part, learn in (("tokenizer", self._tokenizer), ("lam", self._lam), ("dynamics", self._dynamics)):
            if part in self.parts:
                learn(genie, clips)
        return self._finish()

    def _new(self) -> Genie:
        """A model as training begins: random weights, or those of --start."""
        genie, start = Genie(self.config), self.settings.start
        if start is not None:
            try:
                begin_from(genie, start)
            except (RuntimeError, FileNotFoundError) as error:
                raise TrainError(f"--start {quoted(str(start))} does not fit: {error}") from None
        return genie

    def _minutes(self, part: str) -> float:
        if part in SHARES:
            return self.settings.minutes * SHARES[part]
        return max(0.0, self.settings.minutes - sum(self.facts["minutes"].values()))

    def _train(self, part: str, model: torch.nn.Module, step: Step) -> None:
        at_a_time = CLIPS_AT_A_TIME["cpu" if self.device == "cpu" else "gpu"][part]
        training = Training(
            model,
            self.folder / part,
            self._minutes(part),
            self.settings.rate,
            self.settings.batch or at_a_time,
            self.tell.say,
            self.settings.steps,
        )
        last_sheet = training.spent

        def progress(seconds: float, count: int, values: dict[str, float]) -> None:
            nonlocal last_sheet
            self.tell.losses(part, training.share, seconds, {"step": count, **values})
            if seconds - last_sheet > SHEET_EVERY:
                self._sheet(part, model)
                model.train()
                last_sheet = seconds
            self._report()

        if not training.done:
            training.run(step, progress)
        if part in SHARES:
            self.facts["minutes"][part] = training.spent / 60
        self._sheet(part, model)

    def _finished(self, part: str, found: dict[str, float]) -> None:
        self.finished.append(part)
        self.figures.update({f"{part} {key.replace('_', ' ')}": value for key, value in found.items()})
        self._save()
        self._report(now=True)
        shown = ", ".join(f"{key.replace('_', ' ')} {value:.1f}" for key, value in found.items())
        self.tell.say(f"{part}: {shown}")

    def _tokenizer(self, genie: Genie, clips: Dataset) -> None:
        if "tokenizer" not in self.finished:
            same_everywhere(genie.tokenizer)
            step = functools.partial(losses.tokenizer_step, genie.tokenizer, clips)
            self._train("tokenizer", genie.tokenizer, step)
            self._finished("tokenizer", checks.tokenizer(genie.tokenizer, self.held))
        export.load_part(genie.tokenizer, self.folder / "tokenizer")

    def _lam(self, genie: Genie, clips: Dataset) -> None:
        if "lam" not in self.finished:
            s, decoder = self.settings, None
            step: Step
            if s.keys:
                codebook = genie.lam.vq.codebook
                codebook.copy_(spread(codebook))
                step = functools.partial(losses.lam_keys_step, genie.lam, clips)
            else:
                decoder = genie.lam.predict
                if self.config.lam.decoder is None:
                    parts = parts_of_steps(clips, self.config.lam.patch_size)
                    genie.lam.shift_decoder = decoder = losses.ShiftDecoder(self.config, parts).to(self.device)
                step = functools.partial(losses.lam_step, genie.lam, decoder, clips, s.even, s.mirror)

            self._train("lam", genie.lam, step)
            self._finished("lam", checks.actions(genie.lam, decoder, self.held))
            if hasattr(genie.lam, "shift_decoder"):
                del genie.lam.shift_decoder
        export.load_part(genie.lam, self.folder / "lam")

    def _dynamics(self, genie: Genie, clips: Dataset) -> None:
        s, g, dynamics = self.settings, self.config, genie.dynamics
        positions = dynamics.stack.pos_space
        columns, rows = g.grid(g.tokenizer.patch_size)
        if s.start is None:
            positions.data.copy_(waves(rows, columns, positions.shape[1]))
        stride = max(1, g.context_length - 1)
        ids, actions = (
            x.to(self.device) for x in tokenized(genie, clips, self.folder / "tokens.npz", stride, self.tell.watch)
        )
        if s.alike:
            actions = moved_alike(ids, actions, rows, columns, self.tell.say)
        rarity = rarity_of(ids, g.tokenizer.codebook_size) if s.rare else None
        played = None
        if s.walks:
            at = clips.windows(stride)
            played = Played(genie, ids.cpu(), actions.cpu(), at, s.walks, 300, self.tell.say)

        def step(batch: int, share: float) -> losses.Losses:
            # First the true frames: the model's own frames are useful only when it is nearly right.
            own = 0.5 if share > 0.4 else 0.0
            return losses.dynamics_step(dynamics, ids, actions, batch, 0.1, own, share, played, rarity)

        self._genie = genie
        self._train("dynamics", dynamics, step)
        dynamics.eval()

    @torch.no_grad()
    def _sheet(self, part: str, model: torch.nn.Module) -> None:
        """A picture of how far a part is, from held-out clips."""
        model.eval()
        at = self.held.windows(self.held.length)
        picked = at[np.unique(np.linspace(0, len(at) - 1, 8).astype(int))]
        folder = self.folder / "samples"
        if part == "tokenizer":
            true = self.held.frames[picked[:, 0]]
            video = to_float(torch.from_numpy(true)[:, None].to(self.device)).expand(-1, self.held.length, -1, -1, -1)
            report.sheet(folder / "tokenizer-true-and-rebuilt.png", [true, _pixels(model(video)[0][:, 0])])
        elif part == "lam":
            decoder = getattr(model, "shift_decoder", None) or (None if self.settings.keys else model.predict)
            if decoder is None:
                return
            first = to_float(torch.from_numpy(self.held.frames[picked[:3, :2]]).to(self.device))
            rows = []
            for clip in first:
                codes = model.vq.codebook[:, None]  # each code as the one action after this frame
                rows.append(_pixels(decoder(clip[None].expand(len(codes), -1, -1, -1, -1), codes)[:, 0]))
            report.sheet(folder / "lam-the-next-frame-by-action.png", rows)
        else:
            model_of_core = opened(self._genie)
            world, rows = World(model_of_core), []
            for action in range(min(self.config.action_count, 8)):
                world.reset(self.held.frames[picked[0, 0]], seed=0)
                rows.append(world.rollout([action] * 10))
            report.sheet(folder / "dynamics-each-action-held.png", rows)

    def _report(self, now: bool = False, tables: Sequence[str] = ()) -> None:
        if not now and time.monotonic() - self._reported < REPORT_EVERY:
            return
        self._reported = time.monotonic()
        g, count = self.config, len(self.facts["videos"])
        facts = {
            "world": g.card.get("name", self.folder.name),
            "learned from": f"{count} video{'s' * (count != 1)}, {len(self.held.frames):,} frames",
            "frames": f"{g.frame_width}x{g.frame_height}, {g.token_count} tokens of {g.tokenizer.codebook_size} codes",
            "latent actions": g.action_count,
        }
        report.write(self.folder, facts, self.figures, tables)

    def _finish(self) -> dict[str, Any]:
        """Put the parts together, name the actions, convert, choose the sampler, measure."""
        genie = self._new()
        for part in self.parts:
            export.load_part(getattr(genie, part), self.folder / part)
        held = Dataset(self.folder / "data", self.config.context_length, held=True)
        if self.settings.names:
            export.named(genie, held, self.settings.names)
        export.write_starts(held, self.folder / "world")
        world = self.folder / "world.gguf"
        self._convert(genie, world)
        model = Model.open(world, self.settings.threads)
        play = Play.load(self.folder / "data", model.info)
        if self.settings.config is None:
            rows = sweep(model, play, list(World(model).prompts), SAMPLERS, clips=32, mixed=60, watch=self._watched)
            # Where none is good in every respect, the best next frame decides.
            chosen = next((row for row in rows if row["chosen"]), max(rows, key=lambda row: row["next_db"]))
            export.with_sampler(genie, {"steps": chosen["steps"], "temperature": chosen["temperature"]})
            self._convert(genie, world)
            model = Model.open(world, self.settings.threads)
        found = truth(model, play, clips=64, walks=4, watch=self._watched)
        self.figures.update({k: v for k, v in found.items() if not isinstance(v, list)})
        self._save()
        table = Report({"name": model.name, "sampler": f"{model.sampler.steps} steps"}, truth=found).markdown()
        self._report(now=True, tables=[table])
        # Of all pixels together: in a lossy film a frame in which nobody moves is nearly, not quite, its own copy.
        gain = found["sampled_db"] - found["copy_db"] if "sampled_db" in found else None
        if gain is not None and gain <= 0:
            raise TrainError(
                f"the world's next frame is no better than a copy of the last one ({gain:+.1f} dB)", checks.MORE
            )
        return found

    def _convert(self, genie: Genie, world: Path) -> None:
        dtype = torch.float16 if self.settings.half else torch.float32
        checkpoint.save(genie, self.folder / "checkpoint", dtype, training_parts=False)
        convert(self.folder / "checkpoint", world, self.settings.type, overwrite=True)

    def _watched(self, items: Iterable[Any], label: str, total: int) -> Iterable[Any]:
        for number, item in enumerate(items):
            self.tell.watch(label, number, total)
            yield item


def _pixels(shown: torch.Tensor) -> Any:
    return (shown.float().clamp(0, 1) * 255).round().byte().cpu().numpy()
