"""The description of a stack is complete: all code knows what it names, and anything half-added is reported.

`lacks` finds each place that does not know a word or a field of the description. A made-up FFN kind, added to the
description alone, shows that it works.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from genie_cpp import NativeError
from genie_cpp.backends import _native
from genie_cpp.convert.reference import stack as reference
from genie_cpp.spec import stack_spec
from genie_cpp.spec.stack_spec import ENUMS, GATED, Sublayer, enumerator, kind_of, slot_of

ROOT = Path(__file__).resolve().parents[1]
KERNELS = ROOT / "ggml_kernels" / "src" / "kernels"
SWITCHES = ("kernels.h", "activation/activation_scalar.h", "activation/activation_vector.h")


def words() -> dict[str, tuple[str, ...]]:
    """The words of each field of the description that is a choice."""
    keys = {key.field: tuple(map(str, key.choices)) for key in stack_spec.STACK_KEYS if key.choices}
    return {**keys, "sublayers": tuple(dict.fromkeys(map(kind_of, keys["sublayers"])))}


def lacks() -> Iterator[str]:
    """Each place that does not know a word of the description, or knows one that the description lacks."""
    constants = {name for name in dir(_native.lib) if name.startswith("GENIE_")}
    by_enum: dict[str, set[str]] = {}
    for field, enum in ENUMS.items():
        for word in words()[field]:
            name = enumerator(enum, word)
            by_enum.setdefault(enum, set()).add(name)
            if name not in constants:
                yield f"genie.h: {name}"
    for enum, named in by_enum.items():
        of_enum = next(
            set(_native.ffi.typeof(t).relements) for t in _native.ffi.list_types()[0]
            if t.startswith("genie_") and _native.ffi.typeof(t).kind == "enum"
            and f"GENIE_{enum}_COUNT" in _native.ffi.typeof(t).relements
        )  # fmt: skip
        for name in of_enum - named - {f"GENIE_{enum}_COUNT"}:
            if name != "GENIE_NORM_NONE":  # a sublayer without a norm, which the description says by `unnormed`
                yield f"stack_spec.py: a word for {name}"
    for file in SWITCHES:
        known = set(re.findall(r"case (GENIE_FFN_\w+):", (KERNELS / file).read_text(encoding="utf-8")))
        for word in words()["ffn"]:
            if enumerator("FFN", word) not in known:
                yield f"{file}: case {enumerator('FFN', word)}"
    for word in words()["ffn"]:
        table = reference.GATED if word in GATED else reference.PLAIN
        if word not in table:
            yield f"convert/reference/stack.py: the FFN {word}"
    slots = {tensor.slot for tensor in (*stack_spec.BEFORE, *stack_spec.OF_SUBLAYERS, *stack_spec.AFTER)}
    named = {name for name in constants if name.startswith("GENIE_SLOT_")} - {"GENIE_SLOT_COUNT"}
    yield from (f"genie.h: {name}" for name in slots - named)
    yield from (f"stack_spec.py: a tensor for {name}" for name in named - slots)
    for struct, here in (
        ("genie_stack_params", {*SPEC.in_c(), "sublayer_count", "sublayers"}),
        ("genie_sublayer", set(SPEC.sublayers[0].in_c())),
    ):
        there = {name for name, _ in _native.ffi.typeof(struct).fields}
        yield from (f"genie.h: {struct}.{name}" for name in here - there)
        yield from (f"stack_spec.py: {struct}.{name}" for name in there - here)
    if find_spec("mlx") is not None:
        from genie_cpp.backends.metal import forms

        fields = {f.name for of in (stack_spec.StackParams, stack_spec.StackSpec) for f in dataclasses.fields(of)}
        for name in fields - forms.FREE - set(forms.CHOICES):
            yield f"metal/forms.py: the field {name}"
        for name, known_words in forms.CHOICES.items():
            for word in set(words().get(name, known_words)) ^ set(known_words):
                yield f"metal/forms.py: {name} {word}"
        for word in set(words()["ffn"]) ^ set(forms.FFNS):
            yield f"metal/forms.py: the FFN {word}"
        for word in set(words()["sublayers"]) ^ set(forms.SUBLAYERS):
            yield f"metal/forms.py: the sublayer {word}"
        tables = forms.MATRICES | forms.TABLES | forms.VECTORS
        for name in {slot_name(slot) for slot in slots} ^ {slot_name(slot_of(f"{name}.weight")) for name in tables}:
            yield f"metal/forms.py: the tensor {name}"


def slot_name(slot: str) -> str:
    return slot.removeprefix("GENIE_SLOT_").lower()


PARAMS = stack_spec.StackParams(block_count=1, embedding_length=8, head_count=1, key_length=8, feed_forward_length=8)
SPEC = stack_spec.StackSpec(
    params=PARAMS, token_count=4, grid_width=2, context_length=2, input_rows=5, output_length=4, action_count=2
)


def test_nothing_of_the_description_is_missing_anywhere() -> None:
    assert list(lacks()) == []


def test_a_half_added_kind_is_named_wherever_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = tuple(
        dataclasses.replace(key, choices=(*key.choices, "xielu")) if key.field == "ffn" else key
        for key in stack_spec.STACK_KEYS
    )
    monkeypatch.setattr(stack_spec, "STACK_KEYS", keys)
    found = list(lacks())
    wanted = ["genie.h: GENIE_FFN_XIELU", *(f"{file}: case GENIE_FFN_XIELU" for file in SWITCHES)]
    wanted += ["convert/reference/stack.py: the FFN xielu"]
    if find_spec("mlx") is not None:
        wanted += ["metal/forms.py: ffn xielu", "metal/forms.py: the FFN xielu"]
    assert found == wanted
    with pytest.raises(AttributeError, match="GENIE_FFN_XIELU"):  # and no stack of it is made
        _native.Stack("scalar", _native.Pool(1), dataclasses.replace(SPEC, params=made("xielu")))


def made(ffn: str) -> stack_spec.StackParams:
    return dataclasses.replace(PARAMS, ffn=ffn)


def test_the_core_says_which_parameter_is_wrong() -> None:
    for changes, words in (
        ({"head_count": 0}, r"head_count must be in 1\.\.512"),
        ({"norm_epsilon": 0.0}, "norm_epsilon must be > 0"),
        ({"kv_input": "residual", "norm_position": "post"}, "kv_input must be the norm"),
        ({"sublayers": ("ffn",) * 9}, None),
    ):
        spec = dataclasses.replace(SPEC, params=dataclasses.replace(PARAMS, **changes))  # type: ignore[arg-type]
        with pytest.raises((NativeError, IndexError), match=words):
            _native.Stack("scalar", _native.Pool(1), spec)


def test_a_sublayer_has_its_own_norm() -> None:
    params = dataclasses.replace(PARAMS, sublayers=("peg", "spatial", "ffn2"), unnormed=("ffn",))
    sublayers: tuple[Sublayer, ...] = dataclasses.replace(SPEC, params=params).sublayers
    assert [(one.name, one.kind, one.norm) for one in sublayers] == [
        ("peg", "peg", "none"), ("spatial", "spatial", "rmsnorm"), ("ffn2", "ffn", "none")
    ]  # fmt: skip
