"""Where the weights are in what people have: files, a trainer's folders, a downloaded tree, the hub's snapshot."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from genie_cpp.convert.files import load_yaml
from genie_cpp.errors import CheckpointError
from genie_cpp.words import quoted

STATE, WEIGHTS, HUB = "state.pt", "model_state_dict.pt", "model.safetensors"
CONFIG_LIMIT = 1 << 20
_PICKLES = (".pt", ".pth", ".ckpt")
_NATIVE = {"format", "tokenizer", "lam", "dynamics"}
_DEPTH, _MOST = 6, 10_000  # of folders, and entries that are looked at
_STEP = re.compile(r"step_?(\d{1,12})")


def expand(path: Path, notes: list[str]) -> list[Path]:
    """The files with weights that a path stands for; none where it is for the native reader (or for nobody).

    notes: what was chosen among several is said there.
    """
    if path.is_file():
        if path.suffix == ".safetensors":
            return [path] if foreign(path.parent) else []
        # A Lightning checkpoint brings its settings, if any, inside.
        native_too = path.suffix != ".ckpt" and (path.parent / "config.json").is_file()
        return [] if native_too or path.suffix not in _PICKLES else [path]
    if path.is_dir() and foreign(path):
        inside = [path / HUB] if (path / HUB).is_file() else []
        return inside + sorted(entry for entry in path.iterdir() if entry.suffix == ".ckpt" and entry.is_file())
    if not path.is_dir() or (path / "config.json").exists() or (path / HUB).exists():
        return []
    if (path / WEIGHTS).is_file():
        return [path / WEIGHTS]
    return _newest(_here(path) or sorted(_deep(path, _DEPTH, [_MOST])), notes)


def _here(folder: Path) -> list[Path]:
    """Weights in a folder, and in the folders of a training's steps in it."""
    inside = sorted(entry for entry in folder.iterdir() if entry.suffix in _PICKLES and entry.is_file())
    return inside + sorted(entry / WEIGHTS for entry in folder.iterdir() if (entry / WEIGHTS).is_file())


def _deep(folder: Path, depth: int, left: list[int]) -> Iterator[Path]:
    """Weights anywhere below, such as results/…/checkpoints/sonic; optimizers' states are none."""
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        return
    for entry in entries:
        left[0] -= 1
        if left[0] < 0 or entry.name.startswith("."):
            continue
        if entry.is_file() and entry.suffix in _PICKLES and not entry.name.startswith(("optim", "state.")):
            yield entry
        elif entry.is_dir() and not entry.is_symlink() and depth > 0:
            yield from [entry / WEIGHTS] if (entry / WEIGHTS).is_file() else _deep(entry, depth - 1, left)


def _newest(files: list[Path], notes: list[str]) -> list[Path]:
    """Of a training's several steps the last."""
    groups: dict[tuple[Path, str], list[tuple[int, Path]]] = {}
    for file in files:
        named = file.parent if file.name == WEIGHTS else file
        step = _STEP.search(named.name)
        # What stands before the step says what it is; after it comes when it was written.
        kind = named.name if step is None else named.name[: step.start()]
        groups.setdefault((named.parent, kind), []).append((int(step[1]) if step else 0, file))
    found = []
    for (_, kind), steps in groups.items():
        found += [max(steps)[1]]
        if len(steps) > 1:
            others = ", ".join(str(step) for step, _ in sorted(steps)[:-1][-4:])
            notes.append(f"step {max(steps)[0]} of {quoted(kind)}, the newest (there are {others} too)")
    return found


def settings_of(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """`config.json`, or `config.yaml` in its place, where they can be read."""
    for name in ("config.json", "config.yaml"):
        config = folder / name
        try:
            with config.open("rb") as file:
                text = file.read(CONFIG_LIMIT)
            data = json.loads(text) if name.endswith("json") else load_yaml(config)
        except (OSError, ValueError, RecursionError, CheckpointError):
            continue
        if isinstance(data, dict):
            return config, data
    return None


def foreign(folder: Path) -> bool:
    """Settings that are not of the native format; broken ones count as native, whose reader says what is wrong."""
    found = settings_of(folder)
    # GenieRedux's config.yaml, of its whole training, lies beside files that say for themselves what they are.
    return found is not None and not any(key.partition(".")[0] in _NATIVE for key in found[1])
