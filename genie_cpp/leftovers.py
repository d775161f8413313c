"""Temporary files and folders beside an output, and the removal of those that killed processes left."""

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
_OLD = 86_400.0  # seconds; processes of another machine or container cannot be checked, so age decides
REPLACED = ".replaced"  # in a run's folder: holds the older folder of frames while the new one takes its place


def _here() -> str:
    """Identifies the machine and container, because a process id means something only there."""
    try:
        space = os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        space = 0
    return hashlib.sha256(f"{platform.node()} {space}".encode()).hexdigest()[:8]


def _mark() -> str:
    return f"{_here()}-{os.getpid()}-{secrets.token_hex(4)}"


def folder_beside(target: Path) -> Path:
    """A new, empty folder of this process beside the file or folder that will be made. Raises OSError."""
    clean(target.parent)
    made = target.parent / f".genie-{_mark()}"
    made.mkdir(mode=0o700)
    return made


def file_beside(target: Path) -> Path:
    """An unused name for a file that will replace another."""
    clean(target.parent)
    # Names are limited in bytes, mostly to 255.
    stem = target.name.encode("utf-8", "surrogateescape")[:90].decode("utf-8", "ignore")
    return target.with_name(f".{stem}.{_mark()}.part")


def clean(folder: Path) -> None:
    """Remove what killed processes left in a folder.

    A process may be killed while its folder of frames replaces an older one. The new folder is then put in place first.
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
