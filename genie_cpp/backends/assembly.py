"""Builds a model's stacks and networks from its hyper-parameters, and fills them from its file."""

from __future__ import annotations

import math
from typing import Any

from numpy.typing import NDArray

from genie_cpp.backends.interface import Backend, Conv, Stack
from genie_cpp.errors import NativeError
from genie_cpp.file.blocks import floats
from genie_cpp.file.gguf_file import GGUFFile
from genie_cpp.spec import conv_layers
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


def load(file: GGUFFile, hp: HParams, name: str, runs: Backend) -> Stack:
    """A stack with its weights. Raises GGUFError, NativeError."""
    filled = stack(runs, hp, name)
    prefix, scratch = name + ".", file.scratch()
    for tensor_name, tensor in file.tensors.items():
        if not tensor_name.startswith(prefix):
            continue
        columns, rows = tensor.shape[0], math.prod(tensor.shape[1:])
        data: NDArray[Any] = file.data(tensor_name, scratch)
        kind = int(tensor.type)
        if tensor_name == "dynamics.token_embd.weight":  # rows are looked up, not multiplied
            data, kind = floats(file, tensor_name), 0
        try:
            filled.set(tensor_name.removeprefix(prefix), kind, rows, columns, data)
        except NativeError:
            file.check_finite(tensor_name)  # its error names the place
            raise
    filled.seal()
    return filled


def load_network(file: GGUFFile, hp: HParams, half: str, runs: Backend) -> Conv:
    """A convolutional half of the tokenizer with its weights. Raises GGUFError, NativeError."""
    filled = network(runs, hp, half)
    for i, layer in enumerate(hp.conv_layers(half)):
        for name in conv_layers.tensors(layer):
            tensor = file.tensors[f"tokenizer.{half}.layer.{i}.{name}"]
            columns, rows = tensor.shape[0], tensor.shape[1] if len(tensor.shape) > 1 else 1
            try:
                filled.set(i, name, int(tensor.type), rows, columns, file.data(tensor.name))
            except NativeError:
                file.check_finite(tensor.name)
                raise
    filled.seal()
    return filled
