"""Every kind of output keeps every frame and the recipe, is the same bytes each time, and is never half-written."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from genie_cpp import output
from genie_cpp.errors import OutputError
from genie_cpp.frames import load_frames
from genie_cpp.recipe import Recipe, read
from PIL import Image

RECIPE = Recipe(
    "0.1.0", "", "ab" * 32, "it's a picture.png", "cd" * 32, "crop", 7, "0,3*8", 8, 0.1, "confidence", 0.0, "half",
    "avx2", 10, 2,
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
            off = np.abs(got.astype(int) - want.repeat(2, 0).repeat(2, 1))
            assert off.max() <= (8 if name.endswith("gif") else 1) and (off > 0).any(2).sum() <= 1 or "gif" in name
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
        path.write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(output, "_write_animation", fail)
    old = tmp_path / "a.gif"
    old.write_text("old")
    with pytest.raises(OutputError, match="No space"):
        output.write(old, video(), RECIPE, overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["a.gif"] and old.read_text() == "old"


def test_the_command() -> None:
    command = RECIPE.command("out dir/a.gif")
    assert command.startswith("genie-run --prompt-frame 'it'\"'\"'s a picture.png'")
    assert "--temperature 0.1 " in command and command.endswith("-o 'out dir/a.gif'")
    named = dataclasses.replace(RECIPE, model="-m.gguf")
    assert "-m -m.gguf" in named.command("a.gif")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"genie_cpp": 3}', '{"genie_cpp": {"seed": 1}}', "[" * 100_000])
def test_what_is_no_recipe(text: str) -> None:
    assert Recipe.from_json(text) is None


def test_types_of_a_recipe_are_checked() -> None:
    assert Recipe.from_json(RECIPE.to_json().replace('"seed": 7', '"seed": "7; rm"')) is None
    assert Recipe.from_json(RECIPE.to_json().replace('"noise": 0.0', '"noise": 0')) == RECIPE


def test_pictures_without_a_recipe(tmp_path: Path) -> None:
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("no")
    assert read(tmp_path / "a.png") is None and read(tmp_path / "a.txt") is None and read(tmp_path) is None
