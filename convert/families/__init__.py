"""Checkpoints of other projects, one file per family. Nothing else in the package knows a family's name.

A family module has
    NAME      the value of `--family`
    LOOKED_FOR  in words, the tensors it is recognised by
    INERT     classes that its files pickle besides tensors (files.load_pickle)
    PARTS     {part of a world: (a tensor that only its file has, what to give if that file is missing)}
    spare(parts) -> kinds     of the missing parts, those that a world with these parts does not need
    load(parts, told) -> Checkpoint   from {part: Part}, in the order of PARTS; checks everything
and is listed in FAMILIES.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from genie_cpp.convert import native
from genie_cpp.convert.families import genieredux, layout, one_x_gpt, tinyworlds
from genie_cpp.convert.families.part import Part, Told
from genie_cpp.convert.files import import_torch, load_pickle
from genie_cpp.errors import CheckpointError
from genie_cpp.words import quoted


class Family(Protocol):
    """What a family module must have."""

    NAME: str
    LOOKED_FOR: str
    INERT: tuple[str, ...]
    PARTS: dict[str, tuple[str, str]]

    def spare(self, parts: Mapping[str, Part]) -> tuple[str, ...]: ...

    def load(self, parts: Mapping[str, Part], told: Told) -> native.Checkpoint: ...


FAMILIES: tuple[Family, ...] = (tinyworlds, genieredux, one_x_gpt)
NOTHING = Told()
NAMES = ("native", *(family.NAME for family in FAMILIES))
_OPTIMIZERS = {"optimizer_state_dict", "optimizer_states", "optim"}
_TABLES = ("model", "state_dict", "model_state_dict")


def load(paths: Sequence[Path], family: str | None = None, told: Told = NOTHING) -> native.Checkpoint:
    """Read and check a checkpoint of any family, in one file or folder, or in several.

    family: one of NAMES, or None to recognise it. Nothing in the files is executed. Raises CheckpointError.
    """
    context_length, frame_size = told.context_length, told.frame_size
    if family is not None and family not in NAMES:
        raise CheckpointError(f"unknown family {quoted(family)}", f"choose among {', '.join(NAMES)}")
    if context_length is not None and not 2 <= context_length <= 1024:
        raise CheckpointError(f"the window must hold 2…1024 frames, not {context_length}", "3 is usual")
    if frame_size is not None and not 1 <= frame_size <= 16384:
        raise CheckpointError(f"frames have 1…16384 pixels a side, not {frame_size}", "64 is usual")
    notes: list[str] = []
    if told.heads is not None and not 1 <= told.heads <= 512:
        raise CheckpointError(f"attention has 1…512 heads, not {told.heads}", "8 are usual")
    found = [file for path in paths for file in layout.expand(path, notes)]
    if family == "native" or (family is None and len(paths) == 1 and not found):
        if len(paths) != 1:
            raise CheckpointError(f"a native checkpoint is one folder, not {len(paths)}", "give its folder")
        for name, value in (("context_length", context_length), ("frame_size", frame_size), ("heads", told.heads)):
            if value is not None:
                raise CheckpointError(
                    f"a native checkpoint has its own {name}", f"leave --{name.replace('_', '-')} out"
                )
        return native.load(paths[0])
    for path in paths:
        if not layout.expand(path, []):
            native.find_weights(path)  # raises if it is not a checkpoint at all
            raise CheckpointError(f"{quoted(str(path))} is a native checkpoint among others", "convert it alone")
    wanted = [one for one in FAMILIES if family in (None, one.NAME)]
    parts = [_open(path, [name for one in wanted for name in one.INERT]) for path in found]
    for one in wanted:
        kinds = [_kind(one, part) for part in parts]
        if any(kinds):
            made = _load(one, dict(zip(parts, kinds, strict=True)), told)
            return dataclasses.replace(made, assumed=(*notes, *made.assumed))
    looked = "; ".join(f"{one.NAME}: {one.LOOKED_FOR}" for one in wanted)
    names = ", ".join(list(parts[0].tensors)[:4])
    raise CheckpointError(
        f"{quoted(str(parts[0].path))} is of no family known here: {len(parts[0].tensors)} tensors, "
        f"{quoted(names, 200)[1:-1]} …",
        f"looked for {looked}; native: config.json beside the weights",
    )


def _load(family: Family, kinds: Mapping[Part, str | None], told: Told) -> native.Checkpoint:
    parts: dict[str, Part] = {}
    for part, kind in kinds.items():
        if kind is None:
            raise CheckpointError(
                f"{quoted(str(part.path))} is not part of a {family.NAME} world, as the other files are",
                f"looked for {family.LOOKED_FOR}",
            )
        if kind in parts:
            raise CheckpointError(
                f"{quoted(str(parts[kind].path))} and {quoted(str(part.path))} are both the {kind}", "give one of them"
            )
        parts[kind] = part
    for kind, (_, missing) in family.PARTS.items():
        if kind not in parts and kind not in family.spare(parts):
            given = ", ".join(f"{name} {one.path.name!r}" for name, one in parts.items())
            raise CheckpointError(
                f"the {kind} of this {family.NAME} world is missing; given: {given}", f"give {missing}"
            )
    return family.load({kind: parts[kind] for kind in family.PARTS if kind in parts}, told)


def _kind(family: Family, part: Part) -> str | None:
    return next((kind for kind, (sign, _) in family.PARTS.items() if sign in part.tensors), None)


def _open_safetensors(path: Path) -> Part:
    """The weights of a folder with config.json, in the format of the Hugging Face hub."""
    shapes, get = native._open_safetensors(path)
    found = layout.settings_of(path.parent)
    assert found is not None  # otherwise the folder would count as native
    torch = import_torch()
    tensors = {name: torch.from_numpy(get(name).copy()) for name in shapes}
    return Part(path.parent if path.name == layout.HUB else path, (path, found[0]), tensors, _plain(found[1]))


def _plain(settings: object) -> dict[str, Any]:
    """Settings that are plain values or lists. Other objects in the file are not settings."""
    if not isinstance(settings, dict):
        return {}
    return {k: v for k, v in settings.items() if isinstance(v, (bool, int, float, str, list, tuple))}


def _open(path: Path, inert: Sequence[str]) -> Part:
    """A file of tensors by name, bare or in a dictionary with settings; or a weights file beside its state.pt."""
    if path.suffix == ".safetensors":
        return _open_safetensors(path)
    where, torch = quoted(str(path)), import_torch()
    data = load_pickle(path, inert)
    settings: dict[str, Any] = {}
    if isinstance(data, dict):
        for key in _TABLES:
            if isinstance(data.get(key), dict):
                data, settings = data[key], data
                break
    files: tuple[Path, ...] = (path,)
    if path.name == layout.WEIGHTS and (path.parent / layout.STATE).is_file():
        beside = load_pickle(path.parent / layout.STATE, inert)
        settings, files = beside if isinstance(beside, dict) else {}, (path, path.parent / layout.STATE)
    if isinstance(data, dict) and ({"state", "param_groups"} <= set(data) or _OPTIMIZERS & set(data)):
        raise CheckpointError(f"{where} holds an optimizer's state and no weights", f"give {layout.WEIGHTS}")
    if isinstance(data, dict) and data and all(isinstance(table, dict) for table in data.values()):
        # Several models of a world, each with its own table.
        data = {f"{of}.{name}": tensor for of, table in data.items() for name, tensor in table.items()}
    ok = isinstance(data, dict) and data
    if not ok or not all(isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in data.items()):
        raise CheckpointError(f"{where} is not a table of tensors by name", "save model.state_dict()")
    # torch.compile adds a prefix to every name.
    tensors = {name.removeprefix("_orig_mod."): tensor for name, tensor in data.items()}
    shown = path.parent if path.name == layout.WEIGHTS else path
    return Part(shown, files, tensors, _plain(settings.get("config")))
