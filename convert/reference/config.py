"""Hyper-parameters of a native Genie checkpoint: every choice of the paper (arXiv 2402.15391) as a field.

The same names are used in `config.json`, in the GGUF keys (docs/gguf.md) and in the C core.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SUBLAYERS = ("spatial", "temporal", "spacetime", "ffn", "ffn2", "peg", "peg2")
NORMS = ("rmsnorm", "layernorm")
OUTPUT_NORMS = (*NORMS, "none")
QUANTIZERS = ("codebook", "fsq")
CHOICES = {
    "kv_input": ("norm", "residual"),
    "spatial_bias": ("none", "relative"),
    "temporal_bias": ("none", "alibi"),
    "position": ("separate", "joint", "none"),
    "input_norm": ("none", "dual"),
    "first_frame": ("none", "input", "output"),
}
FFNS = ("gelu", "gelu_tanh", "relu", "swiglu", "geglu")


class ConfigError(ValueError):
    """`config.json` lacks a key, has an unknown one, or a value outside its range."""


@dataclass(frozen=True)
class StackConfig:
    """One ST-transformer: `block_count` blocks, each a list of sublayers, all with a norm and a residual.

    head_count * key_length need not equal embedding_length (Table 12 of the paper: 36 * 128 != 5120).
    """

    block_count: int
    embedding_length: int
    head_count: int
    key_length: int
    feed_forward_length: int
    sublayers: tuple[str, ...] = ("spatial", "temporal", "ffn")
    norm: str = "rmsnorm"
    norm_epsilon: float = 1e-5
    ffn: str = "gelu"
    qk_norm: bool = False
    bias: bool = False
    norm_position: str = "pre"  # x + f(norm(x)), or "post": norm(x + f(x))
    output_norm: str | None = None  # before the head; by default the kind of `norm`
    norm_length: int | None = None  # values of an embedding that norms look at, the rest being zero; None: all
    qk_norm_epsilon: float | None = None  # None: norm_epsilon
    kv_input: str = "norm"  # what keys and values read; queries always read the norm
    spatial_bias: str = "none"  # or "relative": on scores, by the offset of two tokens of a frame
    temporal_bias: str = "none"  # or "alibi": on scores, by the frames between (arXiv 2108.12409)
    position: str = "separate"  # one per token plus one per time, "joint": one per token and time, or "none"
    input_norm: str = "none"  # or "dual": layer norms before and after the input matrix (arXiv 2302.01327)
    first_frame: str = "none"  # whether a window's first frame has an "input" or "output" matrix of its own
    qk_norm_kind: str = "rmsnorm"
    unnormed: tuple[str, ...] = ()  # kinds of sublayers without a norm
    expert_count: int | None = (
        None  # FFNs of a sublayer, of which each token takes expert_used_count (arXiv 1701.06538)
    )
    expert_used_count: int | None = None

    def __post_init__(self) -> None:
        for name in ("block_count", "embedding_length", "head_count", "key_length", "feed_forward_length"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise ConfigError(f"{name} must be a whole number >= 1, not {getattr(self, name)!r}")
        object.__setattr__(self, "sublayers", tuple(self.sublayers))
        if not self.sublayers or set(self.sublayers) - set(SUBLAYERS):
            raise ConfigError(f"sublayers {list(self.sublayers)} are not among {list(SUBLAYERS)}")
        object.__setattr__(self, "unnormed", tuple(self.unnormed))
        if set(self.unnormed) - set(self.sublayers):
            raise ConfigError(f"unnormed {list(self.unnormed)} are not among the sublayers {list(self.sublayers)}")
        if self.qk_norm_kind not in NORMS:
            raise ConfigError(f"qk_norm_kind {self.qk_norm_kind!r} is not among {list(NORMS)}")
        if self.norm not in NORMS:
            raise ConfigError(f"norm {self.norm!r} is not among {list(NORMS)}")
        if self.norm_position not in ("pre", "post"):
            raise ConfigError(f"norm_position {self.norm_position!r} is neither pre nor post")
        object.__setattr__(self, "output_norm", self.norm if self.output_norm is None else self.output_norm)
        if self.output_norm not in OUTPUT_NORMS:
            raise ConfigError(f"output_norm {self.output_norm!r} is not among {list(OUTPUT_NORMS)}")
        if self.ffn not in FFNS:
            raise ConfigError(f"ffn {self.ffn!r} is not among {list(FFNS)}")
        experts, used = self.expert_count, self.expert_used_count
        if (experts, used) != (None, None) and not (
            isinstance(experts, int) and isinstance(used, int) and 1 <= used <= experts
        ):
            raise ConfigError(f"expert_used_count {used!r} is not among 1…expert_count {experts!r}")
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise ConfigError(f"{name} {getattr(self, name)!r} is not among {list(choices)}")


@dataclass(frozen=True)
class TokenizerConfig:
    """Video tokenizer (section 2.1, Table 3). kind: "st-vivit", "vit" (spatial only) or "c-vivit" (joint attention)."""

    encoder: StackConfig
    decoder: StackConfig
    kind: str = "st-vivit"
    patch_size: int = 4
    codebook_size: int = 1024
    latent_length: int = 32
    quantizer: str = "codebook"  # or "fsq": latent_length digits (arXiv 2309.15505)


@dataclass(frozen=True)
class LamConfig:
    """Latent action model (section 2.1). The decoder exists for training only and may be absent from a checkpoint."""

    encoder: StackConfig
    decoder: StackConfig | None
    patch_size: int = 16
    latent_length: int = 32
    # Predict the change from the last frame instead of the frame itself: same objective, far fewer steps to learn.
    residual: bool = True
    # Show the encoder the change between frames instead of the frames: the scene, which says nothing about the action,
    # then does not use up the codes. A small LAM needs this; with it, actions separate in minutes on a CPU.
    difference: bool = False
    quantizer: str = "codebook"
    # "mean": of the tokens' latents. "pair": the means of two frames side by side through a head of its own, whose
    # hidden layer has head_length; the encoder's output_norm is "none" then. "joined": a frame's outputs side by side
    # through a matrix to head_length values, a layer norm and another matrix.
    head: str = "mean"
    head_length: int | None = None


@dataclass(frozen=True)
class DynamicsConfig:
    """MaskGIT dynamics (section 2.1): token ids in, logits out.

    conditioning: "add" puts an action's embedding on every token of its frame, "film" gives every norm inside the
    blocks a scale and a shift per action (arXiv 1709.07871).
    prediction: logits are for the "same-frame", whose unknown tokens are masked, or for the "next-frame"; an action
    then goes in with the frame before the one it produces.
    factor_count: K digits make a token, the least significant first; its embedding is the sum of theirs, its logits are
    theirs side by side.
    """

    stack: StackConfig
    sampler: dict[str, Any] = field(default_factory=dict)
    conditioning: str = "add"
    prediction: str = "same-frame"
    factor_count: int = 1


@dataclass(frozen=True)
class GenieConfig:
    """A whole Genie. Frames are `frame_height` x `frame_width` x 3, windows hold `context_length` frames."""

    tokenizer: TokenizerConfig
    lam: LamConfig
    dynamics: DynamicsConfig
    frame_width: int = 64
    frame_height: int = 64
    context_length: int = 16
    action_count: int = 8
    action_names: list[str] = field(default_factory=list)  # what each latent action does; empty: nobody has looked
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
        """Columns and rows of patches of this size."""
        return self.frame_width // patch, self.frame_height // patch

    @property
    def token_count(self) -> int:
        """Tokens per frame."""
        columns, rows = self.grid(self.tokenizer.patch_size)
        return columns * rows

    @property
    def vocabulary(self) -> int:
        """Logits per token; no multiple of the factor count where the codebook is no power of it."""
        factors, codes = self.dynamics.factor_count, self.tokenizer.codebook_size
        size = round(codes ** (1 / factors))
        return factors * size if size**factors == codes else 1

    def save(self, path: Path) -> None:
        path.write_text(json.dumps({"format": "genie", **dataclasses.asdict(self)}, indent=1) + "\n", encoding="utf-8")

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
        lam_decoder = _build(StackConfig, lam["decoder"], "lam.decoder") if lam.get("decoder") else None
        return _build(
            GenieConfig,
            {
                **data,
                "tokenizer": _build(
                    TokenizerConfig,
                    {
                        **tokenizer,
                        "encoder": _build(StackConfig, _nested(tokenizer, "encoder"), "tokenizer.encoder"),
                        "decoder": _build(StackConfig, _nested(tokenizer, "decoder"), "tokenizer.decoder"),
                    },
                    "tokenizer",
                ),
                "lam": _build(
                    LamConfig,
                    {
                        **lam,
                        "encoder": _build(StackConfig, _nested(lam, "encoder"), "lam.encoder"),
                        "decoder": lam_decoder,
                    },
                    "lam",
                ),
                "dynamics": _build(
                    DynamicsConfig,
                    {**dynamics, "stack": _build(StackConfig, _nested(dynamics, "stack"), "dynamics.stack")},
                    "dynamics",
                ),
            },
            "",
        )


def _nested(data: dict[str, Any], key: str) -> dict[str, Any]:
    if not isinstance(data.get(key), dict):
        raise ConfigError(f"config.json lacks the section {key!r}")
    return data[key]


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
