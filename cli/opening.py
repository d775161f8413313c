"""What genie-play and genie-serve do with the options that they share."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from genie_cpp.catalog.bundled import bundled
from genie_cpp.errors import GenieError
from genie_cpp.model import Model
from genie_cpp.play.session import Prompt


def references(names: str | None) -> list[str]:
    """The models of `-m a.gguf,maze`, without duplicates. The path of an existing file is not split. None: all
    bundled."""
    if names is None:
        return list(bundled())
    words = [names] if Path(names).exists() else names.split(",")
    return [word for word in dict.fromkeys(words) if word] or [names]


def open_worlds(
    names: str | None, threads: int | None, backend: str, force: bool, picture: Path | None, how: str
) -> tuple[list[Model], list[Prompt | None]]:
    """The models, and what each starts from: `picture`, else its first start picture, else None."""
    models = [Model.open(name, threads, backend, force) for name in references(names)]
    return models, [Prompt.beside(m) if picture is None else Prompt.of(m, picture, how) for m in models]


def need(modules: tuple[str, ...], message: str, hint: str) -> None:
    """Raises GenieError where a module of an extra is not installed."""
    if any(importlib.util.find_spec(name) is None for name in modules):
        raise GenieError(message, hint)
