"""Recorded walks as a dynamics model continues them from its own frames. They are the context in its training."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from genie_cpp import Model, Sampler, World
from genie_cpp.convert.reference import checkpoint
from genie_cpp.convert.reference.model import Genie
from genie_cpp.convert.writer import convert

LOST = 0.6  # a frame with a smaller share of right tokens no longer shows its place


class Played:
    """Windows of (own tokens, true tokens, actions), played again through the C core every `every` samples."""

    def __init__(self, genie: Genie, ids_MTP: Tensor, actions_MT: Tensor, stride: int, walks: int, every: int) -> None:
        """ids_MTP, actions_MT: overlapping windows from `tokenized`; those that begin an episode come first."""
        self.genie, self.walks, self.every, self.count = genie, walks, every, 0
        T = ids_MTP.shape[1]
        starts = len(ids_MTP) // _episodes(ids_MTP, stride)
        by_start = ids_MTP.unflatten(0, (starts, -1)).numpy(), actions_MT.unflatten(0, (starts, -1)).numpy()
        # Windows overlap: take from each the frames that the next one does not have.
        self.true, self.actions = (
            np.concatenate([*(a[k, :, : min(stride, T)] for k in range(starts - 1)), a[-1]], 1) for a in by_start
        )
        for k in range(1, starts):  # a window lacks the action of its first frame; the window before has it
            if stride < T:
                self.actions[:, k * stride] = by_start[1][k - 1][:, stride]
        self.own: np.ndarray | None = None

    def sample(self, batch: int, length: int) -> tuple[Tensor, Tensor, Tensor]:
        """(context, clean [B, T, P], actions [B, T], -1 first); plays again when it is due."""
        if self.count % self.every == 0:
            self._play()
        self.count += 1
        assert self.own is not None
        rng = np.random.default_rng(int(torch.randint(1 << 31, ())))
        pairs = [
            (int(rng.integers(self.walks)), int(rng.integers(self.true.shape[1] - length + 1))) for _ in range(batch)
        ]
        context = np.stack([self.own[k, s : s + length] for k, s in pairs])
        clean = np.stack([self.true[self.which[k], s : s + length] for k, s in pairs])
        actions = np.stack([self.actions[self.which[k], s : s + length] for k, s in pairs]).copy()
        actions[:, 0] = -1
        lost = (context == clean).mean(2, keepdims=True) < LOST
        context = np.where(lost.any(1, keepdims=True), clean, context)
        return torch.from_numpy(context).long(), torch.from_numpy(clean).long(), torch.from_numpy(actions).long()

    def _play(self) -> None:
        rng = np.random.default_rng(int(torch.randint(1 << 31, ())))
        self.which = rng.choice(len(self.true), self.walks, replace=False)
        own = np.empty((self.walks, *self.true.shape[1:]), np.int32)
        with tempfile.TemporaryDirectory() as folder:
            checkpoint.save(self.genie, Path(folder) / "world", training_parts=False)
            convert(Path(folder) / "world", Path(folder) / "world.gguf", "q8_0")
            model = Model.open(Path(folder) / "world.gguf", threads=1, backend="cpu")
        for k, episode in enumerate(self.which):
            world = World(model, Sampler(int(rng.choice([1, 1, 2])), float(rng.choice([0.0, 0.3, 1.0]))))
            world.reset_tokens(self.true[episode, :1], seed=int(rng.integers(1 << 31)))
            own[k, 0] = self.true[episode, 0]
            for t in range(1, own.shape[1]):
                world.step(int(self.actions[episode, t]))
                own[k, t] = world.tokens
        self.own = own
        print(
            f"own walks: {(own == self.true[self.which]).mean():.3f} of their tokens right, "
            f"{(own == self.true[self.which])[:, -8:].mean():.3f} at the end",
            flush=True,
        )


def _episodes(ids_MTP: Tensor, stride: int) -> int:
    """The number of episodes, found from the first episode: its second window begins as its first one goes on."""
    T = ids_MTP.shape[1]
    if stride >= T:
        raise ValueError("own walks need windows that overlap: a --stride below the context length")
    overlap = ids_MTP[0, stride:]
    for k in range(1, len(ids_MTP)):
        if (ids_MTP[k, : T - stride] == overlap).all() and len(ids_MTP) % k == 0:
            return k
    return len(ids_MTP)
