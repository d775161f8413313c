"""The MaskGIT sampler of docs/sampling.md in PyTorch: tests compare the C kernel and whole generations with it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from genie_cpp.convert.reference.model import Dynamics
from genie_cpp.convert.reference.philox import uniform


@dataclass(frozen=True)
class Sampler:
    steps: int = 8
    temperature: float = 1.0
    order: str = "confidence"
    noise: float = 0.0
    threshold: float = 0.0
    schedule: str = "cosine"


def fill(
    ids_P: Tensor, logits_PV: Tensor, s: Sampler, step: int, seed: int, frame: int, factor_count: int = 1
) -> Tensor:
    """Steps 2-5 for one frame: ids with masks and this step's logits -> ids with fewer masks. A token has factor_count
    digits, the least significant first. The logits are divided evenly among the digits."""
    P = len(ids_P)
    size = logits_PV.shape[1] // factor_count
    masked = (ids_P == size**factor_count).nonzero().flatten()
    position = masked.numpy()
    chosen, log_p, quality = masked * 0, masked.double() * 0, masked.double() * 0
    for k in range(factor_count):
        logits = logits_PV[masked, k * size : (k + 1) * size].float()
        digit, picked, largest = _digit(logits, s, position, step, seed, frame, k + 1 if k else 0)
        chosen, log_p, quality = chosen + digit * size**k, log_p + picked, quality + largest
    if s.order == "random":
        quality = torch.from_numpy(uniform(seed, position, step, frame, 1))
    else:
        quality = quality if s.order == "largest-probability" else log_p
        scale = s.noise * (1 - (step + 1) / s.steps)
        if scale > 0:
            u = uniform(seed, position, step, frame, 1)
            quality = quality + torch.from_numpy(scale * -np.log(-np.log(u)))
    ids_P = ids_P.clone()
    if s.threshold > 0:
        sure = log_p >= math.log(s.threshold)
        ids_P[masked[sure]] = chosen[sure]
        masked, chosen, quality = masked[~sure], chosen[~sure], quality[~sure]
    best = torch.sort(quality, descending=True, stable=True).indices[: _filled(s, step, P, len(masked))]
    ids_P[masked[best]] = chosen[best]
    return ids_P


def _digit(
    logits: Tensor, s: Sampler, position: NDArray[np.int64], step: int, seed: int, frame: int, draw: int
) -> tuple[Tensor, Tensor, Tensor]:
    """(a value per row, its log-probability at temperature 1, the largest log-probability at s.temperature)."""
    top = logits.max(-1, keepdim=True).values
    if s.temperature == 0:
        chosen = logits.argmax(-1)
    else:
        running = ((logits - top) / s.temperature).exp().double().cumsum(-1)
        u = torch.from_numpy(uniform(seed, position, step, frame, draw))
        chosen = (running <= u[:, None] * running[:, -1:]).sum(-1).clamp(max=logits.shape[1] - 1)
    picked = logits.gather(-1, chosen[:, None])
    log_p = (picked - top).squeeze(-1).double() - (logits - top).exp().double().sum(-1).log()
    return chosen, log_p, -((logits - top) / (s.temperature or 1)).exp().double().sum(-1).log()


def _filled(s: Sampler, step: int, P: int, masked: int) -> int:
    """How many masked positions a step fills."""
    if step == s.steps - 1:
        return masked
    if s.schedule != "exponential":
        kept = P * math.cos(math.pi / 2 * (step + 1) / s.steps)
        return max(masked - (math.floor(kept) if s.schedule == "cosine" else math.ceil(kept)), 0)
    wanted = math.ceil(P * math.expm1(5 * step / s.steps) / math.expm1(5)) - (P - masked)
    return min(max(wanted, P // 16, 1), masked)


@torch.no_grad()
def next_frame(model: Dynamics, past_TP: Tensor, actions_T: Tensor, s: Sampler, seed: int, frame: int) -> Tensor:
    """Sample the frame after `past_TP`, without a cache. actions_T: T+1 entries; the last leads to the new frame."""
    ids_P = torch.full((past_TP.shape[1],), model.mask_id)
    ahead = model.g.dynamics.prediction == "next-frame"
    for step in range(s.steps):
        if ahead:  # the same at every step
            logits = model(past_TP[None], actions_T[None, 1:])[0, -1]
        else:
            logits = model(torch.cat([past_TP, ids_P[None]])[None], actions_T[None])[0, -1]
        ids_P = fill(ids_P, logits, s, step, seed, frame, model.g.dynamics.factor_count)
        if (s.threshold > 0 or s.schedule == "exponential") and not (ids_P == model.mask_id).any():
            break
    return ids_P
