"""Adds the compiled library, its declarations, the bundled worlds and the page, which no `import` reveals."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import genie_cpp
from genie_cpp.backends import _native


def _files(folder: Path, inside: str) -> list[tuple[str, str]]:
    """(file, folder in the packed program) of everything in a folder except Python code."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc"))
    return [(str(path), str(Path(inside) / path.parent.relative_to(folder))) for path in files]


binaries = [(str(_native.library()), "genie_cpp")]
datas = [(str(_native.declarations()), "genie_cpp")]
datas += [(str(Path(genie_cpp.__file__).parent / "catalog" / "worlds.toml"), "genie_cpp/catalog")]
datas += _files(Path(genie_cpp.__file__).parent / "data", "genie_cpp/data")
datas += _files(Path(genie_cpp.__file__).parent / "web", "genie_cpp/web")
if (server := find_spec("genie_cpp.server")) is not None and server.origin:
    datas += _files(Path(server.origin).parent, "genie_cpp/server")
hiddenimports = ["_cffi_backend"]
