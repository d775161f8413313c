"""A model's stacks and networks, still without weights, from its hyper-parameters."""

from __future__ import annotations

from typing import Any

from . import _native, conv
from .backend import Backend, Conv, Stack
from .hparams import HParams


def stack(runs: Backend, hp: HParams, name: str) -> Stack:
    """An empty stack of a backend. Raises NativeError."""
    return runs.stack(hp.stacks[name].sublayers, **_params(hp, name))


def network(runs: Backend, hp: HParams, half: str) -> Conv:
    """The tokenizer's empty "encoder" or "decoder", where its kind is conv. Raises NativeError."""
    height, width, channels = hp.frame_height, hp.frame_width, 3
    if half == "decoder":
        patch, channels = hp.tokenizer_patch_size, hp.tokenizer_latent_length
        height, width = height // patch, width // patch
    kinds = [(conv.KINDS[layer.word], layer.channels) for layer in hp.conv_layers(half)]
    return runs.conv((height, width, channels), kinds, hp.conv_group_count or 1, hp.conv_norm_epsilon or 0)


def _params(hp: HParams, name: str) -> dict[str, Any]:
    s, dynamics = hp.stacks[name], name == "dynamics"
    return {
        "block_count": s.block_count,
        "embedding_length": s.embedding_length,
        "head_count": s.head_count,
        "key_length": s.key_length,
        "feed_forward_length": s.feed_forward_length,
        "token_count": hp.token_count(name),
        "context_length": hp.context_length,
        "input_length": hp.input_length(name) or 0,
        "input_rows": hp.vocabulary + 1 if dynamics else 0,
        "action_count": hp.action_count if dynamics else 0,
        "output_length": hp.output_length(name),
        "norm": _native.NORMS[s.norm],
        "ffn": _native.FFNS[s.ffn],
        "qk_norm": _native.QK_NORMS[s.qk_norm_kind] if s.qk_norm else 0,
        "bias": int(s.bias),
        "post_norm": _native.NORM_POSITIONS[s.norm_position],
        "output_norm": _native.NORMS[s.output_norm or s.norm],
        "conditioning": _native.CONDITIONINGS[hp.action_conditioning if dynamics else "add"],
        "grid_width": hp.grid(name)[0],
        "norm_length": s.norm_length or 0,
        "position": _native.POSITIONS[s.position],
        "raw_kv": int(s.kv_input == "residual"),
        "spatial_bias": int(s.spatial_bias != "none"),
        "temporal_bias": int(s.temporal_bias != "none"),
        "input_norm": int(s.input_norm != "none"),
        "first_frame": _native.FIRST_FRAMES[s.first_frame],
        "unnormed": sum(1 << _native.SUBLAYERS[kind] for kind in s.unnormed or ()),
        "factor_count": hp.factor_count if dynamics else 1,
        "expert_count": s.expert_count or 0,
        "expert_used_count": s.expert_used_count or 0,
        "norm_epsilon": s.norm_epsilon,
        "qk_norm_epsilon": s.qk_norm_epsilon or 0.0,
    }
