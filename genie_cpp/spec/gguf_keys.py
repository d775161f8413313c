"""The keys of a Genie GGUF with their types and ranges, in one table for the reader and the writer.

A test compares docs/gguf.md with this table.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from genie_cpp.errors import ModelError
from genie_cpp.file.gguf_file import ARCHITECTURE as ARCHITECTURE
from genie_cpp.file.gguf_file import TensorType, Value
from genie_cpp.spec.key import CONVERT_AGAIN, Key, shown
from genie_cpp.spec.stack_spec import STACK_KEYS

PROFILE_VERSION = 1
QUANTIZATION_VERSION = 2
STACKS = ("tokenizer.encoder", "tokenizer.decoder", "lam.encoder", "dynamics")
LAM = "lam.encoder"
CONVS = ("encoder", "decoder")  # halves of a tokenizer of the kind "conv"
QUANTIZERS = ("codebook", "fsq")
# The attention over time in each tokenizer kind.
KINDS: dict[str, str | None] = {"st-vivit": "temporal", "vit": None, "c-vivit": "spacetime", "conv": None}
# The value of general.file_type for each type of most weights.
FILE_TYPES: dict[TensorType, int] = {TensorType.F32: 0, TensorType.F16: 1, TensorType.Q4_0: 2, TensorType.Q8_0: 7}
# More than any machine has; prevents hyper-parameters whose product would overflow 64 bits in C.
MAX_BYTES = 1 << 42
MAX_TOKENS, MAX_WINDOW_TOKENS = 1 << 20, 1 << 24  # limits of the core, per frame and per window


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
    *(Key(name, "string", optional=True, meaning="model card") for name in CARD),
    Key(
        "general.file_type",
        "uint32",
        choices=tuple(FILE_TYPES.values()),
        meaning="type of most weights: 0 F32, 1 F16, 2 Q4_0, 7 Q8_0",
    ),
    Key("general.quantization_version", "uint32", choices=(QUANTIZATION_VERSION,)),
    Key("genie.version", "uint32", choices=(PROFILE_VERSION,), meaning="version of this page"),
    Key("genie.frame.width", "uint32", "frame_width", 1, 4096, meaning="pixels, multiples of both patch sizes"),
    Key("genie.frame.height", "uint32", "frame_height", 1, 4096, meaning="pixels, multiples of both patch sizes"),
    Key("genie.context_length", "uint32", "context_length", 2, 1024, meaning="frames in the window"),
    Key(
        "genie.action.count",
        "uint32",
        "action_count",
        0,
        4096,
        meaning="latent actions; 0: the world goes on by itself",
    ),
    Key(
        "genie.action.names",
        "array of string",
        "action_names",
        optional=True,
        quiet=True,
        meaning="what each latent action does, one word each, of a-z, 0-9 and -, beginning with a letter, of at most "
        "32 characters; two may do the same",
    ),
    Key(
        "genie.action.conditioning",
        "string",
        "action_conditioning",
        choices=("add", "film"),
        default="add",
        quiet=True,
        meaning="an action is added to its frame's tokens, or picks the row of the norms in the blocks of `dynamics`",
    ),
    Key(
        "genie.window.policy",
        "string",
        "window_policy",
        choices=("half", "exact", "retokenize"),
        default="half",
        meaning="what a full window does",
    ),
    Key("genie.tokenizer.kind", "string", "tokenizer_kind", choices=tuple(KINDS)),
    Key("genie.tokenizer.patch_size", "uint32", "tokenizer_patch_size", 1, 256, meaning="pixels"),
    Key("genie.tokenizer.codebook_size", "uint32", "codebook_size", 2, 1 << 20, meaning="codes"),
    Key("genie.tokenizer.latent_length", "uint32", "tokenizer_latent_length", 1, 4096, meaning="floats per code"),
    Key(
        "genie.tokenizer.quantizer",
        "string",
        "tokenizer_quantizer",
        choices=QUANTIZERS,
        default="codebook",
        quiet=True,
        meaning="nearest code, or finite scalar quantization",
    ),
    Key(
        "genie.dynamics.prediction",
        "string",
        "prediction",
        choices=("same-frame", "next-frame"),
        default="same-frame",
        quiet=True,
        meaning="the frame that the logits of a frame are for",
    ),
    Key(
        "genie.tokenizer.conv.encoder",
        "array of string",
        "conv_encoder",
        optional=True,
        quiet=True,
        meaning="layers in order, with `conv`",
    ),
    Key(
        "genie.tokenizer.conv.decoder",
        "array of string",
        "conv_decoder",
        optional=True,
        quiet=True,
        meaning="layers in order, with `conv`",
    ),
    Key(
        "genie.tokenizer.conv.group_count",
        "uint32",
        "conv_group_count",
        1,
        65536,
        optional=True,
        quiet=True,
        meaning="groups of its norms, with `conv`",
    ),
    Key(
        "genie.tokenizer.conv.norm_epsilon",
        "float32",
        "conv_norm_epsilon",
        0,
        0.1,
        above=True,
        optional=True,
        quiet=True,
        meaning="with `conv`",
    ),
    Key("genie.lam.patch_size", "uint32", "lam_patch_size", 1, 256, meaning="pixels"),
    Key("genie.lam.latent_length", "uint32", "lam_latent_length", 1, 4096, meaning="floats per code"),
    Key(
        "genie.lam.difference",
        "bool",
        "lam_difference",
        meaning="the encoder sees the changes between frames, not the frames",
    ),
    Key("genie.lam.quantizer", "string", "lam_quantizer", choices=QUANTIZERS, default="codebook", quiet=True),
    Key(
        "genie.lam.head",
        "string",
        "lam_head",
        choices=("mean", "pair", "joined"),
        default="mean",
        quiet=True,
        meaning="a latent is the mean of a frame's outputs, or comes of the means of two frames, or of all outputs of "
        "a frame",
    ),
    Key(
        "genie.lam.head_length",
        "uint32",
        "lam_head_length",
        1,
        16384,
        optional=True,
        meaning="hidden values of the heads `pair` and `joined`, and present with them only",
    ),
    *STACK_KEYS,
    Key(
        "genie.dynamics.factor_count",
        "uint32",
        "factor_count",
        1,
        4,
        default=1,
        quiet=True,
        meaning="digits of a token, see below",
    ),
    Key("genie.sampler.steps", "uint32", "sampler_steps", 1, 1024, meaning="MaskGIT steps (docs/sampling.md)"),
    Key("genie.sampler.temperature", "float32", "sampler_temperature", 0, 100, meaning="0 is greedy"),
    Key("genie.sampler.order", "string", "sampler_order", choices=("confidence", "random", "largest-probability")),
    Key("genie.sampler.noise", "float32", "sampler_noise", 0, 100, meaning="Gumbel noise on the confidence"),
    Key(
        "genie.sampler.schedule",
        "string",
        "sampler_schedule",
        choices=("cosine", "exponential", "cosine-ceil"),
        default="cosine",
        quiet=True,
        meaning="how many tokens a step fills",
    ),
)
MODEL_KEYS = tuple(key for key in KEYS if key.field and "<stack>" not in key.name)
FILE_KEYS = tuple(key for key in KEYS if not key.field)
LAM_KEYS = "genie.lam."
# Field values for a file without a LAM, in place of the required keys.
NO_LAM: dict[str, Any] = {"lam_patch_size": 0, "lam_latent_length": 0, "lam_difference": False}
KNOWN = frozenset(key.name.replace("<stack>", stack) for key in KEYS for stack in STACKS)


def fsq_bins(codes: int, length: int) -> int | None:
    """The integer b >= 2 with b ** length == codes, or None."""
    bins = round(codes ** (1 / length))
    return bins if bins >= 2 and bins**length == codes else None


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
