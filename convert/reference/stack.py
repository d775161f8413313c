"""The ST-transformer in plain fp32 PyTorch. It specifies the C stack executor.

Shapes: B batch, T frames, P tokens per frame, E embedding, H heads, D key length.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genie_cpp.spec.stack_spec import StackParams, kind_of


class Norm(nn.Module):
    """RMSNorm x / sqrt(mean(x^2) + eps) * w, or LayerNorm with weight and bias, over the last dimension.

    With `actions` (FiLM) there is a row of weights for each action and a last row for none; `row_BT`: each frame's row.
    """

    def __init__(
        self, kind: str, length: int, epsilon: float, actions: int | None = None, seen: int | None = None
    ) -> None:
        """seen: how many leading values count; the others are zero and stay zero."""
        super().__init__()
        self.epsilon, self.seen = epsilon, seen or length
        shape = (length,) if actions is None else (actions + 1, length)
        self.weight = nn.Parameter(torch.ones(shape))
        self.bias = nn.Parameter(torch.zeros(shape)) if kind == "layernorm" else None

    def forward(self, x: Tensor, row_BT: Tensor | None = None) -> Tensor:
        if self.seen == x.shape[-1]:
            return self._normed(x, self.weight, self.bias, row_BT)
        bias = None if self.bias is None else self.bias[..., : self.seen]
        y = self._normed(x[..., : self.seen], self.weight[..., : self.seen], bias, row_BT)
        return F.pad(y, (0, x.shape[-1] - self.seen))

    def _normed(self, x: Tensor, w: Tensor, b: Tensor | None, row_BT: Tensor | None) -> Tensor:
        if row_BT is not None and w.ndim == 2:
            weight = w[row_BT][:, :, None]
            if b is None:
                return F.rms_norm(x, x.shape[-1:], eps=self.epsilon) * weight
            return F.layer_norm(x, x.shape[-1:], eps=self.epsilon) * weight + b[row_BT][:, :, None]
        if b is not None:
            return F.layer_norm(x, x.shape[-1:], w, b, self.epsilon)
        return F.rms_norm(x, x.shape[-1:], w, self.epsilon)


class NoNorm(nn.Module):
    """Stands in for a missing norm."""

    def forward(self, x: Tensor, row_BT: Tensor | None = None) -> Tensor:
        return x


def _norm(c: StackParams, sublayer: str, actions: int | None) -> nn.Module:
    return (
        NoNorm()
        if kind_of(sublayer) in c.unnormed
        else Norm(c.norm, c.embedding_length, c.norm_epsilon, actions, c.norm_length)
    )


class Attention(nn.Module):
    """Multi-head attention over one axis. heads * key_length may differ from the embedding length.

    With qk_norm, q and k are normalised per head and scaled by a learned vector of key_length (section 2.1). kv: the
    input of keys and values, if it is not y. bias: added to the scores, [H, P, P] or [H, T, T].
    """

    def __init__(self, c: StackParams, kind: str, actions: int | None = None) -> None:
        super().__init__()
        self.kind, self.head_count, self.key_length = kind, c.head_count, c.key_length
        inner = c.head_count * c.key_length
        self.norm = _norm(c, kind, actions)
        self.q = nn.Linear(c.embedding_length, inner, bias=c.bias)
        self.k = nn.Linear(c.embedding_length, inner, bias=c.bias)
        self.v = nn.Linear(c.embedding_length, inner, bias=c.bias)
        self.out = nn.Linear(inner, c.embedding_length, bias=c.bias)
        epsilon = c.qk_norm_epsilon or c.norm_epsilon
        self.q_norm = Norm(c.qk_norm_kind, c.key_length, epsilon) if c.qk_norm else None
        self.k_norm = Norm(c.qk_norm_kind, c.key_length, epsilon) if c.qk_norm else None

    def forward(self, y: Tensor, visible_TT: Tensor, kv: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        B, T, P, _ = y.shape
        heads = (B, T, P, self.head_count, self.key_length)
        kv = y if kv is None else kv
        q, k, v = self.q(y).view(heads), self.k(kv).view(heads), self.v(kv).view(heads)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q).to(v.dtype), self.k_norm(k).to(v.dtype)
        if self.kind == "spatial":  # (B T) H P D
            q, k, v = (z.permute(0, 1, 3, 2, 4) for z in (q, k, v))
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias).permute(0, 1, 3, 2, 4)
        elif self.kind == "temporal":  # (B P) H T D
            q, k, v = (z.permute(0, 2, 3, 1, 4) for z in (q, k, v))
            mask = visible_TT if bias is None else bias.masked_fill(~visible_TT, -torch.inf)
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask).permute(0, 3, 1, 2, 4)
        else:  # joint space-time: every token of every visible frame
            q, k, v = (z.reshape(B, T * P, self.head_count, -1).transpose(1, 2) for z in (q, k, v))
            mask = visible_TT.repeat_interleave(P, 0).repeat_interleave(P, 1)
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2)
        return self.out(out.reshape(B, T, P, -1))


class Experts(nn.Module):
    """One linear map per expert: [..., X, in] -> [..., X, out]."""

    def __init__(self, experts: int, wide: int, tall: int, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.init.trunc_normal_(torch.empty(experts, tall, wide), std=0.02))
        self.bias = nn.Parameter(torch.zeros(experts, tall)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        y = torch.einsum("...xi,xoi->...xo", x, self.weight)
        return y if self.bias is None else y + self.bias


# The activation of each kind of FFN: without and with a second matrix as a gate.
PLAIN: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": functools.partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
    "relu2": lambda x: F.relu(x).square(),  # arXiv 2109.08668
}
GATED: dict[str, Callable[[Tensor], Tensor]] = {"swiglu": F.silu, "geglu": F.gelu}


class FeedForward(nn.Module):
    """up -> activation -> down. The gated kinds multiply by a second projection (act(gate x) * up x).

    With experts, all of them run. A token takes those with the largest router outputs, weighted by a softmax over these
    outputs.
    """

    def __init__(self, c: StackParams, actions: int | None = None) -> None:
        super().__init__()
        self.kind = c.ffn
        self.norm = _norm(c, "ffn", actions)
        self.used = c.expert_used_count
        self.router = nn.Linear(c.embedding_length, c.expert_count, bias=False) if c.expert_count else None

        def linear(wide: int, tall: int) -> nn.Module:
            if c.expert_count:
                return Experts(c.expert_count, wide, tall, c.bias)
            return nn.Linear(wide, tall, bias=c.bias)

        self.up = linear(c.embedding_length, c.feed_forward_length)
        self.gate = linear(c.embedding_length, c.feed_forward_length) if c.ffn in GATED else None
        self.down = linear(c.feed_forward_length, c.embedding_length)

    def forward(self, y: Tensor, visible_TT: Tensor) -> Tensor:
        if self.router is None or self.used is None:
            return self._run(y)
        wanted = self.router(y)
        best, which = wanted.topk(self.used, dim=-1)
        share = torch.zeros_like(wanted).scatter(-1, which, best.softmax(-1))
        return (share[..., None] * self._run(y[..., None, :].expand(*wanted.shape, -1))).sum(-2)

    def _run(self, y: Tensor) -> Tensor:
        # An unknown kind must raise an error here, not fall back to another kind.
        if self.gate is not None:
            return self.down(GATED[self.kind](self.gate(y)) * self.up(y))
        return self.down(PLAIN[self.kind](self.up(y)))


class Peg(nn.Module):
    """Position encoding generator (arXiv 2102.10882): a depthwise 3 x 3 x 3 convolution, causal in time."""

    def __init__(self, c: StackParams, grid: tuple[int, int]) -> None:
        super().__init__()
        self.grid = grid  # columns, rows
        self.conv = nn.Module()
        self.conv.weight = nn.Parameter(torch.randn(27, c.embedding_length) * 0.02)  # frame by frame, row by row
        self.conv.bias = nn.Parameter(torch.zeros(c.embedding_length))

    def forward(self, x: Tensor) -> Tensor:
        B, T, P, E = x.shape
        columns, rows = self.grid
        frames = F.pad(x.reshape(B, T, rows, columns, E).permute(0, 4, 1, 2, 3), (1, 1, 1, 1, 2, 0))
        taps = self.conv.weight.T.reshape(E, 1, 3, 3, 3)
        return F.conv3d(frames, taps, self.conv.bias, groups=E).permute(0, 2, 3, 4, 1).reshape(B, T, P, E)


class Input(nn.Linear):
    """Features -> embeddings: a matrix. With `dual` norms also a layer norm before (without weights) and after."""

    def __init__(self, c: StackParams, length: int) -> None:
        super().__init__(length, c.embedding_length)
        self.epsilon = c.norm_epsilon
        wanted = c.input_norm == "dual"
        self.norm = Norm("layernorm", c.embedding_length, c.norm_epsilon, None, c.norm_length) if wanted else None

    def forward(self, x: Tensor) -> Tensor:
        if self.norm is None:
            return super().forward(x)
        out: Tensor = self.norm(super().forward(F.layer_norm(x, x.shape[-1:], eps=self.epsilon)))
        return out


def by_frame(module: nn.Module, first: nn.Module | None, x_BT: Tensor) -> Tensor:
    """`first` (if any) on the first frame, and `module` on the others."""
    out: Tensor = module(x_BT) if first is None else torch.cat([first(x_BT[:, :1]), module(x_BT[:, 1:])], 1)
    return out


def alibi_slopes(heads: int) -> Tensor:
    """How much each frame of distance lowers the scores, per head (arXiv 2108.12409)."""
    near = 2 ** (heads.bit_length() - 1)
    slopes = [2 ** (-8 * (i + 1) / near) for i in range(near)]
    return torch.tensor(slopes + [2 ** (-4 * (2 * i + 1) / near) for i in range(heads - near)])


class STStack(nn.Module):
    """Positions, the blocks, a final norm and a linear head (output_length 0: none).

    grid: columns and rows of a frame's tokens. actions: their number, if they condition the norms (FiLM).
    """

    def __init__(
        self,
        c: StackParams,
        grid: tuple[int, int],
        context_length: int,
        output_length: int,
        actions: int | None = None,
    ) -> None:
        super().__init__()
        self.config, self.grid = c, grid
        E, token_count = c.embedding_length, grid[0] * grid[1]
        # A stack that never attends across time must not give different results at different times.
        across_time = bool({"temporal", "spacetime"} & set(c.sublayers))
        if c.position == "separate":
            self.pos_space = nn.Parameter(torch.randn(token_count, E) * 0.02)
            time = torch.randn(context_length, E) * 0.02 * across_time
            self.pos_time = nn.Parameter(time, requires_grad=across_time)
        elif c.position == "joint":
            self.pos = nn.Parameter(torch.randn(context_length * token_count, E) * 0.02)
        if c.spatial_bias == "relative":
            self.spatial_bias = nn.Parameter(torch.randn(c.head_count, (2 * grid[0] - 1) * (2 * grid[1] - 1)) * 0.02)
        if c.temporal_bias == "alibi":
            self.register_buffer("temporal_bias", alibi_slopes(c.head_count))

        def sublayer(name: str) -> nn.Module:
            if name.startswith("peg"):
                return Peg(c, grid)
            return FeedForward(c, actions) if name.startswith("ffn") else Attention(c, name, actions)

        self.blk = nn.ModuleList(
            nn.ModuleDict({name: sublayer(name) for name in c.sublayers}) for _ in range(c.block_count)
        )
        kind = c.output_norm or c.norm
        self.output_norm = nn.Identity() if kind == "none" else Norm(kind, E, c.norm_epsilon, None, c.norm_length)
        self.output_first = nn.Linear(E, output_length) if output_length and c.first_frame == "output" else None
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
        """Returns [B, T, P, output], or only the `last` frames. `visible_TT[i, j]`: whether i sees j (default: causal).
        row_BT: with FiLM, the row of the norm weights for each frame."""
        T = x_BTPE.shape[1]
        if time_T is None:
            time_T = torch.arange(T, device=x_BTPE.device)
        if visible_TT is None:
            visible_TT = torch.ones(T, T, dtype=torch.bool, device=x_BTPE.device).tril()
        x = x_BTPE
        if self.config.position == "separate":
            x = x + self.pos_space + self.pos_time[time_T][:, None]
        elif self.config.position == "joint":
            x = x + self.pos.view(-1, *x.shape[2:])[time_T]
        biases = self._biases(time_T)
        for block in self.blk:
            for name, sublayer in block.items():
                if name.startswith("peg"):
                    x = x + sublayer(x)
                    continue
                more = (visible_TT,)
                if not name.startswith("ffn"):
                    kv = x if self.config.kv_input == "residual" else None
                    more = (visible_TT, kv, biases.get(name))  # type: ignore[assignment]
                if self.config.norm_position == "post":
                    x = sublayer.norm(x + sublayer(x, *more), row_BT)
                else:
                    x = x + sublayer(sublayer.norm(x, row_BT), *more)
        if self.output_first is not None:
            return by_frame(self.output, self.output_first, self.output_norm(x))[:, -last:]
        out: Tensor = self.output(self.output_norm(x[:, -last:]))
        return out

    def _biases(self, time_T: Tensor) -> dict[str, Tensor]:
        """Added to the scores, by kind of attention: [H, P, P] and [H, T, T]."""
        found: dict[str, Tensor] = {}
        columns, rows = self.grid
        if self.config.spatial_bias == "relative":
            p = torch.arange(columns * rows, device=time_T.device)
            down = p[None] // columns - p[:, None] // columns + rows - 1
            right = p[None] % columns - p[:, None] % columns + columns - 1
            found["spatial"] = self.spatial_bias[:, down * (2 * columns - 1) + right]
        if self.config.temporal_bias == "alibi":
            found["temporal"] = -self.temporal_bias[:, None, None] * (time_T[:, None] - time_T[None]).abs()
        return found


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
