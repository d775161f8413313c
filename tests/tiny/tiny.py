"""A Genie so small that a test over all its tensors takes milliseconds; its file is made without torch."""

from __future__ import annotations

import zlib
from pathlib import Path

import gguf
import numpy as np
from numpy.typing import NDArray

from genie_cpp.convert.native import hparams_of
from genie_cpp.convert.quantize import TYPES, choose_type, encode
from genie_cpp.convert.reference.config import DynamicsConfig, GenieConfig, LamConfig, TokenizerConfig
from genie_cpp.convert.writer import write_header
from genie_cpp.spec.gguf_keys import ARCHITECTURE
from genie_cpp.spec.hparams import expected_tensors
from genie_cpp.spec.stack_spec import StackParams


def config() -> GenieConfig:
    """16x16 frames, a window of 4, 3 actions; every flag of the profile occurs in some stack, and odd row lengths."""
    encoder = StackParams(
        block_count=1,
        embedding_length=32,
        head_count=2,
        key_length=16,
        feed_forward_length=40,
        norm="layernorm",
        bias=True,
    )
    decoder = StackParams(
        block_count=1, embedding_length=32, head_count=2, key_length=16, feed_forward_length=64, ffn="swiglu"
    )
    lam = StackParams(
        block_count=1, embedding_length=24, head_count=1, key_length=8, feed_forward_length=32, ffn="relu"
    )
    dynamics = StackParams(
        block_count=2, embedding_length=64, head_count=3, key_length=32, feed_forward_length=96, qk_norm=True
    )
    return GenieConfig(
        tokenizer=TokenizerConfig(encoder, decoder, patch_size=4, codebook_size=16, latent_length=8),
        lam=LamConfig(lam, lam, patch_size=8, latent_length=8),
        dynamics=DynamicsConfig(dynamics, {"steps": 3, "temperature": 0.5}),
        frame_width=16,
        frame_height=16,
        context_length=4,
        action_count=3,
        card={"name": "Tiny", "license": "MIT"},
    )


def weights(name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Weights of a tensor, by its name in the file: large enough that every op changes the output; norms around one."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    middle, spread = (1.0 if "norm.weight" in name else 0.0), (0.1 if len(shape) == 1 else 0.15)
    values = rng.normal(middle, spread, shape).astype(np.float32)
    if ".codebook." in name:  # unit vectors, as a converter has them
        values /= np.linalg.norm(values, axis=-1, keepdims=True)
    return values


def write(path: Path, type: str, of: GenieConfig | None = None) -> None:
    """Write the file, with every matrix of this type. of: another configuration than `config()`."""
    hp = hparams_of(of or config())
    tensors = expected_tensors(hp)
    values = {name: weights(name, shape[::-1]) for name, (shape, _) in tensors.items()}
    kinds = {name: choose_type(name, matrix, TYPES[type], values[name]) for name, (_, matrix) in tensors.items()}
    writer = gguf.GGUFWriter(path, ARCHITECTURE)
    try:
        metadata = hp.to_metadata(TYPES[type], {"general.name": "Tiny", "general.license": "MIT"})
        write_header(writer, metadata, {name: shape for name, (shape, _) in tensors.items()}, kinds)
        for name in tensors:
            writer.write_tensor_data(encode(values[name], kinds[name]))
        writer.flush()
    finally:
        writer.close()
