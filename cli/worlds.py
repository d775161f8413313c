"""`genie-cpp worlds`: lists the worlds that are bundled, kept on this machine, or published."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from genie_cpp.catalog import fetched, listing
from genie_cpp.catalog.bundled import bundled, locate
from genie_cpp.errors import ModelError
from genie_cpp.words import quoted, size


def worlds(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    path: Annotated[
        str | None, typer.Option("--path", help="Print where a world's file is; nothing is fetched.")
    ] = None,
    remove: Annotated[str | None, typer.Option("--remove", help="Remove a kept world from this machine.")] = None,
) -> None:
    """List worlds that open by name, as genie-run -m maze: bundled ones, those kept here, and published ones."""
    if path is not None:
        sys.stdout.write(f"{_where(path)}\n")
        return
    if remove is not None:
        if not fetched.remove(remove):
            raise ModelError(f"no world called {quoted(remove)} is kept here", _kept_names())
        sys.stdout.write(f"{remove} removed\n")
        return
    rows = listing.rows()
    if as_json:
        sys.stdout.write(json.dumps(rows, indent=1) + "\n")
        return
    wide = max(len(row["name"]) for row in rows)
    for row in rows:
        facts = [row["state"], f"{row['width']}x{row['height']}" if "width" in row else "",
                 f"{row['starts']} start pictures" if row.get("starts") else "",
                 size(row["bytes"]) if "bytes" in row else "", f"licence: {row['license']}"]  # fmt: skip
        sys.stdout.write(f"{row['name']:{wide}}  {', '.join(fact for fact in facts if fact)}\n")
        if row["description"]:
            sys.stdout.write(f"{'':{wide}}  {row['description']}\n")


def _where(name: str) -> str:
    if name in bundled():
        return str(locate(name)[0])
    found = next((one for one in fetched.kept() if one.name == name), None)
    if found is None:
        raise ModelError(f"no world called {quoted(name)} is kept here", _kept_names())
    return str(found.path)


def _kept_names() -> str:
    kept = ", ".join(one.name for one in fetched.kept())
    return f"kept are: {kept}" if kept else "none is kept"
