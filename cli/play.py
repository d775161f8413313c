"""`genie-play`: plays a world on a page in the browser or in the terminal."""

from __future__ import annotations

import os
import re
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
    host: Annotated[
        str, typer.Option(envvar=env("HOST"), help="0.0.0.0: phones and other machines can play, with a key.")
    ] = "127.0.0.1",
    key: Annotated[
        str, typer.Option(envvar=env("KEY"), help="What players must have. [beyond this machine, a new one]")
    ] = "",
    root_path: Annotated[
        str, typer.Option(envvar=env("ROOT_PATH"), help="What a proxy has before the page's path: /worlds.")
    ] = "",
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
        wanted = ("fastapi", "uvicorn", "websockets", "segno")
        need(wanted, "the page needs the play extra", "pip install 'genie_cpp[play]', or play with --terminal")
    if world is not None and model is not None:
        raise typer.BadParameter("the world is named twice: with -m, and without")
    if root_path and not re.fullmatch(r"(/[\w.~-]+)+", root_path):
        raise typer.BadParameter(
            "a root path begins with / and does not end with it: /worlds", param_hint="--root-path"
        )
    if not re.fullmatch(r"[\w.~-]*", key):
        raise typer.BadParameter("a key is letters, digits, and . _ ~ -", param_hint="--key")
    models, prompts = open_worlds(world or model, threads, backend, force, prompt_frame, how)
    if terminal:
        from genie_cpp.cli.terminal import play_in_terminal

        if prompts[0] is None:
            raise GenieError("there is no picture to start from", "give one with --prompt-frame")
        play_in_terminal(models[0], prompts[0], seed)
        return
    from genie_cpp.catalog import hub
    from genie_cpp.model import Model
    from genie_cpp.server.page.shelf import Shelf
    from genie_cpp.server.run import serve

    def started(address: str, outside: str) -> None:
        print(f"play at {address} (Ctrl-C stops)", flush=True)
        if outside:
            print(f"on a phone or another machine: {outside}", flush=True)
            if sys.stdout.isatty():
                import segno

                segno.make(outside, error="m").terminal(compact=True)
        if _has_display() if open_page is None else open_page:
            webbrowser.open(address)

    # Whoever plays from another machine may not make this one download.
    fetches = host in ("127.0.0.1", "localhost", "::1") and not hub.offline()
    shelf = Shelf(models, prompts, lambda name: Model.open(name, threads, backend, force), fetches)
    serve(shelf, port, started, host, key, root_path)


def _has_display() -> bool:
    # Without a display (over ssh), webbrowser may start a text browser in the terminal that our output uses.
    return sys.platform in ("darwin", "win32") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
