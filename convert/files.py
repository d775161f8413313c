"""Reads untrusted files: nothing in them is executed, and every fault becomes a CheckpointError of one line."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genie_cpp.errors import CheckpointError
from genie_cpp.file import foreign
from genie_cpp.words import one_line, quoted

_SETTINGS_LIMIT = 1 << 20
INSTALL = "pip install 'genie_cpp[convert]'"


class Inert:
    """Replaces an object of a class that is not needed: accepts any arguments and any state, and stores nothing."""

    def __init__(self, *arguments: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


def import_torch() -> Any:
    """The torch module. Raises CheckpointError if it is not installed."""
    try:
        import torch
    except ImportError:
        raise CheckpointError("converting needs PyTorch, which is not installed", INSTALL) from None
    return torch


def load_yaml(path: Path) -> dict[str, Any]:
    """The settings of a YAML file, nested ones under dotted names. Plain values only; no object is created.

    Raises CheckpointError.
    """
    try:
        import yaml
    except ImportError:
        raise CheckpointError(f"reading {quoted(str(path))} needs PyYAML, which is not installed", INSTALL) from None
    try:
        with path.open("rb") as file:
            text = file.read(_SETTINGS_LIMIT + 1)
        if len(text) > _SETTINGS_LIMIT:
            raise CheckpointError(f"{quoted(str(path))} is too long for settings", "is it another file?")
        if other := foreign.described(text):
            raise CheckpointError(f"{quoted(str(path))} is {other[0]}", other[1])
        data = yaml.safe_load(text)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise CheckpointError(
            f"{quoted(str(path))} cannot be read as YAML: {quoted(one_line(error), 120)[1:-1]}",
            "mend it, or take it away: what it says is then assumed",
        ) from None
    found: dict[str, Any] = {}
    for name, value in data.items() if isinstance(data, dict) else ():
        inner = value if isinstance(value, dict) else {}
        found |= {f"{name}.{key}": deep for key, deep in inner.items()} if inner else {str(name): value}
    return found


def as_float32(tensor: Any, name: str, where: str) -> NDArray[np.float32]:
    """A dense CPU tensor -> a contiguous float32 array. A float64 too large for float32 becomes infinite."""
    torch = import_torch()
    if tensor.dtype not in (torch.float32, torch.float16, torch.bfloat16, torch.float64):
        raise CheckpointError(f"{where}: tensor {quoted(name)} has the type {tensor.dtype}", "save it as float32")
    if tensor.layout is not torch.strided or tensor.device.type != "cpu":
        raise CheckpointError(f"{where}: tensor {quoted(name)} is not a dense CPU tensor", "save it as float32")
    with np.errstate(over="ignore"):
        values: NDArray[np.float32] = tensor.detach().to(torch.float32).contiguous().numpy()
    return values


def load_pickle(path: Path, inert: Sequence[str] = ()) -> Any:
    """Read a file of `torch.save` through PyTorch's `weights_only` reader, which builds tensors and plain values only.

    inert: names of classes, or of modules ending in ".", that may occur. They become `Inert` and are not imported.
    Raises CheckpointError if the file needs anything else or is damaged.
    """
    torch = import_torch()
    where = quoted(str(path))
    if found := foreign.of(path):
        raise CheckpointError(f"{where} is {found[0]}", found[1])
    version = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
    if version < (2, 6):  # CVE-2025-32434: weights_only=True could still run code
        raise CheckpointError(
            f"PyTorch {torch.__version__} cannot read {where} safely", "pip install 'torch>=2.6', or use a .safetensors"
        )
    needed = _needed(torch, path)
    known = [name for name in needed if any(name == one or (one[-1] == "." and name.startswith(one)) for one in inert)]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with torch.serialization.safe_globals([(type("Inert", (Inert,), {}), name) for name in known]):
                return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        others = ", ".join(sorted(set(needed) - set(known))[:3])
        raise CheckpointError(
            f"{where} is refused: it holds more than tensors ({quoted(others)[1:-1] if others else one_line(error)})",
            "nothing in it was run; save model.state_dict() as .safetensors and convert that",
        ) from None
    except Exception as error:  # damaged zip and pickle data fail in many ways, all harmless
        raise CheckpointError(f"{where} is not a PyTorch checkpoint: {one_line(error)}", "get the file again") from None


def _needed(torch: Any, path: Path) -> list[str]:
    """What a file would import besides tensors. The pickle is disassembled, not run."""
    try:
        names: list[str] = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        return names
    except Exception:  # an old format, or damage: torch.load then reports the error
        return []
