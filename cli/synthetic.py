"""Models of the paper's sizes with random weights, to measure speed without a checkpoint and without torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

from genie_cpp.convert.quantize import TYPES, encode, usual_type
from genie_cpp.convert.writer import write_header
from genie_cpp.errors import BenchError
from genie_cpp.file.gguf_file import TensorType
from genie_cpp.spec.gguf_keys import ARCHITECTURE
from genie_cpp.spec.hparams import HParams, expected_tensors
from genie_cpp.spec.stack_spec import StackParams
from genie_cpp.words import quoted


def _stack(blocks: int, width: int, heads: int, key: int, ffn: int, qk_norm: bool = False) -> StackParams:
    return StackParams(
        block_count=blocks, embedding_length=width, head_count=heads, key_length=key, feed_forward_length=ffn,
        qk_norm=qk_norm,
    )  # fmt: skip


def _genie(tokenizer: StackParams, dynamics: StackParams) -> HParams:
    """64x64 frames of 256 tokens, a window of 16, Appendix F's codebooks and 25 MaskGIT steps.

    The latent action model does not run during play, so a single block stands in for it.
    """
    lam = dataclasses.replace(_stack(1, 32, 1, 32, 32), sublayers=("ffn",))
    stacks = {"tokenizer.encoder": tokenizer, "tokenizer.decoder": tokenizer, "lam.encoder": lam, "dynamics": dynamics}
    return HParams(64, 64, 16, 6, "half", "st-vivit", 4, 1024, 32, 16, 32, True, 25, 1.0, "confidence", 0.0, stacks)


# The paper (arXiv 2402.15391) does not give the length of the feed-forward layers. `appendix-f` uses the common four
# times the width. Table 10's 41M model (18 layers, width 512, 8 heads of 64) has 38M in attention, so its feed-forward
# length must be small: 128 gives 41M. It gets the tokenizer and frames of Appendix F, to make the two comparable.
_TOKENIZER_F = _stack(8, 512, 8, 64, 2048)
SIZES: dict[str, HParams] = {
    "tiny": _genie(_stack(2, 128, 4, 32, 512), _stack(4, 128, 4, 32, 512, True)),
    "appendix-f": _genie(_TOKENIZER_F, _stack(12, 512, 8, 64, 2048, True)),
    "41m": _genie(_TOKENIZER_F, _stack(18, 512, 8, 64, 128, True)),
}


def check(size: str, type: str) -> None:
    """Raise BenchError for an unknown size or type."""
    if size not in SIZES:
        raise BenchError(f"unknown synthetic model {quoted(size)}", f"choose among {', '.join(SIZES)}")
    if type not in TYPES:
        raise BenchError(f"unknown type {quoted(type)}", f"choose among {', '.join(TYPES)}")


def build(size: str, type: str, folder: Path) -> Path:
    """Write `<size>-<type>.gguf` with random weights into a folder. Raises BenchError, OSError."""
    check(size, type)
    return write(SIZES[size], size, type, folder)


def write(hp: HParams, name: str, type: str, folder: Path) -> Path:
    """Write `<name>-<type>.gguf` with random weights into a folder. Raises OSError."""
    wanted, path = TYPES[type], folder / f"{name}-{type}.gguf"
    tensors = expected_tensors(hp)
    kinds = {tensor: usual_type(tensor, shape[0], matrix, wanted) for tensor, (shape, matrix) in tensors.items()}
    writer = gguf.GGUFWriter(path, ARCHITECTURE)
    try:
        metadata = hp.to_metadata(wanted, {"general.name": f"{name} (random weights)"})
        write_header(writer, metadata, {tensor: shape for tensor, (shape, _) in tensors.items()}, kinds)
        weights = _weights()
        for tensor, (shape, _) in tensors.items():
            writer.write_tensor_data(weights(tensor, shape, kinds[tensor]))
        writer.flush()
    finally:
        writer.close()
    return path


def _weights() -> Callable[[str, tuple[int, ...], TensorType], NDArray[np.uint8]]:
    """Makes a tensor's bytes. Tensors of equal shape share weights: speed is unaffected, and making them is quick."""
    rng = np.random.default_rng(0)
    made: dict[Any, NDArray[np.uint8]] = {}

    def weights(name: str, shape: tuple[int, ...], kind: TensorType) -> NDArray[np.uint8]:
        is_norm, is_codes = "norm." in name, ".codebook." in name
        key = (shape, kind, is_norm, is_codes)
        if key not in made:
            values = rng.standard_normal(shape[::-1], np.float32) / np.float32(np.sqrt(shape[0]))
            if is_norm:
                values[...] = 1
            if is_codes:
                values /= np.linalg.norm(values, axis=-1, keepdims=True)
            made[key] = encode(values, kind)
        return made[key]

    return weights
