"""Faults become one line and an exit code. The commands work together without a model."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sysconfig
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from genie_cpp import Sampler
from genie_cpp.cli import main as cli
from genie_cpp.errors import ActionError, ImageError
from genie_cpp.play.recipe import read

# `genie_cpp.cli.main` binds the name `run` to the command; this gets the module.
run = importlib.import_module("genie_cpp.cli.run")


class FakeWorld:
    """Frame k is grey k. At step number `stop` the user presses Ctrl-C."""

    stop = -1

    def __init__(self, model: object, sampler: Sampler, window: str | None) -> None:
        self.window, self.count = window or "half", 0
        self.timings = {"dynamics": 0.5}

    def reset(self, image: np.ndarray, seed: int) -> np.ndarray:
        assert image.shape == (16, 16, 3)
        return np.zeros((16, 16, 3), np.uint8)

    def step(self, action: int) -> np.ndarray:
        if self.count == FakeWorld.stop:
            raise KeyboardInterrupt
        self.count += 1
        return np.full((16, 16, 3), self.count, np.uint8)


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """command("-n", 3) -> exit code, stdout, stderr of genie-run on a fake world."""
    model = SimpleNamespace(
        info=SimpleNamespace(frame_width=16, frame_height=16, choices=4, action_names=None),
        sampler=Sampler(), sha256="ab" * 32,
        name="\x1b[31mEvil [bold]\n", type="Q8_0", backend="cpu", isa="scalar", device="scalar, 1 threads", threads=1,
        infer_actions=lambda video: np.arange(len(video) - 1) % 4, reference="meadow", starts=[],
    )  # fmt: skip
    monkeypatch.setattr(run, "Model", SimpleNamespace(open=lambda path, threads, backend, force: model))
    monkeypatch.setattr(run, "World", FakeWorld)
    monkeypatch.setattr(FakeWorld, "stop", -1)
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (20, 20)).save("p.png")

    def call(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["genie-run", *map(str, words)])
        with pytest.raises(SystemExit) as left:
            cli.main_run()
        assert isinstance(left.value.code, int)
        return left.value.code, *capsys.readouterr()

    return call


def test_run(command: Callable[..., tuple[int, str, str]]) -> None:
    code, out, err = command("-p", "p.png", "--actions", "0,1*2", "-n", 5, "-o", "a.png")
    assert (code, out) == (0, "a.png\n")
    assert "\x1b" not in err and "[bold]" in err.splitlines()[0] and "seed 0" in err.splitlines()[0]
    recipe = read(Path("a.png"))
    assert recipe and recipe.actions == "0,1*2,0,1" and recipe.model == "meadow"


def test_json(command: Callable[..., tuple[int, str, str]]) -> None:
    code, out, _ = command("-p", "p.png", "-n", 2, "--json", "-s", 9)
    report = json.loads(out)
    assert code == 0 and report["frames"] == 2 and report["seed"] == 9 and report["recipe"]["seed"] == 9
    assert set(report) == {"output", "frames", "seed", "seconds", "frames_per_second", "timings", "recipe"}


def test_every_flag_has_a_variable(
    command: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "PROMPT_FRAME": "p.png", "FRAMES": "3", "OUTPUT": "e.webp", "SEED": "5", "SCALE": "1", "FPS": "20",
        "STEPS": "2", "TEMPERATURE": "0.5", "ORDER": "random", "NOISE": "1", "WINDOW": "exact", "FIT": "pad",
        "ACTIONS": "2", "THREADS": "1", "JSON": "1", "YES": "1", "FORCE": "1",
    }.items():  # fmt: skip
        monkeypatch.setenv(f"GENIE_{name}", value)
    for _ in range(2):
        code, out, err = command()
        assert code == 0, err
    recipe = json.loads(out)["recipe"]
    assert recipe["actions"] == "2*3" and recipe["order"] == "random" and recipe["fit"] == "pad" and recipe["fps"] == 20


def test_actions_from_an_animation(command: Callable[..., tuple[int, str, str]]) -> None:
    assert command("-p", "p.png", "-n", 4, "-o", "a.gif")[0] == 0
    assert command("-p", "p.png", "--actions-from", "a.gif", "-o", "b.gif")[0] == 0
    recipe = read(Path("b.gif"))
    assert recipe and recipe.actions == "0,1,2,3"
    code, _, err = command("-p", "p.png", "--actions-from", "a.gif", "--actions", "1", "-o", "c.gif")
    assert code == 1 and "exclude each other" in err


def test_ctrl_c_keeps_the_frames(command: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeWorld, "stop", 3)
    code, out, err = command("-p", "p.png", "--actions", "1,2,3,0,1")
    assert (code, out) == (130, "out.gif\n") and "keeping the 3 frames" in err
    recipe = read(Path("out.gif"))
    assert recipe and recipe.actions == "1,2,3"
    with Image.open("out.gif") as image:
        assert image.n_frames == 4


def test_a_prompt_that_vanishes_costs_nothing(
    command: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeWorld, "reset", lambda self, *_: Path("p.png").unlink() or np.zeros((16, 16, 3), np.uint8))
    assert command("-p", "p.png", "-n", 2)[0] == 0


def test_what_cannot_be_written_is_said_first(command: Callable[..., tuple[int, str, str]]) -> None:
    for words in (("-o", "a.xyz"), ("-o", "no/a.gif"), ("-o", "p.png")):
        code, out, err = command("-p", "p.png", *words)
        assert code == 1 and out == "" and err.startswith("error: "), err
    assert [p.name for p in Path().iterdir()] == ["p.png"]


def test_wrong_usage_is_2(command: Callable[..., tuple[int, str, str]]) -> None:
    for words in (
        ("-p", "p.png", "--from", "s.genie"),
        ("--nonsense",),
        ("-p", "p.png", "-n", 0),
        ("-p", "p.png", "--fps", "x"),
    ):
        assert command(*words)[0] == 2


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (ActionError("no such action", "try 0"), 1, "error: no such action\nhint: try 0\n"),
        (ImageError("two\nlines \x1b[31m"), 1, "error: two\\nlines \\x1b[31m\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (MemoryError(), 1, "error: out of memory\n"),
        (OSError(28, "No space left on device", "a.gif"), 1, "error: a.gif: No space left on device\n"),
        (ZeroDivisionError("oops"), 1, "error: internal: ZeroDivisionError: oops\nhint: please report it"),
    ],
)
def test_faults(error: BaseException, code: int, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.fail(error) == code
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(says) and len(err.splitlines()) <= 2


def test_debug_shows_where(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENIE_DEBUG", "1")
    assert cli.fail(ZeroDivisionError("oops")) == 1 and "ZeroDivisionError: oops\nerror: " in capsys.readouterr().err
    assert cli.fail(ActionError("no")) == 1 and capsys.readouterr().err == "error: no\n"


def test_version(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for entry in (cli.main, cli.main_run, cli.main_convert, cli.main_info, cli.main_bench):
        monkeypatch.setattr("sys.argv", ["x", "--version"])
        with pytest.raises(SystemExit) as left:
            entry()
        assert left.value.code in (0, None) and capsys.readouterr().out.startswith("genie_cpp ")


@pytest.mark.parametrize("name", ["genie-run", "genie-cpp"])
def test_help_is_as_wide_as_the_terminal(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["run", "--help"] if name == "genie-cpp" else ["--help"]
    for columns in (60, 140):
        done = subprocess.run(
            [Path(sysconfig.get_path("scripts")) / name, *words],
            env={**os.environ, "COLUMNS": str(columns)}, capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert columns - 12 <= max(map(len, done.stdout.splitlines())) <= columns
