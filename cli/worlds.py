"""`genie-cpp worlds`: lists the worlds that are bundled, kept on this machine, or published."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from genie_cpp.catalog import fetched, names
from genie_cpp.catalog.bundled import bundled, locate, starts
from genie_cpp.errors import ModelError
from genie_cpp.file.gguf_file import GGUFFile
from genie_cpp.spec.hparams import validate
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
    rows = [_bundled(name) for name in bundled()] + [_kept(one) for one in fetched.kept()]
    here = {row["name"] for row in rows}
    rows += [_published(alias) for alias in names.aliases() if alias not in here]
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


def _bundled(name: str) -> dict[str, Any]:
    return {"name": name, "state": "bundled", **_facts(locate(name)[0])}


def _kept(one: fetched.Kept) -> dict[str, Any]:
    licence = one.record.get("licence") or None
    return {"name": one.name, "state": "kept here", **_facts(one.path), **({"license": licence} if licence else {})}


def _facts(path: Path) -> dict[str, Any]:
    with GGUFFile.open(path) as file:
        hp, metadata = validate(file, finite=False), dict(file.metadata)
    return {
        "path": str(path),
        "bytes": path.stat().st_size,
        "width": hp.frame_width,
        "height": hp.frame_height,
        "actions": list(hp.action_names or ()) or hp.action_count,
        "starts": len(starts(path)),
        "license": str(metadata.get("general.license", "none stated")),
        "description": str(metadata.get("general.description", "")),
    }


def _published(alias: str) -> dict[str, Any]:
    world = names.parse(alias)
    assert world is not None
    return {
        "name": alias,
        "state": "published, fetched when it is opened",
        "sources": [source.repo for source in world.sources],
        "license": world.licence,
        "description": world.about,
    }
