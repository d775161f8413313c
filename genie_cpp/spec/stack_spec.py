"""The only description of a stack (an ST-transformer): its hyper-parameters and the tensors that follow from them.

Each field of `StackParams` is a key of the GGUF, a key of a native checkpoint's config.json, and a field of the C
core's `genie_stack_params` or `genie_sublayer`. Its string values are enumerators of genie.h: `ffn` "gelu_tanh" is
GENIE_FFN_GELU_TANH. The reader, the writer, the caller of the C core, MLX, the PyTorch reference and docs/gguf.md all
use this file. Add a new field or value here first; tests then name each place that lacks it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from genie_cpp.spec.key import Key, float32

# The second sublayer of a kind in a block has its own name.
SUBLAYERS = ("spatial", "temporal", "spacetime", "ffn", "ffn2", "peg", "peg2")
ATTENTIONS = ("spatial", "temporal", "spacetime")
GATED = ("swiglu", "geglu")  # FFNs with a second matrix, whose output gates the output of the first
NORMS = ("rmsnorm", "layernorm")
PEG_TAPS = 27  # 3 frames, rows and columns


def kind_of(sublayer: str) -> str:
    """The kind of a sublayer: "ffn" of "ffn2"."""
    return sublayer.removesuffix("2")


def _key(name: str, type: str, *range: float, enum: str = "", each: bool = False, **more: Any) -> Any:
    """A dataclass field for the key `genie.<stack>.<name>`.

    range: the least and the largest value. enum: its name in genie.h, without "GENIE_". each: in C it is a field of
    each sublayer. python: the default value in Python. The rest is as in `Key`.
    """
    python = more.pop("python", dataclasses.MISSING)
    low, high = range or (None, None)
    key = Key(f"genie.<stack>.{name}", type, low=low, high=high, **more)
    default = key.default if python is dataclasses.MISSING and key.default is not None else python
    return field(default=default, metadata={"key": key, "enum": enum, "each": each})


@dataclass(frozen=True, kw_only=True)
class StackParams:
    """One ST-transformer: `block_count` blocks. Each block is the `sublayers` in order, each with a residual.

    head_count * key_length need not equal embedding_length (Table 12 of arXiv 2402.15391: 36 * 128 != 5120).
    """

    block_count: int = _key("block_count", "uint32", 1, 512)
    embedding_length: int = _key("embedding_length", "uint32", 1, 16384)
    norm_length: int | None = _key(
        "norm_length", "uint32", 1, 16384, optional=True, python=None,
        meaning="values of an embedding that norms look at, the rest being zero; at most embedding_length; absent: all",
    )  # fmt: skip
    feed_forward_length: int = _key("feed_forward_length", "uint32", 1, 131072)
    head_count: int = _key("attention.head_count", "uint32", 1, 512)
    key_length: int = _key(
        "attention.key_length", "uint32", 1, 1024, meaning="head_count × key_length need not equal embedding_length"
    )
    qk_norm: bool = _key("attention.qk_norm", "bool", python=False, meaning="norm of q and k per head")
    qk_norm_epsilon: float | None = _key(
        "attention.qk_norm_epsilon", "float32", 0, 0.1, above=True, optional=True, python=None,
        meaning="of that norm; absent: norm_epsilon",
    )  # fmt: skip
    kv_input: str = _key(
        "attention.kv_input", "string", choices=("norm", "residual"), default="norm", quiet=True, enum="KV_INPUT",
        each=True, meaning="keys and values read what queries read, or x as it is, with `norm_position` `pre`",
    )  # fmt: skip
    spatial_bias: str = _key(
        "attention.spatial_bias", "string", choices=("none", "relative"), default="none", quiet=True,
        enum="SPATIAL_BIAS", meaning="scores of `spatial` get a bias by the offset of their tokens",
    )  # fmt: skip
    temporal_bias: str = _key(
        "attention.temporal_bias", "string", choices=("none", "alibi"), default="none", quiet=True,
        enum="TEMPORAL_BIAS", meaning="scores of `temporal` lose a slope times the frames between (arXiv 2108.12409)",
    )  # fmt: skip
    qk_norm_kind: str = _key(
        "attention.qk_norm_kind", "string", choices=NORMS, default="rmsnorm", quiet=True, enum="NORM"
    )
    sublayers: tuple[str, ...] = _key(
        "sublayers", "array of string", choices=SUBLAYERS, python=("spatial", "temporal", "ffn"), enum="SUBLAYER",
        each=True, meaning="one block, in order, each at most once; `ffn2`, `peg2`: another of that kind",
    )  # fmt: skip
    norm: str = _key("norm", "string", choices=NORMS, python="rmsnorm", enum="NORM", each=True)
    unnormed: tuple[str, ...] = _key(
        "unnormed", "array of string", choices=(*ATTENTIONS, "ffn"), optional=True, quiet=True, python=(), each=True,
        meaning="kinds of sublayers without a norm (`ffn`: `ffn2` too)",
    )  # fmt: skip
    norm_position: str = _key(
        "norm_position", "string", choices=("pre", "post"), default="pre", quiet=True, enum="NORM_POSITION", each=True,
        meaning="x + f(norm(x)), or norm(x + f(x))",
    )  # fmt: skip
    output_norm: str | None = _key(
        "output_norm", "string", choices=(*NORMS, "none"), optional=True, python=None, enum="NORM",
        meaning="before the head; absent: the kind of `norm`",
    )  # fmt: skip
    norm_epsilon: float = _key("norm_epsilon", "float32", 0, 0.1, above=True, python=1e-5)
    ffn: str = _key(
        "ffn",
        "string",
        choices=("gelu", "gelu_tanh", "relu", "swiglu", "geglu", "relu2"),
        python="gelu",
        enum="FFN",
        each=True,
    )
    expert_count: int | None = _key(
        "expert_count", "uint32", 1, 256, optional=True, quiet=True, python=None, each=True,
        meaning="FFNs of each `ffn`, of which a token takes some, see below; absent: one that all take",
    )  # fmt: skip
    expert_used_count: int | None = _key(
        "expert_used_count", "uint32", 1, 256, optional=True, quiet=True, python=None, each=True,
        meaning="how many a token takes; present with expert_count, which it does not exceed",
    )  # fmt: skip
    bias: bool = _key("bias", "bool", python=False, meaning="do the projections inside blocks have biases")
    position: str = _key(
        "position", "string", choices=("separate", "joint", "none"), default="separate", quiet=True, enum="POSITION",
        meaning="added to embeddings: one per token plus one per time, one per token and time, or none",
    )  # fmt: skip
    input_norm: str = _key(
        "input_norm", "string", choices=("none", "dual"), default="none", quiet=True, enum="INPUT_NORM",
        meaning="layer norms before and after the input (arXiv 2302.01327); `dynamics` has none",
    )  # fmt: skip
    first_frame: str = _key(
        "first_frame", "string", choices=("none", "input", "output"), default="none", quiet=True, enum="FIRST_FRAME",
        meaning="what the first frame of a window has weights of its own for",
    )  # fmt: skip

    def __post_init__(self) -> None:
        object.__setattr__(self, "norm_epsilon", float32(self.norm_epsilon))
        object.__setattr__(self, "sublayers", tuple(self.sublayers))
        object.__setattr__(self, "unnormed", tuple(self.unnormed or ()))
        object.__setattr__(self, "output_norm", self.output_norm or self.norm)
        if self.qk_norm_epsilon is not None:
            object.__setattr__(self, "qk_norm_epsilon", float32(self.qk_norm_epsilon))


STACK_KEYS: tuple[Key, ...] = tuple(
    dataclasses.replace(f.metadata["key"], field=f.name) for f in dataclasses.fields(StackParams)
)
# Field -> the enum of genie.h for its values, without "GENIE_".
ENUMS = {f.name: str(f.metadata["enum"]) for f in dataclasses.fields(StackParams) if f.metadata["enum"]}


def enumerator(enum: str, word: str) -> str:
    """The name of a value in genie.h: ("FFN", "gelu_tanh") -> GENIE_FFN_GELU_TANH."""
    return f"GENIE_{enum}_{word}".upper().replace("-", "_")


@dataclass(frozen=True)
class Sublayer:
    """One sublayer of a block, as a backend receives it. Fields that its kind does not use are ignored."""

    name: str
    kind: str
    norm: str  # "none": it reads the residual without a norm
    norm_position: str
    kv_input: str
    ffn: str
    expert_count: int  # 0: one FFN for all tokens
    expert_used_count: int

    def in_c(self) -> dict[str, int | str]:
        """The fields of `genie_sublayer`. A string is the name of an enumerator."""
        enums = {"kind": "SUBLAYER", **ENUMS}
        values = {name: value for name, value in dataclasses.asdict(self).items() if name != "name"}
        return {name: enumerator(enums[name], v) if name in enums else v for name, v in values.items()}


@dataclass(frozen=True, kw_only=True)
class StackSpec:
    """A stack within a model: its description, and the sizes that the model gives it."""

    params: StackParams
    token_count: int  # P
    grid_width: int  # tokens per row of a frame
    context_length: int  # T
    input_length: int = 0  # N features per token; 0: the input is token ids
    input_rows: int = 0  # rows of the token embedding, with the mask's
    action_count: int = 0
    output_length: int = 0  # O; 0: no head, the output is the embeddings
    conditioning: str = "add"
    factor_count: int = 1  # digits of a token id

    @property
    def sublayers(self) -> tuple[Sublayer, ...]:
        """The sublayers of one block, in order."""
        s = self.params
        return tuple(
            Sublayer(
                name=name,
                kind=kind_of(name),
                norm="none" if kind_of(name) in (*s.unnormed, "peg") else s.norm,
                norm_position=s.norm_position,
                kv_input=s.kv_input,
                ffn=s.ffn,
                expert_count=s.expert_count or 0,
                expert_used_count=s.expert_used_count or 0,
            )
            for name in s.sublayers
        )

    def in_c(self) -> dict[str, int | float | str]:
        """The fields of `genie_stack_params`, except its sublayers. A string is the name of an enumerator."""
        found: dict[str, Any] = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "params"}
        found["conditioning"] = enumerator("CONDITIONING", self.conditioning)
        for f in dataclasses.fields(self.params):
            value = getattr(self.params, f.name)
            if not f.metadata["each"]:
                found[f.name] = enumerator(ENUMS[f.name], value) if f.name in ENUMS else value or 0
        kind = found.pop("qk_norm_kind")
        found["qk_norm"] = kind if self.params.qk_norm else enumerator("NORM", "none")
        return found

    @property
    def symbols(self) -> dict[str, int]:
        """The lengths that tensor shapes consist of, named as in docs/gguf.md."""
        s, columns = self.params, self.grid_width
        rows = self.token_count // columns if columns else 0
        return {
            "E": s.embedding_length, "F": s.feed_forward_length, "H": s.head_count, "D": s.key_length,
            "H·D": s.head_count * s.key_length, "P": self.token_count, "T": self.context_length,
            "P·T": self.token_count * self.context_length, "M": s.expert_count or 0, "N": self.input_length,
            "V + 1": self.input_rows, "A": self.action_count, "A + 1": self.action_count + 1, "O": self.output_length,
            "S": (2 * columns - 1) * (2 * rows - 1), "27": PEG_TAPS,
        }  # fmt: skip


There = Callable[[StackSpec, Any], bool]  # (stack, and its sublayer if the tensor belongs to one) -> bool


@dataclass(frozen=True)
class Tensor:
    """A tensor that some stacks have.

    name: within the stack, or within a sublayer whose kind is in `of`. shape: fastest first, in the symbols of
    docs/gguf.md; A + 1 applies with FiLM only, M with experts only. there: whether a stack, or a sublayer, has it.
    """

    name: str
    shape: str
    of: tuple[str, ...]
    there: There
    matrix: bool = False

    @property
    def slot(self) -> str:
        """Its name in genie.h, such as GENIE_SLOT_Q_BIAS."""
        return slot_of(self.name)


def slot_of(name: str) -> str:
    """The genie_slot for a tensor's name within its stack or sublayer."""
    return enumerator("SLOT", name.removesuffix(".weight").replace(".", "_"))


def _linear(name: str, shape: str, of: tuple[str, ...], there: There, always: bool = False) -> tuple[Tensor, Tensor]:
    """A matrix and its bias. The bias exists `always`, or if the stack has biases."""
    return (
        Tensor(f"{name}.weight", shape, of, there, matrix=True),
        Tensor(f"{name}.bias", shape.partition("|")[2], of, lambda s, one: there(s, one) and (always or s.params.bias)),
    )


def _norm(
    name: str, shape: str, of: tuple[str, ...], kind: Callable[[StackSpec, Any], str | None]
) -> tuple[Tensor, Tensor]:
    """A norm's weight, if `kind` is a norm, and its bias, if `kind` is "layernorm"."""
    return (
        Tensor(f"{name}.weight", shape, of, lambda s, one: kind(s, one) in NORMS),
        Tensor(f"{name}.bias", shape, of, lambda s, one: kind(s, one) == "layernorm"),
    )


def _when(test: bool) -> str | None:
    return "layernorm" if test else None


def _has_input_first(s: StackSpec, _: Sublayer | None) -> bool:
    return s.input_length > 0 and s.params.first_frame == "input"


_STACK, _PEG, _FFN = (), ("peg",), ("ffn",)
# In the order of the file: tensors of the stack before its blocks, of each sublayer, of the stack after its blocks.
BEFORE: tuple[Tensor, ...] = (
    Tensor("token_embd.weight", "E|V + 1", _STACK, lambda s, _: s.input_length == 0, matrix=True),
    Tensor("action_embd.weight", "E|A", _STACK, lambda s, _: s.conditioning == "add" and s.action_count > 0),
    *_linear("input", "N|E", _STACK, lambda s, _: s.input_length > 0, always=True),
    *_norm("input_norm", "E", _STACK, lambda s, _: _when(s.input_length > 0 and s.params.input_norm == "dual")),
    *_linear("input_first", "N|E", _STACK, _has_input_first, always=True),
    *_norm(
        "input_first_norm", "E", _STACK,
        lambda s, one: _when(_has_input_first(s, one) and s.params.input_norm == "dual"),
    ),
    Tensor("pos_space.weight", "E|P", _STACK, lambda s, _: s.params.position == "separate"),
    Tensor("pos_time.weight", "E|T", _STACK, lambda s, _: s.params.position == "separate"),
    Tensor("pos.weight", "E|P·T", _STACK, lambda s, _: s.params.position == "joint"),
    Tensor("spatial_bias.weight", "S|H", _STACK, lambda s, _: s.params.spatial_bias == "relative"),
    Tensor("temporal_bias.weight", "H", _STACK, lambda s, _: s.params.temporal_bias == "alibi"),
)  # fmt: skip
OF_SUBLAYERS: tuple[Tensor, ...] = (
    Tensor("conv.weight", "E|27", _PEG, lambda s, one: True),
    Tensor("conv.bias", "E", _PEG, lambda s, one: True),
    *_norm("norm", "E|A + 1", (*ATTENTIONS, "ffn"), lambda s, one: one.norm),
    Tensor("router.weight", "E|M", _FFN, lambda s, one: one.expert_count > 0),
    *_linear("up", "E|F|M", _FFN, lambda s, one: True),
    *_linear("gate", "E|F|M", _FFN, lambda s, one: one.ffn in GATED),
    *_linear("down", "F|E|M", _FFN, lambda s, one: True),
    *_linear("q", "E|H·D", ATTENTIONS, lambda s, one: True),
    *_linear("k", "E|H·D", ATTENTIONS, lambda s, one: True),
    *_linear("v", "E|H·D", ATTENTIONS, lambda s, one: True),
    *_linear("out", "H·D|E", ATTENTIONS, lambda s, one: True),
    *_norm("q_norm", "D", ATTENTIONS, lambda s, one: s.params.qk_norm_kind if s.params.qk_norm else None),
    *_norm("k_norm", "D", ATTENTIONS, lambda s, one: s.params.qk_norm_kind if s.params.qk_norm else None),
)
AFTER: tuple[Tensor, ...] = (
    *_norm("output_norm", "E", _STACK, lambda s, _: s.params.output_norm),
    *_linear("output", "E|O", _STACK, lambda s, _: s.output_length > 0, always=True),
    *_linear(
        "output_first", "E|O", _STACK, lambda s, _: s.output_length > 0 and s.params.first_frame == "output",
        always=True,
    ),
)  # fmt: skip


def tensors(spec: StackSpec) -> Iterator[tuple[str, tuple[int, ...], bool]]:
    """(name in the stack, shape fastest first, is it a matrix) of exactly the tensors that a stack has, in order."""
    symbols, film = spec.symbols, spec.conditioning == "film"

    def shape(tensor: Tensor, experts: bool) -> tuple[int, ...]:
        left_out = ({"A + 1"} if not film else set()) | ({"M"} if not experts else set())
        return tuple(symbols[symbol] for symbol in tensor.shape.split("|") if symbol not in left_out)

    sublayers = spec.sublayers
    for tensor in BEFORE:
        if tensor.there(spec, None):
            yield tensor.name, shape(tensor, False), tensor.matrix
    # Equal in every block.
    block = [
        (f"{one.name}.{tensor.name}", shape(tensor, one.expert_count > 0), tensor.matrix)
        for one in sublayers
        for tensor in OF_SUBLAYERS
        if one.kind in tensor.of and tensor.there(spec, one)
    ]
    for i in range(spec.params.block_count):
        for name, lengths, matrix in block:
            yield f"blk.{i}.{name}", lengths, matrix
    for tensor in AFTER:
        if tensor.there(spec, None):
            yield tensor.name, shape(tensor, False), tensor.matrix
