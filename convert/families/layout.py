"""Finds the weights in what users have: files, a trainer's folders, a downloaded tree, a snapshot from the hub."""

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
_DEPTH, _MOST = 6, 10_000  # of folders, and of entries to look at
_STEP = re.compile(r"step_?(\d{1,12})")


def expand(path: Path, notes: list[str]) -> list[Path]:
    """The weight files that a path stands for; none if the path is for the native reader, or for no reader.

    notes: receives what was chosen among several.
    """
    if path.is_file():
        if path.suffix == ".safetensors":
            return [path] if foreign(path.parent) else []
        # A Lightning checkpoint has its settings inside, if any.
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
    """Weights in a folder, and in its subfolders for the steps of a training."""
    inside = sorted(entry for entry in folder.iterdir() if entry.suffix in _PICKLES and entry.is_file())
    return inside + sorted(entry / WEIGHTS for entry in folder.iterdir() if (entry / WEIGHTS).is_file())


def _deep(folder: Path, depth: int, left: list[int]) -> Iterator[Path]:
    """Weights anywhere below, such as results/…/checkpoints/sonic, without the states of optimizers."""
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
    """The last of several steps of a training."""
    groups: dict[tuple[Path, str], list[tuple[int, Path]]] = {}
    for file in files:
        named = file.parent if file.name == WEIGHTS else file
        step = _STEP.search(named.name)
        # The part of the name before the step says what the file is; the part after it is a date.
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
    """`config.json`, or else `config.yaml`, if it can be read."""
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
    """Whether settings are not in the native format. Broken ones count as native, whose reader reports the error."""
    found = settings_of(folder)
    # GenieRedux's config.yaml describes its whole training. Its files are recognised by their tensors instead.
    return found is not None and not any(key.partition(".")[0] in _NATIVE for key in found[1])
