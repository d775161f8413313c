"""Tensors as a GGUF stores them -> float32: plain floats, and ggml's blocks of 32 values with one scale."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from genie_cpp.file.gguf_file import GGUFFile, TensorType


def decode(raw: NDArray[np.uint8], kind: TensorType, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """The bytes of a tensor -> float32 of `shape`, slowest dimension first. Rows are whole blocks.

    Q8_0: a float16 scale, then 32 int8. Q4_0: a float16 scale, then 16 bytes, whose low halves are the first 16 values
    and whose high halves the last 16, each plus 8 (ggml-quants.c).
    """
    raw = np.ascontiguousarray(raw).reshape(-1)
    if kind is TensorType.F32:
        return raw.view("<f4").astype(np.float32, copy=False).reshape(shape)
    if kind is TensorType.F16:
        return raw.view("<f2").astype(np.float32).reshape(shape)
    blocks = raw.reshape(-1, 34 if kind is TensorType.Q8_0 else 18)
    scales, packed = blocks[:, :2].copy().view("<f2").astype(np.float32), blocks[:, 2:]
    if kind is TensorType.Q8_0:
        values = packed.view(np.int8).astype(np.float32)
    else:
        values = np.concatenate([packed & 15, packed >> 4], axis=1).astype(np.float32) - np.float32(8)
    return (scales * values).reshape(shape)


def rows(file: GGUFFile, name: str) -> tuple[NDArray[np.uint8], TensorType, int]:
    """(a copy of one tensor's bytes by row, its type, values per row). Raises GGUFError if a value is not finite."""
    file.check_finite(name)
    tensor = file.tensors[name]
    return file.data(name).reshape(math.prod(tensor.shape[1:]), -1), tensor.type, tensor.shape[0]


def floats(file: GGUFFile, name: str) -> NDArray[np.float32]:
    """One tensor as float32, slowest dimension first. A copy, so that the file can be closed. Raises GGUFError."""
    packed, kind, _ = rows(file, name)
    return decode(packed, kind, tuple(reversed(file.tensors[name].shape)))
