"""How a picture was made: stored inside it, and turned into the command that makes it again."""

from __future__ import annotations

import dataclasses
import json
import mmap
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from genie_cpp.backends.choose import BACKENDS
from genie_cpp.errors import SamplerError
from genie_cpp.frames import FITS, FORMATS, quiet
from genie_cpp.media.output import KEY
from genie_cpp.sampler import Sampler
from genie_cpp.world import WINDOWS

MAX_PROMPT = 1024  # frames of a prompt, also the largest stride between them
_MAX_TEXT = 1 << 24
_PLAYED = "genie_play"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything a run depends on. `model`: a path, a bundled world's name or, in 0.1.0, empty. Hashes: SHA-256 of the
    files' bytes.

    bookmark: -1 if `prompt` is a picture. Otherwise `prompt` is a session file and this is the number of the bookmark
    that the run continued from; 0: from where the session was left. prompt_frames: number of frames taken from
    `prompt`, prompt_stride apart.
    """

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
    threshold: float
    window: str
    isa: str
    fps: int
    scale: int
    bookmark: int = -1
    prompt_frames: int = 1
    prompt_stride: int = 1
    backend: str = "cpu"

    def to_json(self) -> str:
        """ASCII on one line. The same recipe gives the same text."""
        return json.dumps({KEY: dataclasses.asdict(self)}, sort_keys=True)

    @staticmethod
    def from_json(text: str | bytes) -> Recipe | None:
        """None if the text is not a recipe that `genie-run` could have written, but some other text."""
        try:
            return _checked(json.loads(text)) if len(text) <= _MAX_TEXT else None
        except (ValueError, RecursionError):
            return None

    def command(self, output: str) -> str:
        """The `genie-run` command that writes the same bytes, given the same model and prompt files.

        Instruction sets and backends round differently, so frames drift apart between them. On another machine the
        command also needs GENIE_ISA=`isa` if the backend is "cpu".
        """
        words: list[Any] = ["genie-run"]
        if self.model:
            words += ["-m", self.model]
        if self.bookmark < 0:
            words += ["--prompt-frame", self.prompt, "--seed", self.seed]
            if (self.prompt_frames, self.prompt_stride) != (1, 1):
                words += ["--prompt-frames", self.prompt_frames, "--prompt-stride", self.prompt_stride]
        else:
            words += ["--from", self.prompt, "--bookmark", self.bookmark]
        words += ["--actions", self.actions]
        # All digits: the recipe is stored in the file, so a temperature of float32(0.1) must be reproduced exactly.
        words += ["--steps", self.steps, "--temperature", repr(self.temperature), "--order", self.order]
        words += [
            "--noise",
            repr(self.noise),
            "--threshold",
            repr(self.threshold),
            "--window",
            self.window,
            "--fit",
            self.fit,
        ]
        words += ["--backend", self.backend, "--fps", self.fps, "--scale", self.scale, "-o", output]
        return shlex.join(map(str, words))


@dataclass(frozen=True)
class Played:
    """What a recording of genie-play holds when no `genie-run` command makes it: the sampler changed on the way, or it
    begins in the middle. `model`: the model's name."""

    version: str
    model: str
    model_sha256: str
    actions: str
    fps: int
    scale: int

    def to_json(self) -> str:
        """ASCII on one line."""
        return json.dumps({_PLAYED: dataclasses.asdict(self)}, sort_keys=True)

    @staticmethod
    def from_json(text: str | bytes) -> Played | None:
        """None if the text is something else."""
        try:
            data = json.loads(text) if len(text) <= _MAX_TEXT else None
        except (ValueError, RecursionError):
            return None
        found = data.get(_PLAYED) if isinstance(data, dict) else None
        fields = {f.name: f.type for f in dataclasses.fields(Played)}
        if not isinstance(found, dict) or set(found) != set(fields):
            return None
        if any(type(found[name]).__name__ != kind for name, kind in fields.items()):
            return None
        right = re.fullmatch("[0-9a-f]{64}", found["model_sha256"]) and re.fullmatch(r"[0-9*,]*", found["actions"])
        return Played(**found) if right else None


def _checked(data: Any) -> Recipe | None:
    data = data.get(KEY) if isinstance(data, dict) else None
    fields = {f.name: f.type for f in dataclasses.fields(Recipe)}
    if not isinstance(data, dict):
        return None
    absent = {"threshold": 0.0, "bookmark": -1, "prompt_frames": 1, "prompt_stride": 1, "backend": "cpu"}  # in 0.1.0
    data = {**absent, **data}
    if set(data) != set(fields):
        return None
    for name, kind in fields.items():
        if kind == "float" and type(data[name]) is int:
            data[name] = float(data[name]) if abs(data[name]) <= 100 else -1.0
        if type(data[name]).__name__ != kind or (kind == "str" and "\0" in data[name]):
            return None
    recipe = Recipe(**data)
    try:
        Sampler(recipe.steps, recipe.temperature, recipe.order, recipe.noise, recipe.threshold)
    except SamplerError:
        return None
    right = (
        all(re.fullmatch("[0-9a-f]{64}", text) for text in (recipe.model_sha256, recipe.prompt_sha256))
        and re.fullmatch(r"[0-9*,]*", recipe.actions)
        and re.fullmatch(r"[a-z0-9]{1,32}", recipe.isa)
        and recipe.fit in FITS
        and recipe.window in WINDOWS
        and recipe.backend in BACKENDS[1:]
        and 0 <= recipe.seed < 1 << 64
        and 1 <= recipe.fps <= 100
        and 1 <= recipe.scale <= 64
        and -1 <= recipe.bookmark <= 64
        and 1 <= recipe.prompt_frames <= MAX_PROMPT
        and 1 <= recipe.prompt_stride <= MAX_PROMPT
    )
    return recipe if right else None


def read(path: Path) -> Recipe | None:
    """The recipe stored in a picture, a video or a folder that genie-run wrote; None if there is none."""
    return next(filter(None, map(Recipe.from_json, _texts(path))), None)


def read_played(path: Path) -> Played | None:
    """What a recording of genie-play says about itself, if it is no recipe; None if it says nothing."""
    return next(filter(None, map(Played.from_json, _texts(path))), None)


def _texts(path: Path) -> list[str | bytes]:
    """The texts in a file that may be one of these."""
    try:
        if path.is_dir():
            with (path / "recipe.json").open("rb") as file:
                return [file.read(_MAX_TEXT + 1)]
        if path.suffix.lower() == ".mp4":
            return _from_mp4(path)
        with quiet(), Image.open(path, formats=FORMATS) as image:
            found = [image.info.get("comment"), image.info.get(KEY), image.getexif().get(0x010E)]
    except MemoryError:
        raise
    except Exception:  # Pillow's parsers raise almost anything on damaged files
        return []
    return [text for text in found if isinstance(text, (str, bytes))]


def _from_mp4(path: Path) -> list[str | bytes]:
    # The text is plain JSON in the file, so a possibly hostile video need not be decoded.
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        starts = [start for key in (KEY, _PLAYED) if (start := data.find(b'{"' + key.encode() + b'"')) >= 0]
        texts = [data[start : start + _MAX_TEXT].decode("ascii", "replace") for start in starts]
    return [json.dumps(json.JSONDecoder().raw_decode(text)[0]) for text in texts]
