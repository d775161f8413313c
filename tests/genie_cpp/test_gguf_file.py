"""The strict reader on good files, and the faults that depend on the file system."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from genie_cpp.errors import GGUFError
from genie_cpp.file.gguf_file import GGUFFile, TensorType
from genie_cpp.words import quoted


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    """Every value type and every tensor type, written by the gguf package."""
    path = tmp_path / "sample.gguf"
    writer = gguf.GGUFWriter(path, "genie")
    for kind, value in (("uint8", 255), ("int8", -128), ("uint16", 65535), ("int16", -32768), ("uint32", 2**32 - 1)):
        getattr(writer, f"add_{kind}")(f"x.{kind}", value)
    writer.add_int32("x.int32", -(2**31))
    writer.add_uint64("x.uint64", 2**64 - 1)
    writer.add_int64("x.int64", -(2**63))
    writer.add_float32("x.float32", 0.1)
    writer.add_float64("x.float64", 0.1)
    writer.add_bool("x.bool", True)
    writer.add_string("x.string", "Ж 世界")
    writer.add_array("x.strings", ["a", "bc"])
    writer.add_array("x.numbers", [1, 2, 3])
    writer.add_custom_alignment(64)
    values = np.linspace(-1, 1, 64, dtype=np.float32).reshape(2, 32)
    writer.add_tensor("f32", values)
    writer.add_tensor("f16", values.astype(np.float16))
    for kind in (gguf.GGMLQuantizationType.Q8_0, gguf.GGMLQuantizationType.Q4_0):
        writer.add_tensor(kind.name.lower(), gguf.quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_values_and_their_types(sample: Path) -> None:
    with GGUFFile.open(sample) as file:
        m = file.metadata
        assert (m["x.uint8"], m["x.int8"], m["x.uint16"], m["x.int16"]) == (255, -128, 65535, -32768)
        assert (m["x.uint32"], m["x.int32"]) == (2**32 - 1, -(2**31))
        assert (m["x.uint64"], m["x.int64"]) == (2**64 - 1, -(2**63))
        assert (m["x.float32"], m["x.float64"]) == (float(np.float32(0.1)), 0.1)
        assert m["x.bool"] is True
        assert (m["x.string"], m["x.strings"], m["x.numbers"]) == ("Ж 世界", ["a", "bc"], [1, 2, 3])
        assert file.value_types["x.uint64"] == "uint64"
        assert file.value_types["x.strings"] == "array of string"
        assert file.alignment == 64
        assert file.size == sample.stat().st_size


def test_tensors_agree_with_the_gguf_package(sample: Path) -> None:
    theirs: Any = gguf.GGUFReader(sample)
    with GGUFFile.open(sample) as file:
        assert list(file.tensors) == ["f32", "f16", "q8_0", "q4_0"]
        assert [t.type for t in file.tensors.values()] == [
            TensorType.F32,
            TensorType.F16,
            TensorType.Q8_0,
            TensorType.Q4_0,
        ]
        for tensor in theirs.tensors:
            info = file.tensors[tensor.name]
            assert info.shape == tuple(int(n) for n in tensor.shape) == (32, 2)
            assert (info.offset, info.n_bytes) == (tensor.data_offset, tensor.n_bytes)
            assert info.offset % 64 == 0
            assert np.array_equal(file.data(tensor.name), tensor.data.reshape(-1).view(np.uint8))
            file.check_finite(tensor.name)


def test_data_outlives_the_file_and_may_share_memory(sample: Path) -> None:
    file = GGUFFile.open(sample)
    own, scratch = file.data("f32"), file.scratch()
    shared = file.data("f32", scratch)
    assert np.array_equal(own, shared) and np.shares_memory(shared, scratch)
    file.close()
    file.close()
    assert own[3] == 0xBF  # -1.0
    with pytest.raises(GGUFError, match="closed"):
        file.data("f32")


def test_a_file_that_changes_under_us_is_an_error_and_no_signal(sample: Path) -> None:
    with GGUFFile.open(sample) as file:
        digest = hashlib.sha256(sample.read_bytes()).hexdigest()
        assert file.sha256() == digest
        file.check_unchanged()
        moved = sample.with_name("other")
        moved.write_bytes(b"another file takes its place")
        os.replace(moved, sample)
        assert file.sha256() == digest  # of the opened file, not of what the path names now
        file.check_unchanged()
    sample.unlink()


def test_a_file_that_shrinks_is_an_error_and_no_signal(sample: Path) -> None:
    with GGUFFile.open(sample) as file:
        os.truncate(sample, max(info.offset for info in file.tensors.values()))
        for read in (file.sha256, file.check_unchanged, lambda: [file.data(name) for name in file.tensors]):
            with pytest.raises(GGUFError, match="changed while it was read"):
                read()


@pytest.mark.parametrize(
    ("kind", "raw", "what"),
    [
        ("f32", np.float32("nan"), "value"),
        ("f32", np.float32("-inf"), "value"),
        ("f16", np.float16("inf"), "value"),
        ("q8_0", np.float16("nan"), "block scale"),
        ("q4_0", np.float16("-inf"), "block scale"),
    ],
)
def test_nan_and_infinity(sample: Path, kind: str, raw: np.generic, what: str) -> None:
    with GGUFFile.open(sample) as file:
        info = file.tensors[kind]
    step = {"f32": 4, "f16": 2, "q8_0": 34, "q4_0": 18}[kind]
    changed = bytearray(sample.read_bytes())
    at = info.offset + step  # the second value or block
    changed[at : at + len(raw.tobytes())] = raw.tobytes()
    sample.write_bytes(changed)
    with GGUFFile.open(sample) as file:
        with pytest.raises(GGUFError, match=rf"{kind}.*{what} \(number 1\)"):
            file.check_finite(kind)
        for other in {"f32", "f16", "q8_0", "q4_0"} - {kind}:
            file.check_finite(other)


def test_largest_finite_values_are_accepted(tmp_path: Path) -> None:
    path = tmp_path / "large.gguf"
    writer = gguf.GGUFWriter(path, "genie")
    writer.add_tensor("f32", np.array([np.finfo(np.float32).max, -0.0, 1e-45], np.float32))
    writer.add_tensor("f16", np.array([65504, -65504], np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with GGUFFile.open(path) as file:
        file.check_finite("f32")
        file.check_finite("f16")


def test_faults_of_the_file_system(tmp_path: Path) -> None:
    with pytest.raises(GGUFError, match=r"cannot read .*nothing\.gguf") as missing:
        GGUFFile.open(tmp_path / "nothing.gguf")
    assert missing.value.hint
    with pytest.raises(GGUFError, match="not a regular file"):
        GGUFFile.open(tmp_path)
    with pytest.raises(GGUFError, match="cannot read"):
        GGUFFile.open("a\0b")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(GGUFError, match="not a regular file"):  # instead of waiting for a writer
            GGUFFile.open(tmp_path / "pipe")


def test_quoted_text_cannot_drive_a_terminal() -> None:
    assert quoted("plain") == "'plain'"
    assert quoted("\x1b[31m\n\x07\u202e") == "'\\x1b[31m\\n\\x07\\u202e'"
    assert len(quoted("a" * 500)) < 300


def test_all_bundled_types_open(tiny_gguf: Callable[[str], Path]) -> None:
    for kind in ("f32", "f16", "q8_0", "q4_0"):
        with GGUFFile.open(tiny_gguf(kind)) as file:
            assert file.metadata["general.architecture"] == "genie"
            assert file.data("tokenizer.codebook.weight").nbytes == 8 * 16 * 4
