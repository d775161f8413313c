"""Hyper-parameters of a native Genie checkpoint. Every choice of the paper (arXiv 2402.15391) is a field.

`config.json`, the GGUF keys (docs/gguf.md) and the C core use the same names. A stack is described by `StackParams`
(genie_cpp/spec/stack_spec.py) everywhere.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from genie_cpp.errors import ModelError
from genie_cpp.spec.stack_spec import STACK_KEYS, StackParams, kind_of

QUANTIZERS = ("codebook", "fsq")


class ConfigError(ValueError):
    """`config.json` lacks a key, has an unknown one, or a value outside its range."""


@dataclass(frozen=True)
class TokenizerConfig:
    """Video tokenizer (section 2.1, Table 3). kind: "st-vivit", "vit" (spatial only) or "c-vivit" (joint attention)."""

    encoder: StackParams
    decoder: StackParams
    kind: str = "st-vivit"
    patch_size: int = 4
    codebook_size: int = 1024
    latent_length: int = 32
    quantizer: str = "codebook"  # or "fsq": latent_length digits (arXiv 2309.15505)


@dataclass(frozen=True)
class LamConfig:
    """Latent action model (section 2.1). The decoder exists for training only and may be absent from a checkpoint."""

    encoder: StackParams
    decoder: StackParams | None
    patch_size: int = 16
    latent_length: int = 32
    # Predict the change from the last frame, not the frame itself: the same objective, learned in far fewer steps.
    residual: bool = True
    # Give the encoder the changes between frames, not the frames. Otherwise the scene, which says nothing about the
    # action, uses up the codes. A small LAM needs this: with it, actions separate in minutes on a CPU.
    difference: bool = False
    quantizer: str = "codebook"
    # "mean": the mean of the tokens' latents. "pair": the concatenated means of two frames go through a separate head
    # with head_length hidden values; the encoder's output_norm must be "none". "joined": a frame's concatenated outputs
    # go through a matrix to head_length values, a layer norm and another matrix.
    head: str = "mean"
    head_length: int | None = None


@dataclass(frozen=True)
class DynamicsConfig:
    """MaskGIT dynamics (section 2.1): token ids in, logits out.

    conditioning: "add" adds an action's embedding to every token of its frame; "film" gives every norm inside the
    blocks a scale and a shift per action (arXiv 1709.07871).
    prediction: logits are for the "same-frame", whose unknown tokens are masked, or for the "next-frame". In the latter
    case an action enters with the frame before the one it produces.
    factor_count: a token consists of K digits, the least significant first. Its embedding is the sum of the digits'
    embeddings; its logits are the digits' logits, concatenated.
    """

    stack: StackParams
    sampler: dict[str, Any] = field(default_factory=dict)
    conditioning: str = "add"
    prediction: str = "same-frame"
    factor_count: int = 1


@dataclass(frozen=True)
class GenieConfig:
    """A whole Genie model. Frames are `frame_height` x `frame_width` x 3; windows hold `context_length` frames."""

    tokenizer: TokenizerConfig
    lam: LamConfig
    dynamics: DynamicsConfig
    frame_width: int = 64
    frame_height: int = 64
    context_length: int = 16
    action_count: int = 8
    action_names: list[str] = field(default_factory=list)  # what each latent action does; empty: unknown
    card: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for patch in (self.tokenizer.patch_size, self.lam.patch_size):
            if patch < 1 or self.frame_width % patch or self.frame_height % patch:
                raise ConfigError(f"patch_size {patch} does not divide {self.frame_width}x{self.frame_height}")
        for part in (self.tokenizer, self.lam):
            if part.quantizer not in QUANTIZERS:
                raise ConfigError(f"quantizer {part.quantizer!r} is not among {list(QUANTIZERS)}")
        if self.dynamics.conditioning not in ("add", "film"):
            raise ConfigError(f"conditioning {self.dynamics.conditioning!r} is neither add nor film")
        if self.dynamics.factor_count > 1 and self.vocabulary % self.dynamics.factor_count:
            raise ConfigError(f"{self.tokenizer.codebook_size} codes have no {self.dynamics.factor_count} equal digits")
        if self.dynamics.prediction not in ("same-frame", "next-frame"):
            raise ConfigError(f"prediction {self.dynamics.prediction!r} is neither same-frame nor next-frame")
        heads = ("mean", "pair", "joined")
        if self.lam.head not in heads or (self.lam.head != "mean") != (self.lam.head_length is not None):
            raise ConfigError("lam.head is mean, or pair or joined with a head_length")
        wanted = {"st-vivit": "temporal", "vit": None, "c-vivit": "spacetime"}
        if self.tokenizer.kind not in wanted:
            raise ConfigError(f"tokenizer kind {self.tokenizer.kind!r} is not among {sorted(wanted)}")
        for stack in (self.tokenizer.encoder, self.tokenizer.decoder):
            mixing = {"temporal", "spacetime"} & set(stack.sublayers)
            if mixing != ({wanted[self.tokenizer.kind]} - {None}):
                raise ConfigError(f"sublayers {list(stack.sublayers)} do not make a {self.tokenizer.kind} tokenizer")

    def grid(self, patch: int) -> tuple[int, int]:
        """Columns and rows of patches with this side."""
        return self.frame_width // patch, self.frame_height // patch

    @property
    def token_count(self) -> int:
        """Tokens per frame."""
        columns, rows = self.grid(self.tokenizer.patch_size)
        return columns * rows

    @property
    def vocabulary(self) -> int:
        """Logits per token; 1, which the check refuses, if no integer to the power of factor_count is codebook_size."""
        factors, codes = self.dynamics.factor_count, self.tokenizer.codebook_size
        size = round(codes ** (1 / factors))
        return factors * size if size**factors == codes else 1

    def save(self, path: Path) -> None:
        text = json.dumps({"format": "genie", **_plain(dataclasses.asdict(self))}, indent=1)
        path.write_text(text + "\n", encoding="utf-8")

    @staticmethod
    def load(path: Path) -> GenieConfig:
        """Read `config.json`. Raises ConfigError naming the key that is missing, unknown or out of range."""
        try:
            data = json.loads(path.read_bytes())
        except (ValueError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path.name} is not JSON: {error}") from None
        if not isinstance(data, dict) or data.pop("format", None) != "genie":
            raise ConfigError(f'{path.name} has no "format": "genie"')
        tokenizer = _nested(data, "tokenizer")
        lam = _nested(data, "lam")
        dynamics = _nested(data, "dynamics")
        lam_decoder = _stack(lam["decoder"], "lam.decoder") if lam.get("decoder") else None
        return _build(
            GenieConfig,
            {
                **data,
                "tokenizer": _build(
                    TokenizerConfig,
                    {
                        **tokenizer,
                        "encoder": _stack(_nested(tokenizer, "encoder"), "tokenizer.encoder"),
                        "decoder": _stack(_nested(tokenizer, "decoder"), "tokenizer.decoder"),
                    },
                    "tokenizer",
                ),
                "lam": _build(
                    LamConfig,
                    {
                        **lam,
                        "encoder": _stack(_nested(lam, "encoder"), "lam.encoder"),
                        "decoder": lam_decoder,
                    },
                    "lam",
                ),
                "dynamics": _build(
                    DynamicsConfig,
                    {**dynamics, "stack": _stack(_nested(dynamics, "stack"), "dynamics.stack")},
                    "dynamics",
                ),
            },
            "",
        )


def _plain(value: Any) -> Any:
    """The same, with each number as the shortest one that gives the same float32: 1e-05, not 9.999999747378752e-06."""
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, float) and value == float(np.float32(value)):
        return float(str(np.float32(value)))
    return value


def _nested(data: dict[str, Any], key: str) -> dict[str, Any]:
    if not isinstance(data.get(key), dict):
        raise ConfigError(f"config.json lacks the section {key!r}")
    return data[key]


def _stack(data: Any, where: str) -> StackParams:
    """A stack's section. Each value is checked like the GGUF's key."""
    keys = {key.field: key for key in STACK_KEYS}
    if isinstance(data, dict):
        data = dict(data)
        for name, key in keys.items():
            if key.optional and data.get(name) in (None, [], ()):
                data.pop(name, None)  # the same as leaving it out
            elif name in data:
                try:
                    data[name] = key.check(f"{where}.{name}", data[name])
                except ModelError as error:
                    raise ConfigError(str(error)) from None
    params: StackParams = _build(StackParams, data, where)
    if lost := set(params.unnormed) - {kind_of(name) for name in params.sublayers}:
        raise ConfigError(f"{where}.unnormed has {sorted(lost)}, which are not among the sublayers")
    if (params.expert_used_count or 0) > (params.expert_count or 0):
        raise ConfigError(f"{where}.expert_used_count must be at most the expert_count")
    return params


def _build(cls: Any, data: dict[str, Any], where: str) -> Any:
    prefix = f"{where}." if where else ""
    known = {f.name: f for f in dataclasses.fields(cls)}
    if unknown := sorted(set(data) - set(known)):
        raise ConfigError(f"config.json has an unknown key {prefix + unknown[0]!r}")
    for name, f in known.items():
        required = f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        if required and name not in data:
            raise ConfigError(f"config.json lacks the key {prefix + name!r}")
    return cls(**data)
