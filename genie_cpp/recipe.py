"""How a picture was made, kept inside it, and the command that makes it again."""

from __future__ import annotations

import dataclasses
import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

KEY = "genie_cpp"
_MAX_TEXT = 1 << 20


@dataclass(frozen=True)
class Recipe:
    """Everything a run depends on. `model` is empty for the bundled world; hashes are SHA-256 of the files' bytes."""

    version: str
    model: str
    model_sha256: str
    prompt: str
    prompt_sha256: str
    fit: str
    seed: int
    actions: str
    steps: int
    temperature: float
    order: str
    noise: float
    window: str
    isa: str
    fps: int
    scale: int

    def to_json(self) -> str:
        return json.dumps({KEY: dataclasses.asdict(self)}, sort_keys=True)

    @staticmethod
    def from_json(text: str | bytes) -> Recipe | None:
        """None when the text is no recipe. Values are checked for type only: they are somebody else's text."""
        try:
            data = json.loads(text)[KEY] if len(text) <= _MAX_TEXT else None
        except (ValueError, KeyError, TypeError, IndexError, RecursionError):
            return None
        fields = {f.name: f.type for f in dataclasses.fields(Recipe)}
        if not isinstance(data, dict) or set(data) != set(fields):
            return None
        for name, kind in fields.items():
            if kind == "float" and type(data[name]) is int:
                data[name] = float(data[name])
            if type(data[name]).__name__ != kind:
                return None
        return Recipe(**data)

    def command(self, output: str) -> str:
        """The `genie-run` command that writes the same bytes, given the same model and prompt files."""
        words: list[Any] = ["genie-run"]
        if self.model:
            words += ["-m", self.model]
        words += ["--prompt-frame", self.prompt, "--actions", self.actions, "--seed", self.seed]
        words += ["--steps", self.steps, "--temperature", f"{self.temperature:.9g}", "--order", self.order]
        words += ["--noise", f"{self.noise:.9g}", "--window", self.window, "--fit", self.fit]
        words += ["--fps", self.fps, "--scale", self.scale, "-o", output]
        return shlex.join(map(str, words))


def read(path: Path) -> Recipe | None:
    """The recipe stored in a picture, a video or a folder that genie-run wrote; None when there is none."""
    if path.is_dir():
        file = path / "recipe.json"
        return Recipe.from_json(file.read_bytes()[: _MAX_TEXT + 1]) if file.is_file() else None
    if path.suffix.lower() == ".mp4":
        return _from_mp4(path)
    try:
        with Image.open(path) as image:
            found = [image.info.get("comment"), image.info.get(KEY), image.getexif().get(0x010E)]
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None
    for text in found:
        if isinstance(text, (str, bytes)) and (recipe := Recipe.from_json(text)):
            return recipe
    return None


def _from_mp4(path: Path) -> Recipe | None:
    # The comment lies in the file as plain JSON; no need to decode a video that may be hostile.
    data = path.read_bytes()
    start = data.find(b'{"' + KEY.encode() + b'"')
    if start < 0:
        return None
    end = data.find(b"}}", start, start + _MAX_TEXT)
    return Recipe.from_json(data[start : end + 2]) if end > 0 else None
