"""On a full disk no file is half-written, and no command reports success."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from .test_commands import command

pytestmark = pytest.mark.heavy


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    place = tmp_path / "small"
    place.mkdir()
    mount = shutil.which("mount")
    if os.name != "posix" or mount is None:
        pytest.skip("no mount here")
    made = subprocess.run([mount, "-t", "tmpfs", "-o", "size=64k", "tmpfs", place], capture_output=True, check=False)
    if made.returncode:
        pytest.skip("only root may make a small file system")
    yield place
    subprocess.run(["umount", place], check=True)


KINDS = [".gif", ".webp", ".png", "/", *([".mp4"] if find_spec("imageio_ffmpeg") else [])]


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_on_a_full_disk_fails_and_leaves_nothing(small: Path, tmp_path: Path, tiny_gguf, kind: str) -> None:  # type: ignore[no-untyped-def]
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "p.png")
    (tmp_path / "w.gguf").write_bytes(tiny_gguf("q8_0").read_bytes())
    words = ("-m", "w.gguf", "-p", "p.png", "-n", 400, "--scale", 16, "--fps", 30, "-o", f"{small}/out{kind}")
    done = command("genie-run", *words, cwd=tmp_path)
    assert done.returncode == 1 and done.stdout == "", done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and "cannot be written" in lines[0] and "Traceback" not in done.stderr
    assert list(small.iterdir()) == []


def test_a_conversion_on_a_full_disk_fails_and_leaves_nothing(
    small: Path, tmp_path: Path, tiny_checkpoint: Path
) -> None:
    done = command("genie-convert", tiny_checkpoint, "-o", small / "w.gguf", "-t", "f32", cwd=tmp_path)
    assert done.returncode == 1 and "error: " in done.stderr and "Traceback" not in done.stderr
    assert list(small.iterdir()) == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_disk_with_room_takes_it(small: Path, tmp_path: Path, tiny_gguf, kind: str) -> None:  # type: ignore[no-untyped-def]
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(tmp_path / "p.png")
    words = ("-m", tiny_gguf("q8_0"), "-p", "p.png", "-n", 3, "--scale", 2, "-o", f"{small}/out{kind}")
    done = command("genie-run", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [p.name for p in small.iterdir()] == [f"out{kind}".rstrip("/")]
