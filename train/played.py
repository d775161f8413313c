"""Recorded walks as a dynamics model continues them from its own frames. They are the context in its training."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from genie_cpp.convert.reference import checkpoint
from genie_cpp.convert.reference.model import Genie
from genie_cpp.convert.writer import convert
from genie_cpp.model import Model
from genie_cpp.sampler import Sampler
from genie_cpp.train.dataset import Say
from genie_cpp.world import World

LOST = 0.6  # a frame with a smaller share of right tokens no longer shows its place


def opened(genie: Genie) -> Model:
    """The model as the C core plays it, in Q8_0 and one thread."""
    with tempfile.TemporaryDirectory() as folder:
        checkpoint.save(genie, Path(folder) / "world", training_parts=False)
        convert(Path(folder) / "world", Path(folder) / "world.gguf", "q8_0")
        return Model.open(Path(folder) / "world.gguf", threads=1, backend="cpu")


class Played:
    """Windows of (own tokens, true tokens, actions), played again through the C core every `every` samples."""

    def __init__(
        self,
        genie: Genie,
        ids_MTP: Tensor,
        actions_MT: Tensor,
        at_MT: NDArray[np.int64],
        walks: int,
        every: int,
        say: Say,
    ) -> None:
        """at_MT: the frames of each window. Windows of one clip follow each other and overlap by a frame at least."""
        self.genie, self.every, self.count, self.say = genie, every, 0, say
        self.true, self.actions = _walks(ids_MTP.numpy(), actions_MT.numpy(), at_MT)
        self.walks = min(walks, len(self.true))
        self.own: list[NDArray[np.int32]] = []

    def sample(self, batch: int, length: int) -> tuple[Tensor, Tensor, Tensor]:
        """(context, clean [B, T, P], actions [B, T], -1 first); plays again when it is due."""
        if self.count % self.every == 0:
            self._play()
        self.count += 1
        rng = np.random.default_rng(int(torch.randint(1 << 31, ())))
        context_BTP, clean_BTP, actions_BT = [], [], []
        for _ in range(batch):
            k = int(rng.integers(self.walks))
            own, true, actions = self.own[k], self.true[self.which[k]], self.actions[self.which[k]]
            s = int(rng.integers(len(true) - length + 1))
            context_BTP.append(own[s : s + length])
            clean_BTP.append(true[s : s + length])
            actions_BT.append(actions[s : s + length])
        context, clean, acted = np.stack(context_BTP), np.stack(clean_BTP), np.stack(actions_BT)
        acted[:, 0] = -1
        lost = (context == clean).mean(2, keepdims=True) < LOST
        context = np.where(lost.any(1, keepdims=True), clean, context)
        return torch.from_numpy(context).long(), torch.from_numpy(clean).long(), torch.from_numpy(acted).long()

    def _play(self) -> None:
        rng = np.random.default_rng(int(torch.randint(1 << 31, ())))
        self.which = rng.choice(len(self.true), self.walks, replace=False)
        model, self.own = opened(self.genie), []
        for walk in self.which:
            true, actions = self.true[walk], self.actions[walk]
            own = np.empty(true.shape, np.int32)
            world = World(model, Sampler(int(rng.choice([1, 1, 2])), float(rng.choice([0.0, 0.3, 1.0]))))
            world.reset_tokens(true[:1], seed=int(rng.integers(1 << 31)))
            own[0] = true[0]
            for t in range(1, len(own)):
                world.step(int(actions[t]))
                own[t] = world.tokens
            self.own.append(own)
        right = [(own == self.true[walk]).mean(1) for own, walk in zip(self.own, self.which, strict=True)]
        whole, end = np.concatenate(right).mean(), np.mean([r[-8:].mean() for r in right])
        self.say(f"own walks: {whole:.3f} of their tokens right, {end:.3f} at the end")


def _walks(
    ids_MTP: NDArray[np.int32], actions_MT: NDArray[np.int16], at_MT: NDArray[np.int64], most: int = 64
) -> tuple[list[NDArray[np.int32]], list[NDArray[np.int16]]]:
    """Windows joined to walks of at most about `most` frames: (tokens [L, P], actions [L] to each frame, -1 first)."""
    T = at_MT.shape[1]
    tokens, actions = [], []
    begin = 0
    for end in range(1, len(at_MT) + 1):
        goes_on = end < len(at_MT) and 0 < at_MT[end, 0] - at_MT[end - 1, 0] < T
        if goes_on and at_MT[end, -1] - at_MT[begin, 0] < most:
            continue
        first, length = at_MT[begin, 0], at_MT[end - 1, -1] - at_MT[begin, 0] + 1
        walk = np.empty((length, ids_MTP.shape[2]), np.int32)
        acted = np.full(length, -1, np.int16)
        for k in range(begin, end):
            offset = at_MT[k, 0] - first
            walk[offset : offset + T] = ids_MTP[k]
            acted[offset + 1 : offset + T] = actions_MT[k, 1:]
        tokens.append(walk)
        actions.append(acted)
        begin = end
    return tokens, actions
