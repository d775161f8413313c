"""The keys of a Genie GGUF with their types and ranges, in one table for reader and writer.

docs/gguf.md is held to it by a test.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .errors import ModelError
from .gguf_file import ARCHITECTURE as ARCHITECTURE
from .gguf_file import TensorType, Value, quoted

PROFILE_VERSION = 1
QUANTIZATION_VERSION = 2
STACKS = ("tokenizer.encoder", "tokenizer.decoder", "lam.encoder", "dynamics")
# The second of a kind in a block has a name of its own.
SUBLAYERS = ("spatial", "temporal", "spacetime", "ffn", "ffn2", "peg", "peg2")
NORMED = ("spatial", "temporal", "spacetime", "ffn")
LAM = "lam.encoder"
PEG_TAPS = 27
GATED = ("swiglu", "geglu")
CONVS = ("encoder", "decoder")  # of a tokenizer of the kind "conv"
QUANTIZERS = ("codebook", "fsq")
# What the tokenizer kinds mix time with.
KINDS: dict[str, str | None] = {"st-vivit": "temporal", "vit": None, "c-vivit": "spacetime", "conv": None}
# Value of general.file_type for each type of most weights.
FILE_TYPES: dict[TensorType, int] = {TensorType.F32: 0, TensorType.F16: 1, TensorType.Q4_0: 2, TensorType.Q8_0: 7}
# Beyond any machine this runs on; stops hyper-parameters whose product would overflow 64 bits in C.
MAX_BYTES = 1 << 42
MAX_TOKENS, MAX_WINDOW_TOKENS = 1 << 20, 1 << 24  # of a frame, and of a window; of the core

# One word of --actions.
NAME = re.compile(r"[a-z][a-z0-9-]{0,31}")

CONVERT_AGAIN = "convert the checkpoint again with this version's genie-convert"


@dataclass(frozen=True)
class Key:
    """One row of the table of docs/gguf.md. `<stack>` in `name` stands for each of STACKS."""

    name: str
    type: str
    field: str = ""  # of HParams or StackParams; empty for what belongs to the file and not to the model
    low: float | None = None
    high: float | None = None
    above: bool = False  # `low` itself is excluded
    choices: tuple[str | int, ...] = ()
    default: Value | None = None
    optional: bool = False
    quiet: bool = False  # written only where it is not the default, so that older readers know the file

    def check(self, name: str, value: object, stored: str | None = None) -> Any:
        """The value as its field holds it. Raises ModelError with the key, what is expected and what was got."""
        ok: bool
        result: Any = value
        if self.type == "uint32":
            ok = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 32
        elif self.type == "float32":
            ok = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= 3e38
            result = float32(value) if ok else value
        elif self.type == "bool":
            ok = isinstance(value, bool)
        elif self.type == "string":
            ok = isinstance(value, str)
        else:
            ok = isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value)
            result = tuple(value) if ok else value  # type: ignore[arg-type]
        if not ok or stored not in (None, self.type):
            got = f"a {stored}" if stored not in (None, self.type) else shown(value)
            raise ModelError(f"{name} must be {self.expected()}, not {got}", CONVERT_AGAIN)
        if self.type.startswith("array"):
            if self.choices:
                ok = 1 <= len(result) <= 8 and set(result) <= set(self.choices) and len(set(result)) == len(result)
            else:
                ok = all(NAME.fullmatch(item) for item in result)
        elif self.choices:
            ok = result in self.choices
        elif self.low is not None and self.high is not None:
            low, high = (float32(self.low), float32(self.high)) if self.type == "float32" else (self.low, self.high)
            ok = low <= result <= high and not (self.above and result == low)
        if not ok:
            raise ModelError(f"{name} must be {self.expected()}, not {shown(value)}", CONVERT_AGAIN)
        return result

    def expected(self) -> str:
        """The type and range in words."""
        if self.type.startswith("array") and not self.choices:
            return "an array of words of a-z, 0-9 and -, beginning with a letter, of at most 32 characters"
        if self.type.startswith("array"):
            return f"an array of 1 to 8 different strings among {', '.join(map(str, self.choices))}"
        if self.choices:
            return f"a {self.type} " + ("among " if len(self.choices) > 1 else "") + ", ".join(map(str, self.choices))
        if self.low is None:
            return f"a {self.type}"
        return f"a {self.type} " + (
            f"> {self.low:g} and <= {self.high:g}" if self.above else f"in {self.low:.10g}…{self.high:.10g}"
        )


CARD = (
    "general.name",
    "general.author",
    "general.license",
    "general.description",
    "general.source.url",
    "general.dataset",
)

KEYS: tuple[Key, ...] = (
    Key("general.architecture", "string", choices=(ARCHITECTURE,)),
    *(Key(name, "string", optional=True) for name in CARD),
    Key("general.file_type", "uint32", choices=tuple(FILE_TYPES.values())),
    Key("general.quantization_version", "uint32", choices=(QUANTIZATION_VERSION,)),
    Key("genie.version", "uint32", choices=(PROFILE_VERSION,)),
    Key("genie.frame.width", "uint32", "frame_width", 1, 4096),
    Key("genie.frame.height", "uint32", "frame_height", 1, 4096),
    Key("genie.context_length", "uint32", "context_length", 2, 1024),
    Key("genie.action.count", "uint32", "action_count", 0, 4096),
    Key("genie.action.names", "array of string", "action_names", optional=True, quiet=True),
    Key(
        "genie.action.conditioning", "string", "action_conditioning", choices=("add", "film"), default="add", quiet=True
    ),
    Key("genie.window.policy", "string", "window_policy", choices=("half", "exact", "retokenize"), default="half"),
    Key("genie.tokenizer.kind", "string", "tokenizer_kind", choices=tuple(KINDS)),
    Key("genie.tokenizer.patch_size", "uint32", "tokenizer_patch_size", 1, 256),
    Key("genie.tokenizer.codebook_size", "uint32", "codebook_size", 2, 1 << 20),
    Key("genie.tokenizer.latent_length", "uint32", "tokenizer_latent_length", 1, 4096),
    Key(
        "genie.tokenizer.quantizer", "string", "tokenizer_quantizer", choices=QUANTIZERS, default="codebook", quiet=True
    ),
    Key(
        "genie.dynamics.prediction",
        "string",
        "prediction",
        choices=("same-frame", "next-frame"),
        default="same-frame",
        quiet=True,
    ),
    Key("genie.tokenizer.conv.encoder", "array of string", "conv_encoder", optional=True, quiet=True),
    Key("genie.tokenizer.conv.decoder", "array of string", "conv_decoder", optional=True, quiet=True),
    Key("genie.tokenizer.conv.group_count", "uint32", "conv_group_count", 1, 65536, optional=True, quiet=True),
    Key(
        "genie.tokenizer.conv.norm_epsilon",
        "float32",
        "conv_norm_epsilon",
        0,
        0.1,
        above=True,
        optional=True,
        quiet=True,
    ),
    Key("genie.lam.patch_size", "uint32", "lam_patch_size", 1, 256),
    Key("genie.lam.latent_length", "uint32", "lam_latent_length", 1, 4096),
    Key("genie.lam.difference", "bool", "lam_difference"),
    Key("genie.lam.quantizer", "string", "lam_quantizer", choices=QUANTIZERS, default="codebook", quiet=True),
    Key("genie.lam.head", "string", "lam_head", choices=("mean", "pair", "joined"), default="mean", quiet=True),
    Key("genie.lam.head_length", "uint32", "lam_head_length", 1, 16384, optional=True),
    Key("genie.<stack>.block_count", "uint32", "block_count", 1, 512),
    Key("genie.<stack>.embedding_length", "uint32", "embedding_length", 1, 16384),
    Key("genie.<stack>.norm_length", "uint32", "norm_length", 1, 16384, optional=True),
    Key("genie.<stack>.feed_forward_length", "uint32", "feed_forward_length", 1, 131072),
    Key("genie.<stack>.attention.head_count", "uint32", "head_count", 1, 512),
    Key("genie.<stack>.attention.key_length", "uint32", "key_length", 1, 1024),
    Key("genie.<stack>.attention.qk_norm", "bool", "qk_norm"),
    Key("genie.<stack>.attention.qk_norm_epsilon", "float32", "qk_norm_epsilon", 0, 0.1, above=True, optional=True),
    Key(
        "genie.<stack>.attention.kv_input",
        "string",
        "kv_input",
        choices=("norm", "residual"),
        default="norm",
        quiet=True,
    ),
    Key(
        "genie.<stack>.attention.spatial_bias",
        "string",
        "spatial_bias",
        choices=("none", "relative"),
        default="none",
        quiet=True,
    ),
    Key(
        "genie.<stack>.attention.temporal_bias",
        "string",
        "temporal_bias",
        choices=("none", "alibi"),
        default="none",
        quiet=True,
    ),
    Key(
        "genie.<stack>.attention.qk_norm_kind",
        "string",
        "qk_norm_kind",
        choices=("rmsnorm", "layernorm"),
        default="rmsnorm",
        quiet=True,
    ),
    Key("genie.<stack>.sublayers", "array of string", "sublayers", choices=SUBLAYERS),
    Key("genie.<stack>.norm", "string", "norm", choices=("rmsnorm", "layernorm")),
    Key("genie.<stack>.unnormed", "array of string", "unnormed", choices=NORMED, optional=True, quiet=True),
    Key("genie.<stack>.norm_position", "string", "norm_position", choices=("pre", "post"), default="pre", quiet=True),
    Key("genie.<stack>.output_norm", "string", "output_norm", choices=("rmsnorm", "layernorm", "none"), optional=True),
    Key("genie.<stack>.norm_epsilon", "float32", "norm_epsilon", 0, 0.1, above=True),
    Key("genie.<stack>.ffn", "string", "ffn", choices=("gelu", "gelu_tanh", "relu", "swiglu", "geglu")),
    Key("genie.<stack>.expert_count", "uint32", "expert_count", 1, 256, optional=True, quiet=True),
    Key("genie.<stack>.expert_used_count", "uint32", "expert_used_count", 1, 256, optional=True, quiet=True),
    Key("genie.<stack>.bias", "bool", "bias"),
    Key(
        "genie.<stack>.position",
        "string",
        "position",
        choices=("separate", "joint", "none"),
        default="separate",
        quiet=True,
    ),
    Key("genie.<stack>.input_norm", "string", "input_norm", choices=("none", "dual"), default="none", quiet=True),
    Key(
        "genie.<stack>.first_frame",
        "string",
        "first_frame",
        choices=("none", "input", "output"),
        default="none",
        quiet=True,
    ),
    Key("genie.dynamics.factor_count", "uint32", "factor_count", 1, 4, default=1, quiet=True),
    Key("genie.sampler.steps", "uint32", "sampler_steps", 1, 1024),
    Key("genie.sampler.temperature", "float32", "sampler_temperature", 0, 100),
    Key("genie.sampler.order", "string", "sampler_order", choices=("confidence", "random", "largest-probability")),
    Key("genie.sampler.noise", "float32", "sampler_noise", 0, 100),
    Key(
        "genie.sampler.schedule",
        "string",
        "sampler_schedule",
        choices=("cosine", "exponential", "cosine-ceil"),
        default="cosine",
        quiet=True,
    ),
)
MODEL_KEYS = tuple(key for key in KEYS if key.field and "<stack>" not in key.name)
STACK_KEYS = tuple(key for key in KEYS if "<stack>" in key.name)
FILE_KEYS = tuple(key for key in KEYS if not key.field)
LAM_KEYS = "genie.lam."
# What stands in for the required keys of a file without a LAM.
NO_LAM: dict[str, Any] = {"lam_patch_size": 0, "lam_latent_length": 0, "lam_difference": False}
KNOWN = frozenset(key.name.replace("<stack>", stack) for key in KEYS for stack in STACKS)


def fsq_bins(codes: int, length: int) -> int | None:
    """The whole b >= 2 with b ** length == codes, or None."""
    bins = round(codes ** (1 / length))
    return bins if bins >= 2 and bins**length == codes else None


def float32(value: Any) -> float:
    """The float32 nearest to a number, as a Python float."""
    return float(np.float32(value))


def key_names(key: Key) -> tuple[str, ...]:
    if "<stack>" not in key.name:
        return (key.name,)
    return tuple(key.name.replace("<stack>", stack) for stack in STACKS)


def read_key(metadata: Mapping[str, Value], types: Mapping[str, str], key: Key, name: str) -> Any:
    if name not in metadata:
        if key.default is not None:
            return key.default
        if key.optional:
            return None
        hint = "this GGUF is not a Genie" if name == "general.architecture" else CONVERT_AGAIN
        raise ModelError(f"the key {name} is missing; it must be {key.expected()}", hint)
    if name == "general.architecture" and metadata[name] != ARCHITECTURE:
        raise ModelError(
            f"general.architecture must be {ARCHITECTURE}, not {shown(metadata[name])}",
            "genie_cpp runs Genie world models only",
        )
    return key.check(name, metadata[name], types.get(name))


def shown(value: object) -> str:
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, (list, tuple)):
        return quoted(", ".join(map(str, value[:9])))
    return repr(value)[:80]
