"""The next run removes what killed runs left behind. Files of a run that is still alive stay."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from genie_cpp.file.gguf_file import GGUFFile
from genie_cpp.frames import load_image
from genie_cpp.leftovers import REPLACED, _here, clean, file_beside, folder_beside
from genie_cpp.spec.hparams import validate

BIN = Path(sysconfig.get_path("scripts"))
pytestmark = [pytest.mark.heavy, pytest.mark.skipif(os.name != "posix", reason="asks the system who is alive")]


def nobody() -> int:
    """The number of a process that has ended."""
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    return done.pid


def test_only_what_nobody_makes_any_more_is_removed(tmp_path: Path) -> None:
    gone, mine, here = nobody(), os.getpid(), _here()
    living = (f"{here}-{mine}", f"{here}-1", f"89abcdef-{gone}")  # the last: another container's
    for mark in (f"{here}-{gone}", *living):
        (tmp_path / f".genie-{mark}-0123abcd").mkdir()
        (tmp_path / f".genie-{mark}-0123abcd" / "frame.png").write_bytes(b"half")
        (tmp_path / f".w.gguf.{mark}-0123abcd.part").write_bytes(b"half")
    others = (".genie-notes", ".w.gguf.part", "keep.part", f".genie-{gone}", f".genie-{here}-{'9' * 20}-0123abcd")
    for name in others:
        (tmp_path / name).write_bytes(b"somebody's")
    clean(tmp_path)
    kept = {f".genie-{mark}-0123abcd" for mark in living} | {f".w.gguf.{mark}-0123abcd.part" for mark in living}
    assert {p.name for p in tmp_path.iterdir()} == {*others, *kept}
    for name in kept:
        os.utime(tmp_path / name, (time.time() - 1e6,) * 2)
    clean(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == set(others)  # no write takes a week


def test_killed_between_two_names_nothing_is_lost(tmp_path: Path) -> None:
    left = tmp_path / f".genie-{_here()}-{nobody()}-0123abcd"
    for name in (REPLACED, "frames"):
        (left / name).mkdir(parents=True)
        (left / name / "recipe.json").write_text(name, encoding="utf-8")
    clean(tmp_path)
    assert (tmp_path / "frames" / "recipe.json").read_text(encoding="utf-8") == "frames"
    assert [p.name for p in tmp_path.iterdir()] == ["frames"]


def test_names_of_many_bytes(tmp_path: Path) -> None:
    name = "世" * 80 + ".gguf"  # 245 bytes
    made = file_beside(tmp_path / name)
    made.write_bytes(b"x")
    os.replace(made, tmp_path / name)
    folder_beside(tmp_path / name).rmdir()


@pytest.mark.parametrize(
    "output", [pytest.param(name, marks=pytest.mark.slow) for name in ("frames/", "out.webp", "out.mp4")]
)
def test_killed_at_random_moments(tmp_path: Path, tiny_gguf: Callable[[str], Path], output: str) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)).save(tmp_path / "p.png")
    words = [BIN / "genie-run", "-m", tiny_gguf("q8_0"), "-p", "p.png", "-n", "150", "--scale", "8", "-o", output, "-y"]
    rng = random.Random(1)
    started = time.monotonic()
    subprocess.run(words, cwd=tmp_path, check=True, capture_output=True)
    whole = time.monotonic() - started
    target = tmp_path / output
    for _ in range(4):
        running = subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(rng.uniform(0.2, 1.0) * whole)
        running.kill()
        running.wait()
        files = [target] if target.is_file() else sorted(target.glob("*.png"))
        assert files, "neither the old one nor the new one is there"
        for file in files[:1] + files[-1:]:
            assert load_image(file).shape == (128, 128, 3)
    subprocess.run(words, cwd=tmp_path, check=True, capture_output=True)
    assert {p.name for p in tmp_path.iterdir()} == {"p.png", output.rstrip("/")}


@pytest.mark.slow
def test_a_killed_conversion(tmp_path: Path, tiny_checkpoint: Path) -> None:
    """Either the old file stays, or the new file is complete."""
    words = [BIN / "genie-convert", tiny_checkpoint, "-o", "world.gguf", "-y"]
    started = time.monotonic()
    subprocess.run(words, cwd=tmp_path, check=True, capture_output=True)
    whole = time.monotonic() - started
    rng = random.Random(1)
    for _ in range(2):
        running = subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(rng.uniform(0.5, 1.0) * whole)
        running.kill()
        running.wait()
        with GGUFFile.open(tmp_path / "world.gguf") as file:
            validate(file)
    subprocess.run(words, cwd=tmp_path, check=True, capture_output=True)
    assert {p.name for p in tmp_path.iterdir()} == {"world.gguf"}


def test_with_few_descriptors(tmp_path: Path, tiny_checkpoint: Path) -> None:
    """Forty are enough for everything. With eleven there is one clear error, and no half-written file."""
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(tmp_path / "p.png")
    limited = "import os, resource, sys; n = int(sys.argv[1]); resource.setrlimit(resource.RLIMIT_NOFILE, (n, n)); "
    limited += "os.execv(sys.argv[2], sys.argv[2:])"

    def run(descriptors: int, *words: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", limited, str(descriptors), *map(str, words)]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)

    for words in (
        (BIN / "genie-convert", tiny_checkpoint, "-o", "world.gguf"),
        (BIN / "genie-run", "-m", "world.gguf", "-p", "p.png", "-n", "4", "-o", "out.gif"),
        (BIN / "genie-run", "-m", "world.gguf", "-p", "p.png", "-n", "4", "-o", "out.mp4"),
        (BIN / "genie-info", "world.gguf"),
    ):
        ran = run(40, *words)
        assert ran.returncode == 0, ran.stderr
    before = {p.name for p in tmp_path.iterdir()}
    for descriptors in (4, 6):
        ran = run(descriptors, BIN / "genie-run", "-m", "world.gguf", "-p", "p.png", "-n", "4", "-o", "other.gif")
        assert ran.returncode in (0, 1), ran.stderr
        (tmp_path / "other.gif").unlink(missing_ok=True)
        assert {p.name for p in tmp_path.iterdir()} == before
