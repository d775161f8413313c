"""Hyper-parameters of a Genie GGUF, and the tensors that follow from them (docs/gguf.md, held to it by a test).

One table, `KEYS`, serves the reader and the writer: `HParams.from_metadata` and `HParams.to_metadata`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import conv
from .errors import ModelError
from .gguf_file import BLOCKS, GGUFFile, TensorType, Value, quoted

ARCHITECTURE = "genie"
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

# One word of --actions.
NAME = re.compile(r"[a-z][a-z0-9-]{0,31}")

_CONVERT_AGAIN = "convert the checkpoint again with this version's genie-convert"


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
            got = f"a {stored}" if stored not in (None, self.type) else _shown(value)
            raise ModelError(f"{name} must be {self.expected()}, not {got}", _CONVERT_AGAIN)
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
            raise ModelError(f"{name} must be {self.expected()}, not {_shown(value)}", _CONVERT_AGAIN)
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
_MODEL_KEYS = tuple(key for key in KEYS if key.field and "<stack>" not in key.name)
_STACK_KEYS = tuple(key for key in KEYS if "<stack>" in key.name)
_FILE_KEYS = tuple(key for key in KEYS if not key.field)
_LAM_KEYS = "genie.lam."
# What stands in for the required keys of a file without a LAM.
_NO_LAM: dict[str, Any] = {"lam_patch_size": 0, "lam_latent_length": 0, "lam_difference": False}
_KNOWN = frozenset(key.name.replace("<stack>", stack) for key in KEYS for stack in STACKS)


@dataclass(frozen=True)
class StackParams:
    """One ST-transformer: `block_count` blocks, each the `sublayers` in order with a residual."""

    block_count: int
    embedding_length: int
    feed_forward_length: int
    head_count: int
    key_length: int
    qk_norm: bool
    sublayers: tuple[str, ...]
    norm: str
    norm_epsilon: float
    ffn: str
    bias: bool
    norm_position: str = "pre"  # x + f(norm(x)), or "post": norm(x + f(x))
    output_norm: str | None = None  # before the head; None is given as the kind of `norm`
    norm_length: int | None = None  # values of an embedding that norms look at, the rest being zero; None: all
    qk_norm_epsilon: float | None = None  # None: norm_epsilon
    kv_input: str = "norm"  # what keys and values read; queries always read the norm
    spatial_bias: str = "none"
    temporal_bias: str = "none"
    position: str = "separate"
    input_norm: str = "none"
    first_frame: str = "none"  # what the first frame of a window has weights of its own for
    qk_norm_kind: str = "rmsnorm"
    unnormed: tuple[str, ...] | None = None  # kinds of sublayers without a norm

    def __post_init__(self) -> None:
        object.__setattr__(self, "norm_epsilon", float32(self.norm_epsilon))
        object.__setattr__(self, "output_norm", self.output_norm or self.norm)
        if self.qk_norm_epsilon is not None:
            object.__setattr__(self, "qk_norm_epsilon", float32(self.qk_norm_epsilon))


@dataclass(frozen=True)
class HParams:
    """Everything but the weights. Frames in pixels, context_length in frames, floats rounded to float32 as stored."""

    frame_width: int
    frame_height: int
    context_length: int
    action_count: int
    window_policy: str
    tokenizer_kind: str
    tokenizer_patch_size: int
    codebook_size: int
    tokenizer_latent_length: int
    lam_patch_size: int
    lam_latent_length: int
    lam_difference: bool
    sampler_steps: int
    sampler_temperature: float
    sampler_order: str
    sampler_noise: float
    stacks: dict[str, StackParams]
    action_names: tuple[str, ...] | None = None  # what each latent action does, where somebody has looked
    action_conditioning: str = "add"
    tokenizer_quantizer: str = "codebook"
    lam_quantizer: str = "codebook"
    lam_head: str = "mean"
    lam_head_length: int | None = None  # of the hidden layer, with the head "pair"
    factor_count: int = 1  # digits of a token id, each predicted by logits of its own
    conv_encoder: tuple[str, ...] | None = None  # layers, with the tokenizer kind "conv"
    conv_decoder: tuple[str, ...] | None = None
    conv_group_count: int | None = None
    conv_norm_epsilon: float | None = None
    sampler_schedule: str = "cosine"
    prediction: str = "same-frame"  # the frame that the logits of a frame are for

    def __post_init__(self) -> None:
        for name in ("sampler_temperature", "sampler_noise", "conv_norm_epsilon"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, float32(getattr(self, name)))

    @staticmethod
    def from_metadata(metadata: Mapping[str, Value], value_types: Mapping[str, str] | None = None) -> HParams:
        """Check every key. `value_types` (of GGUFFile) holds the stored integer and float widths to the page as well.

        Raises ModelError naming the key, what was expected and what was got.
        """
        types = value_types or {}
        for name in metadata:
            if name.startswith("genie.") and name not in _KNOWN:
                raise ModelError(f"unknown key {quoted(name)}", "the file may need a newer genie_cpp")
        for key in _FILE_KEYS:
            _read(metadata, types, key, key.name)
        lam = any(name.startswith(_LAM_KEYS) for name in metadata)  # all of it, or nothing
        fields: dict[str, Any] = {
            key.field: _NO_LAM.get(key.field, key.default)
            if key.name.startswith(_LAM_KEYS) and not lam
            else _read(metadata, types, key, key.name)
            for key in _MODEL_KEYS
        }
        names = [stack for stack in STACKS if lam or stack != LAM]
        if fields["tokenizer_kind"] == "conv":
            names = [stack for stack in names if not stack.startswith("tokenizer.")]
            for name in metadata:
                if name.startswith(("genie.tokenizer.encoder.", "genie.tokenizer.decoder.")):
                    raise ModelError(f"a tokenizer of the kind conv has no key {quoted(name)}", _CONVERT_AGAIN)
        stacks = {
            stack: StackParams(
                **{key.field: _read(metadata, types, key, key.name.replace("<stack>", stack)) for key in _STACK_KEYS}
            )
            for stack in names
        }
        hp = HParams(**fields, stacks=stacks)
        hp.check()
        return hp

    def to_metadata(self, file_type: TensorType, card: Mapping[str, str] | None = None) -> dict[str, tuple[str, Value]]:
        """All keys in the page's order as `{key: (type, value)}`; checked, so what is written can be read.

        card: values by general.* key; empty ones are left out. Raises ModelError.
        """
        values: dict[str, Any] = {
            **(card or {}),
            "general.architecture": ARCHITECTURE,
            "general.file_type": FILE_TYPES[file_type],
            "general.quantization_version": QUANTIZATION_VERSION,
            "genie.version": PROFILE_VERSION,
        }
        for key in _MODEL_KEYS:
            value = getattr(self, key.field)
            if not (key.quiet and value == key.default) and (self.has_lam or not key.name.startswith(_LAM_KEYS)):
                values[key.name] = list(value) if isinstance(value, tuple) else value
        for stack, s in self.stacks.items():
            for key in _STACK_KEYS:
                value = getattr(s, key.field)
                if (key.quiet and value == key.default) or (key.field == "output_norm" and value == s.norm):
                    continue
                values[key.name.replace("<stack>", stack)] = list(value) if isinstance(value, tuple) else value
        HParams.from_metadata({name: value for name, value in values.items() if value is not None})
        rows = {name: key.type for key in KEYS for name in _names(key)}
        return {name: (kind, values[name]) for name, kind in rows.items() if values.get(name) not in (None, "")}

    def check(self) -> None:
        """Rules that join several keys. Raises ModelError."""
        patches = {"tokenizer": self.tokenizer_patch_size} | ({"lam": self.lam_patch_size} if self.has_lam else {})
        for name, patch in patches.items():
            if self.frame_width % patch or self.frame_height % patch:
                raise ModelError(
                    f"genie.{name}.patch_size {patch} does not divide {self.frame_width}x{self.frame_height} frames",
                    _CONVERT_AGAIN,
                )
        if self.action_names is not None and len(self.action_names) != self.action_count:
            raise ModelError(
                f"genie.action.names has {len(self.action_names)} names for {self.action_count} actions", _CONVERT_AGAIN
            )
        self._check_quantizers()
        self._check_conv()
        if self.action_count == 0 and self.has_lam:
            raise ModelError(
                "genie.action.count is 0, and a world without actions has no latent action model", _CONVERT_AGAIN
            )
        if self.factor_count > 1 and fsq_bins(self.codebook_size, self.factor_count) is None:
            raise ModelError(
                f"{self.codebook_size} codes are no whole number to the power of genie.dynamics.factor_count "
                f"{self.factor_count}",
                _CONVERT_AGAIN,
            )
        for stack in {"tokenizer.encoder", "tokenizer.decoder"} & set(self.stacks):
            mixing = {"temporal", "spacetime"} & set(self.stacks[stack].sublayers)
            if mixing != {KINDS[self.tokenizer_kind]} - {None}:
                raise ModelError(
                    f"genie.{stack}.sublayers {', '.join(self.stacks[stack].sublayers)} do not make a "
                    f"{self.tokenizer_kind} tokenizer",
                    _CONVERT_AGAIN,
                )
        for stack, s in self.stacks.items():
            for key, ok, wanted in (
                ("norm_length", (s.norm_length or 0) <= s.embedding_length, "at most the embedding_length"),
                ("attention.qk_norm_epsilon", s.qk_norm or s.qk_norm_epsilon is None, "left out without qk_norm"),
                ("attention.kv_input", s.kv_input == "norm" or s.norm_position == "pre", "norm where norms come after"),
                ("input_norm", s.input_norm == "none" or stack != "dynamics", "none: it takes token ids"),
                ("first_frame", s.first_frame != "input" or stack != "dynamics", "output or none: it takes token ids"),
                ("first_frame", s.first_frame != "output" or self.output_length(stack) > 0, "input or none: no output"),
            ):
                if not ok:
                    raise ModelError(f"genie.{stack}.{key} must be {wanted}", _CONVERT_AGAIN)
        weights = 4 * self.parameter_count()
        cache = sum(self.cache_bytes(stack) for stack in self.stacks)
        for what, size in (("weights", weights), ("temporal cache", cache)):
            if size > MAX_BYTES:
                raise ModelError(f"the hyper-parameters ask for {size / 2**40:.0f} TiB of {what}", _CONVERT_AGAIN)

    def _check_quantizers(self) -> None:
        for name, kind, codes, length in (
            ("tokenizer", self.tokenizer_quantizer, self.codebook_size, self.tokenizer_latent_length),
            ("lam", self.lam_quantizer, self.action_count, self.lam_latent_length),
        ):
            if kind == "fsq" and length and fsq_bins(codes, length) is None:
                raise ModelError(
                    f"{codes} codes are no whole number of bins to the power of genie.{name}.latent_length {length}",
                    _CONVERT_AGAIN,
                )
        if (self.lam_head != "mean") != (self.lam_head_length is not None):
            raise ModelError("genie.lam.head_length goes with the genie.lam.head pair or joined", _CONVERT_AGAIN)
        if self.lam_head == "joined" and self.lam_difference:
            raise ModelError("the genie.lam.head joined wants no genie.lam.difference", _CONVERT_AGAIN)
        if self.lam_head == "pair" and (self.lam_difference or self.stacks["lam.encoder"].output_norm != "none"):
            raise ModelError("the genie.lam.head pair wants no genie.lam.difference and no output_norm", _CONVERT_AGAIN)

    @property
    def has_lam(self) -> bool:
        """Whether there is a latent action model to infer actions with."""
        return LAM in self.stacks

    def _check_conv(self) -> None:
        """The layers of both networks lead from pixels to latents and back, through as many halvings."""
        values = (self.conv_encoder, self.conv_decoder, self.conv_group_count, self.conv_norm_epsilon)
        if (self.tokenizer_kind == "conv") != all(value is not None for value in values) or (
            self.tokenizer_kind != "conv" and any(value is not None for value in values)
        ):
            raise ModelError(
                "genie.tokenizer.conv keys go with the genie.tokenizer.kind conv, all of them", _CONVERT_AGAIN
            )
        for name in CONVS if self.tokenizer_kind == "conv" else ():
            found = self.conv_layers(name)
            wanted = (self.tokenizer_latent_length, -1) if name == "encoder" else (3, 1)
            if found[-1].channels != wanted[0] or 2 ** (found[-1].scale * wanted[1]) != self.tokenizer_patch_size:
                raise ModelError(
                    f"genie.tokenizer.conv.{name} ends in {found[-1].channels} channels at 2^{found[-1].scale} of its "
                    f"input's sides, not in {wanted[0]} at those of a patch_size of {self.tokenizer_patch_size}",
                    _CONVERT_AGAIN,
                )

    def conv_layers(self, name: str) -> list[conv.Layer]:
        """The layers of one of CONVS."""
        words, channels = (
            (self.conv_encoder, 3) if name == "encoder" else (self.conv_decoder, self.tokenizer_latent_length)
        )
        return conv.layers(f"genie.tokenizer.conv.{name}", words or (), channels, self.conv_group_count or 1)

    @property
    def choices(self) -> int:
        """What a step may be given, 0…choices-1: an action; in a world without actions 0 means to go on."""
        return max(self.action_count, 1)

    def bins(self, module: str) -> int | None:
        """Values per digit of the FSQ of "tokenizer" or "lam"; None where codes are learned."""
        if module == "lam":
            return fsq_bins(self.action_count, self.lam_latent_length) if self.lam_quantizer == "fsq" else None
        fsq = self.tokenizer_quantizer == "fsq"
        return fsq_bins(self.codebook_size, self.tokenizer_latent_length) if fsq else None

    def grid(self, stack: str) -> tuple[int, int]:
        """(columns, rows) of the tokens of a frame."""
        patch = self.lam_patch_size if stack.startswith("lam.") else self.tokenizer_patch_size
        return self.frame_width // patch, self.frame_height // patch

    def token_count(self, stack: str) -> int:
        """P, the tokens per frame of a stack."""
        columns, rows = self.grid(stack)
        return columns * rows

    def input_length(self, stack: str) -> int | None:
        """Length of the vectors a stack takes in; None for `dynamics`, which takes token ids."""
        return {
            "tokenizer.encoder": 3 * self.tokenizer_patch_size**2,
            "tokenizer.decoder": self.tokenizer_latent_length,
            "lam.encoder": 3 * self.lam_patch_size**2,
            "dynamics": None,
        }[stack]

    def output_length(self, stack: str) -> int:
        """O, the length of the vectors a stack's head gives out; 0 where it has none and gives out its embeddings."""
        if stack == LAM and self.lam_head != "mean":
            return 0
        return {
            "tokenizer.encoder": self.tokenizer_latent_length,
            "tokenizer.decoder": 3 * self.tokenizer_patch_size**2,
            "lam.encoder": self.lam_latent_length,
            "dynamics": self.vocabulary,
        }[stack]

    @property
    def vocabulary(self) -> int:
        """Logits per token: one per code, or one per value of each of its digits."""
        if self.factor_count == 1:
            return self.codebook_size
        return self.factor_count * (fsq_bins(self.codebook_size, self.factor_count) or 1)

    def cache_bytes(self, stack: str) -> int:
        """Bytes in float32 of what a full window keeps: keys and values, and what convolutions over time see."""
        s = self.stacks[stack]
        attentions = len({"temporal", "spacetime"} & set(s.sublayers))
        convolutions = len({"peg", "peg2"} & set(s.sublayers))
        floats = attentions * s.head_count * s.key_length * 2 + convolutions * s.embedding_length
        return s.block_count * self.context_length * self.token_count(stack) * floats * 4

    def parameter_count(self) -> int:
        """Number of weights, without listing the tensors (they may be too many to list before this is checked)."""
        one = dataclasses.replace(
            self, stacks={name: dataclasses.replace(stack, block_count=1) for name, stack in self.stacks.items()}
        )
        total = 0
        for name, (shape, _) in expected_tensors(one).items():
            count = 1
            for length in shape:
                count *= length
            block = re.match(r"(.*)\.blk\.0\.", name)
            total += count * (self.stacks[block[1]].block_count if block else 1)
        return total


def expected_tensors(hp: HParams) -> dict[str, tuple[tuple[int, ...], bool]]:
    """`{name: (shape fastest first, is it a matrix)}` of exactly the tensors a file with these parameters has."""
    found: dict[str, tuple[tuple[int, ...], bool]] = {}

    def linear(name: str, wide: int, tall: int, bias: bool) -> None:
        found[f"{name}.weight"] = ((wide, tall), True)
        if bias:
            found[f"{name}.bias"] = ((tall,), False)

    def norm(name: str, shape: tuple[int, ...], kind: str | None) -> None:
        if kind != "none":
            found[f"{name}.weight"] = (shape, False)
        if kind == "layernorm":
            found[f"{name}.bias"] = (shape, False)

    for name, s in hp.stacks.items():
        E, F, inner = s.embedding_length, s.feed_forward_length, s.head_count * s.key_length
        wide = hp.input_length(name)
        film = name == "dynamics" and hp.action_conditioning == "film"
        if wide is None:
            found["dynamics.token_embd.weight"] = ((E, hp.vocabulary + 1), True)
            if not film and hp.action_count:
                found["dynamics.action_embd.weight"] = ((E, hp.action_count), False)
        else:
            for end in ("input", "input_first") if s.first_frame == "input" else ("input",):
                linear(f"{name}.{end}", wide, E, True)
                norm(f"{name}.{end}_norm", (E,), "layernorm" if s.input_norm == "dual" else "none")
        if s.position == "separate":
            found[f"{name}.pos_space.weight"] = ((E, hp.token_count(name)), False)
            found[f"{name}.pos_time.weight"] = ((E, hp.context_length), False)
        elif s.position == "joint":
            found[f"{name}.pos.weight"] = ((E, hp.token_count(name) * hp.context_length), False)
        if s.spatial_bias == "relative":
            columns, rows = hp.grid(name)
            found[f"{name}.spatial_bias.weight"] = (((2 * columns - 1) * (2 * rows - 1), s.head_count), False)
        if s.temporal_bias == "alibi":
            found[f"{name}.temporal_bias.weight"] = ((s.head_count,), False)
        for i in range(s.block_count):
            for sublayer in s.sublayers:
                at = f"{name}.blk.{i}.{sublayer}"
                if sublayer in ("peg", "peg2"):
                    found[f"{at}.conv.weight"], found[f"{at}.conv.bias"] = ((E, PEG_TAPS), False), ((E,), False)
                    continue
                if sublayer.rstrip("2") not in (s.unnormed or ()):
                    norm(f"{at}.norm", (E, hp.action_count + 1) if film else (E,), s.norm)
                if sublayer in ("ffn", "ffn2"):
                    for part in ("up", "gate") if s.ffn in GATED else ("up",):
                        linear(f"{at}.{part}", E, F, s.bias)
                    linear(f"{at}.down", F, E, s.bias)
                    continue
                for part in ("q", "k", "v"):
                    linear(f"{at}.{part}", E, inner, s.bias)
                linear(f"{at}.out", inner, E, s.bias)
                for part in ("q_norm", "k_norm") if s.qk_norm else ():
                    norm(f"{at}.{part}", (s.key_length,), s.qk_norm_kind)
        norm(f"{name}.output_norm", (E,), s.output_norm)
        if hp.output_length(name):
            for end in ("output", "output_first") if s.first_frame == "output" else ("output",):
                linear(f"{name}.{end}", E, hp.output_length(name), True)
    if hp.lam_head_length is not None:
        joined, hidden = hp.lam_head == "joined", hp.lam_head_length
        wide = hp.stacks[LAM].embedding_length * (hp.token_count(LAM) if joined else 2)
        norm("lam.head.norm", (hidden if joined else wide,), "layernorm")
        found["lam.head.up.weight"] = ((wide, hidden), joined)
        found["lam.head.down.weight"] = ((hidden, hp.lam_latent_length), False)
        found["lam.head.up.bias"], found["lam.head.down.bias"] = ((hidden,), False), ((hp.lam_latent_length,), False)
    if hp.tokenizer_quantizer == "codebook":
        found["tokenizer.codebook.weight"] = ((hp.tokenizer_latent_length, hp.codebook_size), False)
    for half in CONVS if hp.tokenizer_kind == "conv" else ():
        for i, layer in enumerate(hp.conv_layers(half)):
            found |= {f"tokenizer.{half}.layer.{i}.{name}": what for name, what in conv.tensors(layer).items()}
    if hp.has_lam and hp.lam_quantizer == "codebook":
        found["lam.codebook.weight"] = ((hp.lam_latent_length, hp.action_count), False)
    return found


def fsq_bins(codes: int, length: int) -> int | None:
    """The whole b >= 2 with b ** length == codes, or None."""
    bins = round(codes ** (1 / length))
    return bins if bins >= 2 and bins**length == codes else None


def validate_tensors(file: GGUFFile, hp: HParams, finite: bool = True) -> None:
    """Hold a file's tensors to its hyper-parameters: none missing, unknown, misshapen or of a wrong type; all finite.

    Raises ModelError naming the tensor, or GGUFError for NaN and infinity. `finite=False` skips reading the data.
    """
    where = quoted(str(file.path))
    # More blocks than the file could hold are not listed, only refused.
    blocks = sum(stack.block_count for stack in hp.stacks.values())
    if blocks > len(file.tensors):
        raise ModelError(
            f"{where}: {blocks} blocks are declared, but there are {len(file.tensors)} tensors", _CONVERT_AGAIN
        )
    expected = expected_tensors(hp)
    for name, (shape, matrix) in expected.items():
        info = file.tensors.get(name)
        if info is None:
            raise ModelError(f"{where}: tensor {name} is missing", _CONVERT_AGAIN)
        if info.shape != shape:
            raise ModelError(f"{where}: tensor {name} must be {list(shape)}, not {list(info.shape)}", _CONVERT_AGAIN)
        if not matrix and info.type is not TensorType.F32:
            raise ModelError(f"{where}: tensor {name} must be F32, not {info.type.name}", _CONVERT_AGAIN)
    for name in file.tensors:
        if name not in expected:
            raise ModelError(f"{where}: unknown tensor {quoted(name)}", "the file may need a newer genie_cpp")
    if finite:
        for name in expected:
            file.check_finite(name)


def validate(file: GGUFFile, finite: bool = True) -> HParams:
    """All that docs/gguf.md asks of keys and tensors. Raises ModelError or GGUFError, the message naming the file."""
    try:
        hp = HParams.from_metadata(file.metadata, file.value_types)
    except ModelError as error:
        raise ModelError(f"{quoted(str(file.path))}: {error}", error.hint) from None
    validate_tensors(file, hp, finite)
    return hp


def tensor_bytes(shape: tuple[int, ...], kind: TensorType) -> int:
    """Bytes of a tensor whose rows are whole blocks."""
    count = 1
    for length in shape:
        count *= length
    per_block, block_bytes = BLOCKS[kind]
    return count // per_block * block_bytes


def float32(value: Any) -> float:
    """The float32 nearest to a number, as a Python float."""
    return float(np.float32(value))


def _names(key: Key) -> tuple[str, ...]:
    if "<stack>" not in key.name:
        return (key.name,)
    return tuple(key.name.replace("<stack>", stack) for stack in STACKS)


def _read(metadata: Mapping[str, Value], types: Mapping[str, str], key: Key, name: str) -> Any:
    if name not in metadata:
        if key.default is not None:
            return key.default
        if key.optional:
            return None
        hint = "this GGUF is not a Genie" if name == "general.architecture" else _CONVERT_AGAIN
        raise ModelError(f"the key {name} is missing; it must be {key.expected()}", hint)
    if name == "general.architecture" and metadata[name] != ARCHITECTURE:
        raise ModelError(
            f"general.architecture must be {ARCHITECTURE}, not {_shown(metadata[name])}",
            "genie_cpp runs Genie world models only",
        )
    return key.check(name, metadata[name], types.get(name))


def _shown(value: object) -> str:
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, (list, tuple)):
        return quoted(", ".join(map(str, value[:9])))
    return repr(value)[:80]
