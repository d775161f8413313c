"""The MaskGIT sampler of docs/sampling.md in PyTorch: the oracle of the C kernel and of whole generations."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .model import Dynamics
from .philox import uniform


@dataclass(frozen=True)
class Sampler:
    steps: int = 8
    temperature: float = 1.0
    order: str = "confidence"
    noise: float = 0.0
    threshold: float = 0.0
    schedule: str = "cosine"


def fill(ids_P: Tensor, logits_PV: Tensor, s: Sampler, step: int, seed: int, frame: int) -> Tensor:
    """Steps 2-5 for one frame: ids with masks (= V) and this step's logits -> ids with fewer masks."""
    P, V = logits_PV.shape
    masked = (ids_P == V).nonzero().flatten()
    logits = logits_PV[masked].float()
    top = logits.max(-1, keepdim=True).values
    position = masked.numpy()
    if s.temperature == 0:
        chosen = logits.argmax(-1)
    else:
        running = ((logits - top) / s.temperature).exp().double().cumsum(-1)
        u = torch.from_numpy(uniform(seed, position, step, frame, 0))
        chosen = (running <= u[:, None] * running[:, -1:]).sum(-1).clamp(max=V - 1)
    picked = logits.gather(-1, chosen[:, None])
    log_p = (picked - top).squeeze(-1).double() - (logits - top).exp().double().sum(-1).log()
    if s.order == "random":
        quality = torch.from_numpy(uniform(seed, position, step, frame, 1))
    else:
        quality = log_p
        if s.order == "largest-probability":
            quality = -((logits - top) / (s.temperature or 1)).exp().double().sum(-1).log()
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


def _filled(s: Sampler, step: int, P: int, masked: int) -> int:
    """How many of the masked positions a step fills."""
    if step == s.steps - 1:
        return masked
    if s.schedule == "cosine":
        return max(masked - math.floor(P * math.cos(math.pi / 2 * (step + 1) / s.steps)), 0)
    wanted = math.ceil(P * math.expm1(5 * step / s.steps) / math.expm1(5)) - (P - masked)
    return min(max(wanted, P // 16, 1), masked)


@torch.no_grad()
def next_frame(model: Dynamics, past_TP: Tensor, actions_T: Tensor, s: Sampler, seed: int, frame: int) -> Tensor:
    """Sample the frame after `past_TP`. actions_T holds T+1 entries, the last one leads to the new frame; no cache."""
    ids_P = torch.full((past_TP.shape[1],), model.mask_id)
    ahead = model.g.dynamics.prediction == "next-frame"
    for step in range(s.steps):
        if ahead:  # the same at every step
            logits = model(past_TP[None], actions_T[None, 1:])[0, -1]
        else:
            logits = model(torch.cat([past_TP, ids_P[None]])[None], actions_T[None])[0, -1]
        ids_P = fill(ids_P, logits, s, step, seed, frame)
        if (s.threshold > 0 or s.schedule != "cosine") and not (ids_P == model.mask_id).any():
            break
    return ids_P
