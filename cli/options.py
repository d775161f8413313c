"""Options that several commands share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer


def env(name: str) -> str:
    """The environment variable that can replace an option."""
    return f"GENIE_{name}"


Models = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        envvar=env("MODEL"),
        help="Worlds: a.gguf,maze,tinyworlds:sonic,hf:OWNER/REPO (genie-cpp worlds lists them). [all bundled]",
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        envvar=env("MODEL"),
        help="A Genie GGUF, or a world by name (genie-cpp worlds), or hf:OWNER/REPO. [meadow]",
    ),
]
Backend = Annotated[
    str, typer.Option(envvar=env("BACKEND"), help="auto (Metal where it is present), cpu or metal (docs/metal.md).")
]
Force = Annotated[
    bool,
    typer.Option("--force", envvar=env("FORCE"), help="Open a model even if it needs more memory than is free."),
]


def _offline(value: bool) -> bool:
    if value:  # set before the hub's library reads it
        os.environ["HF_HUB_OFFLINE"] = "1"
    return value


Offline = Annotated[
    bool, typer.Option("--offline", callback=_offline, is_eager=True, help="Ask nothing of the network.")
]
Threads = Annotated[
    int | None, typer.Option("--threads", "-t", envvar=env("THREADS"), min=1, max=1024, help="[all CPUs]")
]
FirstFrame = Annotated[
    Path | None,
    typer.Option(
        "--prompt-frame",
        "-p",
        envvar=env("PROMPT_FRAME"),
        help="The picture to start from. [the world's first; where it has none you are asked for one]",
    ),
]
Fit = Annotated[str, typer.Option("--fit", envvar=env("FIT"), help="Fit the prompt by crop or pad.")]
