"""The commands: `genie-cpp run | play | …` (COMMANDS), most also as genie-NAME."""

from __future__ import annotations

import codecs
import importlib
import io
import os
import signal
import sys
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from genie_cpp.errors import GenieError
from genie_cpp.version import __version__
from genie_cpp.words import printable

if TYPE_CHECKING:
    import typer

# A command is imported when it is asked for: typer, rich and numpy take longer than most commands' own work.
COMMANDS = {
    "run": "run",
    "play": "play",
    "serve": "serve",
    "convert": "convert",
    "info": "info",
    "eval": "evaluate",
    "bench": "bench",
    "worlds": "worlds",
    "web": "web",
    "train": "train",
}
WIDE = {"max_content_width": 1000}  # help is as wide as the terminal, not 80 characters at most


def _command(name: str) -> Any:
    return getattr(importlib.import_module(f"genie_cpp.cli.{name}"), COMMANDS[name])


def _version(asked: bool) -> None:
    if asked:
        import typer

        print(f"genie_cpp {__version__}")
        raise typer.Exit


def _umbrella(wanted: str) -> typer.Typer:
    """`genie-cpp`, with the one command that is wanted, or with all of them, for its help."""
    import typer

    def root(
        version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
    ) -> None:
        """Play Genie world models on the CPU you have."""

    app = typer.Typer(
        no_args_is_help=True, context_settings=WIDE, rich_markup_mode=None, pretty_exceptions_enable=False
    )
    app.callback()(root)
    for name in [wanted] if wanted in COMMANDS else COMMANDS:
        app.command(name)(_command(name))
    return app


def _single(name: str) -> typer.Typer:
    import typer

    app = typer.Typer(context_settings=WIDE, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command()(_command(name))
    return app


def fail(error: BaseException) -> int:
    """Print `error: …` and `hint: …`; returns the exit code. GENIE_DEBUG=1 adds a traceback to unexpected errors."""
    debug = os.environ.get("GENIE_DEBUG", "0") not in ("", "0")
    if debug and not isinstance(error, (GenieError, KeyboardInterrupt)):
        traceback.print_exception(error)
    if isinstance(error, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
        return 130
    hint = getattr(error, "hint", "")
    if isinstance(error, GenieError):
        print(f"error: {printable(str(error))}", file=sys.stderr)
    elif isinstance(error, BrokenPipeError):
        # The reader of our output, such as `head`, has exited. Without this, stdout would fail again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    elif isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        print(f"error: {printable(where)}{printable(str(error.strerror or error))}", file=sys.stderr)
    elif isinstance(error, MemoryError):
        print("error: out of memory", file=sys.stderr)
    else:
        print(f"error: internal: {type(error).__name__}: {printable(str(error))}", file=sys.stderr)
        hint = "please report it; GENIE_DEBUG=1 shows where it happened"
    if hint:
        print(f"hint: {printable(hint)}", file=sys.stderr)
    return 1


def _start(make: Callable[[], typer.Typer]) -> None:
    if "--version" in sys.argv[1:2]:
        print(f"genie_cpp {__version__}")
        sys.exit(0)
    import typer

    _set_up_output()
    # Treat these signals like Ctrl-C, so that results so far are kept. An ignored SIGHUP (nohup) stays ignored.
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)
    try:
        code = make()(standalone_mode=False)
        sys.stdout.flush()
    except typer.Exit as leave:
        code = leave.exit_code
    except (KeyboardInterrupt, typer.Abort):
        code = fail(KeyboardInterrupt())
    except Exception as error:
        if hasattr(error, "exit_code") and hasattr(error, "show"):  # click's usage errors
            error.show()
            code = error.exit_code
        else:
            code = fail(error)
    sys.exit(code if isinstance(code, int) else 0)


def _set_up_output() -> None:
    """Make printing safe, because a failure to print must not undo finished work.

    Output to a closed stdout is dropped, file names with arbitrary bytes are printed as those bytes, and characters
    that the console lacks are escaped.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))
    codecs.register_error("genie", _escaped)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="genie")


def _escaped(error: UnicodeError) -> tuple[str | bytes, int]:
    if isinstance(error, UnicodeEncodeError) and all(
        "\udc80" <= c <= "\udcff" for c in error.object[error.start : error.end]
    ):
        return codecs.lookup_error("surrogateescape")(error)
    return codecs.lookup_error("backslashreplace")(error)


def main() -> None:
    _start(lambda: _umbrella(sys.argv[1] if len(sys.argv) > 1 else ""))


def main_run() -> None:
    _start(lambda: _single("run"))


def main_convert() -> None:
    _start(lambda: _single("convert"))


def main_train() -> None:
    _start(lambda: _single("train"))


def main_info() -> None:
    _start(lambda: _single("info"))


def main_bench() -> None:
    _start(lambda: _single("bench"))


def main_play() -> None:
    _start(lambda: _single("play"))


def main_serve() -> None:
    _start(lambda: _single("serve"))


def main_eval() -> None:
    _start(lambda: _single("eval"))
