"""Weights of a GGUF as MLX arrays. Quantized blocks are repacked without changing any value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from genie_cpp.errors import ModelError, NativeError
from genie_cpp.file.gguf_file import BLOCKS, TensorType

GROUP = 32  # values per block, in ggml and in MLX


@dataclass(frozen=True)
class Matrix:
    """y = x w^T + bias. If `weight` holds integers of `bits` bits, `scales` and `biases` are [R, C / 32]."""

    weight: Any  # [R, C], or uint32 [R, C * bits / 32]
    scales: Any = None
    biases: Any = None
    bits: int = 0
    bias: Any = None  # [R]

    def __call__(self, x: Any) -> Any:
        """float32 [..., C] -> float32 [..., R]."""
        if self.bits:
            y = mx.quantized_matmul(
                x, self.weight, self.scales, self.biases, transpose=True, group_size=GROUP, bits=self.bits
            )
        else:
            y = x @ self.weight.T  # F16 weights are widened, because activations stay float32
        return y if self.bias is None else y + self.bias

    @property
    def columns(self) -> int:
        return int(self.weight.shape[1]) * (32 // self.bits if self.bits else 1)

    def dense(self) -> Any:
        """float32 [R, C], without changing a value: a float16 scale times an 8-bit integer fits into 24 bits."""
        if not self.bits:
            return self.weight.astype(mx.float32)
        scales, biases = self.scales.astype(mx.float32), self.biases.astype(mx.float32)
        return mx.dequantize(self.weight, scales, biases, group_size=GROUP, bits=self.bits)

    @property
    def arrays(self) -> list[Any]:
        return [a for a in (self.weight, self.scales, self.biases, self.bias) if a is not None]


def matrix(kind: int, rows: int, columns: int, data: NDArray[np.uint8]) -> Matrix:
    """The raw bytes of a tensor -> its Matrix.

    Raises ModelError for a type that is not implemented here, NativeError for a weight that is NaN or infinite.
    """
    if kind == TensorType.F32:
        return Matrix(mx.array(finite(data.view(np.float32)).reshape(rows, columns)))
    if kind == TensorType.F16:
        return Matrix(mx.array(finite(data.view(np.float16)).reshape(rows, columns)))
    if kind not in (TensorType.Q8_0, TensorType.Q4_0):
        raise ModelError(f"the metal backend has no form of tensor type {kind} yet", "play it with --backend cpu")
    length = BLOCKS[TensorType(kind)][1]
    blocks = data.reshape(rows, columns // GROUP, length)
    d = finite(blocks[..., :2].copy().view(np.float16))[..., 0]  # [R, C / 32]
    if kind == TensorType.Q8_0:  # q * d = (q + 128) * d - 128 d
        offset, values = 128, blocks[..., 2:] ^ 0x80
    else:  # ggml packs values i and i + 16 in one byte; MLX packs neighbours, the first in the low bits
        offset, nibbles = 8, blocks[..., 2:]
        in_order = np.concatenate([nibbles & 15, nibbles >> 4], -1)
        values = in_order[..., 0::2] | in_order[..., 1::2] << 4
    packed = np.ascontiguousarray(values).reshape(rows, -1).view("<u4")
    # A float16 times a power of two is again a float16, unless it overflows.
    wide = np.abs(d.astype(np.float32)).max(initial=0) * offset > np.finfo(np.float16).max
    scales = d.astype(np.float32) if wide else d
    biases = scales * scales.dtype.type(-offset)
    return Matrix(mx.array(packed), mx.array(scales), mx.array(biases), 8 if offset == 128 else 4)


def finite(values: NDArray[Any]) -> NDArray[Any]:
    """Returns `values`. Raises NativeError for infinity and NaN, as the C core does."""
    if not np.isfinite(values).all():
        raise NativeError("a weight is infinite or not a number")
    return values
