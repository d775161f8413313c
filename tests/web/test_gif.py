"""The page's GIF writer, read by Pillow."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from genie_cpp.web.export import SITE

NODE = shutil.which("node")
pytestmark = [
    pytest.mark.heavy,
    pytest.mark.skipif(NODE is None, reason="node is not installed: apt-get install nodejs"),
]


def written(
    frames: NDArray[np.uint8], folder: Path, scale: int, delay: int = 7
) -> tuple[list[NDArray[np.uint8]], Image.Image]:
    count, height, width, _ = frames.shape
    alpha = np.full((*frames.shape[:3], 1), 255, np.uint8)
    (folder / "frames.rgba").write_bytes(np.concatenate([frames, alpha], 3).tobytes())
    command = [
        NODE,
        Path(__file__).parent / "gif.mjs",
        SITE / "gif.mjs",
        folder / "frames.rgba",
        width,
        height,
        scale,
        delay,
    ]
    done = subprocess.run([*map(str, command), str(folder / "a.gif")], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == count
    image = Image.open(folder / "a.gif")
    found = []
    for i in range(image.n_frames):
        image.seek(i)
        assert image.info["duration"] == delay * 10 and image.info["loop"] == 0
        found.append(np.asarray(image.convert("RGB")))
    return found, image


@pytest.mark.parametrize("colours", [1, 2, 200, 256])
@pytest.mark.parametrize(("width", "height", "scale"), [(1, 1, 1), (7, 5, 3), (128, 80, 2)])
def test_few_colours_are_kept(colours: int, width: int, height: int, scale: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(colours)
    frames = rng.integers(0, 256, (colours, 3), np.uint8)[rng.integers(0, colours, (4, height, width))]
    frames[2] = frames[1]
    found, image = written(frames, tmp_path, scale)
    assert image.size == (width * scale, height * scale) and len(found) == 4
    for frame, wanted in zip(found, frames, strict=True):
        np.testing.assert_array_equal(frame, wanted.repeat(scale, 0).repeat(scale, 1))


def test_noise_fills_the_dictionary_and_starts_it_again(tmp_path: Path) -> None:
    frames = np.random.default_rng(3).integers(0, 256, (2, 90, 160, 1), np.uint8).repeat(3, 3)
    found, _ = written(frames, tmp_path, 1)
    np.testing.assert_array_equal(found, frames)


def test_many_colours_are_near(tmp_path: Path) -> None:
    y, x = np.mgrid[0:64, 0:96]
    frames = np.stack([np.stack([2 * x + 5 * t, 3 * y, x + y], 2) for t in range(3)]).astype(np.uint8)
    found, _ = written(frames, tmp_path, 1)
    error = (np.array(found, float) - frames) ** 2
    assert 10 * np.log10(255**2 / error.mean()) > 28


def test_a_real_world(tmp_path: Path) -> None:
    from genie_cpp import World

    world = World.load("maze", threads=1)
    frames = np.stack([world.reset(), *(world.step(k % 5) for k in range(3))])
    found, _ = written(frames, tmp_path, 4)
    error = (np.array(found, float)[:, ::4, ::4] - frames) ** 2
    assert 10 * np.log10(255**2 / error.mean()) > 30
