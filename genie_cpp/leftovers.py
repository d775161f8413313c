"""Names for what is being made beside an output, and what becomes of it when its maker was killed."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import re
import secrets
import shutil
import time
from pathlib import Path

_FOLDER = re.compile(r"\.genie-([0-9a-f]{8})-(\d{1,9})-[0-9a-f]{8}")
_FILE = re.compile(r"\..{1,100}\.([0-9a-f]{8})-(\d{1,9})-[0-9a-f]{8}\.part", re.S)
_OLD = 86_400.0  # seconds: another machine's or container's processes cannot be asked
REPLACED = ".replaced"  # in a run's folder: the older folder of frames, while the new one takes its place


def _here() -> str:
    """The machine, and the container, whose process numbers are ours."""
    try:
        space = os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        space = 0
    return hashlib.sha256(f"{platform.node()} {space}".encode()).hexdigest()[:8]


def _mark() -> str:
    return f"{_here()}-{os.getpid()}-{secrets.token_hex(4)}"


def folder_beside(target: Path) -> Path:
    """A new, empty folder of this process beside a file or folder to be made. Raises OSError."""
    clean(target.parent)
    made = target.parent / f".genie-{_mark()}"
    made.mkdir(mode=0o700)
    return made


def file_beside(target: Path) -> Path:
    """A name that nobody uses, for a file that will take the place of another."""
    clean(target.parent)
    # Names are limited in bytes, mostly to 255.
    stem = target.name.encode("utf-8", "surrogateescape")[:90].decode("utf-8", "ignore")
    return target.with_name(f".{stem}.{_mark()}.part")


def clean(folder: Path) -> None:
    """Remove what killed runs left in a folder.

    Where one was killed while a folder of frames took the place of an older one, the new one is put there first.
    """
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return
    for entry in entries:
        found = _FOLDER.fullmatch(entry.name) or _FILE.fullmatch(entry.name)
        with contextlib.suppress(OSError):
            if found is None or not _abandoned(found[1], int(found[2]), entry):
                continue
            path = Path(entry.path)
            if entry.is_dir(follow_symlinks=False):
                _finish(path, folder)
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def _abandoned(where: str, pid: int, entry: os.DirEntry[str]) -> bool:
    if time.time() - entry.stat(follow_symlinks=False).st_mtime > _OLD:
        return True
    if where != _here() or pid == os.getpid() or os.name != "posix":
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


def _finish(left: Path, folder: Path) -> None:
    if not (left / REPLACED).is_dir():
        return
    for made in left.iterdir():
        if made.name != REPLACED and not (folder / made.name).exists():
            os.replace(made, folder / made.name)
