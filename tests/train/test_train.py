"""genie-train as users type it: videos in, a world out that plays, and what is kept when it stops."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sysconfig
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torus
from PIL import Image
from shared import made_once

pytest.importorskip("torch")
pytest.importorskip("matplotlib")

from genie_cpp import Model, World
from genie_cpp.convert.writer import convert
from genie_cpp.errors import GenieError
from genie_cpp.evaluate.measures import psnr
from genie_cpp.train.begin import begin
from genie_cpp.train.errors import TrainError
from genie_cpp.train.settings import Settings

pytestmark = pytest.mark.heavy
TRAIN = Path(sysconfig.get_path("scripts")) / "genie-train"
GAME = ["--names", torus.NAMES, "-t", "1", "--config", "config.json", "--steps", "300"]


def train(*words: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(TRAIN), *map(str, words)], cwd=cwd, capture_output=True, text=True, timeout=300, check=False
    )


def make(folder: Path) -> None:
    torus.save(folder / "rec.npz", 20, 40)
    torus.config(folder / "config.json")
    done = train("rec.npz", "-o", "world", *GAME, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "world/world.gguf\n" and done.stderr.endswith("play it: genie-play -m 'world/world.gguf'\n")


@pytest.fixture
def made(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Path:
    """A folder with rec.npz and the world that 300 steps of each part made of it."""
    return shutil.copytree(made_once(tmp_path_factory, "train", make), tmp_path / "made")


def test_the_world_plays_and_knows_the_game(made: Path) -> None:
    facts = json.loads((made / "world" / "run.json").read_text(encoding="utf-8"))
    assert facts["finished"] == ["tokenizer", "lam"]
    figures = facts["figures"]
    assert figures["reconstruction_db"] > 25 and figures["sampled_db"] > figures["copy_db"] + 1, figures
    model = Model.open(made / "world" / "world.gguf", threads=1)
    assert (model.info.frame_width, model.info.context_length) == (16, 4)
    assert set(model.info.action_names) <= {*torus.NAMES.split(","), "mixed", "unused"}
    world = World(model)
    assert len(world.prompts) == 12
    world.reset()
    assert world.rollout([0, 1, 2]).shape == (3, 16, 16, 3)


def test_its_checkpoint_is_a_native_one(made: Path) -> None:
    convert(made / "world" / "checkpoint", made / "f32.gguf", "f32", overwrite=True)
    exact, kept = (Model.open(made / name, threads=1) for name in ("f32.gguf", "world/world.gguf"))
    frames, _ = torus.walk(99, 6)
    assert (exact.tokenize(frames) == kept.tokenize(frames)).mean() > 0.95
    assert float(psnr(exact.detokenize(exact.tokenize(frames)), frames).mean()) > 20


def test_the_report_shows_it(made: Path) -> None:
    page = (made / "world" / "report.html").read_text(encoding="utf-8")
    assert page.count("<svg") == 3 and page.count('class="sheet"') >= 3 and "latent x true action" in page
    sheets = sorted((made / "world" / "samples").iterdir())
    assert [path.name.partition("-")[0] for path in sheets] == ["dynamics", "lam", "tokenizer"]
    for path in sheets:
        with Image.open(path) as image:
            assert len(image.convert("RGB").getcolors(1 << 20) or ()) > 8


@pytest.mark.slow
def test_more_steps_go_on(made: Path) -> None:
    log = made / "world" / "dynamics.csv"
    before = log.read_text(encoding="utf-8").splitlines()
    done = train("rec.npz", "-o", "world", *GAME[:-1], 325, cwd=made)
    assert done.returncode == 0, done.stderr
    after = log.read_text(encoding="utf-8").splitlines()
    assert after[:-1] == before and after[-1].startswith("325,")


class Listener:
    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def watch(self, what: str, done: int, total: int) -> None:
        pass

    def losses(self, part: str, share: float, seconds: float, values: dict[str, float]) -> None:
        pass


def starts(folder: Path, video: str, **asked: Any) -> None:
    begin([folder / video], folder / asked.pop("output", "out"), Settings(**asked), Listener())


@pytest.mark.parametrize(
    ("video", "asked", "says"),
    [
        ("rec.npz", {"context": 5}, "holds another run, with other values of --context"),
        ("other.npz", {}, "holds another run, with other videos"),
    ],
)
def test_another_run_is_refused(tmp_path: Path, video: str, asked: dict[str, Any], says: str) -> None:
    torus.save(tmp_path / "rec.npz", 4, 40)
    torus.save(tmp_path / "other.npz", 5, 40)
    starts(tmp_path, "rec.npz")
    before = (tmp_path / "out" / "run.json").read_bytes()
    with pytest.raises(TrainError, match=says) as caught:
        starts(tmp_path, video, **asked)
    assert caught.value.hint and (tmp_path / "out" / "run.json").read_bytes() == before
    starts(tmp_path, "rec.npz", minutes=90.0)  # which is the same run
    (tmp_path / "out" / "run.json").write_text("{", encoding="utf-8")
    with pytest.raises(TrainError, match="is damaged"):
        starts(tmp_path, "rec.npz")


@pytest.mark.parametrize(
    ("video", "asked", "says"),
    [
        ("nowhere.mp4", {}, "does not exist"),
        ("rec.npz", {"size": "20x20x"}, "--size is WIDTHxHEIGHT"),
        ("rec.npz", {"size": "32x32"}, "frames of 16x16, not 32x32"),
        ("rec.npz", {"preset": "huge"}, "there is no preset"),
        ("rec.npz", {"parts": ("dynamics",)}, "--part needs --start"),
        ("rec.npz", {"parts": ("head",), "start": Path()}, "there is no part"),
        ("rec.npz", {"config": Path("nowhere.json")}, "nowhere.json"),
        ("frames.npz", {"keys": True}, "--keys needs videos whose actions are known"),
        ("frames.npz", {"names": ("a", "b")}, "--names needs videos whose actions are known"),
        ("rec.npz", {"names": ("a", "b")}, "the videos have 5 actions, --names has 2"),
        ("rec.npz", {"keys": True, "actions": 4}, "the videos have 5 actions, the model 4"),
        ("rec.npz", {"output": "full"}, "is not empty and no run"),
        ("rec.npz", {"output": "rec.npz"}, "is not empty and no run"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_made(
    tmp_path: Path, video: str, asked: dict[str, Any], says: str
) -> None:
    torus.save(tmp_path / "rec.npz", 4, 40)
    torus.save(tmp_path / "frames.npz", 4, 40, labelled=False)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("keep", encoding="utf-8")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises((GenieError, OSError), match=says):
        starts(tmp_path, video, **asked)
    assert sorted(tmp_path.rglob("*")) == before


def test_the_command_says_it_in_two_lines(tmp_path: Path) -> None:
    torus.save(tmp_path / "rec.npz", 4, 40)
    (tmp_path / "config.json").write_text("no JSON", encoding="utf-8")
    done = train("rec.npz", "-o", "out", "--config", "config.json", cwd=tmp_path)
    assert done.returncode == 1 and not done.stdout and not (tmp_path / "out").exists()
    error, hint = done.stderr.splitlines()
    assert error.startswith("error: config.json is not JSON") and hint.startswith("hint: ")


@pytest.mark.slow
def test_a_signal_keeps_what_was_learned(tmp_path: Path) -> None:
    torus.save(tmp_path / "rec.npz", 20, 40)
    words = [str(TRAIN), "rec.npz", "-o", "out", "--minutes", "20", "-t", "1"]
    running = subprocess.Popen(words, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    log, until = tmp_path / "out" / "tokenizer.csv", time.monotonic() + 120
    while not (log.exists() and log.stat().st_size > 60):
        assert running.poll() is None and time.monotonic() < until
        time.sleep(0.05)
    running.send_signal(signal.SIGTERM)
    _, said = running.communicate(timeout=60)
    assert running.returncode == 130 and "the same command goes on from here" in said
    import torch

    saved = torch.load(tmp_path / "out" / "tokenizer.training.pt", weights_only=True)
    assert saved["count"] >= 25 and saved["spent"] > 0
    assert not [p for p in (tmp_path / "out").iterdir() if p.suffix in (".tmp", ".part")]


@pytest.mark.slow
def test_a_recording_becomes_a_world_with_one_command(tmp_path: Path) -> None:
    """A film as a screen recorder makes it: large, lossy, more frames than the game has; no actions known."""
    frames, _ = torus.walk(5, 1500)
    writer = pytest.importorskip("imageio_ffmpeg").write_frames(
        str(tmp_path / "play.mp4"), (160, 160), fps=30, macro_block_size=1
    )
    writer.send(None)
    for frame in frames:
        large = np.repeat(np.repeat(frame, 10, 0), 10, 1)
        for _ in range(3):
            writer.send(large.tobytes())
    writer.close()
    done = train("play.mp4", "-o", "world", "--minutes", 3, "--size", "16x16", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "world" / "run.json").read_text(encoding="utf-8"))["figures"]
    assert figures["sampled_db"] > figures["copy_db"] + 6 and figures["delta4_psnr"] > 3, figures
    assert os.path.getsize(tmp_path / "world" / "world.gguf") < 1 << 20
