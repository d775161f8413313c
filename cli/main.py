"""The commands: `genie-cpp run | play | serve | convert | info | eval | bench | worlds`, most also as genie-NAME."""

from __future__ import annotations

import codecs
import io
import os
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any

import typer

from genie_cpp.cli.bench import bench
from genie_cpp.cli.convert import convert
from genie_cpp.cli.eval import evaluate
from genie_cpp.cli.info import info
from genie_cpp.cli.play import play
from genie_cpp.cli.run import run
from genie_cpp.cli.serve import serve
from genie_cpp.cli.worlds import worlds
from genie_cpp.errors import GenieError
from genie_cpp.version import __version__
from genie_cpp.words import printable


def _version(asked: bool) -> None:
    if asked:
        print(f"genie_cpp {__version__}")
        raise typer.Exit


def _root(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    """Play Genie world models on the CPU you have."""


def _single(command: Callable[..., None]) -> typer.Typer:
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command()(command)
    return app


app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False)
app.callback()(_root)
for _command in (run, play, serve, convert, info, bench, worlds):
    app.command()(_command)
app.command("eval")(evaluate)


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


def _start(application: Any) -> None:
    if "--version" in sys.argv[1:2]:
        _version_and_leave()
    _set_up_output()
    # Treat these signals like Ctrl-C, so that results so far are kept. An ignored SIGHUP (nohup) stays ignored.
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)
    try:
        code = application(standalone_mode=False)
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


def _version_and_leave() -> None:
    print(f"genie_cpp {__version__}")
    sys.exit(0)


def main() -> None:
    _start(app)


def main_run() -> None:
    _start(_single(run))


def main_convert() -> None:
    _start(_single(convert))


def main_info() -> None:
    _start(_single(info))


def main_bench() -> None:
    _start(_single(bench))


def main_play() -> None:
    _start(_single(play))


def main_serve() -> None:
    _start(_single(serve))


def main_eval() -> None:
    _start(_single(evaluate))
