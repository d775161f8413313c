"""The key table, the tensors that follow from it, and the message if they do not fit."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from genie_cpp.convert.native import hparams_of
from genie_cpp.convert.reference.config import GenieConfig
from genie_cpp.errors import ModelError
from genie_cpp.file.gguf_file import GGUFFile, TensorType
from genie_cpp.spec.gguf_keys import KEYS, LAM, STACKS
from genie_cpp.spec.hparams import HParams, expected_tensors, validate, validate_tensors


@pytest.fixture
def hp(tiny_config: GenieConfig) -> HParams:
    return hparams_of(tiny_config)


@pytest.fixture
def metadata(hp: HParams) -> dict[str, Any]:
    return {key: value for key, (_, value) in hp.to_metadata(TensorType.Q8_0).items()}


def test_round_trip(hp: HParams, tiny_gguf: Callable[[str], Path]) -> None:
    rows = hp.to_metadata(TensorType.F16, {"general.name": "Tiny", "general.author": ""})
    assert rows["general.file_type"] == ("uint32", 1)
    assert rows["general.name"] == ("string", "Tiny") and "general.author" not in rows
    values = {key: value for key, (_, value) in rows.items()}
    types = {key: kind for key, (kind, _) in rows.items()}
    assert HParams.from_metadata(values, types) == hp
    with GGUFFile.open(tiny_gguf("q8_0")) as file:
        assert HParams.from_metadata(file.metadata) == hp
        assert validate(file) == hp
        assert file.value_types == {**types, "general.license": "string"}


def test_every_required_key_is_missed_by_name(metadata: dict[str, Any]) -> None:
    for key in KEYS:
        name = key.name.replace("<stack>", "dynamics")
        rest = {k: v for k, v in metadata.items() if k != name}
        if key.default is not None or key.optional:
            HParams.from_metadata(rest)
        else:
            with pytest.raises(ModelError, match=f"{name} is missing"):
                HParams.from_metadata(rest)


def test_the_default_window_policy(metadata: dict[str, Any]) -> None:
    del metadata["genie.window.policy"]
    assert HParams.from_metadata(metadata).window_policy == "half"


@pytest.mark.parametrize("key", [key for key in KEYS if key.low is not None], ids=lambda key: key.name)
def test_ranges_are_inclusive_and_held(key: Any) -> None:
    step = 1 if key.type == "uint32" else 1e-3
    assert key.check("k", key.high) == pytest.approx(key.high)
    for wrong in (key.low - step, key.high + step, "1", None, True, [1], float("nan")):
        with pytest.raises(ModelError, match=r"^k must be"):
            key.check("k", wrong)
    if key.above:
        with pytest.raises(ModelError):
            key.check("k", key.low)
    else:
        assert key.check("k", key.low) == key.low


@pytest.mark.parametrize("key", [key for key in KEYS if key.low is None], ids=lambda key: key.name)
def test_kinds_and_choices_are_held(key: Any) -> None:
    wrong = {"bool": 1, "string": 7, "uint32": 1 << 20, "array of string": ["spatial", "Spatial*"]}[key.type]
    with pytest.raises(ModelError, match=r"^k must be"):
        key.check("k", wrong)
    for choice in key.choices:
        value = [choice] if key.type.startswith("array") else choice
        key.check("k", value)
    with pytest.raises(ModelError, match="not a uint8"):
        value = key.choices[0] if key.choices else True
        key.check("k", ["left"] if key.type.startswith("array") and not key.choices else value, "uint8")


def test_actions_may_have_names(hp: HParams, metadata: dict[str, Any]) -> None:
    assert hp.action_names is None and "genie.action.names" not in metadata
    names = ("left", "left", "jump-2")[: hp.action_count]
    named = dataclasses.replace(hp, action_count=len(names), action_names=names)
    rows = named.to_metadata(TensorType.F32)
    assert rows["genie.action.names"] == ("array of string", list(names))
    assert HParams.from_metadata({key: value for key, (_, value) in rows.items()}) == named
    with pytest.raises(ModelError, match=r"genie\.action\.names has 1 names for 3 actions"):
        dataclasses.replace(named, action_names=("left",)).to_metadata(TensorType.F32)
    for wrong in ("", "3", "Left", "a" * 33, "up,down", "\x1b[2J"):
        with pytest.raises(ModelError, match=r"genie\.action\.names must be an array of words"):
            dataclasses.replace(named, action_names=("left", "up", wrong)).to_metadata(TensorType.F32)


def test_the_writer_refuses_what_the_reader_would(hp: HParams) -> None:
    with pytest.raises(ModelError, match=r"genie\.sampler\.steps"):
        dataclasses.replace(hp, sampler_steps=0).to_metadata(TensorType.F32)
    with pytest.raises(ModelError, match="do not make a vit tokenizer"):
        dataclasses.replace(hp, tokenizer_kind="vit").to_metadata(TensorType.F32)
    with pytest.raises(ModelError, match="does not divide"):
        dataclasses.replace(hp, frame_width=18).to_metadata(TensorType.F32)


def flagged(hp: HParams, stack: str, **changes: Any) -> HParams:
    return dataclasses.replace(hp, stacks={**hp.stacks, stack: dataclasses.replace(hp.stacks[stack], **changes)})


def test_a_model_without_a_lam(hp: HParams) -> None:
    """Either all keys and tensors of the LAM are there, or none."""
    stacks = {name: stack for name, stack in hp.stacks.items() if name != LAM}
    without = dataclasses.replace(hp, stacks=stacks, lam_patch_size=0, lam_latent_length=0, lam_difference=False)
    assert hp.has_lam and not without.has_lam
    rows = {key: value for key, (_, value) in without.to_metadata(TensorType.F32).items()}
    assert not any(key.startswith("genie.lam.") for key in rows)
    assert HParams.from_metadata(rows) == without
    assert set(expected_tensors(hp)) - set(expected_tensors(without)) == {
        name for name in expected_tensors(hp) if name.startswith("lam.")
    }
    with pytest.raises(ModelError, match=r"genie\.lam\.patch_size is missing"):
        HParams.from_metadata({**rows, "genie.lam.difference": False})


def test_flags_that_do_not_go_together(hp: HParams) -> None:
    for stack, changes, message in (
        ("dynamics", {"norm_length": 65}, "norm_length must be at most"),
        ("dynamics", {"qk_norm": False, "qk_norm_epsilon": 1e-6}, "qk_norm_epsilon must be left out"),
        ("dynamics", {"kv_input": "residual", "norm_position": "post"}, "kv_input must be norm where"),
        ("dynamics", {"input_norm": "dual"}, "input_norm must be none"),
        ("dynamics", {"expert_count": 4}, "expert_used_count must be there where"),
        ("dynamics", {"expert_used_count": 1}, "expert_used_count must be there where"),
        ("dynamics", {"expert_count": 4, "expert_used_count": 5}, "expert_used_count must be at most the expert_count"),
        ("dynamics", {"first_frame": "input"}, "first_frame must be output or none"),
    ):
        with pytest.raises(ModelError, match=rf"genie\.{stack}\..*{message}"):
            flagged(hp, stack, **changes).to_metadata(TensorType.F32)
    joined = {"lam_head": "joined", "lam_head_length": 3}
    with pytest.raises(ModelError, match="joined wants no"):
        dataclasses.replace(hp, **joined, lam_difference=True).to_metadata(TensorType.F32)
    headed = dataclasses.replace(hp, **joined, lam_difference=False)
    with pytest.raises(ModelError, match="first_frame must be input or none"):
        flagged(headed, LAM, first_frame="output").to_metadata(TensorType.F32)
    with pytest.raises(ModelError, match="goes with"):
        dataclasses.replace(hp, lam_head="joined").to_metadata(TensorType.F32)


def test_what_convolutions_keep(hp: HParams) -> None:
    more = flagged(hp, "dynamics", sublayers=("peg", "temporal", "peg2", "ffn"))
    kept = hp.context_length * hp.token_count("dynamics") * hp.stacks["dynamics"].embedding_length * 4
    blocks = hp.stacks["dynamics"].block_count
    assert more.cache_bytes("dynamics") == hp.cache_bytes("dynamics") + 2 * blocks * kept


def test_sizes(hp: HParams) -> None:
    assert [hp.token_count(stack) for stack in STACKS] == [16, 16, 4, 16]
    assert hp.cache_bytes("dynamics") == 2 * 4 * 16 * 96 * 2 * 4
    total = 0
    for shape, _ in expected_tensors(hp).values():
        count = 1
        for length in shape:
            count *= length
        total += count
    assert hp.parameter_count() == total


def test_which_tensors_are_matrices(hp: HParams) -> None:
    expected = expected_tensors(hp)
    matrices = {name.rsplit(".", 2)[-2] for name, (_, matrix) in expected.items() if matrix}
    assert matrices == {"input", "output", "q", "k", "v", "out", "up", "gate", "down", "token_embd"}
    assert expected["dynamics.blk.1.temporal.q.weight"] == ((64, 96), True)
    assert expected["dynamics.blk.1.temporal.k_norm.weight"] == ((32,), False)
    assert expected["tokenizer.encoder.blk.0.ffn.down.bias"] == ((32,), False)
    assert "dynamics.blk.0.ffn.gate.weight" not in expected
    assert all(len(name) <= 64 for name in expected)


def test_tensors_that_do_not_fit(hp: HParams, tiny_gguf: Callable[[str], Path]) -> None:
    with GGUFFile.open(tiny_gguf("f32")) as file:
        validate_tensors(file, hp)
        with pytest.raises(ModelError, match="token_embd"):
            validate_tensors(file, dataclasses.replace(hp, codebook_size=17))
        lost = file.tensors.pop("dynamics.output.bias")
        with pytest.raises(ModelError, match=r"dynamics\.output\.bias is missing"):
            validate_tensors(file, hp)
        file.tensors["dynamics.output.bias"] = dataclasses.replace(lost, type=TensorType.F16)
        with pytest.raises(ModelError, match="must be F32, not F16"):
            validate_tensors(file, hp)
        file.tensors["dynamics.output.bias"] = lost
        file.tensors["extra"] = lost
        with pytest.raises(ModelError, match="unknown tensor 'extra'"):
            validate_tensors(file, hp)
