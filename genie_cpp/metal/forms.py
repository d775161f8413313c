"""The MLX form of everything a stack's description can name, and the refusal of what has none yet.

A new parameter of `genie_stack_params`, or a new value of one, is refused until it has a row here; a test compares
these tables with the C core's. Shapes in names: P tokens, E embedding, H heads, D key length, t frames of the past.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import mlx.core as mx

from .. import _native
from ..errors import ModelError

# Parameters that are lengths or the like: any value the C core takes has a form.
FREE = frozenset(
    "block_count embedding_length head_count key_length feed_forward_length token_count context_length input_length "
    "input_rows action_count output_length norm_epsilon".split()
)
RMS, LAYER, NONE = (_native.NORMS[name] for name in ("rmsnorm", "layernorm", "none"))
FILM = _native.CONDITIONINGS["film"]
# Parameters that choose: the values that have a form.
CHOICES: dict[str, tuple[int, ...]] = {
    "norm": (RMS, LAYER),
    "output_norm": (RMS, LAYER, NONE),
    "ffn": tuple(_native.FFNS[name] for name in ("gelu", "gelu_tanh", "relu", "swiglu", "geglu")),
    "qk_norm": (0, 1),
    "bias": (0, 1),
    "post_norm": (0, 1),
    "conditioning": (_native.CONDITIONINGS["add"], FILM),
}

# Tensors that are multiplied, looked up, or are a vector (a norm with FiLM: a row per action), without ".weight".
MATRICES = frozenset("input output q k v out up gate down".split())
TABLES = frozenset("token_embd action_embd pos_space pos_time".split())
VECTORS = frozenset(
    "input.bias output_norm output_norm.bias output.bias norm norm.bias q.bias k.bias v.bias out.bias q_norm k_norm "
    "up.bias gate.bias down.bias".split()
)

Past = Any  # (k, v) of the frames committed, or None
Layer = dict[str, Any]  # what a sublayer's tensors became, by name without ".weight"


def refused(what: str) -> ModelError:
    return ModelError(f"the metal backend has no form of {what} yet", "play it with --backend cpu")


def check(sublayers: Sequence[str], params: Mapping[str, Any]) -> None:
    """Raises ModelError for a stack that would not run here as it does on the CPU."""
    for sublayer in sublayers:
        if sublayer not in SUBLAYERS:
            raise refused(f"the sublayer {sublayer}")
    for name, value in params.items():
        # A parameter that is off (0) asks for nothing, whatever it is.
        if name not in FREE and value not in CHOICES.get(name, (0,)):
            raise refused(f"{name} {value}")


def norm(kind: int, epsilon: float, layer: Layer, name: str, x: Any, row: Any = None) -> Any:
    """The norm `name` of a layer over the last dimension; `row` picks among the rows of its weights (FiLM)."""
    if kind == NONE:
        return x
    weight = layer[name] if row is None else layer[name][row]
    if kind == RMS:
        return mx.fast.rms_norm(x, weight, epsilon)
    bias = layer[f"{name}.bias"]
    return mx.fast.layer_norm(x, weight, bias if row is None else bias[row], epsilon)


def gelu(x: Any) -> Any:
    return 0.5 * x * (1 + mx.erf(x * math.sqrt(0.5)))


def gelu_tanh(x: Any) -> Any:
    return 0.5 * x * (1 + mx.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))


# By genie_ffn_kind: (gate or None, up) -> what `down` multiplies.
FFNS: dict[int, Callable[[Any, Any], Any]] = {
    _native.FFNS["gelu"]: lambda gate, up: gelu(up),
    _native.FFNS["gelu_tanh"]: lambda gate, up: gelu_tanh(up),
    _native.FFNS["relu"]: lambda gate, up: mx.maximum(up, 0),
    _native.FFNS["swiglu"]: lambda gate, up: gate * mx.sigmoid(gate) * up,
    _native.FFNS["geglu"]: lambda gate, up: gelu(gate) * up,
}


def feed_forward(p: Mapping[str, Any], layer: Layer, y_PE: Any, past: Past) -> tuple[Any, Past]:
    gate = layer["gate"](y_PE) if "gate" in layer else None
    return layer["down"](FFNS[p["ffn"]](gate, layer["up"](y_PE))), None


def heads(p: Mapping[str, Any], layer: Layer, y_PE: Any) -> tuple[Any, Any, Any]:
    """Queries, keys and values, [P, H, D] each, queries and keys normed where the stack says so."""
    shape = (p["token_count"], p["head_count"], p["key_length"])
    q, k, v = (layer[name](y_PE).reshape(shape) for name in ("q", "k", "v"))
    if p["qk_norm"]:
        q = mx.fast.rms_norm(q, layer["q_norm"], p["norm_epsilon"])
        k = mx.fast.rms_norm(k, layer["k_norm"], p["norm_epsilon"])
    return q, k, v


def attend(p: Mapping[str, Any], q: Any, k: Any, v: Any) -> Any:
    return mx.fast.scaled_dot_product_attention(q, k, v, scale=1 / math.sqrt(p["key_length"]))


def joined(past: Past, k: Any, v: Any) -> tuple[Any, Any]:
    """Keys and values of the frames up to now, time along axis 2."""
    return (k, v) if past is None else (mx.concatenate([past[0], k], 2), mx.concatenate([past[1], v], 2))


def spatial(p: Mapping[str, Any], layer: Layer, y_PE: Any, past: Past) -> tuple[Any, Past]:
    q, k, v = (z.transpose(1, 0, 2)[None] for z in heads(p, layer, y_PE))  # [1, H, P, D]
    return layer["out"](attend(p, q, k, v)[0].transpose(1, 0, 2).reshape(p["token_count"], -1)), None


def temporal(p: Mapping[str, Any], layer: Layer, y_PE: Any, past: Past) -> tuple[Any, Past]:
    q, k, v = (z[:, :, None] for z in heads(p, layer, y_PE))  # [P, H, 1, D]
    seen = joined(past, k, v)  # [P, H, t + 1, D]
    return layer["out"](attend(p, q, *seen).reshape(p["token_count"], -1)), seen


def spacetime(p: Mapping[str, Any], layer: Layer, y_PE: Any, past: Past) -> tuple[Any, Past]:
    q, k, v = (z.transpose(1, 0, 2)[None] for z in heads(p, layer, y_PE))
    seen = joined(past, k, v)  # [1, H, (t + 1) P, D]
    return layer["out"](attend(p, q, *seen)[0].transpose(1, 0, 2).reshape(p["token_count"], -1)), seen


# Each takes the parameters, its layer, what it reads [P, E] and its past; it gives what joins the residual and the past
# with this frame in it.
SUBLAYERS: dict[str, Callable[[Mapping[str, Any], Layer, Any, Past], tuple[Any, Past]]] = {
    "spatial": spatial,
    "temporal": temporal,
    "spacetime": spacetime,
    "ffn": feed_forward,
}
# Those that keep a past, and whether a frame takes one place in it or one per token.
KEEPS = {"temporal": False, "spacetime": True}
