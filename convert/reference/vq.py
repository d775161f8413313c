"""Quantizers: a codebook of unit vectors, updated by an exponential moving average (VQ-VAE); and FSQ."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genie_cpp.convert.reference.config import ConfigError


class VectorQuantizer(nn.Module):
    """Codes lie on the unit sphere, so the nearest code by L2 is also the one with the largest dot product."""

    codebook: Tensor
    usage: Tensor

    def __init__(self, codebook_size: int, latent_length: int, decay: float = 0.98, revive_below: float = 0.01) -> None:
        super().__init__()
        self.decay, self.revive_below = decay, revive_below
        self.register_buffer("codebook", F.normalize(torch.randn(codebook_size, latent_length), dim=-1))
        self.register_buffer("usage", torch.ones(codebook_size), persistent=False)
        self.register_buffer("total", self.codebook.clone(), persistent=False)
        self.steps = 0
        # Share of samples that pass unquantized in training. A decoder that never sees continuous latents gets no
        # gradient towards what the codes do not express yet. A few continuous ones show it what could be expressed.
        self.bypass = 0.0

    def encode(self, z: Tensor) -> Tensor:
        """[..., latent] -> ids [...]; of equally near codes, the first wins."""
        with torch.autocast(z.device.type, enabled=False):  # in bf16 many codes would be equally near
            return (z.float() @ self.codebook.T).argmax(-1)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns (quantized with straight-through gradient, ids, commitment loss)."""
        z = F.normalize(z.float(), dim=-1)
        if self.training:
            # An untrained encoder maps everything to one direction. Take codes from its outputs until these spread.
            if self.steps in (0, 10, 30, 60, 100):
                self._restart(torch.arange(len(self.codebook), device=z.device), z)
            self.steps += 1
        ids = self.encode(z)
        codes = F.embedding(ids, self.codebook)
        commitment = F.mse_loss(z, codes.detach())
        if self.training:
            self._update(z.detach(), ids)
        quantized = z + (codes - z).detach()
        if self.training and self.bypass > 0:
            through = torch.rand(z.shape[:1] + (1,) * (z.ndim - 1), device=z.device) < self.bypass
            quantized = torch.where(through, z, quantized)
        return quantized, ids, commitment

    @torch.no_grad()
    def _update(self, z: Tensor, ids: Tensor) -> None:
        z, ids = z.reshape(-1, z.shape[-1]), ids.reshape(-1)
        count = torch.zeros_like(self.usage).index_add_(0, ids, torch.ones_like(ids, dtype=z.dtype))
        total = torch.zeros_like(self.codebook).index_add_(0, ids, z)
        # Usage is a share relative to uniform use, so that one threshold fits every batch and codebook size.
        scale = len(self.codebook) / len(ids)
        self.usage.lerp_(count * scale, 1 - self.decay)
        self.total.lerp_(total * scale, 1 - self.decay)
        self.codebook.copy_(F.normalize(self.total, dim=-1))
        self._restart((self.usage < self.revive_below).nonzero().flatten(), z)

    @torch.no_grad()
    def _restart(self, dead: Tensor, z: Tensor) -> None:
        if len(dead):
            z = z.reshape(-1, z.shape[-1])
            # Samples far from their code are the likeliest (k-means++); else rare samples never become codes.
            distance = 1 - F.embedding(self.encode(z), self.codebook).mul(z).sum(-1)
            picked = z[torch.multinomial(distance.clamp(min=0) + 1e-6, len(dead), replacement=True)]
            self.codebook[dead] = picked
            self.total[dead] = picked
            self.usage[dead] = 1.0


class FiniteScalarQuantizer(nn.Module):
    """FSQ (arXiv 2309.15505): tanh, then round each of `length` digits, half to even, to one of `bins` values in -1…1.

    The first digit is the least significant. The codes are constants, not weights.
    """

    codebook: Tensor
    place: Tensor

    def __init__(self, codebook_size: int, length: int) -> None:
        super().__init__()
        self.bins = round(codebook_size ** (1 / length))
        if self.bins < 2 or self.bins**length != codebook_size:
            raise ConfigError(f"no whole number of bins to the power of {length} makes {codebook_size} codes")
        self.register_buffer("place", self.bins ** torch.arange(length), persistent=False)
        digits = torch.arange(codebook_size)[:, None] // self.place % self.bins
        self.register_buffer("codebook", 2 * digits.float() / (self.bins - 1) - 1, persistent=False)

    def _bounded(self, z: Tensor) -> Tensor:
        return 0.5 * (torch.tanh(z.float()) + 1) * (self.bins - 1)

    def encode(self, z: Tensor) -> Tensor:
        """[..., length] -> ids [...]."""
        return (self._bounded(z).round().long() * self.place).sum(-1)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns (quantized with straight-through gradient, ids, 0)."""
        bounded = self._bounded(z)
        digits = bounded + (bounded.round() - bounded).detach()
        return 2 * digits / (self.bins - 1) - 1, self.encode(z), z.new_zeros(())
