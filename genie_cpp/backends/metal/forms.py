"""The MLX implementation of everything that a stack's description can name. The rest is refused.

A new field or value in `stack_spec` is refused until it has a row here; a test compares the two. Shapes in names:
P tokens, E embedding, H heads, D key length, t past frames.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np

from genie_cpp.errors import ModelError
from genie_cpp.spec.stack_spec import StackSpec, Sublayer

# The implemented values of each field of StackParams or StackSpec.
CHOICES: dict[str, tuple[str, ...]] = {
    "norm": ("rmsnorm", "layernorm"),
    "norm_position": ("pre", "post"),
    "output_norm": ("rmsnorm", "layernorm", "none"),
    "qk_norm_kind": ("rmsnorm", "layernorm"),
    "kv_input": ("norm", "residual"),
    "ffn": ("gelu", "gelu_tanh", "relu", "swiglu", "geglu", "relu2"),
    "position": ("separate", "joint", "none"),
    "spatial_bias": ("none", "relative"),
    "temporal_bias": ("none", "alibi"),
    "input_norm": ("none", "dual"),
    "first_frame": ("none", "input", "output"),
    "conditioning": ("add", "film"),
}
# Fields that are numbers, flags or lists: every value that the C core accepts works here too.
FREE = frozenset(
    "block_count embedding_length head_count key_length feed_forward_length norm_length qk_norm qk_norm_epsilon "
    "norm_epsilon bias sublayers unnormed expert_count expert_used_count params token_count grid_width context_length "
    "input_length input_rows action_count output_length factor_count".split()
)

# Tensors, without ".weight", by use: multiplied; looked up; vectors (with FiLM a norm has a row per action).
MATRICES = frozenset("input input_first output output_first q k v out up gate down router".split())
EXPERTS = frozenset("up gate down".split())  # one for each expert, if there are experts
TABLES = frozenset("token_embd action_embd pos_space pos_time pos spatial_bias conv".split())
VECTORS = frozenset(
    "input.bias input_norm input_norm.bias input_first.bias input_first_norm input_first_norm.bias output_norm "
    "output_norm.bias output.bias output_first.bias temporal_bias norm norm.bias q.bias k.bias v.bias out.bias q_norm "
    "k_norm q_norm.bias k_norm.bias up.bias gate.bias down.bias conv.bias".split()
)

Past = Any  # what a sublayer keeps of committed frames, such as (k, v), or None
Layer = dict[str, Any]  # a sublayer's loaded tensors, by name without ".weight"


def refused(what: str) -> ModelError:
    return ModelError(f"the metal backend has no form of {what} yet", "play it with --backend cpu")


def check(spec: StackSpec) -> None:
    """Raises ModelError for a stack that would not give the same result here as on the CPU."""
    for sublayer in spec.sublayers:
        if sublayer.kind not in SUBLAYERS:
            raise refused(f"the sublayer {sublayer.name}")
    for of in (spec, spec.params):
        for field in dataclasses.fields(of):
            value = getattr(of, field.name)
            if field.name not in FREE and value not in CHOICES.get(field.name, ()):
                raise refused(f"{field.name} {value}")


def norm(spec: StackSpec, kind: str | None, layer: Layer, name: str, x_PE: Any, row: Any = None) -> Any:
    """Apply the norm `name` of a layer. `row` selects a row of its weights (FiLM)."""
    if kind == "none":
        return x_PE
    length = x_PE.shape[-1]
    n = spec.params.norm_length or length  # values beyond it are zero and stay zero

    def weights(part: str) -> Any:
        return layer[part][:n] if row is None else layer[part][row, :n]

    if kind == "rmsnorm":
        y = mx.fast.rms_norm(x_PE[:, :n], weights(name), spec.params.norm_epsilon)
    else:
        y = mx.fast.layer_norm(x_PE[:, :n], weights(name), weights(f"{name}.bias"), spec.params.norm_epsilon)
    return y if n == length else mx.pad(y, [(0, 0), (0, length - n)])


def gelu(x: Any) -> Any:
    return 0.5 * x * (1 + mx.erf(x * math.sqrt(0.5)))


def gelu_tanh(x: Any) -> Any:
    return 0.5 * x * (1 + mx.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))


# By kind: (gate or None, up) -> what `down` multiplies.
FFNS: dict[str, Callable[[Any, Any], Any]] = {
    "gelu": lambda gate, up: gelu(up),
    "gelu_tanh": lambda gate, up: gelu_tanh(up),
    "relu": lambda gate, up: mx.maximum(up, 0),
    "relu2": lambda gate, up: mx.square(mx.maximum(up, 0)),
    "swiglu": lambda gate, up: gate * mx.sigmoid(gate) * up,
    "geglu": lambda gate, up: gelu(gate) * up,
}


@dataclass(frozen=True)
class Reads:
    """A sublayer and its inputs: the normed residual, the residual itself, and what the sublayer kept of the past."""

    sublayer: Sublayer
    y_PE: Any
    x_PE: Any
    past: Past


def tokens(spec: StackSpec, table: Any, ids_P: Any) -> Any:
    """The embeddings [P, E] of ids: one row per id, or the sum of one row per digit. The mask has its own row."""
    factors = spec.factor_count
    if factors == 1:
        return table[ids_P]
    size = spec.output_length // factors
    rows_PK = mx.stack([k * size + ids_P // size**k % size for k in range(factors)], -1)
    return mx.where((ids_P == size**factors)[:, None], table[spec.output_length], table[rows_PK].sum(1))


def feed_forward(spec: StackSpec, own: Layer, layer: Layer, r: Reads) -> tuple[Any, Past]:
    def run(up: Any, gate: Any, down: Any) -> Any:
        return down(FFNS[r.sublayer.ffn](gate and gate(r.y_PE), up(r.y_PE)))

    gate = layer.get("gate")
    if "router" not in layer:
        return run(layer["up"], gate, layer["down"]), None
    # All experts run on all tokens: which expert a token uses is known only on the device.
    wanted_PX = layer["router"](r.y_PE)
    rank_PX = mx.argsort(mx.argsort(-wanted_PX, -1), -1)
    share_PX = mx.softmax(mx.where(rank_PX < r.sublayer.expert_used_count, wanted_PX, -mx.inf), -1)
    gates = gate or [None] * r.sublayer.expert_count
    ffns = zip(layer["up"], gates, layer["down"], strict=True)
    shares = [share_PX[:, e : e + 1] for e in range(r.sublayer.expert_count)]
    # `where` instead of a product with 0: an expert that was not chosen may have overflowed.
    return sum(mx.where(s > 0, s * run(*ffn), 0) for s, ffn in zip(shares, ffns, strict=True)), None


def heads(spec: StackSpec, layer: Layer, r: Reads) -> tuple[Any, Any, Any]:
    """Queries, keys and values, [P, H, D] each. Queries and keys are normed if the stack says so."""
    shape = (spec.token_count, spec.params.head_count, spec.params.key_length)
    kv = r.x_PE if r.sublayer.kv_input == "residual" else r.y_PE
    q, k, v = (layer[name](of).reshape(shape) for name, of in (("q", r.y_PE), ("k", kv), ("v", kv)))
    if spec.params.qk_norm:
        q, k = head_norm(spec, layer, "q_norm", q), head_norm(spec, layer, "k_norm", k)
    return q, k, v


def head_norm(spec: StackSpec, layer: Layer, name: str, x_PHD: Any) -> Any:
    epsilon = spec.params.qk_norm_epsilon or spec.params.norm_epsilon
    if spec.params.qk_norm_kind == "layernorm":
        return mx.fast.layer_norm(x_PHD, layer[name], layer[f"{name}.bias"], epsilon)
    return mx.fast.rms_norm(x_PHD, layer[name], epsilon)


def attend(spec: StackSpec, q: Any, k: Any, v: Any, bias: Any = None) -> Any:
    return mx.fast.scaled_dot_product_attention(q, k, v, scale=1 / math.sqrt(spec.params.key_length), mask=bias)


def joined(past: Past, k: Any, v: Any) -> tuple[Any, Any]:
    """Keys and values of the past and present frames; time is axis 2."""
    return (k, v) if past is None else (mx.concatenate([past[0], k], 2), mx.concatenate([past[1], v], 2))


def spatial(spec: StackSpec, own: Layer, layer: Layer, r: Reads) -> tuple[Any, Past]:
    q, k, v = (z.transpose(1, 0, 2)[None] for z in heads(spec, layer, r))  # [1, H, P, D]
    out = attend(spec, q, k, v, own.get("spatial_bias"))
    return layer["out"](out[0].transpose(1, 0, 2).reshape(spec.token_count, -1)), None


def temporal(spec: StackSpec, own: Layer, layer: Layer, r: Reads) -> tuple[Any, Past]:
    q, k, v = (z[:, :, None] for z in heads(spec, layer, r))  # [P, H, 1, D]
    seen, bias = joined(r.past, k, v), None  # [P, H, t + 1, D]
    if "temporal_bias" in own:  # a slope per head: the penalty per frame of distance
        bias = -own["temporal_bias"][None, :, None, None] * mx.arange(seen[0].shape[2] - 1, -1, -1)
    return layer["out"](attend(spec, q, *seen, bias).reshape(spec.token_count, -1)), seen


def spacetime(spec: StackSpec, own: Layer, layer: Layer, r: Reads) -> tuple[Any, Past]:
    q, k, v = (z.transpose(1, 0, 2)[None] for z in heads(spec, layer, r))
    seen = joined(r.past, k, v)  # [1, H, (t + 1) P, D]
    return layer["out"](attend(spec, q, *seen)[0].transpose(1, 0, 2).reshape(spec.token_count, -1)), seen


def peg(spec: StackSpec, own: Layer, layer: Layer, r: Reads) -> tuple[Any, Past]:
    """A causal depthwise 3 x 3 x 3 convolution, with zeros outside the frame and before the window."""
    P, E, columns = spec.token_count, spec.params.embedding_length, spec.grid_width
    rows = P // columns
    now = r.x_PE[None]
    seen = now if r.past is None else mx.concatenate([r.past[0], now])  # [t + 1, P, E]
    near = seen[-3:]
    grid = mx.pad(near.reshape(-1, rows, columns, E), [(0, 0), (1, 1), (1, 1), (0, 0)])
    taps = layer["conv"].reshape(3, 3, 3, E)[3 - near.shape[0] :]
    y = layer["conv.bias"]
    for t, i, j in itertools.product(range(near.shape[0]), range(3), range(3)):
        y = y + grid[t, i : i + rows, j : j + columns] * taps[t, i, j]
    return y.reshape(P, E), (seen,)


def biases(spec: StackSpec, table: Any) -> Any:
    """Expand the biases by offset [H, (2 R - 1) (2 C - 1)] to query by key, [1, H, P, P]."""
    columns, at = spec.grid_width, np.arange(spec.token_count)
    down = at[None] // columns - at[:, None] // columns + spec.token_count // columns - 1
    right = at[None] % columns - at[:, None] % columns + columns - 1
    return table[:, mx.array((down * (2 * columns - 1) + right).astype(np.int32))][None]


# Arguments: the description, the stack's own tensors, the layer's tensors, the inputs. Returns the value to add to the
# residual [P, E], and the past including this frame.
SUBLAYERS: dict[str, Callable[[StackSpec, Layer, Layer, Reads], tuple[Any, Past]]] = {
    "spatial": spatial,
    "temporal": temporal,
    "spacetime": spacetime,
    "ffn": feed_forward,
    "peg": peg,
}
# Sublayers that keep a past: (time axis of its arrays, whether a frame takes one place per token on it).
KEEPS = {"temporal": (2, False), "spacetime": (2, True), "peg": (0, False)}
