"""Every kind of output keeps every frame and the recipe, gives the same bytes each time, and is never half-written."""

from __future__ import annotations

import dataclasses
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from genie_cpp.errors import OutputError
from genie_cpp.frames import load_frames
from genie_cpp.media import output
from genie_cpp.play.recipe import Recipe, read

RECIPE = Recipe(
    version="0.1.0", model="", model_sha256="ab" * 32, prompt="it's a picture.png", prompt_sha256="cd" * 32, fit="crop",
    seed=7, actions="0,3*8", steps=8, temperature=0.1, order="confidence", noise=0.0, threshold=0.0, window="half",
    isa="avx2", fps=10, scale=2,
)  # fmt: skip


def video(count: int = 6) -> list[np.ndarray]:
    frames = [np.full((16, 24, 3), (40 * i, 100, 255 - 40 * i), np.uint8) for i in range(count - 3)]
    return [*frames, frames[-1], frames[-1], frames[-1]]  # a world may stand still


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png", "a.mp4", "a"])
def test_frames_recipe_and_bytes(name: str, tmp_path: Path) -> None:
    if name.endswith("mp4"):
        pytest.importorskip("imageio_ffmpeg")
    folder = name == "a"
    path, again = tmp_path / name, tmp_path / f"again{Path(name).suffix}"
    output.write(path, video(), RECIPE, folder=folder)
    output.write(again, video(), RECIPE, folder=folder)
    assert read(path) == RECIPE
    if folder:
        files = sorted(path.glob("*.png"))
        assert [f.name for f in files] == [f"frame_{i:04d}.png" for i in range(6)]
        np.testing.assert_array_equal(load_frames(files[0])[0], video()[0].repeat(2, 0).repeat(2, 1))
    else:
        assert path.read_bytes() == again.read_bytes()
        if name.endswith("mp4"):
            return
        with Image.open(path) as image:
            assert image.n_frames == 6
        for got, want in zip(load_frames(path), video(), strict=True):
            np.testing.assert_allclose(got, want.repeat(2, 0).repeat(2, 1), atol=8 if name.endswith("gif") else 0)
    assert {p.name for p in tmp_path.iterdir()} == {name, again.name}


def test_refused(tmp_path: Path) -> None:
    taken = tmp_path / "a.gif"
    taken.write_text("mine")
    folder = tmp_path / "full"
    folder.mkdir()
    (folder / "thesis.txt").write_text("mine")
    for path, kind in ((taken, False), (tmp_path / "a.xyz", False), (tmp_path / "no" / "a.gif", False), (folder, True)):
        with pytest.raises(OutputError):
            output.check_output(path, kind, kind)
    output.write(taken, video(), RECIPE, overwrite=True)
    assert read(taken) == RECIPE
    with pytest.raises(OutputError):
        output.write(tmp_path / "b.gif", [], RECIPE)


def test_a_failure_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path, *_: object) -> None:
        path.write_text("half", encoding="utf-8")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(output, "_write_animation", fail)
    old = tmp_path / "a.gif"
    old.write_text("old")
    with pytest.raises(OutputError, match="No space"):
        output.write(old, video(), RECIPE, overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["a.gif"] and old.read_text() == "old"


def noise(count: int, height: int = 15, width: int = 21) -> list[np.ndarray]:
    """Frames that change in odd places, with still stretches in between."""
    rng = np.random.default_rng(3)
    frames = [rng.integers(0, 256, (height, width, 3), np.uint8)]
    for _ in range(count - 1):
        frame = frames[-1].copy()
        if rng.random() < 0.7:
            y, x = rng.integers(height), rng.integers(width)
            frame[y : y + rng.integers(1, 5), x : x + rng.integers(1, 5)] = rng.integers(0, 256, 3)
        frames.append(frame)
    return frames


@pytest.mark.parametrize("scale", [1, 3])
@pytest.mark.parametrize("kind", ["png", "webp"])
def test_lossless_kinds_are_exact(kind: str, scale: int, tmp_path: Path) -> None:
    path = tmp_path / f"a.{kind}"
    output.write(path, noise(40), dataclasses.replace(RECIPE, scale=scale))
    for got, want in zip(load_frames(path), noise(40), strict=True):
        np.testing.assert_array_equal(got, want.repeat(scale, 0).repeat(scale, 1))


def test_gif_of_few_colours_is_exact(tmp_path: Path) -> None:
    frames = [(frame >> 7) * np.uint8(255) for frame in noise(40)]
    output.write(tmp_path / "a.gif", frames, dataclasses.replace(RECIPE, scale=1))
    for got, want in zip(load_frames(tmp_path / "a.gif"), frames, strict=True):
        np.testing.assert_array_equal(got, want)


def test_another_decoder_sees_the_same(tmp_path: Path) -> None:
    ffmpeg = pytest.importorskip("imageio_ffmpeg").get_ffmpeg_exe()
    for name in ("a.gif", "a.png", "a.mp4"):
        path = tmp_path / name
        output.write(path, noise(12), RECIPE)
        words = [
            ffmpeg,
            "-v",
            "error",
            "-i",
            path,
            "-fps_mode",
            "passthrough",
            "-f",
            "rawvideo",
            "-pix_fmt",
            "rgb24",
            "-",
        ]
        done = subprocess.run(words, capture_output=True, check=True)
        got = np.frombuffer(done.stdout, np.uint8).reshape(-1, 30, 42, 3)
        assert len(got) == 12 and not done.stderr
        if name != "a.mp4":
            np.testing.assert_array_equal(got, np.stack(load_frames(path)))


@pytest.mark.parametrize("fps", [1, 7, 24, 30, 50])
def test_the_time_is_right(fps: int, tmp_path: Path) -> None:
    for kind, unit in (("gif", 10), ("webp", 1), ("png", 1)):
        path = tmp_path / f"{fps}.{kind}"
        output.write(path, noise(20), dataclasses.replace(RECIPE, fps=fps))
        total = 0.0
        with Image.open(path) as image:
            for index in range(image.n_frames):
                image.seek(index)
                image.load()
                total += image.info["duration"]
        assert abs(total - 20_000 / fps) <= unit


def test_mp4_of_odd_sides_and_a_long_recipe(tmp_path: Path) -> None:
    pytest.importorskip("imageio_ffmpeg")
    recipe = dataclasses.replace(RECIPE, scale=1, actions=",".join("01" * 50_000))
    output.write(tmp_path / "a.mp4", noise(3), recipe)
    assert read(tmp_path / "a.mp4") == recipe


def test_sizes_a_format_cannot_have(tmp_path: Path) -> None:
    huge = np.zeros((8, 1200, 3), np.uint8)
    with pytest.raises(OutputError, match="at most"):
        output.write(tmp_path / "a.webp", [huge], dataclasses.replace(RECIPE, scale=14))
    output.check_size(tmp_path / "a.gif", 1200 * 14, 8 * 14)
    assert not list(tmp_path.iterdir())


def test_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    output.write(folder, noise(5), RECIPE, folder=True)  # an empty folder counts as none
    with pytest.raises(OutputError, match="exists"):
        output.check_output(folder, False, True)
    output.write(folder, noise(2), RECIPE, True, True)
    before = sorted(p.name for p in folder.iterdir())
    assert before == ["frame_0000.png", "frame_0001.png", "recipe.json"]
    real = os.replace

    def fail(source: Path, target: Path) -> None:
        if Path(source).name == "frames" and ".genie-" in str(source):
            raise OSError(28, "No space left on device")
        real(source, target)

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OutputError, match="No space"):
        output.write(folder, noise(9), RECIPE, True, True)
    assert sorted(p.name for p in folder.iterdir()) == before and len(list(tmp_path.iterdir())) == 1
    (folder / "thesis.txt").write_text("mine")
    with pytest.raises(OutputError, match="did not write"):
        output.check_output(folder, True, True)


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "a.gif").symlink_to(tmp_path / "far" / "b.gif")
    output.write(tmp_path / "a.gif", noise(2), RECIPE)
    assert (tmp_path / "a.gif").is_symlink() and read(tmp_path / "far" / "b.gif") == RECIPE


def test_the_video_extra_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(OutputError) as caught:
        output.check_output(tmp_path / "a.mp4", False)
    assert "genie_cpp[video]" in caught.value.hint
