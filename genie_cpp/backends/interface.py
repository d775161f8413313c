"""The interface of a backend, which runs stacks and convolutional networks and keeps their windows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from genie_cpp.spec.stack_spec import StackSpec

Float = NDArray[np.float32]
Int = NDArray[np.int32]


class State(Protocol):
    """A window of past frames of one stack. Not thread-safe. `_native.State` is the specification."""

    def __len__(self) -> int: ...
    @property
    def n_bytes(self) -> int: ...
    def truncate(self, length: int) -> None: ...
    def copy_from(self, other: Any) -> None: ...
    def watch(self, looked_PT: Float | None) -> bool: ...
    def forward(self, x: Int | Float, action: int = -1, commit: bool = True, output: bool = True) -> Float | None: ...
    def maskgit_step(
        self, sampler: Any, step: int, seed: int, frame: int, action: int, ids_P: Int, logits_PO: Float | None
    ) -> None: ...
    def maskgit_fill(self, sampler: Any, step: int, seed: int, frame: int, logits_PO: Float, ids_P: Int) -> None: ...


class Stack(Protocol):
    """One ST-transformer: call `set` for each tensor of the file, then `seal`, then make any number of states."""

    token_count: int

    @property
    def n_bytes(self) -> int: ...
    def set(self, name: str, type: int, rows: int, columns: int, data: NDArray[Any]) -> None: ...
    def seal(self) -> None: ...
    def state(self) -> State: ...


class ConvState(Protocol):
    """Scratch memory of one network. Not thread-safe."""

    n_bytes: int

    def run(self, x_HWC: Float) -> Float: ...


class Conv(Protocol):
    """A convolutional network: call `set` for each tensor, then `seal`. `_native.Conv` is the specification."""

    shape: tuple[int, int, int]  # of the input: height, width, channels
    output_shape: tuple[int, int, int]

    @property
    def n_bytes(self) -> int: ...
    def set(self, layer: int, name: str, type: int, rows: int, columns: int, data: NDArray[Any]) -> None: ...
    def seal(self) -> None: ...
    def state(self) -> ConvState: ...


class Backend(Protocol):
    """`name`: "cpu" or "metal". `isa`: names the arithmetic in files; the same isa must give the same bits. `device`:
    the same for a reader. `threads`: 0 if the backend chooses."""

    name: str
    isa: str
    device: str
    threads: int

    def stack(self, spec: StackSpec) -> Stack: ...
    def conv(
        self, shape: tuple[int, int, int], layers: Sequence[tuple[str, int]], groups: int, epsilon: float
    ) -> Conv: ...
