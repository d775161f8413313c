"""What a backend is: whatever runs stacks and convolutional networks, and keeps their windows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from genie_cpp.spec.stack_spec import StackSpec

Float = NDArray[np.float32]
Int = NDArray[np.int32]


class State(Protocol):
    """A window of past frames of one stack; one caller at a time. `_native.State` is the specification."""

    def __len__(self) -> int: ...
    @property
    def n_bytes(self) -> int: ...
    def truncate(self, length: int) -> None: ...
    def copy_from(self, other: Any) -> None: ...
    def forward(self, x: Int | Float, action: int = -1, commit: bool = True, output: bool = True) -> Float | None: ...
    def maskgit_step(
        self, sampler: Any, step: int, seed: int, frame: int, action: int, ids_P: Int, logits_PO: Float | None
    ) -> None: ...
    def maskgit_fill(self, sampler: Any, step: int, seed: int, frame: int, logits_PO: Float, ids_P: Int) -> None: ...


class Stack(Protocol):
    """One ST-transformer: `set` for each tensor of the file, then `seal`, then any number of states."""

    token_count: int

    @property
    def n_bytes(self) -> int: ...
    def set(self, name: str, type: int, rows: int, columns: int, data: NDArray[Any]) -> None: ...
    def seal(self) -> None: ...
    def state(self) -> State: ...


class ConvState(Protocol):
    """Room for one network's pictures; one caller at a time."""

    n_bytes: int

    def run(self, x_HWC: Float) -> Float: ...


class Conv(Protocol):
    """A convolutional network: `set` for each tensor of the file, then `seal`. `_native.Conv` is the specification."""

    shape: tuple[int, int, int]  # of what it takes, height, width, channels
    output_shape: tuple[int, int, int]

    @property
    def n_bytes(self) -> int: ...
    def set(self, layer: int, name: str, type: int, rows: int, columns: int, data: NDArray[Any]) -> None: ...
    def seal(self) -> None: ...
    def state(self) -> ConvState: ...


class Backend(Protocol):
    """`name` is "cpu" or "metal"; `isa` what files call the arithmetic, the same where the same bits are expected;
    `device` says the same to a reader; `threads` are 0 where they are not ours to choose."""

    name: str
    isa: str
    device: str
    threads: int

    def stack(self, spec: StackSpec) -> Stack: ...
    def conv(
        self, shape: tuple[int, int, int], layers: Sequence[tuple[str, int]], groups: int, epsilon: float
    ) -> Conv: ...
