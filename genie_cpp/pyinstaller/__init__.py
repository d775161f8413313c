"""How PyInstaller packs this package. It finds this folder by the entry point `pyinstaller40` of pyproject.toml."""

from __future__ import annotations

from pathlib import Path


def hook_dirs() -> list[str]:
    """Where the hooks are."""
    return [str(Path(__file__).parent)]
