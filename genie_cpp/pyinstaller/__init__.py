"""PyInstaller support. PyInstaller finds this folder through the entry point `pyinstaller40` of pyproject.toml."""

from __future__ import annotations

from pathlib import Path


def hook_dirs() -> list[str]:
    """The folder of the hooks."""
    return [str(Path(__file__).parent)]
