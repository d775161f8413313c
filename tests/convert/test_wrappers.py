"""Native checkpoints as users have them: wrapped, prefixed, in shards, with a byte order mark; and other files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from genie_cpp import CheckpointError, GGUFError, ImageError, Model, StateError
from genie_cpp.convert.writer import convert
from genie_cpp.frames import load_image
from genie_cpp.play.session_file import SessionFile

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 5419316\n"
PAGE = b"<!DOCTYPE html><title>Sign in</title>"


@pytest.fixture
def folder(tmp_path: Path, tiny_checkpoint: Path) -> Path:
    shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


def pickled(wrap: Callable[[dict[str, Any]], Any]) -> Callable[[Path, dict[str, Any]], None]:
    def save(folder: Path, state: dict[str, Any]) -> None:
        torch.save(wrap(state), folder / "model.pt")

    return save


def prefixed(prefix: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda state: {prefix + name: tensor for name, tensor in state.items()}


def sharded(folder: Path, state: dict[str, Any], **changes: str) -> None:
    names, parts = sorted(state), {}
    for index, part in enumerate((names[::2], names[1::2])):
        file = f"model-{index + 1:05}-of-00002.safetensors"
        save_file({name: state[name] for name in part}, folder / file)
        parts |= dict.fromkeys(part, file)
    parts |= changes
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": parts}), encoding="utf-8")


@pytest.mark.parametrize(
    "save",
    [
        pickled(lambda s: {"model_state_dict": s, "epoch": 5}),
        pickled(lambda s: {"state_dict": s}),
        pickled(prefixed("_orig_mod.")),
        pickled(prefixed("module.")),
        pickled(prefixed("module._orig_mod.")),
        lambda folder, state: save_file(prefixed("module.")(state), folder / "model.safetensors"),
        sharded,
    ],
)
def test_the_same_weights_whatever_is_around_them(folder: Path, tmp_path: Path, save: Any) -> None:
    convert(folder, tmp_path / "plain.gguf", "f32")
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    save(folder, state)
    convert(folder, tmp_path / "wrapped.gguf", "f32")
    assert (tmp_path / "wrapped.gguf").read_bytes() == (tmp_path / "plain.gguf").read_bytes()


def test_a_byte_order_mark(folder: Path, tmp_path: Path) -> None:
    config = folder / "config.json"
    config.write_bytes(b"\xef\xbb\xbf" + config.read_bytes())
    convert(folder, tmp_path / "w.gguf", "f32")


def test_two_models_in_one_file_are_refused(folder: Path, tmp_path: Path) -> None:
    state = load_file(folder / "model.safetensors")
    save_file({**state, **prefixed("module.")({k: v.clone() for k, v in state.items()})}, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match="one name but for their prefixes"):
        convert(folder, tmp_path / "w.gguf", "f32")


@pytest.mark.parametrize("file", ["../model-00001-of-00002.safetensors", "/etc/passwd", "missing.safetensors"])
def test_an_index_names_files_beside_it(folder: Path, tmp_path: Path, file: str) -> None:
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    sharded(folder, state, **{sorted(state)[0]: file})
    with pytest.raises(CheckpointError, match="is not beside it"):
        convert(folder, tmp_path / "w.gguf", "f32")


@pytest.mark.parametrize(("content", "what"), [(POINTER, "a Git LFS pointer"), (PAGE, "a web page")])
def test_what_downloads_turn_into_is_named(folder: Path, tmp_path: Path, content: bytes, what: str) -> None:
    for name in ("model.safetensors", "model.pt"):
        (folder / "model.safetensors").unlink(missing_ok=True)
        (folder / name).write_bytes(content)
        with pytest.raises(CheckpointError, match=what) as caught:
            convert(folder, tmp_path / "w.gguf", "f32")
        assert caught.value.hint
    for name, open_, kind in (
        ("w.gguf", Model.open, GGUFError), ("p.png", load_image, ImageError), ("s.genie", SessionFile.load, StateError)
    ):  # fmt: skip
        (tmp_path / name).write_bytes(content)
        with pytest.raises(kind, match=what):
            open_(tmp_path / name)


def test_another_model_s_gguf_is_named_whatever_its_types(tmp_path: Path) -> None:
    import gguf
    import numpy as np

    writer = gguf.GGUFWriter(tmp_path / "llama.gguf", "llama")
    writer.add_tensor("a", np.zeros(256, np.int8), raw_dtype=gguf.GGMLQuantizationType.I8)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(GGUFError, match="a GGUF of a 'llama' model, not of a Genie"):
        Model.open(tmp_path / "llama.gguf")
