"""Builds a model's stacks and networks from its hyper-parameters, still without weights."""

from __future__ import annotations

from genie_cpp.backends.interface import Backend, Conv, Stack
from genie_cpp.spec.hparams import HParams


def stack(runs: Backend, hp: HParams, name: str) -> Stack:
    """An empty stack of a backend. Raises NativeError."""
    return runs.stack(hp.spec(name))


def network(runs: Backend, hp: HParams, half: str) -> Conv:
    """The tokenizer's empty "encoder" or "decoder", if its kind is conv. Raises NativeError."""
    height, width, channels = hp.frame_height, hp.frame_width, 3
    if half == "decoder":
        patch, channels = hp.tokenizer_patch_size, hp.tokenizer_latent_length
        height, width = height // patch, width // patch
    layers = [(layer.word, layer.channels) for layer in hp.conv_layers(half)]
    return runs.conv((height, width, channels), layers, hp.conv_group_count or 1, hp.conv_norm_epsilon or 0)
