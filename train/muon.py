"""Muon in float32. PyTorch's own computes in bf16, which a CPU without such instructions emulates: a step of Maze's
dynamics then takes seconds in the optimizer alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

# Of the quintic iteration: https://kellerjordan.github.io/posts/muon/
A, B, C, STEPS = 3.4445, -4.7750, 2.0315, 5


def orthogonal(grad_MN: Tensor) -> Tensor:
    """About U V^T of the gradient's singular value decomposition, by five Newton-Schulz steps."""
    tall = grad_MN.shape[0] > grad_MN.shape[1]
    x = grad_MN.T if tall else grad_MN
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(STEPS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=B, alpha=C), x, beta=A)
    return x.T if tall else x


class Muon(torch.optim.Optimizer):
    """As torch.optim.Muon: Nesterov momentum, decoupled weight decay, the same names in its state."""

    def __init__(self, params: Iterable[nn.Parameter], lr: float, weight_decay: float, momentum: float = 0.95) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                kept = self.state[p].setdefault("momentum_buffer", torch.zeros_like(p.grad))
                kept.lerp_(p.grad, 1 - group["momentum"])
                update = orthogonal(p.grad.lerp(kept, group["momentum"]))
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(update, alpha=-group["lr"] * math.sqrt(max(1, p.shape[0] / p.shape[1])))
