"""Attention kernels on one thread: inside a frame, and one new frame over a temporal window."""

from __future__ import annotations

from typing import Any

import ggml_peer
import numpy as np
import ours
import torch
import torch.nn.functional as F
from peers import torch_system
from timing import System, in_turns, relative_error
from torch import Tensor

from genie_cpp.backends import _native


def torch_attentions(q: Tensor, k: Tensor, v: Tensor) -> dict[str, System]:
    """[B, tokens, H, D] each, as a projection leaves them ("strided") and copied head by head; fp32 and bf16."""
    found = {}
    for name, kind in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        strided = [a.to(kind).transpose(1, 2) for a in (q, k, v)]
        apart = [a.contiguous() for a in strided]

        def plain(a: list[Tensor] = apart) -> Tensor:
            weights = torch.softmax(a[0] @ a[1].transpose(-1, -2) * q.shape[-1] ** -0.5, -1)
            return (weights @ a[2]).transpose(1, 2)

        def sdpa(a: list[Tensor]) -> Any:
            return lambda: F.scaled_dot_product_attention(*a).transpose(1, 2)

        found[f"torch SDPA {name}"] = torch_system(sdpa(apart))
        found[f"torch SDPA {name}, strided"] = torch_system(sdpa(strided))
        found[f"torch matmul, softmax, matmul {name}"] = torch_system(plain)
    return found


def measure(P: int, keys: int, own: bool, H: int, D: int, rounds: int, least: float) -> dict[str, Any]:
    """P queries over `keys` keys: the same keys for all, or (own) each query's own."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(1)
    B, Q = (P, 1) if own else (1, P)
    q = rng.standard_normal((B, Q, H, D), np.float32)
    k, v = (rng.standard_normal((B, keys, H, D), np.float32) for _ in range(2))
    mine = (q.reshape(P, H, D), k if own else k[0], v if own else v[0])
    systems = {}
    for isa in _native.isas():
        if isa != "scalar":
            for bf16 in (0, 1) if isa == "avx512bf16" else (0,):
                name = f"ours, {isa} {'bf16' if bf16 else 'fp32'}"
                systems[name] = ours.attention(isa, *mine, 2 if own else 0, bf16)
    systems |= torch_attentions(*(torch.from_numpy(a) for a in (q, k, v)))
    for build, folder in ggml_peer.folders().items():
        for half in (False, True):
            name = f"{'AVX2 wheel' if build == 'wheel' else 'built here'}, {'f16' if half else 'f32'}"
            systems[f"ggml flash attention, {name}"] = ggml_peer.load(folder).attention(q, k, v, half)
    exact = F.scaled_dot_product_attention(*(torch.from_numpy(a).double().transpose(1, 2) for a in (q, k, v)))
    times = in_turns(systems, rounds, least)
    truth = exact.transpose(1, 2).numpy()
    errors = {name: relative_error(s.output(), truth) for name, s in systems.items() if s.output is not None}
    return {"operations": 4 * H * P * keys * D, "times": times, "errors": errors}


def attention(rounds: int, least: float, small: bool = False) -> dict[str, Any]:
    P, H, D = (8, 2, 32) if small else (256, 8, 64)
    return {
        "spatial": measure(P, P, False, H, D, rounds, least),
        "temporal": measure(P, 4 if small else 16, True, H, D, rounds, least),
    }
