"""A recipe survives every kind of file, becomes the same command, and is believed only as far as it goes."""

from __future__ import annotations

import dataclasses
import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from genie_cpp.media import output
from genie_cpp.play.recipe import Recipe, read

RECIPE = Recipe(
    version="0.1.0", model="", model_sha256="ab" * 32, prompt="it's a picture.png", prompt_sha256="cd" * 32, fit="crop",
    seed=7, actions="0,3*8", steps=8, temperature=0.1, order="confidence", noise=0.0, threshold=0.0, window="half",
    isa="avx2", fps=10, scale=2,
)  # fmt: skip


def with_value(name: str, value: Any) -> str:
    data = json.loads(RECIPE.to_json())
    data["genie_cpp"][name] = value
    return json.dumps(data)


@pytest.mark.parametrize("prompt", ["a.png", "}} \" it's.png", "bild ü 世界.png", "raw\udcff.png", "-o.png"])
@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png", "a.mp4", "a"])
def test_round_trip(name: str, prompt: str, tmp_path: Path) -> None:
    if name == "a.mp4":
        pytest.importorskip("imageio_ffmpeg")
    recipe = dataclasses.replace(RECIPE, prompt=prompt, model=f"m/{prompt}", actions=",".join("0123" * 300))
    output.write(tmp_path / name, [np.zeros((8, 8, 3), np.uint8)] * 3, recipe, folder=name == "a")
    assert read(tmp_path / name) == recipe


def test_the_command() -> None:
    command = RECIPE.command("out dir/a.gif")
    assert command.startswith("genie-run --prompt-frame 'it'\"'\"'s a picture.png'")
    assert "--temperature 0.1 " in command and command.endswith("-o 'out dir/a.gif'")
    named = dataclasses.replace(RECIPE, model="-m.gguf")
    assert "-m -m.gguf" in named.command("a.gif")


@given(st.floats(0, 100, width=32), st.floats(0, 100))
def test_the_command_says_numbers_in_full(temperature: float, noise: float) -> None:
    words = shlex.split(dataclasses.replace(RECIPE, temperature=temperature, noise=noise).command("a.gif"))
    assert float(words[words.index("--temperature") + 1]) == temperature
    assert float(words[words.index("--noise") + 1]) == noise


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"genie_cpp": 3}', '{"genie_cpp": {"seed": 1}}', "[" * 100_000])
def test_what_is_no_recipe(text: str) -> None:
    assert Recipe.from_json(text) is None and Recipe.from_json(text.encode()) is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seed", "7; rm"), ("seed", True), ("seed", -1), ("seed", 2**64), ("seed", 10**4000), ("noise", "0"),
        ("temperature", float("nan")), ("temperature", float("inf")), ("temperature", -1.0), ("noise", 10**400),
        ("steps", 0), ("order", "sideways"), ("window", "open"), ("fit", "stretch"), ("fps", 0), ("scale", 65),
        ("actions", "/etc/passwd"), ("actions", "random"), ("model_sha256", "x" * 64), ("prompt", "a\0b"),
        ("prompt", None), ("more", 1),
    ],
)  # fmt: skip
def test_values_are_checked(name: str, value: Any) -> None:
    assert Recipe.from_json(with_value(name, value)) is None


def test_whole_numbers_pass_for_fractions() -> None:
    assert Recipe.from_json(with_value("noise", 0)) == RECIPE


@given(st.binary(max_size=300))
def test_any_bytes_are_safe(data: bytes) -> None:
    assert Recipe.from_json(data) is None


def test_files_without_a_recipe(tmp_path: Path) -> None:
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("no")
    (tmp_path / "a.mp4").write_bytes(b"")
    (tmp_path / "b.mp4").write_bytes(b'xx{"genie_cpp": {"seed"')
    for name in ("a.png", "a.txt", "a.mp4", "b.mp4", "none.mp4", "none.gif", "."):
        assert read(tmp_path / name) is None, name
