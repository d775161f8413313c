"""The ST-transformer in plain fp32 PyTorch: the specification of the C stack executor.

Shapes: B batch, T frames, P tokens per frame, E embedding, H heads, D key length.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import StackConfig


class Norm(nn.Module):
    """RMSNorm x / sqrt(mean(x^2) + eps) * w, or LayerNorm with weight and bias, over the last dimension.

    With `actions` (FiLM) there is a row of weights for each action and a last one for none; `row_BT` picks a frame's.
    """

    def __init__(self, kind: str, length: int, epsilon: float, actions: int | None = None) -> None:
        super().__init__()
        self.epsilon = epsilon
        shape = (length,) if actions is None else (actions + 1, length)
        self.weight = nn.Parameter(torch.ones(shape))
        self.bias = nn.Parameter(torch.zeros(shape)) if kind == "layernorm" else None

    def forward(self, x: Tensor, row_BT: Tensor | None = None) -> Tensor:
        if row_BT is not None and self.weight.ndim == 2:
            weight = self.weight[row_BT][:, :, None]
            if self.bias is None:
                return F.rms_norm(x, x.shape[-1:], eps=self.epsilon) * weight
            return F.layer_norm(x, x.shape[-1:], eps=self.epsilon) * weight + self.bias[row_BT][:, :, None]
        if self.bias is not None:
            return F.layer_norm(x, x.shape[-1:], self.weight, self.bias, self.epsilon)
        return F.rms_norm(x, x.shape[-1:], self.weight, self.epsilon)


class Attention(nn.Module):
    """Multi-head attention over one axis; heads * key_length may differ from the embedding length.

    With qk_norm, q and k are RMS-normalised per head and scaled by a learned vector of key_length (section 2.1).
    """

    def __init__(self, c: StackConfig, kind: str, actions: int | None = None) -> None:
        super().__init__()
        self.kind, self.head_count, self.key_length = kind, c.head_count, c.key_length
        inner = c.head_count * c.key_length
        self.norm = Norm(c.norm, c.embedding_length, c.norm_epsilon, actions)
        self.q = nn.Linear(c.embedding_length, inner, bias=c.bias)
        self.k = nn.Linear(c.embedding_length, inner, bias=c.bias)
        self.v = nn.Linear(c.embedding_length, inner, bias=c.bias)
        self.out = nn.Linear(inner, c.embedding_length, bias=c.bias)
        self.q_norm = Norm("rmsnorm", c.key_length, c.norm_epsilon) if c.qk_norm else None
        self.k_norm = Norm("rmsnorm", c.key_length, c.norm_epsilon) if c.qk_norm else None

    def forward(self, y: Tensor, visible_TT: Tensor) -> Tensor:
        B, T, P, _ = y.shape
        heads = (B, T, P, self.head_count, self.key_length)
        q, k, v = (linear(y).view(heads) for linear in (self.q, self.k, self.v))
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q).to(v.dtype), self.k_norm(k).to(v.dtype)
        if self.kind == "spatial":  # (B T) H P D
            q, k, v = (z.permute(0, 1, 3, 2, 4) for z in (q, k, v))
            out = F.scaled_dot_product_attention(q, k, v).permute(0, 1, 3, 2, 4)
        elif self.kind == "temporal":  # (B P) H T D
            q, k, v = (z.permute(0, 2, 3, 1, 4) for z in (q, k, v))
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=visible_TT).permute(0, 3, 1, 2, 4)
        else:  # joint space-time: every token of every visible frame
            q, k, v = (z.reshape(B, T * P, self.head_count, -1).transpose(1, 2) for z in (q, k, v))
            mask = visible_TT.repeat_interleave(P, 0).repeat_interleave(P, 1)
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2)
        return self.out(out.reshape(B, T, P, -1))


class FeedForward(nn.Module):
    """up -> activation -> down; the gated kinds multiply by a second projection (act(gate x) * up x)."""

    def __init__(self, c: StackConfig, actions: int | None = None) -> None:
        super().__init__()
        self.kind = c.ffn
        self.norm = Norm(c.norm, c.embedding_length, c.norm_epsilon, actions)
        self.up = nn.Linear(c.embedding_length, c.feed_forward_length, bias=c.bias)
        gated = c.ffn in ("swiglu", "geglu")
        self.gate = nn.Linear(c.embedding_length, c.feed_forward_length, bias=c.bias) if gated else None
        self.down = nn.Linear(c.feed_forward_length, c.embedding_length, bias=c.bias)

    def forward(self, y: Tensor, visible_TT: Tensor) -> Tensor:
        up = self.up(y)
        if self.gate is not None:
            gate = self.gate(y)
            return self.down((F.silu(gate) if self.kind == "swiglu" else F.gelu(gate)) * up)
        if self.kind == "relu":
            return self.down(F.relu(up))
        return self.down(F.gelu(up, approximate="tanh" if self.kind == "gelu_tanh" else "none"))


class STStack(nn.Module):
    """x + pos_space[p] + pos_time[t], the blocks, a final norm and a linear head (output_length 0: none).

    actions: how many, where they condition the norms (FiLM).
    """

    def __init__(
        self, c: StackConfig, token_count: int, context_length: int, output_length: int, actions: int | None = None
    ) -> None:
        super().__init__()
        self.config = c
        self.pos_space = nn.Parameter(torch.randn(token_count, c.embedding_length) * 0.02)
        # A stack that never looks across time must not answer differently at different times.
        across_time = bool({"temporal", "spacetime"} & set(c.sublayers))
        time = torch.randn(context_length, c.embedding_length) * 0.02 * across_time
        self.pos_time = nn.Parameter(time, requires_grad=across_time)
        self.blk = nn.ModuleList(
            nn.ModuleDict({s: FeedForward(c, actions) if s == "ffn" else Attention(c, s, actions) for s in c.sublayers})
            for _ in range(c.block_count)
        )
        kind = c.output_norm or c.norm
        self.output_norm = nn.Identity() if kind == "none" else Norm(kind, c.embedding_length, c.norm_epsilon)
        self.output = nn.Linear(c.embedding_length, output_length) if output_length else nn.Identity()
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(
        self,
        x_BTPE: Tensor,
        visible_TT: Tensor | None = None,
        time_T: Tensor | None = None,
        last: int = 0,
        row_BT: Tensor | None = None,
    ) -> Tensor:
        """Returns [B, T, P, output], or only the `last` frames. `visible_TT[i, j]`: may i see j (default: causal).
        row_BT: the row of the norms of each frame, with FiLM."""
        T = x_BTPE.shape[1]
        if time_T is None:
            time_T = torch.arange(T, device=x_BTPE.device)
        if visible_TT is None:
            visible_TT = torch.ones(T, T, dtype=torch.bool, device=x_BTPE.device).tril()
        x = x_BTPE + self.pos_space + self.pos_time[time_T][:, None]
        for block in self.blk:
            for sublayer in block.values():
                if self.config.norm_position == "post":
                    x = sublayer.norm(x + sublayer(x, visible_TT), row_BT)
                else:
                    x = x + sublayer(sublayer.norm(x, row_BT), visible_TT)
        out: Tensor = self.output(self.output_norm(x[:, -last:]))
        return out


def patchify(video_BTHWC: Tensor, patch: int) -> Tensor:
    """[B, T, H, W, C] -> [B, T, P, patch * patch * C], vector order (row, column, channel)."""
    B, T, H, W, C = video_BTHWC.shape
    x = video_BTHWC.reshape(B, T, H // patch, patch, W // patch, patch, C)
    return x.permute(0, 1, 2, 4, 3, 5, 6).reshape(B, T, (H // patch) * (W // patch), patch * patch * C)


def unpatchify(x_BTPN: Tensor, height: int, width: int, patch: int) -> Tensor:
    """The inverse of `patchify`."""
    B, T, _, N = x_BTPN.shape
    C = N // (patch * patch)
    x = x_BTPN.reshape(B, T, height // patch, width // patch, patch, patch, C)
    return x.permute(0, 1, 2, 4, 3, 5, 6).reshape(B, T, height, width, C)
