"""The metal backend: stacks of ST-transformers and convolutional networks in MLX, for the GPU of a Mac (docs/metal.md).

Without Metal it runs on MLX's CPU device, as in the tests. Only this package imports MLX.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.metadata import version

import mlx.core as mx

from genie_cpp.backends import interface
from genie_cpp.backends.metal.conv import Conv
from genie_cpp.backends.metal.stack import Stack
from genie_cpp.spec.stack_spec import StackSpec

__all__ = ["Metal", "Stack", "has_metal"]


def has_metal() -> bool:
    """Whether MLX finds Metal on this machine."""
    return bool(mx.metal.is_available())


class Metal:
    """MLX on its default device. `compiled`: use mx.compile. By default only on a GPU, because on a CPU mx.compile
    calls a C++ compiler, which the user may not have."""

    name, threads = "metal", 0

    def __init__(self, compiled: bool | None = None) -> None:
        gpu = mx.default_device().type == mx.DeviceType.gpu
        self.compiled = gpu if compiled is None else compiled
        chip = mx.device_info()
        what = str(chip["architecture"]) if gpu else "cpu"
        # Another MLX or another GPU may round differently.
        self.isa = re.sub("[^a-z0-9]", "", f"mlx{version('mlx')}{what}".lower())[:32]
        place = f"Metal on {chip['device_name']}" if has_metal() else f"its {'GPU' if gpu else 'CPU'} device"
        self.device = f"MLX {version('mlx')}, {place}"

    def stack(self, spec: StackSpec) -> interface.Stack:
        return Stack(spec, self.compiled)

    def conv(
        self, shape: tuple[int, int, int], layers: Sequence[tuple[str, int]], groups: int, epsilon: float
    ) -> interface.Conv:
        return Conv(shape, layers, groups, epsilon, self.compiled)
