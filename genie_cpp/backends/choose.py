"""Which backend runs a model: the C core on the CPU, or MLX on a Mac's GPU (docs/metal.md)."""

from __future__ import annotations

import importlib.util
import operator
import sys
from collections.abc import Sequence
from typing import Any

from genie_cpp.backends import _native, cpus
from genie_cpp.backends.interface import Backend, Conv, Stack
from genie_cpp.errors import GenieError, NativeError
from genie_cpp.spec.stack_spec import StackSpec

BACKENDS = ("auto", "cpu", "metal")


class Cpu:
    """The C core."""

    name = "cpu"

    def __init__(self, threads: int | None) -> None:
        """threads: 1…1024, None: all CPUs. Raises NativeError."""
        self.isa = _native.wanted_isa()
        self.threads = default_threads() if threads is None else _whole(threads)
        self.device = f"{self.isa}, {self.threads} thread{'s' * (self.threads > 1)}"
        self._pool = _native.Pool(self.threads)

    def stack(self, spec: StackSpec) -> Stack:
        return _native.Stack(self.isa, self._pool, spec)

    def conv(self, shape: tuple[int, int, int], layers: Sequence[tuple[str, int]], groups: int, epsilon: float) -> Conv:
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
    """CPUs that this process may use, within a container's quota."""
    return cpus.usable()


def resolve(name: str) -> str:
    """Turn a name into "cpu" or "metal". "auto" is "metal" if MLX is installed and finds Metal, else "cpu".

    Raises GenieError for another name.
    """
    if name not in BACKENDS:
        raise GenieError(f"the backend must be one of {', '.join(BACKENDS)}, not {name[:40]!r}", "try --backend auto")
    # Only macOS has Metal. On other systems this saves the time of importing MLX.
    if name != "auto" or sys.platform != "darwin" or not _installed():
        return "cpu" if name == "auto" else name
    from genie_cpp.backends.metal import has_metal

    return "metal" if has_metal() else "cpu"


def choose(name: str, threads: int | None) -> Backend:
    """The backend with this name. threads: of the cpu backend.

    "metal" runs on MLX's default device, which is the CPU if there is no Metal. Raises NativeError; raises GenieError
    with install instructions if MLX is missing.
    """
    if resolve(name) == "cpu":
        return Cpu(threads)
    if not _installed():
        mac = sys.platform == "darwin"
        raise GenieError(
            "the metal backend needs MLX, which is not installed",
            "pip install 'genie_cpp[metal]'" if mac else "pip install 'mlx[cpu]' (on MLX's CPU device, for tests)",
        )
    from genie_cpp.backends.metal import Metal

    return Metal()


def _installed() -> bool:
    return importlib.util.find_spec("mlx") is not None
