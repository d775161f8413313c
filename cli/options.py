"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer


def env(name: str) -> str:
    """The environment variable that stands in for an option."""
    return f"GENIE_{name}"


Models = Annotated[
    str | None,
    typer.Option("--model", "-m", envvar=env("MODEL"), help="GGUFs or bundled worlds: a.gguf,maze. [all bundled]"),
]
Model = Annotated[
    str | None,
    typer.Option("--model", "-m", envvar=env("MODEL"), help="A Genie GGUF, or a bundled world's name. [meadow]"),
]
Backend = Annotated[
    str, typer.Option(envvar=env("BACKEND"), help="auto (Metal where it is present), cpu or metal (docs/metal.md).")
]
Force = Annotated[
    bool,
    typer.Option("--force", envvar=env("FORCE"), help="Also where a model needs more memory than is free."),
]
Fit = Annotated[str, typer.Option("--fit", envvar=env("FIT"), help="Fit the prompt by crop or pad.")]
