"""The loop over steps of one part: a budget in time, a learning rate that follows it, a state on disk to go on from."""

from __future__ import annotations

import csv
import math
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from genie_cpp.convert.reference.model import LatentActionModel
from genie_cpp.convert.reference.stack import STStack
from genie_cpp.train.dataset import Say
from genie_cpp.train.errors import TrainError
from genie_cpp.train.losses import Losses
from genie_cpp.train.muon import Muon
from genie_cpp.train.starting import device_of

Step = Callable[[int, float], Losses]  # batch, the share of the budget that has passed
Progress = Callable[[float, int, dict[str, float]], None]  # seconds spent, step, the last losses
EVERY = 25  # steps between lines of the log
KEEP = 60.0  # seconds between saves
MOST_FAILURES = 3  # of losses that are not numbers


def optimizers_of(model: nn.Module, rate: float) -> list[torch.optim.Optimizer]:
    """Muon (Jordan et al. 2024) for the matrices inside blocks, AdamW for all else and for a latent action model.

    With Muon, a dynamics model learns in a hundred steps that the picture moves. With AdamW alone it has then learned
    nothing yet.
    """
    wanted = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    blocks = () if isinstance(model, LatentActionModel) else wanted
    inner = [p for n, p in blocks if ".blk." in n and p.ndim == 2 and "norm" not in n]
    chosen = {id(p) for p in inner}
    rest = [p for _, p in wanted if id(p) not in chosen]
    groups = [
        {"params": [p for p in rest if p.ndim > 1], "weight_decay": 0.01},
        {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0.0},
    ]
    adam = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.95), fused=True)
    # In bf16 where that is fast.
    kind = torch.optim.Muon if has_bf16(device_of(model)) else Muon
    return [adam, kind(inner, lr=20 * rate, weight_decay=0.01)] if inner else [adam]


def has_bf16(device: torch.device) -> bool:
    """Whether bf16 pays: on a CPU without such instructions PyTorch emulates them, tens of times slower than float."""
    return device.type != "cpu" or torch.cpu._is_avx512_bf16_supported()


class Training:
    """One part in training. Its state is `path`.training.pt, its losses `path`.csv."""

    def __init__(
        self, model: nn.Module, path: Path, minutes: float, rate: float, batch: int, say: Say, steps: int | None = None
    ) -> None:
        """steps: the budget, instead of minutes."""
        self.model, self.budget, self.steps, self.batch, self.say = model, minutes * 60, steps, batch, say
        self.state, self.log = path.with_suffix(".training.pt"), path.with_suffix(".csv")
        self.optimizers = optimizers_of(model, rate)
        self.rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in self.optimizers]
        self.spent, self.count, self.failures = 0.0, 0, 0
        if self.state.exists():
            self._load()
            self.failures = 0
        self.first = self.count

    @property
    def done(self) -> bool:
        return self.share >= 1

    @property
    def share(self) -> float:
        """Of the budget, how much is spent."""
        return self.spent / max(self.budget, 1e-6) if self.steps is None else self.count / self.steps

    def _load(self) -> None:
        saved = torch.load(self.state, weights_only=True, map_location=device_of(self.model))
        self.model.load_state_dict(saved["model"])
        # Weights alone are enough too: warm-up then makes up for the missing moments.
        for optimizer, moments in zip(self.optimizers, saved.get("optimizers", []), strict=False):
            optimizer.load_state_dict(moments)
        self.spent, self.count = saved["spent"], saved["count"]
        for name, module in self.model.named_modules():
            if f"{name}.usage" in saved["vq"]:
                quantizer: Any = module
                quantizer.usage, quantizer.total = saved["vq"][f"{name}.usage"], saved["vq"][f"{name}.total"]
                quantizer.steps = self.count

    def save(self) -> None:
        """Raises OSError; the older state then stays."""
        vq = {
            f"{n}.{k}": getattr(m, k)
            for n, m in self.model.named_modules()
            for k in ("usage", "total")
            if hasattr(m, "revive_below")
        }
        state = {
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "spent": self.spent,
            "count": self.count,
            "vq": vq,
        }
        part = self.state.with_suffix(".tmp")
        try:
            with part.open("wb") as file:
                torch.save(state, file)
            os.replace(part, self.state)
        except RuntimeError as error:  # PyTorch's writer says so of a full disk
            raise TrainError(f"{self.state.name} cannot be written: {str(error).splitlines()[0]}") from None
        finally:
            part.unlink(missing_ok=True)

    def run(self, step: Step, progress: Progress) -> None:
        """Train until the budget is spent. On Ctrl-C what exists is saved, and KeyboardInterrupt goes on up.

        If a loss is not a number, it goes on from the last state with half the learning rate, at most thrice. If a GPU
        has too little memory, with half the batch. Raises TrainError, OSError.
        """
        self.model.train()
        if not has_bf16(device_of(self.model)):
            # In float32 it takes attention for a pattern of another shape, and fails (torch 2.13).
            torch._inductor.config.pattern_matcher = False
        if self.steps is None and self.budget - self.spent > 180:  # compiling takes half a minute
            for module in self.model.modules():
                if isinstance(module, STStack):
                    module.compile()
        fresh = not self.log.exists()
        self.save()
        with self.log.open("a", newline="", encoding="utf-8") as handle:
            log = csv.writer(handle)
            try:
                while not self.done:
                    for values in self._until_it_fails(step):
                        if fresh:
                            log.writerow(["step", "seconds", *values])
                            fresh = False
                        log.writerow([self.count, round(self.spent), *values.values()])
                        handle.flush()
                        progress(self.spent, self.count, values)
            except KeyboardInterrupt:
                self.save()
                raise
        self.save()

    def _until_it_fails(self, step: Step) -> Iterator[dict[str, float]]:
        """Yields the losses now and then. Returns when the budget is spent, or after a step back to the last state."""
        before, since, saved = self.spent, time.monotonic(), time.monotonic()
        while not self.done:
            try:
                losses = self._step(step)
            except torch.OutOfMemoryError:
                if self.batch == 1:
                    raise TrainError(
                        "the device has too little memory for one clip", "--preset tiny, or --device cpu"
                    ) from None
                self.batch //= 2
                self.model.zero_grad()
                torch.cuda.empty_cache()
                self.say(f"out of memory: {self.batch} clips at a time from here on")
                continue
            self.count += 1
            if self.spent == before:
                since = time.monotonic()  # compile time does not count
            self.spent = before + max(time.monotonic() - since, 1e-6)
            if self.count % EVERY == 0 or self.done or time.monotonic() - saved > KEEP:
                values = {k: round(float(v.detach()), 4) for k, v in losses.items()}
                if not all(math.isfinite(value) for value in values.values()):
                    self._step_back()
                    return
                yield values
            if time.monotonic() - saved > KEEP:
                self.save()
                saved = time.monotonic()

    def _step_back(self) -> None:
        self.failures += 1
        if self.failures > MOST_FAILURES:
            raise TrainError(
                f"the losses of {self.state.name.split('.')[0]} were no numbers {self.failures} times",
                "a lower --rate may help; the same command goes on from the last good state",
            )
        spent = self.spent
        self._load()
        self.spent = spent  # or a part that always fails would never end
        self.rates = [[rate / 2 for rate in group] for group in self.rates]
        self.say("a loss was no number: back to the last good state, at half the learning rate")

    def _step(self, step: Step) -> Losses:
        share = self.share
        warm = min(1, (self.count - self.first + 1) / 100)
        factor = warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * share)))
        for optimizer, fulls in zip(self.optimizers, self.rates, strict=True):
            for group, full in zip(optimizer.param_groups, fulls, strict=True):
                group["lr"] = factor * full
        device = device_of(self.model)
        with torch.autocast(device.type, torch.bfloat16, enabled=has_bf16(device)):
            losses = step(self.batch, share)
        self.model.zero_grad()
        losses["loss"].backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
        return losses
