"""Hostile model files: each must be refused with its reason, at once, in little memory, before anything reaches C."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from draft import ARRAY, BIG, BOOL, F64, I32, STRING, U8, U16, U32, U64, Draft, Pair, Tensor, strings, text
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from genie_cpp.errors import GGUFError, ModelError
from genie_cpp.file.gguf_file import GGUFFile
from genie_cpp.spec.hparams import validate

Attack = Callable[[Draft], "bytes | None"]
ATTACKS: dict[str, tuple[Attack, str]] = {}


def attack(expected: str) -> Callable[[Attack], Attack]:
    """Register an attack under its function name; `expected` must occur in the error."""

    def register(function: Attack) -> Attack:
        ATTACKS[function.__name__] = (function, expected)
        return function

    return register


def simple(name: str, expected: str, bend: Callable[[Draft], object]) -> None:
    """Register an attack that only changes the draft."""

    def function(draft: Draft) -> None:
        bend(draft)

    ATTACKS[name] = (function, expected)


@attack("not a GGUF file")
def empty_file(d: Draft) -> bytes:
    return b""


@attack("truncated at byte 4")
def magic_only(d: Draft) -> bytes:
    return b"GGUF"


@attack("truncated")
def one_byte_short(d: Draft) -> bytes:
    return d.raw()[:-1]


@attack("truncated")
def half_of_it(d: Draft) -> bytes:
    raw = d.raw()
    return raw[: len(raw) // 2]


@attack("not a GGUF file")
def zip_file(d: Draft) -> bytes:
    return b"PK\x03\x04" + bytes(1000)


@attack("only 4 bytes are left")
def counts_cut(d: Draft) -> bytes:
    return d.raw()[:20]


@attack("overlap")
def all_tensors_at_zero(d: Draft) -> None:
    for t in d.tensors:
        t.offset = 0


@attack("claims")
def string_length_wraps(d: Draft) -> None:
    d.pairs[0].payload = struct.pack("<Q", BIG - 7) + b"genie"


@attack("array of arrays")
def nested_array(d: Draft) -> None:
    d.set("x.nested", ARRAY, struct.pack("<IQ", ARRAY, 1) + struct.pack("<IQ", U8, 1) + b"\1")


@attack("array of arrays")
def deeply_nested_array(d: Draft) -> None:
    d.set("x.nested", ARRAY, struct.pack("<IQ", ARRAY, 1) * 100_000)


@attack("at most")
def million_item_arrays(d: Draft) -> None:
    for i in range(2):
        d.set(f"x.{i}", ARRAY, struct.pack("<IQ", U8, 600_000) + bytes(600_000))


@attack("metadata keys; at most")
def too_many_keys(d: Draft) -> None:
    d.pairs += [Pair(b"x.%d" % i, U8, b"\0") for i in range(20_000)]


@attack("bytes; at most")
def huge_string(d: Draft) -> None:
    d.set("x.text", STRING, text(b"a" * (2 << 20)))


@attack("NaN or infinite value")
def nan_in_f32(d: Draft) -> None:
    t = d.tensor("tokenizer.codebook.weight")
    t.data = t.data[:40] + struct.pack("<f", float("nan")) + t.data[44:]


@attack("NaN or infinite value")
def infinity_in_last_f32(d: Draft) -> None:
    t = d.tensor("dynamics.blk.1.ffn.down.weight")
    t.code, t.data = 0, struct.pack("<f", 0) * (96 * 64 - 1) + struct.pack("<f", float("-inf"))


@attack("NaN or infinite block scale")
def nan_scale_q8_0(d: Draft) -> None:
    t = d.tensor("dynamics.blk.0.ffn.up.weight")
    t.code, t.data = 8, (struct.pack("<e", float("nan")) + bytes(32)) * (64 * 96 // 32)


@attack("NaN or infinite block scale")
def infinite_scale_q4_0(d: Draft) -> None:
    t = d.tensor("dynamics.blk.0.ffn.up.weight")
    t.code, t.data = 2, (struct.pack("<e", 1) + bytes(16)) * 191 + struct.pack("<e", float("inf")) + bytes(16)


@attack("NaN or infinite value")
def infinity_in_f16(d: Draft) -> None:
    t = d.tensor("dynamics.blk.0.ffn.up.weight")
    t.code, t.data = 1, struct.pack("<e", float("inf")) * (64 * 96)


@attack("blocks are declared")
def blocks_beyond_the_file(d: Draft) -> None:
    d.u32("genie.dynamics.block_count", 512)


@attack("16777216 tokens in a frame; 1048576 are the most")
def more_tokens_than_the_core_takes(d: Draft) -> None:
    d.u32("genie.frame.width", 4096)
    d.u32("genie.frame.height", 4096)
    d.u32("genie.tokenizer.patch_size", 1)


@attack("17825792 tokens in a window; 16777216 are the most")
def a_longer_window_than_the_core_takes(d: Draft) -> None:
    d.u32("genie.frame.width", 4096)
    d.u32("genie.frame.height", 4096)
    d.u32("genie.tokenizer.patch_size", 4)
    d.u32("genie.context_length", 17)


@attack("TiB")
def cache_of_64_tebibytes(d: Draft) -> None:
    d.u32("genie.frame.width", 4096)
    d.u32("genie.frame.height", 4096)
    d.u32("genie.tokenizer.patch_size", 4)
    d.u32("genie.context_length", 16)
    for stack in ("tokenizer.encoder", "dynamics"):
        d.u32(f"genie.{stack}.attention.head_count", 512)
        d.u32(f"genie.{stack}.attention.key_length", 1024)
        d.u32(f"genie.{stack}.embedding_length", 1)


@attack("TiB")
def weights_overflow(d: Draft) -> None:
    for stack in ("tokenizer.encoder", "tokenizer.decoder", "lam.encoder", "dynamics"):
        d.u32(f"genie.{stack}.block_count", 512)
        d.u32(f"genie.{stack}.embedding_length", 16384)
        d.u32(f"genie.{stack}.attention.head_count", 512)
        d.u32(f"genie.{stack}.attention.key_length", 1024)


@attack("must be")
def transposed_matrix(d: Draft) -> None:
    d.tensor("dynamics.blk.0.ffn.up.weight").dims.reverse()


@attack("must be")
def flattened_matrix(d: Draft) -> None:
    t = d.tensor("dynamics.blk.0.ffn.up.weight")
    t.dims = [t.dims[0] * t.dims[1]]


@attack("must be F32")
def quantized_norm(d: Draft) -> None:
    t = d.tensor("dynamics.blk.0.ffn.norm.weight")
    t.code, t.data = 8, bytes(34 * 2)


@attack("occurs twice")
def same_tensor_twice(d: Draft) -> None:
    d.tensors.append(d.tensors[0])


@attack("is missing")
def tensor_left_out(d: Draft) -> None:
    d.tensors.remove(d.tensor("dynamics.output_norm.weight"))


@attack("unknown tensor")
def tensor_too_many(d: Draft) -> None:
    d.tensors.append(Tensor(b"dynamics.blk.9.extra.weight", [4], 0, bytes(16)))


@attack("\\x1b[2J")
def escape_codes_in_a_name(d: Draft) -> None:
    d.tensors.append(Tensor(b"\x1b[2J\r\n", [4], 0, bytes(16)))


for name, expected, bend in (
    ("wrong_magic", "not a GGUF file", lambda d: setattr(d, "magic", b"GGML")),
    ("version_0", "version 0", lambda d: setattr(d, "version", 0)),
    ("version_2", "version 2", lambda d: setattr(d, "version", 2)),
    ("version_4", "version 4", lambda d: setattr(d, "version", 4)),
    ("big_endian", "big-endian", lambda d: setattr(d, "version", 3 << 24)),
    ("tensor_count_huge", "tensors at byte 8", lambda d: setattr(d, "tensor_count", BIG)),
    ("tensor_count_wraps_when_multiplied", "tensors at byte 8", lambda d: setattr(d, "tensor_count", 2**58)),
    ("tensor_count_high", "tensor", lambda d: setattr(d, "tensor_count", len(d.tensors) + 1)),
    ("key_count_huge", "metadata keys at byte 16", lambda d: setattr(d, "pair_count", BIG)),
    ("key_count_low", "", lambda d: setattr(d, "pair_count", 5)),
    ("value_type_13", "value type 13", lambda d: d.set("x.y", 13, b"\0" * 8)),
    ("value_type_huge", "unknown value type", lambda d: d.set("x.y", 2**32 - 1, b"")),
    ("array_type_13", "unknown value type 13", lambda d: d.set("x.y", ARRAY, struct.pack("<IQ", 13, 1))),
    ("array_count_huge", "items in", lambda d: d.set("x.y", ARRAY, struct.pack("<IQ", U64, BIG))),
    ("array_count_wraps", "items in", lambda d: d.set("x.y", ARRAY, struct.pack("<IQ", U64, 2**61))),
    ("string_array_count_huge", "items in", lambda d: d.set("x.y", ARRAY, struct.pack("<IQ", STRING, 2**40))),
    ("bool_of_2", "bool of value 2", lambda d: d.set("x.y", BOOL, b"\2")),
    ("string_not_utf8", "UTF-8", lambda d: d.set("general.name", STRING, text(b"\xff\xfe"))),
    ("string_surrogate", "UTF-8", lambda d: d.set("general.name", STRING, text(b"\xed\xa0\x80"))),
    ("key_empty", "empty name", lambda d: d.pairs.append(Pair(b"", U8, b"\0"))),
    ("key_twice", "occurs twice", lambda d: d.pairs.append(d.pairs[0])),
    ("key_not_utf8", "UTF-8", lambda d: d.pairs.append(Pair(b"\x80", U8, b"\0"))),
    ("key_too_long", "at most", lambda d: d.pairs.append(Pair(b"k" * 70_000, U8, b"\0"))),
    ("alignment_0", "power of two", lambda d: d.u32("general.alignment", 0)),
    ("alignment_1", "power of two", lambda d: d.u32("general.alignment", 1)),
    ("alignment_48", "power of two", lambda d: d.u32("general.alignment", 48)),
    ("alignment_huge", "power of two", lambda d: d.u32("general.alignment", 1 << 31)),
    ("alignment_string", "not a uint32", lambda d: d.string("general.alignment", "32")),
    ("alignment_u64", "not a uint32", lambda d: d.set("general.alignment", U64, struct.pack("<Q", 32))),
    ("tensor_name_empty", "empty name", lambda d: setattr(d.tensors[0], "name", b"")),
    ("tensor_name_of_65", "at most 64", lambda d: setattr(d.tensors[0], "name", b"n" * 65)),
    ("tensor_name_not_utf8", "UTF-8", lambda d: setattr(d.tensors[0], "name", b"\xc0\xaf")),
    ("dims_0", "0 dimensions", lambda d: setattr(d.tensors[0], "dim_count", 0)),
    ("dims_5", "5 dimensions", lambda d: setattr(d.tensors[0], "dim_count", 5)),
    ("dims_huge", "dimensions", lambda d: setattr(d.tensors[0], "dim_count", 2**32 - 1)),
    ("dimension_of_0", "dimension of 0", lambda d: setattr(d.tensors[0], "dims", [32, 0])),
    ("dimensions_wrap_to_0", "bytes, more than", lambda d: setattr(d.tensors[0], "dims", [2**32, 2**32])),
    ("dimensions_wrap_to_32", "bytes, more than", lambda d: setattr(d.tensors[0], "dims", [2**63 + 16, 2, 1, 1])),
    ("dimension_huge", "bytes, more than", lambda d: setattr(d.tensors[0], "dims", [BIG, BIG, BIG, BIG])),
    ("type_unknown", "type 99", lambda d: setattr(d.tensors[0], "code", 99)),
    ("type_removed", "type 4", lambda d: setattr(d.tensors[0], "code", 4)),
    ("type_q6_k", "type 14", lambda d: setattr(d.tensors[0], "code", 14)),
    ("row_not_whole_blocks", "multiple of", lambda d: vars(d.tensors[0]).update(dims=[48, 32], code=8)),
    ("offset_unaligned", "not a multiple of 32", lambda d: setattr(d.tensors[1], "offset", 1)),
    ("offset_beyond", "truncated", lambda d: setattr(d.tensors[1], "offset", 2**40)),
    ("offset_wraps", "truncated", lambda d: setattr(d.tensors[1], "offset", 2**64 - 32)),
    ("tensor_over_another", "overlap", lambda d: setattr(d.tensors[1], "offset", 0)),
    ("llama", "of a 'llama' model, not of a Genie", lambda d: d.string("general.architecture", "llama")),
    ("no_architecture", "general.architecture is missing", lambda d: d.drop("general.architecture")),
    ("architecture_number", "general.architecture", lambda d: d.u32("general.architecture", 1)),
    ("profile_version_2", "genie.version", lambda d: d.u32("genie.version", 2)),
    ("quantization_version_1", "quantization_version", lambda d: d.u32("general.quantization_version", 1)),
    ("file_type_3", "general.file_type", lambda d: d.u32("general.file_type", 3)),
    ("card_number", "general.name", lambda d: d.u32("general.name", 7)),
    ("unknown_genie_key", "unknown key", lambda d: d.u32("genie.dynamics.moe", 7)),
    ("no_key", "genie.context_length is missing", lambda d: d.drop("genie.context_length")),
    ("width_0", "genie.frame.width", lambda d: d.u32("genie.frame.width", 0)),
    ("width_4097", "1…4096", lambda d: d.u32("genie.frame.width", 4097)),
    ("width_odd", "does not divide", lambda d: d.u32("genie.frame.width", 17)),
    ("width_negative", "not a int32", lambda d: d.set("genie.frame.width", I32, struct.pack("<i", -16))),
    ("width_u64", "not a uint64", lambda d: d.set("genie.frame.width", U64, struct.pack("<Q", 16))),
    ("width_float", "not a float32", lambda d: d.f32("genie.frame.width", 16.0)),
    ("width_bool", "not a bool", lambda d: d.set("genie.frame.width", BOOL, b"\1")),
    ("context_doubled", "pos_time", lambda d: d.u32("genie.context_length", 8)),
    ("actions_0", "genie.action.count", lambda d: d.u32("genie.action.count", 0)),
    ("actions_more", "action_embd", lambda d: d.u32("genie.action.count", 4)),
    ("codebook_1", "codebook_size", lambda d: d.u32("genie.tokenizer.codebook_size", 1)),
    ("patch_0", "patch_size", lambda d: d.u32("genie.lam.patch_size", 0)),
    ("heads_more", "must be", lambda d: d.u32("genie.dynamics.attention.head_count", 4)),
    ("heads_0", "head_count", lambda d: d.u32("genie.dynamics.attention.head_count", 0)),
    ("epsilon_0", "norm_epsilon", lambda d: d.f32("genie.dynamics.norm_epsilon", 0.0)),
    ("epsilon_nan", "norm_epsilon", lambda d: d.f32("genie.dynamics.norm_epsilon", float("nan"))),
    ("temperature_negative", "temperature", lambda d: d.f32("genie.sampler.temperature", -1e-9)),
    ("temperature_infinite", "temperature", lambda d: d.f32("genie.sampler.temperature", float("inf"))),
    ("temperature_f64", "not a float64", lambda d: d.set("genie.sampler.temperature", F64, struct.pack("<d", 1))),
    ("steps_0", "genie.sampler.steps", lambda d: d.u32("genie.sampler.steps", 0)),
    ("order_unknown", "genie.sampler.order", lambda d: d.string("genie.sampler.order", "best")),
    ("policy_unknown", "genie.window.policy", lambda d: d.string("genie.window.policy", "none")),
    ("ffn_unknown", "genie.dynamics.ffn", lambda d: d.string("genie.dynamics.ffn", "moe")),
    ("ffn_gated_without_gate", "gate", lambda d: d.string("genie.dynamics.ffn", "geglu")),
    ("bias_without_biases", "bias", lambda d: d.set("genie.dynamics.bias", BOOL, b"\1")),
    ("sublayers_empty", "sublayers", lambda d: d.set("genie.dynamics.sublayers", ARRAY, strings())),
    ("sublayers_twice", "sublayers", lambda d: d.set("genie.dynamics.sublayers", ARRAY, strings("ffn", "ffn"))),
    ("sublayers_unknown", "sublayers", lambda d: d.set("genie.dynamics.sublayers", ARRAY, strings("mamba"))),
    ("sublayers_string", "sublayers", lambda d: d.string("genie.dynamics.sublayers", "ffn")),
    (
        "sublayers_numbers",
        "sublayers",
        lambda d: d.set("genie.dynamics.sublayers", ARRAY, struct.pack("<IQI", U32, 1, 7)),
    ),
    ("kind_without_time", "do not make", lambda d: d.string("genie.tokenizer.kind", "vit")),
):
    simple(name, expected, bend)

# Reads every file of a folder in a separate process, with little memory and without torch.
READER = """
import json, resource, sys, time, pathlib
resource.setrlimit(resource.RLIMIT_AS, (768 << 20, 768 << 20))
from genie_cpp.errors import GenieError
from genie_cpp.file.gguf_file import GGUFFile
from genie_cpp.spec.hparams import validate
found = {}
for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    start, name, said = time.perf_counter(), "accepted", ("", "")
    try:
        with GGUFFile.open(path) as file:
            validate(file)
    except GenieError as error:
        name, said = type(error).__name__, (str(error), error.hint)
    except BaseException as error:
        name, said = type(error).__name__, (str(error), "")
    found[path.stem] = (name, *said, time.perf_counter() - start)
json.dump(found, sys.stdout)
"""


@pytest.fixture(scope="module")
def verdicts(
    tiny_gguf: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[str, str, str, float]]:
    folder = tmp_path_factory.mktemp("attacks")
    (folder / "unharmed.gguf").write_bytes(Draft.of(tiny_gguf("f32")).raw())
    for name, (function, _) in ATTACKS.items():
        draft = Draft.of(tiny_gguf("f32"))
        raw = function(draft)
        (folder / f"{name}.gguf").write_bytes(draft.raw() if raw is None else raw)
    env = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", READER, str(folder)], env=env, cwd=folder, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, tuple[str, str, str, float]] = json.loads(done.stdout)
    return found


def test_the_unbent_draft_is_accepted(verdicts: dict[str, tuple[str, str, str, float]]) -> None:
    assert verdicts["unharmed"][0] == "accepted"
    assert len(ATTACKS) >= 40


@pytest.mark.parametrize("name", ATTACKS)
def test_attack_is_refused(name: str, verdicts: dict[str, tuple[str, str, str, float]]) -> None:
    kind, message, hint, seconds = verdicts[name]
    assert kind in ("GGUFError", "ModelError"), (kind, message)
    assert ATTACKS[name][1] in message
    assert hint
    assert len(message.splitlines()) == 1 and "\x1b" not in message and len(message) < 600
    assert seconds < 2.0


def small_file() -> bytes:
    pairs = [
        Pair(b"general.architecture", STRING, text("genie")),
        Pair(b"x.list", ARRAY, struct.pack("<IQ", U16, 3) + bytes(6)),
        Pair(b"x.words", ARRAY, strings("a", "", "bc")),
        Pair(b"x.number", F64, struct.pack("<d", 0.5)),
    ]
    tensors = [Tensor(b"a.weight", [32, 2], 8, bytes(68)), Tensor(b"b.weight", [3], 0, bytes(12))]
    return Draft(pairs, tensors).raw()


def test_truncation_at_every_byte(tmp_path: Path) -> None:
    raw = small_file()
    path = tmp_path / "cut.gguf"
    path.write_bytes(raw)
    GGUFFile.open(path).close()
    for end in range(len(raw)):
        path.write_bytes(raw[:end])
        with pytest.raises(GGUFError):
            GGUFFile.open(path)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(changes=st.lists(st.tuples(st.integers(0, 9000), st.integers(0, 255)), min_size=1, max_size=8))
def test_changed_bytes_never_crash(
    changes: list[tuple[int, int]], tiny_gguf: Callable[[str], Path], tmp_path: Path
) -> None:
    raw = bytearray(tiny_gguf("q8_0").read_bytes())
    for at, byte in changes:
        raw[at % len(raw)] = byte
    path = tmp_path / "changed.gguf"
    path.write_bytes(raw)
    try:
        with GGUFFile.open(path) as file:
            validate(file)
    except (GGUFError, ModelError):
        pass


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_spliced_bytes_never_crash(data: st.DataObject, tmp_path: Path) -> None:
    raw = small_file()
    at = data.draw(st.integers(4, len(raw)))
    cut = data.draw(st.integers(0, 16))
    extreme = st.sampled_from([b"\xff" * 8, b"\0" * 8, struct.pack("<Q", 2**63), struct.pack("<I", 9)])
    raw = raw[:at] + data.draw(st.one_of(st.binary(max_size=16), extreme)) + raw[at + cut :]
    path = tmp_path / "spliced.gguf"
    path.write_bytes(raw)
    try:
        with GGUFFile.open(path) as file:
            for name in file.tensors:
                file.check_finite(name)
    except GGUFError:
        pass
