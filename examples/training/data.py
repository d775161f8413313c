"""Frames and actions as collected: `<split>.npz` with frames [N, L, H, W, 3] uint8 and actions [N, L-1] uint8."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor


class Clips:
    """Random windows of `length` frames from the episodes of one split, kept on `device`."""

    def __init__(self, folder: Path, split: str, length: int, device: str = "cpu") -> None:
        with np.load(folder / f"{split}.npz") as data:
            self.frames, self.actions = torch.from_numpy(data["frames"]).to(device), data["actions"]
            self.blocked = data["blocked"] if "blocked" in data else np.zeros(self.actions.shape, bool)
        self.length = length

    def batch(self, size: int, mixed: bool = False) -> Tensor:
        """[size, length, H, W, 3] float in [0, 1]. mixed: frames from anywhere, for models of single frames."""
        if mixed:
            shape = size, self.length
            return to_float(
                self.frames[torch.randint(len(self.frames), shape), torch.randint(self.frames.shape[1], shape)]
            )
        episode = torch.randint(len(self.frames), (size, 1))
        start = torch.randint(self.frames.shape[1] - self.length + 1, (size, 1))
        at = episode, start + torch.arange(self.length)
        return to_float(self.frames[at])

    def labelled(self, size: int) -> tuple[Tensor, Tensor]:
        """(as `batch`, keys [size, length-1], -1 where a wall was in the way)."""
        episode = torch.randint(len(self.frames), (size, 1))
        at = torch.randint(self.frames.shape[1] - self.length + 1, (size, 1)) + torch.arange(self.length)
        keys = np.where(self.blocked, -1, self.actions.astype(np.int64))[episode, at[:, 1:] - 1]
        return to_float(self.frames[episode, at]), torch.from_numpy(keys).to(self.frames.device)

    def windows(self, stride: int) -> tuple[Tensor, np.ndarray, np.ndarray]:
        """Every window: (frames [M, length, H, W, 3] uint8, actions and blocked [M, length-1])."""
        starts = range(0, self.frames.shape[1] - self.length + 1, stride)
        return (
            torch.cat([self.frames[:, s : s + self.length] for s in starts]),
            np.concatenate([self.actions[:, s : s + self.length - 1] for s in starts]),
            np.concatenate([self.blocked[:, s : s + self.length - 1] for s in starts]),
        )


def to_float(frames: Tensor) -> Tensor:
    return frames.float() / 255


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """Per-frame PSNR in dB of [..., H, W, 3] in [0, 1]; identical frames are given 100 dB."""
    mse = (a.clamp(0, 1) - b.clamp(0, 1)).square().mean((-3, -2, -1))
    return -10 * mse.clamp(min=1e-10).log10()
