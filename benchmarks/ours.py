"""The kernels of genie_cpp, measured through the test functions of the C core (genie_bench.h)."""

from __future__ import annotations

import os

import gguf
import numpy as np
from timing import System

from genie_cpp.backends import _native

TYPES = {"Q8_0": gguf.GGMLQuantizationType.Q8_0, "Q4_0": gguf.GGMLQuantizationType.Q4_0}


def buffer(array: np.ndarray, kind: str = "float") -> object:
    return _native.ffi.from_buffer(f"{kind}[]", array)


def int8_isas() -> list[str]:
    """The ISAs that have int8 products of their own, best first; avx512bf16 shares those of avx512vnni.

    A development build lists its twin of AVX-VNNI after AVX2. One made of AVX2 instructions is for tests only, so it is
    measured only where TWIN=evex says that it is the instruction itself.
    """
    isas = [isa for isa in _native.isas() if isa not in ("scalar", "avx512bf16")]
    twin = "avxvnni" in isas and "avx2" in isas and isas.index("avxvnni") > isas.index("avx2")
    return [isa for isa in isas if isa != "avxvnni" or not twin or os.environ.get("TWIN") == "evex"]


def product(isa: str, pool: _native.Pool, type: str, w_NK: np.ndarray, x_MK: np.ndarray) -> System:
    packed, y_MN = gguf.quants.quantize(w_NK, TYPES[type]), np.empty((len(x_MK), len(w_NK)), np.float32)

    def run(times: int) -> None:
        status = _native.lib.genie_matmul(
            isa.encode(), pool.handle, TYPES[type].value, *w_NK.shape, buffer(packed, "char"), packed.nbytes,
            buffer(x_MK), len(x_MK), times, buffer(y_MN),
        )  # fmt: skip
        _native.check(status, "matmul")

    return System(run, lambda: y_MN, prepares=True)


def peak(isa: str, pool: _native.Pool, blocks: bool = False, rounds: int = 10_000) -> tuple[System, int]:
    """The system to time, and the operations of one run. blocks: with the work for a scale per block (genie_peak)."""
    kind = _native.lib.GENIE_PEAK_BLOCKS if blocks else int(TYPES["Q8_0"])

    def run(times: int) -> None:
        _native.peak_operations(isa, pool, kind, times * rounds)

    return System(run), _native.peak_operations(isa, pool, kind, rounds)


def attention(isa: str, q_QHD: np.ndarray, k: np.ndarray, v: np.ndarray, few: int, bf16: int) -> System:
    """few = 0: k, v [K, H, D] for all queries; 2: [Q, K, H, D], each query has its own. One thread."""
    y = np.empty_like(q_QHD)
    queries, heads, length = q_QHD.shape
    keys = k.shape[1 if few == 2 else 0]

    def run(times: int) -> None:
        status = _native.lib.genie_attention(
            isa.encode(),
            queries,
            keys,
            heads,
            length,
            buffer(q_QHD),
            buffer(k),
            buffer(v),
            _native.ffi.NULL,
            0.0,
            few,
            bf16,
            times,
            buffer(y),
        )
        _native.check(status, "attention")

    return System(run, lambda: y, prepares=True)
