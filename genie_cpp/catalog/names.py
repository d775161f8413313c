"""How worlds are named: a published world by its alias, or any world on the Hugging Face hub.

    tinyworlds:sonic[:TYPE]                            an alias of worlds.toml
    hf:OWNER/REPO[/SUB][@REVISION][:TYPE]              a GGUF there, or a checkpoint that genie-convert recognises

TYPE is the type it is converted to (f32, f16, q8_0, q4_0), or selects one of several GGUFs.
"""

from __future__ import annotations

import functools
import importlib
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genie_cpp.errors import HubError
from genie_cpp.file.gguf_file import TensorType
from genie_cpp.words import quoted

TYPES = tuple(kind.name.lower() for kind in TensorType)
DEFAULT_TYPE = "q8_0"
_REMOTE = re.compile(
    r"hf:(?P<repo>[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95})(?P<sub>(?:/[\w. +-]+)*)"
    r"(?:@(?P<revision>[\w./-]{1,128}))?(?::(?P<type>[A-Za-z0-9_]+))?"
)


@dataclass(frozen=True)
class Source:
    """Files of one repository. files: names or patterns; if empty, the files below `folder` are looked through."""

    repo: str
    kind: str = "model"  # or "dataset"
    files: tuple[str, ...] = ()
    folder: str = ""
    revision: str | None = None


@dataclass(frozen=True)
class Published:
    """A world to fetch. `name`: how it was asked for. `type`: None if none was given."""

    name: str
    sources: tuple[Source, ...]
    type: str | None = None
    family: str | None = None
    licence: str = ""
    about: str = ""
    frames: Source | None = None  # an HDF5 file of pictures to start from


@functools.cache
def registry() -> dict[str, dict[str, Any]]:
    """worlds.toml, by alias. Raises HubError if it cannot be read."""
    try:
        toml = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    except ImportError:
        raise HubError("published worlds need the hub extra", "pip install 'genie_cpp[hub]'") from None
    text = (Path(__file__).parent / "worlds.toml").read_text(encoding="utf-8")
    return dict(toml.loads(text))


def aliases() -> list[str]:
    """The names of published worlds; none if worlds.toml cannot be read."""
    try:
        return list(registry())
    except HubError:
        return []


def parse(text: str) -> Published | None:
    """The published world that a text means; None if it means none (a path, or a bundled world's name).

    Raises HubError if it starts like a published world's name but is not one.
    """
    if text.startswith("hf:"):
        match = _REMOTE.fullmatch(text)
        if match is None or ".." in text:
            raise HubError(
                f"{quoted(text)} is not a place on the hub", "hf:OWNER/REPO[/FOLDER][@REVISION][:TYPE], TYPE as q4_0"
            )
        source = Source(match["repo"], folder=match["sub"].strip("/"), revision=match["revision"])
        return Published(text, (source,), _type(match["type"], text))
    alias, type = text, None
    if text not in aliases() and ":" in text:
        alias, _, type = text.rpartition(":")
    if alias not in aliases():
        return None
    row = registry()[alias]
    sources = tuple(Source(s["repo"], s.get("kind", "model"), tuple(s["files"])) for s in row["sources"])
    frames = row.get("frames")
    return Published(
        text, sources, _type(type, text), row["family"], row["licence"], row["about"],
        None if frames is None else Source(frames["repo"], "dataset", (frames["file"],)),
    )  # fmt: skip


def _type(name: str | None, text: str) -> str | None:
    if name is not None and name.lower() not in TYPES:
        raise HubError(f"{quoted(text)} asks for the type {quoted(name)}", f"there are {', '.join(TYPES)}")
    return None if name is None else name.lower()
