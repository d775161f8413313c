"""Matrix products against the limit of the arithmetic and against other engines."""

from __future__ import annotations

from typing import Any

import ggml_peer
import numpy as np
import ours
import peers
from timing import System, in_turns, relative_error

from genie_cpp.backends import _native

SHAPES = ((512, 512), (512, 1536), (512, 2048), (2048, 512), (1024, 4096), (4096, 1024))  # K, N


def ggml_products(w_NK: np.ndarray, x_MK: np.ndarray, threads: int) -> dict[str, System]:
    found = {}
    for build, folder in ggml_peer.folders().items():
        ggml = ggml_peer.load(folder)
        name = "ggml, AVX2 wheel" if build == "wheel" else "ggml, built here + llamafile"
        for type, repack in (("Q8_0", False), ("Q4_0", False), ("Q4_0", True)):
            found[f"block: {name}, {type}{' repacked' * repack}"] = ggml.product(type, w_NK, x_MK, threads, repack)
    return found


def measure(isa: str, threads: int, M: int, K: int, N: int, rounds: int, least: float, best: bool) -> dict[str, Any]:
    """One shape. best: `isa` is this CPU's best, so every engine is measured with it; otherwise only ggml is."""
    rng = np.random.default_rng(0)
    w_NK = rng.standard_normal((N, K), np.float32)
    x_MK = rng.standard_normal((M, K), np.float32)
    pool = _native.Pool(threads)
    systems = {f"ours: {type}": ours.product(isa, pool, type, w_NK, x_MK) for type in ours.TYPES}
    systems["peak"], operations = ours.peak(isa, pool)
    systems["limit"], block_operations = ours.peak(isa, pool, blocks=True, rounds=1000)
    systems |= ggml_products(w_NK, x_MK, threads)
    if best:
        if peers.have("onnx", "onnxruntime"):
            systems |= peers.ort_products(w_NK, x_MK, threads)
        if peers.have("openvino"):
            systems |= peers.ov_products(w_NK, x_MK, threads)
        systems |= peers.torch_products(w_NK, x_MK, threads)
    times = in_turns(systems, rounds, least, threads)
    exact = x_MK.astype(np.float64) @ w_NK.T.astype(np.float64)
    errors = {name: relative_error(s.output(), exact) for name, s in systems.items() if s.output is not None}
    peak, limit = operations / times.pop("peak") / 1e9, block_operations / times.pop("limit") / 1e9
    speed = {name: 2 * M * K * N / t / 1e9 for name, t in times.items()}
    return {
        "isa": isa, "threads": threads, "M": M, "K": K, "N": N, "peak": peak, "limit": limit, "speed": speed,
        "errors": errors, "best": best,
    }  # fmt: skip


def products(rounds: int, least: float, small: bool = False) -> dict[str, Any]:
    rows = []
    isas = ours.int8_isas()
    for isa in isas:
        for threads in (1,) if small else (1, 2):
            for M in (256, 1):
                if M == 1 and isa != isas[0]:
                    continue
                for K, N in ((64, 96),) if small else SHAPES:
                    rows.append(measure(isa, threads, M, K, N, rounds, least, isa == isas[0]))
                    print(f"  {isa}, {threads} threads, M = {M}, {K} -> {N}", flush=True)
    builds = {build: ggml_peer.load(folder).features() for build, folder in ggml_peer.folders().items()}
    return {"rows": rows, "ggml": builds}
