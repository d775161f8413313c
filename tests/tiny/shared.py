"""Folders that the workers of one test run share."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def shared(factory: pytest.TempPathFactory, name: str) -> Iterator[Path]:
    """The folder with this name, for one worker at a time."""
    base = factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder, lock = base / name, base / f"{name}.lock"
    while True:
        try:
            lock.mkdir()
            break
        except FileExistsError:  # another worker is there
            time.sleep(0.1)
    try:
        folder.mkdir(exist_ok=True)
        yield folder
    finally:
        lock.rmdir()


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that `make` fills, once for all workers. Copy it before changing it."""
    with shared(factory, name) as folder:
        done = folder.with_name(f"{name}.done")
        if not done.exists():
            make(folder)
            done.touch()
    return folder
