"""What a part begins with."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genie_cpp.convert.reference import checkpoint
from genie_cpp.convert.reference.model import Genie, Tokenizer
from genie_cpp.convert.reference.vq import VectorQuantizer
from genie_cpp.train.dataset import Dataset


@torch.no_grad()
def spread(codes_KL: Tensor) -> Tensor:
    """The same number of unit vectors, pushed apart from each other."""
    codes = F.normalize(codes_KL.clone(), dim=-1)
    for _ in range(500):
        near = (codes @ codes.T - 2 * torch.eye(len(codes), device=codes.device)).exp()
        codes = F.normalize(codes - 0.1 * near @ codes / near.sum(1, keepdim=True), dim=-1)
    return codes


def waves(rows: int, columns: int, length: int) -> Tensor:
    """[rows * columns, length] sines of row and column, 2 to 32 places long: they show which tokens are neighbours."""
    frequency = math.pi * (1 / 16) ** torch.linspace(0, 1, length // 4)
    y, x = torch.arange(rows)[:, None] * frequency, torch.arange(columns)[:, None] * frequency
    y, x = torch.cat([y.sin(), y.cos()], 1)[:, None], torch.cat([x.sin(), x.cos()], 1)[None]
    found = 0.03 * torch.cat([y.expand(-1, columns, -1), x.expand(rows, -1, -1)], -1).flatten(0, 1)
    return F.pad(found, (0, length - found.shape[1]))


@torch.no_grad()
def same_everywhere(model: Tokenizer) -> None:
    """Make an encoder of single patches give a patch the same code at every place. When the picture moves by whole
    patches, the codes then move with it, and the dynamics have nothing else to learn about that."""
    if model.g.tokenizer.encoder.sublayers == ("ffn",):
        positions = model.encoder.pos_space
        positions.copy_(positions.mean(0).expand_as(positions))
        positions.requires_grad_(False)


@torch.no_grad()
def begin_from(genie: Genie, folder: Path) -> None:
    """Take the weights of a native checkpoint. Raises ConfigError, RuntimeError (tensors do not fit)."""
    genie.load_state_dict(checkpoint.load(folder).state_dict())
    for module in genie.modules():
        if isinstance(module, VectorQuantizer):
            module.total.copy_(module.codebook)
            module.steps = 1000  # its codes are already spread


def parts_of_steps(clips: Dataset, patch: int, pairs: int = 64) -> int:
    """1, 2 or 4: by whole patches, halves or less the picture moves, for `ShiftDecoder`.

    Found from pairs of frames that a shift of the whole picture explains better than standing still. If there are few,
    as with a fixed camera, 2.
    """
    windows = clips.windows(1)
    found = []
    for window in windows[np.linspace(0, len(windows) - 1, pairs).astype(int)]:
        before, after = (clips.frames[at].mean(-1) for at in window[:2])
        H, W = before.shape
        inner = after[patch : H - patch, patch : W - patch]
        errors = {
            (y, x): float(np.square(before[patch + y : H - patch + y, patch + x : W - patch + x] - inner).mean())
            for y in range(-patch, patch + 1)
            for x in range(-patch, patch + 1)
        }
        best = min(errors, key=errors.__getitem__)
        if errors[best] < 0.5 * errors[0, 0]:
            found.append(best)
    if len(found) < pairs // 8:
        return 2
    for parts in (1, 2):
        if np.mean([y % (patch // parts) == 0 and x % (patch // parts) == 0 for y, x in found]) >= 0.9:
            return parts
    return 4


def device_of(model: nn.Module) -> torch.device:
    return next(model.parameters()).device
