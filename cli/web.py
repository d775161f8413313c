"""`genie-cpp web`: a world as a page that plays in the browser, without a server."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from genie_cpp.catalog.bundled import locate
from genie_cpp.cli.options import Fit, Offline, env
from genie_cpp.web.export import export
from genie_cpp.words import printable, size


def web(
    world: Annotated[
        str | None, typer.Argument(help="A Genie GGUF, a world by name, or hf:OWNER/REPO. [meadow]")
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", envvar=env("OUTPUT"), help="A folder, or with --single-file a file.")
    ] = Path("site"),
    single_file: Annotated[
        bool, typer.Option("--single-file", help="One HTML file with everything in it, which also opens from disk.")
    ] = False,
    start: Annotated[
        list[Path] | None, typer.Option("--start", help="Pictures to start from, or folders of them. [the world's own]")
    ] = None,
    title: Annotated[str | None, typer.Option(help="What the page is called. [the world's name]")] = None,
    how: Fit = "crop",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of the output's path.")] = False,
    overwrite: Annotated[bool, typer.Option("--yes", "-y", envvar=env("YES"), help="Replace an older page.")] = False,
    offline: Offline = False,
) -> None:
    """Write a page that plays a world in the browser: static files for any host, no server, no installation."""
    path, _ = locate(world)
    plan = export(path, output, start or (), title, single_file, overwrite, how)
    files = [output] if single_file else sorted(output.iterdir())
    total, weights = sum(file.stat().st_size for file in files), plan["weights"]["bytes"]
    if not plan["starts"]:
        print("this world has no start pictures; the page asks for one (--start adds some)", file=sys.stderr)
    print(f"{printable(plan['title'])}: {size(total)}, of which weights {size(weights)}", file=sys.stderr)
    if not single_file:
        print(f"try it: python -m http.server -d {printable(str(output))} 8000", file=sys.stderr)
    print(json.dumps({"output": str(output), "bytes": total, "starts": len(plan["starts"])}) if as_json else output)
