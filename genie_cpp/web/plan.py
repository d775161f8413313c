"""A world's plan: all that the page's player (site/genie.mjs) needs to know, from a checked GGUF.

Python is the only reader of GGUF. It checks the file as for playing, and writes down what it would tell the core: each
stack's `genie_stack_params`, and each tensor's place in one file of weights.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from genie_cpp.backends import _native, assembly
from genie_cpp.backends.interface import Conv, State
from genie_cpp.errors import ModelError
from genie_cpp.file.blocks import floats
from genie_cpp.file.gguf_file import GGUFFile
from genie_cpp.play.keyboard import default_keys
from genie_cpp.spec import conv_layers
from genie_cpp.spec.gguf_keys import CONVS, LAM
from genie_cpp.spec.hparams import HParams, validate
from genie_cpp.spec.stack_spec import StackSpec

VERSION = 1
ALIGNMENT = 16
MOST_BYTES = 1 << 30  # a page's memory ends at 4 GiB, and weights are there twice while they are packed


class Weights:
    """The file of weights, as it is written."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._hash, self.bytes = file, hashlib.sha256(), 0

    def add(self, data: NDArray[Any]) -> tuple[int, int]:
        """(offset, bytes) of what is appended. Raises ModelError if it becomes too much for a page."""
        raw = np.ascontiguousarray(data).reshape(-1).view(np.uint8)
        self._write(bytes(-self.bytes % ALIGNMENT))
        offset = self.bytes
        self._write(raw.tobytes())
        if self.bytes > MOST_BYTES:
            raise ModelError(f"a page holds weights of {MOST_BYTES >> 20} MiB at most", "convert to q8_0 or q4_0")
        return offset, raw.nbytes

    def _write(self, raw: bytes) -> None:
        self._file.write(raw)
        self._hash.update(raw)
        self.bytes += len(raw)

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()


class RecordedStack:
    """Takes a stack's tensors as the core would, and notes the calls."""

    n_bytes = 0

    def __init__(self, spec: StackSpec, weights: Weights) -> None:
        self.token_count, self._weights = spec.token_count, weights
        self._sublayers = [one.name for one in spec.sublayers]
        self.plan: dict[str, Any] = {
            "params": base64.b64encode(_native.params_bytes(spec)).decode(),
            "tokens": spec.token_count,
            "input": spec.input_length,
            "output": spec.output_length or spec.params.embedding_length,
            "tensors": [],
        }

    def set(self, name: str, type: int, rows: int, columns: int, data: NDArray[Any]) -> None:
        place = _native.place(self._sublayers, name)
        self.plan["tensors"].append([*place, type, rows, columns, *self._weights.add(data)])

    def seal(self) -> None:
        """Nothing to check: the core does that in the page."""

    def state(self) -> State:
        raise NotImplementedError("a recorded stack does not run")


class RecordedConv:
    """The same for a convolutional network."""

    n_bytes = 0

    def __init__(
        self, shape: tuple[int, int, int], layers: Sequence[tuple[str, int]], groups: int, epsilon: float,
        weights: Weights,
    ) -> None:  # fmt: skip
        self.shape, self._weights = shape, weights
        scale = sum({"down": -1, "up": 1}.get(word, 0) for word, _ in layers)
        height, width = (math.ldexp(side, scale) for side in shape[:2])
        self.output_shape = (int(height), int(width), layers[-1][1])
        self.plan: dict[str, Any] = {
            "params": [*shape, groups, epsilon],
            "layers": [[_native.number("CONV", conv_layers.KINDS[word]), channels] for word, channels in layers],
            "output": list(self.output_shape),
            "tensors": [],
        }

    def set(self, layer: int, name: str, type: int, rows: int, columns: int, data: NDArray[Any]) -> None:
        slot = _native.number("CONV_SLOT", conv_layers.SLOTS[name])
        self.plan["tensors"].append([layer, slot, type, rows, columns, *self._weights.add(data)])

    def seal(self) -> None:
        """Nothing to check: the core does that in the page."""

    def state(self) -> Any:
        raise NotImplementedError("a recorded network does not run")


class Recorder:
    """A backend that runs nothing."""

    name = "web"

    def __init__(self, weights: Weights) -> None:
        self._weights = weights
        self.isa, self.threads, self.device = "", 0, "a browser"

    def stack(self, spec: StackSpec) -> RecordedStack:
        return RecordedStack(spec, self._weights)

    def conv(self, shape: tuple[int, int, int], layers: Sequence[tuple[str, int]], groups: int, epsilon: float) -> Conv:
        return RecordedConv(shape, layers, groups, epsilon, self._weights)


def write(path: Path, weights: BinaryIO) -> dict[str, Any]:
    """Write a model's weights, and return the plan without start pictures and title.

    Raises GGUFError, ModelError; OSError for the output.
    """
    sink = Weights(weights)
    runs = Recorder(sink)
    with GGUFFile.open(path) as file:
        hp = validate(file, finite=False)  # what reads the data below checks it
        stacks: dict[str, Any] = {
            name: assembly.load(file, hp, name, runs).plan  # type: ignore[attr-defined]
            for name in hp.stacks
            if name != LAM  # infers actions from videos, which the page does not do
        }
        halves = CONVS if hp.tokenizer_kind == "conv" else ()
        networks = {
            f"tokenizer.{half}": assembly.load_network(file, hp, half, runs).plan  # type: ignore[attr-defined]
            for half in halves
        }
        for name in stacks:  # the core in the page would refuse what is not finite, but here the tensor is named
            for tensor in file.tensors:
                if tensor.startswith(name + "."):
                    file.check_finite(tensor)
        codebook = None
        if hp.bins("tokenizer") is None:
            offset, size = sink.add(floats(file, "tokenizer.codebook.weight"))
            codebook = {"offset": offset, "bytes": size}
        file.check_unchanged()
        card = {key.removeprefix("general."): file.metadata[key] for key in CARD if file.metadata.get(key)}
    return {
        "version": VERSION,
        "name": card.get("name") or path.stem,
        "card": card,
        **_facts(hp),
        "codebook": codebook,
        "stacks": stacks,
        "networks": networks,
        "weights": {"file": "weights.bin", "bytes": sink.bytes, "sha256": sink.sha256},
    }


CARD = ("general.name", "general.author", "general.license", "general.description", "general.source.url")


def _facts(hp: HParams) -> dict[str, Any]:
    return {
        "frame": [hp.frame_width, hp.frame_height],
        "patch": hp.tokenizer_patch_size,
        "context": hp.context_length,
        "codebook_size": hp.codebook_size,
        "latent_length": hp.tokenizer_latent_length,
        "bins": hp.bins("tokenizer"),
        "actions": hp.action_count,
        "action_names": None if hp.action_names is None else list(hp.action_names),
        "keys": default_keys(hp.choices, hp.action_names),
        "window": hp.window_policy,
        "prediction": hp.prediction,
        "sampler": {
            "steps": hp.sampler_steps,
            "temperature": hp.sampler_temperature,
            "order": _native.number("ORDER", hp.sampler_order),
            "noise": hp.sampler_noise,
            "threshold": 0.0,
            "schedule": _native.number("SCHEDULE", hp.sampler_schedule),
        },
    }
