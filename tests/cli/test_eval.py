"""genie-eval as users type it."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from .test_commands import BIN, command

pytestmark = pytest.mark.heavy

SHORT = ("--seeds", 1, "--held", 8, "--mixed", 12, "--still", 4, "--returns", 1, "-t", 1)


@pytest.fixture
def place(tmp_path: Path, tiny_gguf) -> Path:  # type: ignore[no-untyped-def]
    """A folder with f32.gguf, q8_0.gguf, a picture p.png and recorded play in data/."""
    for type in ("f32", "q8_0"):
        (tmp_path / f"{type}.gguf").write_bytes(tiny_gguf(type).read_bytes())
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(tmp_path / "p.png")
    frames, actions = rng.integers(0, 256, (2, 12, 16, 16, 3), np.uint8), rng.integers(0, 3, (2, 11), np.uint8)
    (tmp_path / "data").mkdir()
    np.savez(tmp_path / "data" / "test.npz", frames=frames, actions=actions)
    return tmp_path


def test_all_modes_together(place: Path) -> None:
    asked = ("--life", "--data", "data", "--against", "f32.gguf", "--clips", 3, "--walks", 1, "--start", "p.png")
    done = command("genie-eval", "-m", "q8_0.gguf", *asked, *SHORT, "-o", "json", "--sheet", "sheets", cwd=place)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found["life"]["held"]) == 3 and found["truth"]["moving_pairs"] == 3
    assert 0 < found["against"]["kl"] < 0.1 and found["against"]["clips"] == 3
    assert {bar["what"] for bar in found["bars"]} >= {"held distinct", "reconstruction", "delta4"} - {"delta4"}
    assert (place / "sheets" / "entropy.png").is_file()
    again = command("genie-eval", "-m", "q8_0.gguf", *asked, *SHORT, "-o", "json", cwd=place)
    assert again.stdout == done.stdout


def test_a_table_of_samplers(place: Path) -> None:
    words = ("--data", "data", "--clips", 2, "--start", "p.png", "--sweep", "steps=1,2", "temperature=0,1")
    done = command("genie-eval", "-m", "q8_0.gguf", *words, "-t", 1, cwd=place)
    assert done.returncode == 0, done.stderr
    table = [line for line in done.stdout.splitlines() if line.startswith("| ")]
    assert sum("<- chosen" in line for line in table) == 1
    assert len([line for line in table if line[2].isdigit()]) == 4


def test_a_bar_that_is_missed_fails_where_it_is_strict(place: Path) -> None:
    words = ("genie-eval", "-m", "q8_0.gguf", "--data", "data", "--clips", 2, "--walks", 1, "-t", 1)
    assert command(*words, cwd=place).returncode == 0
    assert command(*words, "--strict", cwd=place).returncode == 1
    loose = [("reconstruction", -99), ("over-copying-db", -99), ("actions-found", 0), ("delta4", -99)]
    bars = [word for key, value in loose for word in ("--bar", f"{key}={value}")]
    assert command(*words, "--strict", *bars, cwd=place).returncode == 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--data", "nowhere"), "does not exist"),
        (("--sweep", "steps=1"), "--sweep judges samplers against recorded play"),
        (("--data", "data", "--sweep", "stepz=1"), "is not a setting to sweep"),
        (("steps=1",), "is an argument too many"),
        (("--life",), "no pictures of its own"),
        (("--data", "data", "-o", "xml"), "-o is md or json"),
        (("--data", "data", "--bar", "beauty=1"), "is not a bar"),
        (("--data", "data", "--against", "nowhere.gguf"), "nowhere.gguf"),
        (("--life", "--start", "data"), "is a folder, not a picture"),
    ],
)
def test_bad_input_is_one_line_and_a_hint(place: Path, words: tuple[str, ...], says: str) -> None:
    done = command("genie-eval", "-m", "q8_0.gguf", *words, cwd=place)
    assert done.returncode == 1 and done.stdout == ""
    lines = done.stderr.splitlines()
    assert lines[0].startswith("error: ") and says in lines[0]
    assert len(lines) <= 2 and "Traceback" not in done.stderr


@pytest.mark.parametrize("signal_", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_prints_what_it_has(place: Path, signal_: signal.Signals) -> None:
    words = ("-m", "q8_0.gguf", "--life", "--start", "p.png", "--held", "60", "--mixed", "1000000", "--seeds", "1")
    run = subprocess.Popen(
        [str(BIN / "genie-eval"), *words, "-t", "1", "-o", "json"], cwd=place, stdout=-1, stderr=-1, text=True
    )
    time.sleep(4)  # the held actions are finished, the walk of a million frames is not
    run.send_signal(signal_)
    out, error = run.communicate(timeout=60)
    assert run.returncode == 130 and "interrupted" in error
    assert len(json.loads(out)["life"]["held"]) <= 3


def test_worlds_are_listed_and_open_by_name(tmp_path: Path) -> None:
    listed = json.loads(command("genie-cpp", "worlds", "--json", cwd=tmp_path).stdout)
    assert listed[0]["name"] == "meadow"
    for world in (world for world in listed if world["state"] == "bundled"):
        assert world["starts"] >= 12 and world["license"] == "MIT"
        done = command("genie-run", "-m", world["name"], "-n", 2, "-o", f"{world['name']}.png", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        told = command("genie-info", f"{world['name']}.png", cwd=tmp_path).stdout
        assert f"-m {world['name']} " in told
    wrong = command("genie-run", "-m", "medow", cwd=tmp_path)
    assert wrong.returncode == 1 and "did you mean meadow?" in wrong.stderr
