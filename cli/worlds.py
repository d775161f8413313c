"""`genie-cpp worlds`: which worlds there are."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer

from genie_cpp.model import Model
from genie_cpp.worlds import bundled

from .convert import size


def worlds(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the bundled worlds; each opens by its name: genie-run -m maze."""
    rows = [_facts(name) for name in bundled()]
    if as_json:
        sys.stdout.write(json.dumps(rows, indent=1) + "\n")
        return
    wide = max(len(row["name"]) for row in rows)
    for row in rows:
        about = (
            f"{row['width']}x{row['height']}, {row['starts']} start pictures, {size(row['bytes'])}, {row['license']}"
        )
        sys.stdout.write(f"{row['name']:{wide}}  {about}\n{'':{wide}}  {row['description']}\n")


def _facts(name: str) -> dict[str, Any]:
    model = Model.open(name, threads=1, backend="cpu")
    hp = model.info
    return {
        "name": name,
        "path": str(model.path),
        "bytes": model.path.stat().st_size,
        "width": hp.frame_width,
        "height": hp.frame_height,
        "actions": list(hp.action_names or ()) or hp.action_count,
        "starts": len(model.starts),
        "license": str(model.metadata.get("general.license", "none stated")),
        "description": str(model.metadata.get("general.description", "")),
    }
