"""`genie-play`: plays a world on a page in the browser or in the terminal."""

from __future__ import annotations

import os
import sys
import webbrowser
from typing import Annotated

import typer

from genie_cpp.cli.opening import need, open_worlds
from genie_cpp.cli.options import Backend, FirstFrame, Fit, Force, Models, Offline, Threads, env
from genie_cpp.errors import GenieError


def play(
    world: Annotated[
        str | None, typer.Argument(help="What to play, as -m: a.gguf, maze, tinyworlds:sonic. [all bundled worlds]")
    ] = None,
    model: Models = None,
    prompt_frame: FirstFrame = None,
    how: Fit = "crop",
    terminal: Annotated[bool, typer.Option("--terminal", help="Play in this terminal, without a browser.")] = False,
    seed: Annotated[
        int, typer.Option("--seed", "-s", envvar=env("SEED"), min=0, max=2**64 - 1, help="In the terminal.")
    ] = 0,
    port: Annotated[int, typer.Option(envvar=env("PORT"), min=0, max=65535, help="0: any that is free.")] = 8173,
    open_page: Annotated[
        bool | None, typer.Option("--open/--no-open", help="Open the page. [where there is a display]")
    ] = None,
    threads: Threads = None,
    backend: Backend = "auto",
    force: Force = False,
    offline: Offline = False,
) -> None:
    """Play a world: arrow keys or WASD and digits, in the browser or (--terminal) here."""
    if not terminal:
        wanted = ("fastapi", "uvicorn", "websockets")
        need(wanted, "the page needs the play extra", "pip install 'genie_cpp[play]', or play with --terminal")
    if world is not None and model is not None:
        raise typer.BadParameter("the world is named twice: with -m, and without")
    models, prompts = open_worlds(world or model, threads, backend, force, prompt_frame, how)
    if terminal:
        from genie_cpp.cli.terminal import play_in_terminal

        if prompts[0] is None:
            raise GenieError("there is no picture to start from", "give one with --prompt-frame")
        play_in_terminal(models[0], prompts[0], seed)
        return
    from genie_cpp.server.run import serve

    def started(address: str) -> None:
        print(f"play at {address} (Ctrl-C stops)", flush=True)
        if _has_display() if open_page is None else open_page:
            webbrowser.open(address)

    serve(models, prompts, port, started)


def _has_display() -> bool:
    # Without a display (over ssh), webbrowser may start a text browser in the terminal that our output uses.
    return sys.platform in ("darwin", "win32") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
