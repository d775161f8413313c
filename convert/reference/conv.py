"""A convolutional network as a list of layers, in fp32 PyTorch. It specifies the C core's networks (docs/gguf.md)."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


class NormSiLU(nn.Module):
    """silu(GroupNorm(x))."""

    def __init__(self, groups: int, channels: int, epsilon: float) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels, eps=epsilon)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return F.silu(self.norm(x_BCHW))


class Residual(nn.Module):
    """x + conv2(silu(norm2(conv(silu(norm(x)))))), with x through a 1 x 1 convolution if the channels change."""

    def __init__(self, channels: int, out: int, groups: int, epsilon: float) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels, eps=epsilon)
        self.conv = nn.Conv2d(channels, out, 3, padding=1, bias=False)
        self.norm2 = nn.GroupNorm(groups, out, eps=epsilon)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.shortcut = nn.Identity() if channels == out else nn.Conv2d(channels, out, 1, bias=False)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y = self.conv(F.silu(self.norm(x_BCHW)))
        out: Tensor = self.shortcut(x_BCHW) + self.conv2(F.silu(self.norm2(y)))
        return out


class Plain(nn.Module):
    """conv3, conv1, down or up."""

    def __init__(self, kind: str, channels: int, out: int) -> None:
        super().__init__()
        self.up = kind == "up"
        side, stride = (1 if kind == "conv1" else 3), (2 if kind == "down" else 1)
        self.conv = nn.Conv2d(channels, 4 * out if self.up else out, side, stride, side // 2)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y: Tensor = self.conv(x_BCHW)
        if not self.up:
            return y
        B, C, H, W = y.shape
        y = y.view(B, 2, 2, C // 4, H, W).permute(0, 3, 4, 1, 5, 2)
        return y.reshape(B, C // 4, 2 * H, 2 * W)


class ConvNet(nn.Module):
    """words: as in the GGUF, e.g. ("conv3-128", "res-256", "down-256", "norm", "conv1-18")."""

    def __init__(self, words: Sequence[str], channels: int, groups: int, epsilon: float) -> None:
        super().__init__()
        self.layer = nn.ModuleList()
        for word in words:
            kind, _, digits = word.partition("-")
            out = int(digits) if digits else channels
            if kind == "norm":
                self.layer.append(NormSiLU(groups, channels, epsilon))
            elif kind == "res":
                self.layer.append(Residual(channels, out, groups, epsilon))
            else:
                self.layer.append(Plain(kind, channels, out))
            channels = out

    def forward(self, x_BCHW: Tensor) -> Tensor:
        for layer in self.layer:
            x_BCHW = layer(x_BCHW)
        return x_BCHW
