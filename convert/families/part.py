"""One opened file of a world: its tensors, its settings, and the checks that every family makes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genie_cpp.convert.files import as_float32, import_torch, load_yaml
from genie_cpp.convert.native import Checkpoint
from genie_cpp.errors import CheckpointError
from genie_cpp.spec.hparams import HParams, expected_tensors
from genie_cpp.words import quoted

Read = Callable[[], Any]  # returns a tensor (torch) of the GGUF


@dataclass(frozen=True)
class Told:
    """What the caller specifies because the files leave it open; None: not specified."""

    context_length: int | None = None  # frames in the window
    frame_size: int | None = None  # pixels a side
    heads: int | None = None  # of attention

    def heads_are_known(self, family: str) -> None:
        """Called by a family whose files say it. Raises CheckpointError if the caller specifies it too."""
        if self.heads is not None:
            raise CheckpointError(f"the files of a {family} world say how many heads it has", "leave --heads out")


@dataclass(frozen=True, eq=False)
class Part:
    """`path`: for messages. `files`: those read. Also tensors by name (torch), and plain values of the settings."""

    path: Path
    files: tuple[Path, ...]
    tensors: dict[str, Any]
    config: dict[str, Any]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: tuple(tensor.shape) for name, tensor in self.tensors.items()}

    @property
    def where(self) -> str:
        return quoted(str(self.path))

    def with_settings(self, name: str) -> Part:
        """The part with the settings of a YAML file in its folder, if there is one; nested names are dotted."""
        beside = self.files[0].parent / name
        if not beside.is_file():
            return self
        return dataclasses.replace(self, files=(*self.files, beside), config=load_yaml(beside))

    def shape(self, name: str, dimensions: int) -> tuple[int, ...]:
        """Shape of a tensor that must exist. Raises CheckpointError naming it."""
        if name not in self.tensors:
            raise CheckpointError(f"{self.where}: tensor {name} is missing", "is the file whole?")
        shape = tuple(self.tensors[name].shape)
        if len(shape) != dimensions or not all(shape):
            raise CheckpointError(
                f"{self.where}: tensor {name} must have {dimensions} dimensions, not {list(shape)}",
                "is the file whole?",
            )
        return shape

    def number(self, key: str, otherwise: int) -> int:
        """An integer >= 1 of the settings, or `otherwise` if they do not have it.

        Raises CheckpointError for any other value: ignoring it and converting would be a guess.
        """
        value = self.config.get(key)
        if value is None:
            return otherwise
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise CheckpointError(
                f"{self.where}: its settings say {key} {quoted(str(value), 60)}, which is not a whole number from 1 on",
                "only one number is understood here",
            )
        return value

    def flag(self, key: str) -> bool | None:
        """A boolean of the settings, None if they do not have it. Raises CheckpointError for anything else."""
        value = self.config.get(key)
        if value is not None and not isinstance(value, bool):
            raise CheckpointError(
                f"{self.where}: its settings say {key}: {quoted(str(value), 60)}, which is neither true nor false",
                "only one of them is understood here",
            )
        return value

    def check(self, wanted: Mapping[str, tuple[int, ...]], ignored: tuple[str, ...]) -> None:
        """Allow exactly these tensors, and those with a prefix in `ignored`. CheckpointError names the first fault."""
        for name, shape in wanted.items():
            if self.shape(name, len(shape)) != shape:
                raise CheckpointError(
                    f"{self.where}: tensor {name} must be {list(shape)}, not {list(self.tensors[name].shape)}",
                    "do the settings in the file belong to its weights?",
                )
        for name in self.tensors:
            if name not in wanted and not name.startswith(ignored):
                raise CheckpointError(f"{self.where}: unknown tensor {quoted(name)}", "it may be of a later version")

    def tensor(self, name: str) -> Any:
        """A tensor as torch.float32, all finite. Raises CheckpointError."""
        values = import_torch().from_numpy(as_float32(self.tensors[name], name, self.where).copy())
        if not math.isfinite(float(values.abs().max())):
            raise CheckpointError(
                f"{self.where}: tensor {name} has NaN or infinite values",
                "the training diverged, or the file is damaged; take an earlier checkpoint",
            )
        return values


def frame_side(known: Mapping[str, int], told: Told, otherwise: int, assumed: list[str]) -> int:
    """Pixels a side if no weight tells: from the settings (`known`, by file; 0: not given), the caller, or a default.

    Raises CheckpointError if they disagree.
    """
    said = {where: side for where, side in known.items() if side}
    if told.frame_size is not None:
        said["--frame-size"] = told.frame_size
    if len(set(said.values())) > 1:
        texts = ", ".join(f"{where} has {side}" for where, side in said.items())
        hint = "leave --frame-size out" if told.frame_size is not None else "the files are of different worlds"
        raise CheckpointError(f"the frames are of different sizes: {texts}", hint)
    if not said:
        assumed.append(f"frames of {otherwise}x{otherwise} pixels (--frame-size)")
    return next(iter(said.values()), otherwise)


def checkpoint(
    hp: HParams, card: dict[str, str], read: Mapping[str, Read], parts: Mapping[str, Part], kind: str,
    assumed: Sequence[str],
) -> Checkpoint:  # fmt: skip
    """The result of a family's `load`. read: for every tensor of the GGUF, by name. kind: what was recognised."""
    expected = expected_tensors(hp)
    # A family's own faults, not the user's: its author reads them.
    assert set(read) >= set(expected), f"tensors that {kind} does not give: {sorted(set(expected) - set(read))}"
    assert set(read) <= set(expected), f"tensors that gguf.md does not have: {sorted(set(read) - set(expected))}"

    def values(name: str) -> NDArray[np.float32]:
        array: NDArray[np.float32] = np.ascontiguousarray(read[name]().detach().numpy(), np.float32)
        assert array.shape == expected[name][0][::-1], f"{name}: {array.shape}, not {expected[name][0][::-1]}"
        return array

    files = tuple(file for part in parts.values() for file in part.files)
    recognised = f"{kind}: " + ", ".join(f"{name} {part.path.name!r}" for name, part in parts.items())
    return Checkpoint(hp, card, expected, files, values, recognised, tuple(dict.fromkeys(assumed)))
