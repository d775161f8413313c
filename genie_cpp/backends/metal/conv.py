"""Convolutional networks in MLX, with the methods of `_native.Conv` and `_native.ConvState`.

Shapes in names: H height, W width, C channels of the current picture.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from genie_cpp.backends.metal.forms import Layer, refused
from genie_cpp.backends.metal.stack import lock
from genie_cpp.backends.metal.weights import Matrix, finite, matrix
from genie_cpp.errors import NativeError

# Tensors of a layer, without ".weight": those that are multiplied, and those that are vectors.
MATRICES = frozenset("conv conv2 shortcut".split())
VECTORS = frozenset("conv.bias norm norm.bias norm2 norm2.bias".split())

Float = NDArray[np.float32]


class Conv:
    """A convolutional network for one picture [height, width, channels]. layers: (layer word of the file, channels)."""

    def __init__(
        self, shape: tuple[int, int, int], layers: Sequence[tuple[str, int]], groups: int, epsilon: float,
        compiled: bool,
    ) -> None:  # fmt: skip
        """Raises ModelError for a kind of layer that is not implemented in MLX."""
        for kind, _ in layers:
            if kind not in LAYERS:
                raise refused(f"the convolutional layer {kind}")
        self.shape, self._groups, self._epsilon = shape, groups, epsilon
        self._kinds = [kind for kind, _ in layers]
        self._layers: list[Layer] = [{} for _ in layers]
        scale = self._kinds.count("up") - self._kinds.count("down")
        height, width = (side << scale if scale > 0 else side >> -scale for side in shape[:2])
        self.output_shape = (height, width, layers[-1][1])
        self.run = mx.compile(self._run) if compiled else self._run
        self.n_bytes = 0

    def set(self, layer: int, name: str, type: int, rows: int, columns: int, data: NDArray[Any]) -> None:
        """Copy one tensor from its raw bytes. name: within the layer, e.g. "conv.weight"."""
        part = name.removesuffix(".weight")
        raw = np.ascontiguousarray(data).view(np.uint8).reshape(-1)
        if part in MATRICES:
            self._layers[layer][part] = matrix(type, rows, columns, raw)
        elif part in VECTORS:
            self._layers[layer][part] = mx.array(finite(raw.view(np.float32)))
        else:
            raise refused(f"the tensor layer.{layer}.{name}")

    def seal(self) -> None:
        """Move all weights to the device."""
        weights = [w for layer in self._layers for w in layer.values()]
        arrays = [a for w in weights for a in (w.arrays if isinstance(w, Matrix) else [w])]
        with lock:
            mx.eval(arrays)
        self.n_bytes = sum(int(a.nbytes) for a in arrays)

    def state(self) -> ConvState:
        return ConvState(self)

    def _run(self, x_HWC: Any) -> Any:
        for kind, layer in zip(self._kinds, self._layers, strict=True):
            x_HWC = LAYERS[kind](self, layer, x_HWC)
        return x_HWC

    def norm(self, layer: Layer, name: str, x_HWC: Any) -> Any:
        """Group norm, then SiLU. A group is a range of adjacent channels, over the whole picture."""
        # Averaged one row of pixels at a time: a single float32 sum over a picture would lose too much precision.
        x_HWGN = x_HWC.reshape(*x_HWC.shape[:2], self._groups, -1)
        mean = x_HWGN.mean((1, 3), keepdims=True).mean(0, keepdims=True)
        off = x_HWGN - mean
        variance = (off * off).mean((1, 3), keepdims=True).mean(0, keepdims=True)
        y = (off * mx.rsqrt(variance + self._epsilon)).reshape(x_HWC.shape) * layer[name] + layer[f"{name}.bias"]
        return y * mx.sigmoid(y)


class ConvState:
    """State of one network. MLX allocates memory while it runs, so nothing is kept."""

    n_bytes = 0

    def __init__(self, conv: Conv) -> None:
        self.conv = conv

    def run(self, x_HWC: Float) -> Float:
        """float32 of the network's input shape -> of its output shape."""
        if x_HWC.shape != self.conv.shape:
            raise NativeError(f"a picture of shape {x_HWC.shape} was given where {self.conv.shape} is needed")
        with lock:
            return np.array(self.conv.run(mx.array(np.ascontiguousarray(x_HWC, np.float32))))


def convolved(weight: Matrix, x_HWC: Any, stride: int = 1) -> Any:
    """A zero-padded 3 x 3 convolution, or a product with a 1 x 1 kernel."""
    channels = x_HWC.shape[-1]
    if weight.columns == channels:
        return weight(x_HWC)
    kernel = weight.dense().reshape(-1, 3, 3, channels)
    return mx.conv2d(x_HWC[None], kernel, stride=stride, padding=1)[0]


def plain(net: Conv, layer: Layer, x_HWC: Any) -> Any:
    return convolved(layer["conv"], x_HWC) + layer["conv.bias"]


def down(net: Conv, layer: Layer, x_HWC: Any) -> Any:
    return convolved(layer["conv"], x_HWC, stride=2) + layer["conv.bias"]


def up(net: Conv, layer: Layer, x_HWC: Any) -> Any:
    """Distribute the channels (y, x, c) of each pixel to 2 x 2 pixels."""
    y = plain(net, layer, x_HWC)
    height, width, channels = y.shape
    y = y.reshape(height, width, 2, 2, channels // 4).transpose(0, 2, 1, 3, 4)
    return y.reshape(2 * height, 2 * width, channels // 4)


def residual(net: Conv, layer: Layer, x_HWC: Any) -> Any:
    y = convolved(layer["conv"], net.norm(layer, "norm", x_HWC))
    y = convolved(layer["conv2"], net.norm(layer, "norm2", y))
    return y + (layer["shortcut"](x_HWC) if "shortcut" in layer else x_HWC)


def normed(net: Conv, layer: Layer, x_HWC: Any) -> Any:
    return net.norm(layer, "norm", x_HWC)


# By genie_conv_kind: the network, the layer, a picture -> the next picture.
LAYERS: dict[str, Callable[[Conv, Layer, Any], Any]] = {
    "conv3": plain,
    "conv1": plain,
    "down": down,
    "up": up,
    "res": residual,
    "norm": normed,
}
