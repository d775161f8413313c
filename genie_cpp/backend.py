"""What runs a model's stacks: the C core on the CPU, or MLX on a Mac's GPU (docs/metal.md), behind one interface."""

from __future__ import annotations

import importlib.util
import operator
import sys
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from . import _native, cpus
from .errors import GenieError, NativeError

BACKENDS = ("auto", "cpu", "metal")

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

    def stack(self, sublayers: Sequence[str], **params: Any) -> Stack: ...
    def conv(
        self, shape: tuple[int, int, int], layers: Sequence[tuple[int, int]], groups: int, epsilon: float
    ) -> Conv: ...


class Cpu:
    """The C core."""

    name = "cpu"

    def __init__(self, threads: int | None) -> None:
        """threads: 1…1024, None: all CPUs. Raises NativeError."""
        self.isa = _native.wanted_isa()
        self.threads = default_threads() if threads is None else _whole(threads)
        self.device = f"{self.isa}, {self.threads} thread{'s' * (self.threads > 1)}"
        self._pool = _native.Pool(self.threads)

    def stack(self, sublayers: Sequence[str], **params: Any) -> Stack:
        return _native.Stack(self.isa, self._pool, sublayers, **params)

    def conv(self, shape: tuple[int, int, int], layers: Sequence[tuple[int, int]], groups: int, epsilon: float) -> Conv:
        return _native.Conv(self.isa, self._pool, shape, layers, groups, epsilon)


def _whole(threads: Any) -> int:
    try:
        count = operator.index(threads)
    except TypeError:
        count = 0
    if not 1 <= count <= 1024 or isinstance(threads, bool):
        raise NativeError(f"threads must be a whole number in 1…1024, not {threads!r}", "None takes all CPUs")
    return count


def default_threads() -> int:
    """CPUs this process may use, a container's quota counted in."""
    return cpus.usable()


def resolve(name: str) -> str:
    """Which of cpu and metal a name means; "auto" is "metal" where MLX is installed and finds Metal.

    Raises GenieError for another name.
    """
    if name not in BACKENDS:
        raise GenieError(f"the backend must be one of {', '.join(BACKENDS)}, not {name[:40]!r}", "try --backend auto")
    # Only macOS has Metal, so nobody else waits for MLX to be imported to find that out.
    if name != "auto" or sys.platform != "darwin" or not _installed():
        return "cpu" if name == "auto" else name
    from .metal import has_metal

    return "metal" if has_metal() else "cpu"


def choose(name: str, threads: int | None) -> Backend:
    """The backend of a name. threads: of the cpu backend.

    "metal" runs on MLX's own device, which without Metal is its CPU one. Raises NativeError, and GenieError with how to
    install MLX where it is missing.
    """
    if resolve(name) == "cpu":
        return Cpu(threads)
    if not _installed():
        mac = sys.platform == "darwin"
        raise GenieError(
            "the metal backend needs MLX, which is not installed",
            "pip install 'genie_cpp[metal]'" if mac else "pip install 'mlx[cpu]' (on MLX's CPU device, for tests)",
        )
    from .metal import Metal

    return Metal()


def _installed() -> bool:
    return importlib.util.find_spec("mlx") is not None
