"""The type of each tensor, and its encoding (by the `gguf` package, bit-equal to ggml's reference)."""

from __future__ import annotations

import gguf
import gguf.quants
import numpy as np
from numpy.typing import NDArray

from genie_cpp.file.blocks import decode
from genie_cpp.file.gguf_file import BLOCKS, TensorType

TYPES: dict[str, TensorType] = {kind.name.lower(): kind for kind in TensorType}
_F16_MAX = 65504.0
# The largest value whose block scale is still a finite float16.
_LARGEST = {TensorType.F16: _F16_MAX, TensorType.Q8_0: _F16_MAX * 127, TensorType.Q4_0: _F16_MAX * 8}
_EIGHT_BITS = (".input.weight", ".output.weight", "_first.weight", ".token_embd.weight", ".v.weight")


# Below these largest values, scales are subnormal float16. The tensor keeps more bits if its error exceeds _MOST_ERROR.
_SMALLEST = {TensorType.F16: 2.0**-14, TensorType.Q8_0: 2.0**-14 * 127, TensorType.Q4_0: 2.0**-14 * 8}
_MOST_ERROR = {TensorType.F16: 0.002, TensorType.Q8_0: 0.02, TensorType.Q4_0: 0.2}


def usual_type(name: str, row: int, matrix: bool, wanted: TensorType) -> TensorType:
    """The type of a tensor whose values are in the normal range. `row`: length of its rows.

    Only matrices are quantized; rows that are not whole blocks stay F16. With Q4_0, the ends of the stacks and the
    attention values stay Q8_0, because four bits cost the most there. The tokenizer stays Q8_0 too: its errors are
    directly visible, and a step of the dynamics reads none of it.
    """
    if not matrix or wanted is TensorType.F32:
        return TensorType.F32
    kind = wanted
    if kind is TensorType.Q4_0 and (name.endswith(_EIGHT_BITS) or name.startswith("tokenizer.")):
        kind = TensorType.Q8_0
    return TensorType.F16 if row % BLOCKS[kind][0] else kind


def choose_type(name: str, matrix: bool, wanted: TensorType, values: NDArray[np.float32]) -> TensorType:
    """The type of one tensor, [..., row]: the usual one, or F16 or F32 if values would overflow float16 or vanish in
    it."""
    kind = usual_type(name, values.shape[-1], matrix, wanted)
    if kind is TensorType.F32:
        return kind
    largest = float(np.abs(values).max())
    if largest > _LARGEST[kind]:
        return TensorType.F32
    for tried in dict.fromkeys((kind, TensorType.F16)):
        if not 0 < largest < _SMALLEST[tried]:
            return tried
        if relative_error(values, decode(encode(values, tried), tried, values.shape)) <= _MOST_ERROR[tried]:
            return tried
    return TensorType.F32


def encode(values: NDArray[np.float32], kind: TensorType) -> NDArray[np.uint8]:
    """float32 `[..., row]` -> the bytes of the tensor, uint8, flat."""
    if kind in (TensorType.Q8_0, TensorType.Q4_0):
        # The inverse of such a small scale would be infinite. As float16 the scale is 0 anyway.
        values = np.where(np.abs(values) < 1e-30, np.float32(0), values)
    encoded = gguf.quants.quantize(np.ascontiguousarray(values), gguf.GGMLQuantizationType(int(kind)))
    return np.ascontiguousarray(encoded).reshape(-1).view(np.uint8)


def relative_error(values: NDArray[np.float32], again: NDArray[np.float32]) -> float:
    """||again - values|| / ||values||; 0 for a tensor of zeros."""
    size = float(np.linalg.norm(values.astype(np.float64)))
    return float(np.linalg.norm(again.astype(np.float64) - values)) / size if size else 0.0
