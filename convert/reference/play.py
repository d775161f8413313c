"""A world in plain PyTorch that recomputes its whole window at every step: tests compare `genie_cpp.World` with it."""

from __future__ import annotations

import torch
from torch import Tensor

from genie_cpp.convert.reference.model import Genie
from genie_cpp.convert.reference.sampler import Sampler, next_frame


class ReferenceWorld:
    """Token-level play with the window policies of docs/sampling.md and without a key/value cache."""

    def __init__(self, genie: Genie, sampler: Sampler, window: str, seed: int = 0) -> None:
        self.genie, self.sampler, self.window, self.seed = genie, sampler, window, seed
        self.ids_TP: list[Tensor] = []
        self.actions: list[int] = []
        self.frame_number = 0

    def reset(self, ids_P: Tensor) -> None:
        self.ids_TP, self.actions, self.frame_number = [ids_P], [-1], 1

    def step(self, action: int) -> Tensor:
        length = self.genie.config.context_length
        if len(self.ids_TP) == length:
            keep = length - 1 if self.window == "exact" else (length + 1) // 2
            self.ids_TP, self.actions = self.ids_TP[-keep:], [-1, *self.actions[-keep + 1 :]] if keep > 1 else [-1]
        self.actions.append(action)
        ids_P = next_frame(
            self.genie.dynamics,
            torch.stack(self.ids_TP),
            torch.tensor(self.actions),
            self.sampler,
            self.seed,
            self.frame_number,
        )
        self.ids_TP.append(ids_P)
        self.frame_number += 1
        return ids_P
