"""What worlds there are, as rows: bundled ones, those kept on this machine, and published ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from genie_cpp.catalog import fetched, names
from genie_cpp.catalog.bundled import bundled, locate, starts
from genie_cpp.errors import GenieError
from genie_cpp.file.gguf_file import GGUFFile
from genie_cpp.spec.hparams import validate

BUNDLED, KEPT, PUBLISHED = "bundled", "kept here", "published, fetched when it is opened"


def rows() -> list[dict[str, Any]]:
    """All of them, in this order. Raises GGUFError, ModelError if a bundled world cannot be read."""
    found = [{"name": name, "state": BUNDLED, **facts(locate(name)[0])} for name in bundled()]
    for one in fetched.kept():
        try:
            row = {"name": one.name, "state": KEPT, **facts(one.path)}
        except (GenieError, OSError):
            continue  # damaged; opening it says how
        found.append(row | ({"license": licence} if (licence := one.record.get("licence")) else {}))
    here = {row["name"] for row in found}
    return found + [published(alias) for alias in names.aliases() if alias not in here]


def facts(path: Path) -> dict[str, Any]:
    """What a file says about itself: the header alone is read. Raises GGUFError, ModelError."""
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


def published(alias: str) -> dict[str, Any]:
    """A world of worlds.toml."""
    world = names.parse(alias)
    assert world is not None
    return {
        "name": alias,
        "state": PUBLISHED,
        "sources": [source.repo for source in world.sources],
        "license": world.licence,
        "description": world.about,
    }
