"""Hyper-parameters of a Genie GGUF, and the tensors that follow from them (docs/gguf.md).

`HParams.from_metadata` reads and `HParams.to_metadata` writes with the same table, `gguf_keys.KEYS`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from genie_cpp.errors import ModelError
from genie_cpp.file.gguf_file import BLOCKS, GGUFFile, TensorType, Value
from genie_cpp.spec import conv_layers as conv
from genie_cpp.spec.gguf_keys import (
    ARCHITECTURE,
    CONVS,
    FILE_KEYS,
    FILE_TYPES,
    KEYS,
    KINDS,
    KNOWN,
    LAM,
    LAM_KEYS,
    MAX_BYTES,
    MAX_TOKENS,
    MAX_WINDOW_TOKENS,
    MODEL_KEYS,
    NO_LAM,
    PROFILE_VERSION,
    QUANTIZATION_VERSION,
    STACKS,
    fsq_bins,
    key_names,
    read_key,
)
from genie_cpp.spec.key import CONVERT_AGAIN, float32
from genie_cpp.spec.stack_spec import STACK_KEYS, StackParams, StackSpec, kind_of, tensors
from genie_cpp.words import quoted


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
    action_names: tuple[str, ...] | None = None  # what each latent action does, if somebody has found out
    action_conditioning: str = "add"
    tokenizer_quantizer: str = "codebook"
    lam_quantizer: str = "codebook"
    lam_head: str = "mean"
    lam_head_length: int | None = None  # of the hidden layer, with the head "pair"
    factor_count: int = 1  # digits of a token id; each digit has its own logits
    conv_encoder: tuple[str, ...] | None = None  # layers, with the tokenizer kind "conv"
    conv_decoder: tuple[str, ...] | None = None
    conv_group_count: int | None = None
    conv_norm_epsilon: float | None = None
    sampler_schedule: str = "cosine"
    prediction: str = "same-frame"  # which frame the logits are for: the input frame or the next

    def __post_init__(self) -> None:
        for name in ("sampler_temperature", "sampler_noise", "conv_norm_epsilon"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, float32(getattr(self, name)))

    @staticmethod
    def from_metadata(metadata: Mapping[str, Value], value_types: Mapping[str, str] | None = None) -> HParams:
        """Check every key. `value_types` (of GGUFFile): also check the stored integer and float widths.

        Raises ModelError, which names the key, what was expected and what was found.
        """
        types = value_types or {}
        for name in metadata:
            if name.startswith("genie.") and name not in KNOWN:
                raise ModelError(f"unknown key {quoted(name)}", "the file may need a newer genie_cpp")
        for key in FILE_KEYS:
            read_key(metadata, types, key, key.name)
        lam = any(name.startswith(LAM_KEYS) for name in metadata)  # either all LAM keys are present or none
        fields: dict[str, Any] = {
            key.field: NO_LAM.get(key.field, key.default)
            if key.name.startswith(LAM_KEYS) and not lam
            else read_key(metadata, types, key, key.name)
            for key in MODEL_KEYS
        }
        names = [stack for stack in STACKS if lam or stack != LAM]
        if fields["tokenizer_kind"] == "conv":
            names = [stack for stack in names if not stack.startswith("tokenizer.")]
            for name in metadata:
                if name.startswith(("genie.tokenizer.encoder.", "genie.tokenizer.decoder.")):
                    raise ModelError(f"a tokenizer of the kind conv has no key {quoted(name)}", CONVERT_AGAIN)
        stacks = {
            stack: StackParams(
                **{key.field: read_key(metadata, types, key, key.name.replace("<stack>", stack)) for key in STACK_KEYS}
            )
            for stack in names
        }
        hp = HParams(**fields, stacks=stacks)
        hp.check()
        return hp

    def to_metadata(self, file_type: TensorType, card: Mapping[str, str] | None = None) -> dict[str, tuple[str, Value]]:
        """All keys in the order of docs/gguf.md, as `{key: (type, value)}`. Checked, so it can be read back.

        card: values by general.* key; empty ones are left out. Raises ModelError.
        """
        values: dict[str, Any] = {
            **(card or {}),
            "general.architecture": ARCHITECTURE,
            "general.file_type": FILE_TYPES[file_type],
            "general.quantization_version": QUANTIZATION_VERSION,
            "genie.version": PROFILE_VERSION,
        }
        for key in MODEL_KEYS:
            value = getattr(self, key.field)
            if not (key.quiet and value == key.default) and (self.has_lam or not key.name.startswith(LAM_KEYS)):
                values[key.name] = list(value) if isinstance(value, tuple) else value
        for stack, s in self.stacks.items():
            for key in STACK_KEYS:
                value = getattr(s, key.field)
                if (
                    (key.quiet and value == key.default)
                    or (key.field == "output_norm" and value == s.norm)
                    or value == ()
                ):
                    continue
                values[key.name.replace("<stack>", stack)] = list(value) if isinstance(value, tuple) else value
        HParams.from_metadata({name: value for name, value in values.items() if value is not None})
        rows = {name: key.type for key in KEYS for name in key_names(key)}
        return {name: (kind, values[name]) for name, kind in rows.items() if values.get(name) not in (None, "")}

    def check(self) -> None:
        """Rules that involve several keys. Raises ModelError."""
        patches = {"tokenizer": self.tokenizer_patch_size} | ({"lam": self.lam_patch_size} if self.has_lam else {})
        for name, patch in patches.items():
            if self.frame_width % patch or self.frame_height % patch:
                raise ModelError(
                    f"genie.{name}.patch_size {patch} does not divide {self.frame_width}x{self.frame_height} frames",
                    CONVERT_AGAIN,
                )
        if self.action_names is not None and len(self.action_names) != self.action_count:
            raise ModelError(
                f"genie.action.names has {len(self.action_names)} names for {self.action_count} actions", CONVERT_AGAIN
            )
        self._check_quantizers()
        self._check_conv()
        if self.action_count == 0 and self.has_lam:
            raise ModelError(
                "genie.action.count is 0, and a world without actions has no latent action model", CONVERT_AGAIN
            )
        if self.factor_count > 1 and fsq_bins(self.codebook_size, self.factor_count) is None:
            raise ModelError(
                f"{self.codebook_size} codes are not an integer to the power of genie.dynamics.factor_count "
                f"{self.factor_count}",
                CONVERT_AGAIN,
            )
        for stack in sorted({"tokenizer.encoder", "tokenizer.decoder"} & set(self.stacks)):
            mixing = {"temporal", "spacetime"} & set(self.stacks[stack].sublayers)
            if mixing != {KINDS[self.tokenizer_kind]} - {None}:
                raise ModelError(
                    f"genie.{stack}.sublayers {', '.join(self.stacks[stack].sublayers)} do not make a "
                    f"{self.tokenizer_kind} tokenizer",
                    CONVERT_AGAIN,
                )
        for stack in self.stacks:
            tokens = self.token_count(stack)
            for what, count, most in (
                ("tokens in a frame", tokens, MAX_TOKENS),
                ("tokens in a window", tokens * self.context_length, MAX_WINDOW_TOKENS),
            ):
                if count > most:
                    raise ModelError(f"{stack} has {count} {what}; {most} are the most", CONVERT_AGAIN)
        for stack, s in self.stacks.items():
            experts, used = s.expert_count, s.expert_used_count
            for key, ok, wanted in (
                ("expert_used_count", (used is None) == (experts is None), "there where expert_count is"),
                ("expert_used_count", (used or 0) <= (experts or 0), "at most the expert_count"),
                ("norm_length", (s.norm_length or 0) <= s.embedding_length, "at most the embedding_length"),
                ("attention.qk_norm_epsilon", s.qk_norm or s.qk_norm_epsilon is None, "left out without qk_norm"),
                ("attention.kv_input", s.kv_input == "norm" or s.norm_position == "pre", "norm where norms come after"),
                ("input_norm", s.input_norm == "none" or stack != "dynamics", "none: it takes token ids"),
                ("first_frame", s.first_frame != "input" or stack != "dynamics", "output or none: it takes token ids"),
                ("first_frame", s.first_frame != "output" or self.output_length(stack) > 0, "input or none: no output"),
            ):
                if not ok:
                    raise ModelError(f"genie.{stack}.{key} must be {wanted}", CONVERT_AGAIN)
        weights = 4 * self.parameter_count()
        cache = sum(self.cache_bytes(stack) for stack in self.stacks)
        for what, size in (("weights", weights), ("temporal cache", cache)):
            if size > MAX_BYTES:
                raise ModelError(f"the hyper-parameters ask for {size / 2**40:.0f} TiB of {what}", CONVERT_AGAIN)

    def _check_quantizers(self) -> None:
        for name, kind, codes, length in (
            ("tokenizer", self.tokenizer_quantizer, self.codebook_size, self.tokenizer_latent_length),
            ("lam", self.lam_quantizer, self.action_count, self.lam_latent_length),
        ):
            if kind == "fsq" and length and fsq_bins(codes, length) is None:
                raise ModelError(
                    f"no whole number of bins to the power of genie.{name}.latent_length {length} makes {codes} codes",
                    CONVERT_AGAIN,
                )
        if (self.lam_head != "mean") != (self.lam_head_length is not None):
            raise ModelError("genie.lam.head_length goes with the genie.lam.head pair or joined", CONVERT_AGAIN)
        if self.lam_head == "joined" and self.lam_difference:
            raise ModelError("the genie.lam.head joined wants no genie.lam.difference", CONVERT_AGAIN)
        if self.lam_head == "pair" and (self.lam_difference or self.stacks["lam.encoder"].output_norm != "none"):
            raise ModelError("the genie.lam.head pair wants no genie.lam.difference and no output_norm", CONVERT_AGAIN)

    @property
    def has_lam(self) -> bool:
        """Whether there is a latent action model to infer actions with."""
        return LAM in self.stacks

    def _check_conv(self) -> None:
        """Both networks must lead from pixels to latents and back, with the same number of halvings and doublings."""
        values = (self.conv_encoder, self.conv_decoder, self.conv_group_count, self.conv_norm_epsilon)
        if (self.tokenizer_kind == "conv") != all(value is not None for value in values) or (
            self.tokenizer_kind != "conv" and any(value is not None for value in values)
        ):
            raise ModelError(
                "genie.tokenizer.conv keys go with the genie.tokenizer.kind conv, all of them", CONVERT_AGAIN
            )
        for name in CONVS if self.tokenizer_kind == "conv" else ():
            found = self.conv_layers(name)
            wanted = (self.tokenizer_latent_length, -1) if name == "encoder" else (3, 1)
            if found[-1].channels != wanted[0] or 2 ** (found[-1].scale * wanted[1]) != self.tokenizer_patch_size:
                raise ModelError(
                    f"genie.tokenizer.conv.{name} ends in {found[-1].channels} channels at 2^{found[-1].scale} of its "
                    f"input's sides, not in {wanted[0]} at those of a patch_size of {self.tokenizer_patch_size}",
                    CONVERT_AGAIN,
                )

    def conv_layers(self, name: str) -> list[conv.Layer]:
        """The layers of one of CONVS."""
        words, channels = (
            (self.conv_encoder, 3) if name == "encoder" else (self.conv_decoder, self.tokenizer_latent_length)
        )
        return conv.layers(f"genie.tokenizer.conv.{name}", words or (), channels, self.conv_group_count or 1)

    @property
    def choices(self) -> int:
        """A step takes 0…choices-1: an action, or, in a world without actions, only 0, which means to go on."""
        return max(self.action_count, 1)

    def bins(self, module: str) -> int | None:
        """Values per FSQ digit of "tokenizer" or "lam"; None if its codes are learned."""
        if module == "lam":
            return fsq_bins(self.action_count, self.lam_latent_length) if self.lam_quantizer == "fsq" else None
        fsq = self.tokenizer_quantizer == "fsq"
        return fsq_bins(self.codebook_size, self.tokenizer_latent_length) if fsq else None

    def spec(self, stack: str) -> StackSpec:
        """A stack with the sizes that this model gives it."""
        dynamics = stack == "dynamics"
        return StackSpec(
            params=self.stacks[stack],
            token_count=self.token_count(stack),
            grid_width=self.grid(stack)[0],
            context_length=self.context_length,
            input_length=self.input_length(stack) or 0,
            input_rows=self.vocabulary + 1 if dynamics else 0,
            action_count=self.action_count if dynamics else 0,
            output_length=self.output_length(stack),
            conditioning=self.action_conditioning if dynamics else "add",
            factor_count=self.factor_count if dynamics else 1,
        )

    def grid(self, stack: str) -> tuple[int, int]:
        """(columns, rows) of the tokens of a frame."""
        patch = self.lam_patch_size if stack.startswith("lam.") else self.tokenizer_patch_size
        return self.frame_width // patch, self.frame_height // patch

    def token_count(self, stack: str) -> int:
        """P, the tokens per frame of a stack."""
        columns, rows = self.grid(stack)
        return columns * rows

    def input_length(self, stack: str) -> int | None:
        """Length of a stack's input vectors; None for `dynamics`, whose input is token ids."""
        return {
            "tokenizer.encoder": 3 * self.tokenizer_patch_size**2,
            "tokenizer.decoder": self.tokenizer_latent_length,
            "lam.encoder": 3 * self.lam_patch_size**2,
            "dynamics": None,
        }[stack]

    def output_length(self, stack: str) -> int:
        """O, the length of the vectors that a stack's head outputs; 0 if it has no head and outputs its embeddings."""
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
        """Logits per token: one per code, or with digits one per value of each digit."""
        if self.factor_count == 1:
            return self.codebook_size
        return self.factor_count * (fsq_bins(self.codebook_size, self.factor_count) or 1)

    def cache_bytes(self, stack: str) -> int:
        """Bytes in float32 that a full window keeps: keys, values, and input of convolutions over time."""
        s = self.stacks[stack]
        kinds = [kind_of(name) for name in s.sublayers]
        attentions, convolutions = len({"temporal", "spacetime"} & set(kinds)), kinds.count("peg")
        floats = attentions * s.head_count * s.key_length * 2 + convolutions * s.embedding_length
        return s.block_count * self.context_length * self.token_count(stack) * floats * 4

    def parameter_count(self) -> int:
        """Number of weights, without listing the tensors. An unchecked file may declare too many to list."""
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
    """`{name: (shape fastest first, is it a matrix)}` of exactly the tensors that a file with these parameters has."""
    found: dict[str, tuple[tuple[int, ...], bool]] = {}

    for name in hp.stacks:
        for part, shape, matrix in tensors(hp.spec(name)):
            found[f"{name}.{part}"] = shape, matrix
    if hp.lam_head_length is not None:
        joined, hidden = hp.lam_head == "joined", hp.lam_head_length
        wide = hp.stacks[LAM].embedding_length * (hp.token_count(LAM) if joined else 2)
        for part in ("weight", "bias"):
            found[f"lam.head.norm.{part}"] = (hidden if joined else wide,), False
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


def validate_tensors(file: GGUFFile, hp: HParams, finite: bool = True) -> None:
    """Compare a file's tensors with its hyper-parameters: none may be missing, unknown, or have a wrong shape or type;
    all must be finite.

    Raises ModelError, which names the tensor, or GGUFError for NaN and infinity. `finite=False`: the data is not read.
    """
    where = quoted(str(file.path))
    # If more blocks are declared than the file can hold, refuse without listing their tensors.
    blocks = sum(stack.block_count for stack in hp.stacks.values())
    if blocks > len(file.tensors):
        raise ModelError(
            f"{where}: {blocks} blocks are declared, but there are {len(file.tensors)} tensors", CONVERT_AGAIN
        )
    expected = expected_tensors(hp)
    for name, (shape, matrix) in expected.items():
        info = file.tensors.get(name)
        if info is None:
            raise ModelError(f"{where}: tensor {name} is missing", CONVERT_AGAIN)
        if info.shape != shape:
            raise ModelError(f"{where}: tensor {name} must be {list(shape)}, not {list(info.shape)}", CONVERT_AGAIN)
        if not matrix and info.type is not TensorType.F32:
            raise ModelError(f"{where}: tensor {name} must be F32, not {info.type.name}", CONVERT_AGAIN)
    for name in file.tensors:
        if name not in expected:
            raise ModelError(f"{where}: unknown tensor {quoted(name)}", "the file may need a newer genie_cpp")
    if finite:
        for name in expected:
            file.check_finite(name)


def validate(file: GGUFFile, finite: bool = True) -> HParams:
    """Check everything that docs/gguf.md requires. Raises ModelError or GGUFError, whose message names the file."""
    try:
        hp = HParams.from_metadata(file.metadata, file.value_types)
    except ModelError as error:
        raise ModelError(f"{quoted(str(file.path))}: {error}", error.hint) from None
    validate_tensors(file, hp, finite)
    return hp


def tensor_bytes(shape: tuple[int, ...], kind: TensorType) -> int:
    """Bytes of a tensor whose rows are made of whole blocks."""
    count = 1
    for length in shape:
        count *= length
    per_block, block_bytes = BLOCKS[kind]
    return count // per_block * block_bytes
