"""Fixtures shared by all tests: a Genie so small that a test over all its tensors takes milliseconds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("torch")

import torch

from genie_cpp.convert.reference import checkpoint
from genie_cpp.convert.reference.config import DynamicsConfig, GenieConfig, LamConfig, TokenizerConfig
from genie_cpp.convert.reference.model import Genie
from genie_cpp.spec.stack_spec import StackParams


@pytest.fixture(scope="session")
def tiny_config() -> GenieConfig:
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


@pytest.fixture(scope="session")
def tiny_model(tiny_config: GenieConfig) -> Genie:
    """Random weights, large enough that every op moves the output; norms away from one, biases away from zero."""
    torch.manual_seed(7)
    model = Genie(tiny_config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(1.0 if "norm.weight" in name else 0.0, 0.1 if parameter.dim() == 1 else 0.15)
    return model


@pytest.fixture(scope="session")
def tiny_checkpoint(tiny_model: Genie, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a native checkpoint. Copy it before changing it."""
    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    checkpoint.save(tiny_model, folder)
    return folder


@pytest.fixture(scope="session")
def tiny_gguf(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """tiny_gguf("q8_0") -> the path of the converted model, made once per type. Copy it before changing it."""
    from genie_cpp.convert.writer import convert

    folder = tmp_path_factory.mktemp("gguf")

    def make(type: str = "f32") -> Path:
        path = folder / f"tiny-{type}.gguf"
        if not path.exists():
            convert(tiny_checkpoint, path, type)
        return path

    return make
