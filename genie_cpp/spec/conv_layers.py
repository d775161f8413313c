"""Convolutional networks as a list of layers (docs/gguf.md): words such as "res-128", with their shapes and tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from genie_cpp.errors import ModelError

# Names in genie.h: of a layer word of the file (genie_conv_kind), and of a tensor in a layer (genie_conv_slot).
KINDS = {"conv3": "3X3", "conv1": "1X1", "down": "DOWN", "up": "UP", "res": "RESIDUAL", "norm": "NORM"}
SLOTS = {
    "conv.weight": "WEIGHT", "conv.bias": "BIAS", "norm.weight": "NORM", "norm.bias": "NORM_BIAS",
    "conv2.weight": "WEIGHT_2", "norm2.weight": "NORM_2", "norm2.bias": "NORM_2_BIAS", "shortcut.weight": "SHORTCUT",
}  # fmt: skip
MAX_LAYERS, MAX_CHANNELS, MAX_SIDE = 1024, 65536, 4096
_HINT = "convert the checkpoint again with this version's genie-convert"


@dataclass(frozen=True)
class Layer:
    """One layer: its word, channels in and out, and its scale: output side / the network's input side, as a power of
    two."""

    word: str
    channels_in: int
    channels: int
    scale: int


def layers(name: str, words: Sequence[str], channels: int, groups: int) -> list[Layer]:
    """The layers that `words` stand for, given an input of `channels`. Raises ModelError, beginning with `name`."""
    if not 1 <= len(words) <= MAX_LAYERS:
        raise ModelError(f"{name} must have 1…{MAX_LAYERS} layers, not {len(words)}", _HINT)
    found: list[Layer] = []
    scale = 0
    for word in words:
        kind, _, digits = word.partition("-")
        ok = kind in KINDS and (kind == "norm") != digits.isdecimal()
        out = channels if kind == "norm" else int(digits[:9]) if ok else 0
        if not ok or not 1 <= out <= MAX_CHANNELS or (kind == "norm" and digits):
            raise ModelError(f"{name} must be of {', '.join(KINDS)} with 1…{MAX_CHANNELS} channels, not {word}", _HINT)
        if kind in ("norm", "res") and (channels % groups or out % groups):
            raise ModelError(
                f"{name}: {groups} groups do not divide the {channels} and {out} channels of {word}", _HINT
            )
        scale += {"up": 1, "down": -1}.get(kind, 0)
        found.append(Layer(kind, channels, out, scale))
        channels = out
    return found


def tensors(layer: Layer) -> dict[str, tuple[tuple[int, ...], bool]]:
    """`{name within the layer: (shape fastest first, is it a matrix)}`."""
    wide, tall = layer.channels_in, layer.channels
    found: dict[str, tuple[tuple[int, ...], bool]] = {}
    if layer.word in ("norm", "res"):
        found |= {"norm.weight": ((wide,), False), "norm.bias": ((wide,), False)}
    if layer.word == "res":
        found |= {"conv.weight": ((9 * wide, tall), True), "norm2.weight": ((tall,), False)}
        found |= {"norm2.bias": ((tall,), False), "conv2.weight": ((9 * tall, tall), True)}
        if wide != tall:
            found["shortcut.weight"] = ((wide, tall), True)
    elif layer.word != "norm":
        rows = 4 * tall if layer.word == "up" else tall
        found |= {"conv.weight": (((1 if layer.word == "conv1" else 9) * wide, rows), True)}
        found["conv.bias"] = ((rows,), False)
    return found
