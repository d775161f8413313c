"""Conversion: every value arrives, every fault is named, no half-made file is left behind."""

from __future__ import annotations

import dataclasses
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from genie_cpp.convert import native, writer
from genie_cpp.convert.native import native_name
from genie_cpp.convert.quantize import choose_type, encode, relative_error
from genie_cpp.convert.reference.config import GenieConfig
from genie_cpp.convert.writer import convert
from genie_cpp.errors import CheckpointError, OutputError
from genie_cpp.file.blocks import decode
from genie_cpp.file.gguf_file import GGUFFile, TensorType
from genie_cpp.spec.hparams import validate

Change = Callable[[dict[str, torch.Tensor]], object]


@pytest.fixture
def folder(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A checkpoint for tests to damage."""
    shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


@pytest.fixture
def output(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "world.gguf"


def change_tensors(folder: Path, change: Change) -> None:
    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, folder / "model.safetensors")


def change_config(folder: Path, change: Callable[[Any], object]) -> None:
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))


def refused(folder: Path, output: Path, message: str, kind: type[Exception] = CheckpointError) -> None:
    with pytest.raises(kind, match=message) as caught:
        convert(folder, output, "q8_0")
    assert getattr(caught.value, "hint", None)
    assert "\n" not in str(caught.value)
    assert list(output.parent.iterdir()) == []


def test_f32_keeps_every_bit(tiny_checkpoint: Path, tiny_gguf: Callable[[str], Path]) -> None:
    state = load_file(tiny_checkpoint / "model.safetensors")
    used = set()
    with GGUFFile.open(tiny_gguf("f32")) as file:
        for name, info in file.tensors.items():
            native_value = state[native_name(name)]
            used.add(native_name(name))
            assert info.type is TensorType.F32
            assert info.shape == tuple(native_value.shape)[::-1]
            assert file.data(name).tobytes() == native_value.numpy().tobytes()
    assert {name for name in state if not name.startswith(native.TRAINING_PARTS)} == used


@pytest.mark.parametrize("kind", ["f16", "q8_0", "q4_0"])
def test_quantized_tensors_are_those_of_gguf(
    kind: str, tiny_checkpoint: Path, tiny_gguf: Callable[[str], Path]
) -> None:
    state = load_file(tiny_checkpoint / "model.safetensors")
    counts: dict[str, int] = {}
    with GGUFFile.open(tiny_gguf(kind)) as file:
        hp = validate(file)
        assert hp.action_count == 3
        for name, info in file.tensors.items():
            values = state[native_name(name)].numpy()
            wanted = gguf.quants.quantize(values, gguf.GGMLQuantizationType(int(info.type)))
            assert file.data(name).tobytes() == wanted.tobytes()
            counts[info.type.name] = counts.get(info.type.name, 0) + 1
        types = {name: info.type.name for name, info in file.tensors.items()}
    main = kind.upper()
    assert types["dynamics.blk.0.spatial.q.weight"] == main
    # 48, 8, 40 and 24 values per row are not whole blocks.
    for name in ("tokenizer.encoder.input", "tokenizer.decoder.input", "lam.encoder.blk.0.spatial.q"):
        assert types[f"{name}.weight"] == "F16"
    assert types["tokenizer.encoder.blk.0.ffn.down.weight"] == "F16"
    for name in ("dynamics.output", "dynamics.token_embd"):
        assert types[f"{name}.weight"] == ("F16" if kind == "f16" else "Q8_0")
    for name in ("dynamics.action_embd", "dynamics.pos_space", "tokenizer.codebook", "dynamics.output_norm"):
        assert types[f"{name}.weight"] == "F32"
    assert types["tokenizer.encoder.blk.0.ffn.up.bias"] == "F32"


@pytest.mark.parametrize("kind", ["f32", "f16", "q8_0", "q4_0"])
def test_the_gguf_package_reads_it_and_agrees(kind: str, tiny_gguf: Callable[[str], Path]) -> None:
    theirs: Any = gguf.GGUFReader(tiny_gguf(kind))
    with GGUFFile.open(tiny_gguf(kind)) as file:
        assert [tensor.name for tensor in theirs.tensors] == list(file.tensors)
        for tensor in theirs.tensors:
            info = file.tensors[tensor.name]
            assert (info.offset, info.n_bytes, int(info.type)) == (
                tensor.data_offset,
                tensor.n_bytes,
                int(tensor.tensor_type),
            )
            assert info.shape == tuple(int(n) for n in tensor.shape)
        fields = {key: field.contents() for key, field in theirs.fields.items() if not key.startswith("GGUF.")}
        assert fields == file.metadata
        assert file.metadata["general.name"] == "Tiny"
        assert file.metadata["general.file_type"] == {"f32": 0, "f16": 1, "q8_0": 7, "q4_0": 2}[kind]


def test_decode_is_the_inverse_of_encode() -> None:
    values = np.random.default_rng(1).standard_normal((6, 64)).astype(np.float32)
    values[0] = 0
    values[1, :32] = 1e-42  # a block whose inverse scale overflows to infinity
    for kind, worst in ((TensorType.F32, 0), (TensorType.F16, 1e-3), (TensorType.Q8_0, 0.02), (TensorType.Q4_0, 0.3)):
        raw = encode(values, kind)
        assert raw.dtype == np.uint8 and raw.ndim == 1
        assert np.abs(decode(raw, kind, values.shape) - values).max() <= worst
        want = gguf.quants.quantize(values[2:], gguf.GGMLQuantizationType(int(kind)))
        assert encode(values[2:], kind).tobytes() == want.tobytes()


@pytest.mark.parametrize("kind", [TensorType.Q8_0, TensorType.Q4_0])
def test_blocks_of_any_bytes_decode_as_the_gguf_package_does(kind: TensorType) -> None:
    bytes_per_block = {TensorType.Q8_0: 34, TensorType.Q4_0: 18}[kind]
    raw = np.random.default_rng(2).integers(0, 256, (64, 3 * bytes_per_block), np.uint8)
    raw[:, 1::bytes_per_block] &= 0x7B  # scales that are finite
    theirs = gguf.quants.dequantize(raw, gguf.GGMLQuantizationType(int(kind)))
    assert decode(raw, kind, (64, 96)).tobytes() == theirs.tobytes()


def test_what_would_overflow_half_precision_stays_f32() -> None:
    for kind, limit in ((TensorType.F16, 65504), (TensorType.Q8_0, 65504 * 127), (TensorType.Q4_0, 65504 * 8)):
        values = np.full((1, 32), limit, np.float32)
        assert choose_type("a.q.weight", True, kind, values) is kind
        assert choose_type("a.q.weight", True, kind, values * np.float32(1.01)) is TensorType.F32
        assert np.isfinite(decode(encode(values, kind), kind, (1, 32))).all()
    assert choose_type("a.q.weight", True, TensorType.Q8_0, np.full((1, 33), 1e5, np.float32)) is TensorType.F32
    assert choose_type("a.norm.weight", False, TensorType.Q8_0, np.ones((1, 32), np.float32)) is TensorType.F32


@pytest.mark.parametrize("wanted", [TensorType.F16, TensorType.Q8_0, TensorType.Q4_0])
def test_what_would_vanish_in_half_precision_keeps_its_values(wanted: TensorType) -> None:
    normal = np.random.default_rng(0).standard_normal((8, 64)).astype(np.float32)
    bound = {TensorType.F16: 0.002, TensorType.Q8_0: 0.01, TensorType.Q4_0: 0.15}[wanted]
    kinds = set()
    for exponent in range(-40, 3):
        values = normal * np.float32(10.0**exponent)
        kind = choose_type("a.q.weight", True, wanted, values)
        again = decode(encode(values, kind), kind, values.shape)
        assert relative_error(values, again) <= bound, exponent
        kinds.add(kind)
    assert kinds >= {wanted, TensorType.F32}
    assert choose_type("a.q.weight", True, wanted, np.zeros((2, 32), np.float32)) is wanted


def test_report(tiny_checkpoint: Path, output: Path) -> None:
    steps: list[tuple[int, int, str]] = []
    report = convert(tiny_checkpoint, output, "q4_0", progress=lambda *step: steps.append(step))
    assert [step[0] for step in steps] == list(range(steps[-1][1] + 1))
    assert [row.name for row in report.classes] == list(writer.CLASSES)
    assert all(row.count for row in report.classes if row.name != "convolutions")
    with GGUFFile.open(output) as file:
        assert sum(row.count for row in report.classes) == len(file.tensors)
        assert report.bytes_after == sum(tensor.n_bytes for tensor in file.tensors.values())
    assert report.file_bytes == output.stat().st_size
    assert report.bytes_before == 4 * report.parameters
    classes = {row.name: row for row in report.classes}
    assert classes["codebooks"].worst_error == 0 and set(classes["norms & biases"].types) == {"F32"}
    assert 0.02 < classes["attention"].mean_error <= classes["attention"].worst_error < 0.15


def test_each_tensor_is_read_once_and_may_keep_more_bits(
    folder: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its type stands in the header, before its values, and depends on them."""
    wide, usual = "dynamics.blk.0.ffn.up.weight", "dynamics.blk.0.ffn.down.weight"
    change_tensors(folder, lambda s: s.update({native_name(wide): s[native_name(wide)] * 1e9}))
    reads: list[str] = []
    get = native._open_safetensors

    def counting(path: Path) -> native._Source:
        shapes, read = get(path)
        return shapes, lambda name: reads.append(name) or read(name)  # type: ignore[func-returns-value]

    monkeypatch.setattr(native, "_open_safetensors", counting)
    convert(folder, output, "q8_0")
    with GGUFFile.open(output) as file:
        assert len(reads) == len(set(reads)) == len(file.tensors)
        assert file.tensors[wide].type is TensorType.F32
        assert file.tensors[usual].type is TensorType.Q8_0
    reader = gguf.GGUFReader(output)
    assert {t.name: t.tensor_type.name for t in reader.tensors}[wide] == "F32"
    assert [path.name for path in output.parent.iterdir() if path.is_file()] == [output.name]


def test_training_parts_may_be_absent(folder: Path, output: Path) -> None:
    change_tensors(folder, lambda s: [s.pop(k) for k in list(s) if k.startswith(native.TRAINING_PARTS)])
    change_config(folder, lambda c: c["lam"].update(decoder=None))
    convert(folder, output)
    assert output.exists()


@pytest.mark.parametrize("wrapped", [False, True])
def test_pt_gives_the_same_file(wrapped: bool, folder: Path, output: Path, tiny_gguf: Callable[[str], Path]) -> None:
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save({"model": state, "step": 7} if wrapped else state, folder / "weights.pt")
    convert(folder, output, "q8_0")
    assert output.read_bytes() == tiny_gguf("q8_0").read_bytes()
    convert(folder / "weights.pt", output, "q8_0", overwrite=True)
    assert output.read_bytes() == tiny_gguf("q8_0").read_bytes()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_float_types(dtype: torch.dtype, folder: Path, output: Path) -> None:
    change_tensors(folder, lambda s: s.update({k: v.to(dtype) for k, v in s.items()}))
    convert(folder, output, "f32")
    state = load_file(folder / "model.safetensors")
    with GGUFFile.open(output) as file:
        for name in file.tensors:
            assert file.data(name).tobytes() == state[native_name(name)].float().numpy().tobytes()


Q = "dynamics.stack.blk.0.spatial.q.weight"
TENSOR_FAULTS: dict[str, tuple[Change, str]] = {
    "missing": (lambda s: s.pop(Q), f"tensor {Q} is missing"),
    "misshapen": (lambda s: s.update({Q: s[Q][:, :-1].contiguous()}), rf"{Q} must be \[96, 64\], not \[96, 63\]"),
    "flat": (lambda s: s.update({Q: s[Q].flatten()}), rf"{Q} must be \[96, 64\], not \[6144\]"),
    "extra": (
        lambda s: s.update({"dynamics.stack.blk.9.x": torch.zeros(2)}),
        "unknown tensor 'dynamics.stack.blk.9.x'",
    ),
    "escape codes": (lambda s: s.update({"\x1b[2J": torch.zeros(2)}), r"unknown tensor '\\x1b\[2J'"),
    "nan": (lambda s: s[Q].view(-1)[5].fill_(float("nan")), f"{Q} has NaN or infinite"),
    "infinity": (lambda s: s["tokenizer.vq.codebook"][0, 0].fill_(float("-inf")), r"vq\.codebook has NaN or infinite"),
    "float64 overflow": (lambda s: s.update({Q: s[Q].double().fill_(1e300)}), f"{Q} has NaN or infinite"),
    "integers": (lambda s: s.update({Q: s[Q].to(torch.int32)}), r"has the type torch\.int32"),
}


@pytest.mark.parametrize("name", TENSOR_FAULTS)
def test_faulty_tensors_are_named(name: str, folder: Path, output: Path) -> None:
    change, message = TENSOR_FAULTS[name]
    change_tensors(folder, change)
    refused(folder, output, message)


CONFIG_FAULTS: dict[str, tuple[Callable[[Any], object], str]] = {
    "missing key": (lambda c: c["dynamics"]["stack"].pop("head_count"), r"lacks the key 'dynamics\.stack\.head_count'"),
    "missing section": (lambda c: c.pop("lam"), "lacks the section 'lam'"),
    "unknown key": (lambda c: c.update(moe=True), "unknown key 'moe'"),
    "format": (lambda c: c.pop("format"), '"format": "genie"'),
    "out of range": (lambda c: c.update(context_length=5000), r"genie\.context_length must be a uint32 in 2…1024"),
    "a string": (lambda c: c["tokenizer"].update(patch_size="4"), "wrong kind"),
    "a float": (lambda c: c.update(action_count=3.5), r"genie\.action\.count must be"),
    "a list": (lambda c: c["dynamics"].update(sampler=[1]), "wrong kind"),
    "sampler key": (lambda c: c["dynamics"]["sampler"].update(top_k=3), r"unknown key 'dynamics\.sampler\.top_k'"),
    "sampler value": (lambda c: c["dynamics"]["sampler"].update(steps=0), "steps must be"),
    "enormous": (lambda c: c["dynamics"]["stack"].update(embedding_length=10**30), "embedding_length must be"),
    "card key": (lambda c: c["card"].update(mood="good"), r"unknown key 'card\.mood'"),
    "card value": (lambda c: c["card"].update(name=7), r"card\.name must be a string"),
    "patch": (lambda c: c["lam"].update(patch_size=5), "does not divide"),
    "patch of zero": (lambda c: c["lam"].update(patch_size=0), "does not divide"),
}


@pytest.mark.parametrize("name", CONFIG_FAULTS)
def test_faulty_config(name: str, folder: Path, output: Path) -> None:
    change, message = CONFIG_FAULTS[name]
    change_config(folder, change)
    refused(folder, output, message)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "not JSON"),
        (b"[1]", "format"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 200_000, "wrong kind|not JSON"),
        (b" " * (2 << 20), "larger than"),
    ],
)
def test_config_that_is_no_config(raw: bytes, message: str, folder: Path, output: Path) -> None:
    (folder / "config.json").write_bytes(raw)
    refused(folder, output, message)


def test_config_absent(folder: Path, output: Path) -> None:
    (folder / "config.json").unlink()
    refused(folder, output, r"cannot read .*config\.json")


def test_weights_absent_or_damaged(folder: Path, output: Path) -> None:
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    for raw in (b"", whole[:100], whole[:-1], b"\xff" * 64, b"\xff" * 8 + whole[8:]):
        weights.write_bytes(raw)
        refused(folder, output, "not a whole safetensors file")
    weights.unlink()
    refused(folder, output, "has neither")
    refused(folder / "nothing", output, "does not exist")
    refused(folder / "config.json", output, "neither a folder nor")


class Payload:
    """Unpickled, makes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.target), "w")


@pytest.mark.parametrize("plain", [False, True])
def test_hostile_pickle_is_refused_and_not_run(plain: bool, folder: Path, output: Path, tmp_path: Path) -> None:
    (folder / "model.safetensors").unlink()
    target = tmp_path / "owned"
    state = {Q: Payload(target)}
    if plain:
        (folder / "model.pt").write_bytes(pickle.dumps(state, protocol=2))
    else:
        torch.save(state, folder / "model.pt")
    refused(folder, output, "refused: it holds more than tensors")
    assert not target.exists()


def test_pt_that_is_none(folder: Path, output: Path) -> None:
    (folder / "model.safetensors").unlink()
    for raw in (b"", b"PK\x03\x04" + bytes(100), b"\x80\x02."):
        (folder / "model.pt").write_bytes(raw)
        refused(folder, output, "refused|not a PyTorch checkpoint")
    torch.save([1, 2], folder / "model.pt")
    refused(folder, output, "not a table of tensors")
    (folder / "other.pt").write_bytes(b"")
    (folder / "model.pt").rename(folder / "another.pt")
    refused(folder, output, r"has 2 \.pt files")


def test_old_torch_may_not_open_a_pickle(folder: Path, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "model.safetensors").rename(folder / "model.pt")
    monkeypatch.setattr(torch, "__version__", "2.5.1+cpu")
    refused(folder, output, r"PyTorch 2\.5\.1\+cpu cannot read")


def test_output_that_exists(tiny_checkpoint: Path, output: Path, tiny_gguf: Callable[[str], Path]) -> None:
    output.write_bytes(b"mine")
    with pytest.raises(OutputError, match="exists") as caught:
        convert(tiny_checkpoint, output)
    assert "-y" in caught.value.hint
    assert output.read_bytes() == b"mine"
    convert(tiny_checkpoint, output, overwrite=True)
    assert output.read_bytes() == tiny_gguf("q8_0").read_bytes()
    assert list(output.parent.iterdir()) == [output]


def test_output_that_cannot_be(folder: Path, output: Path) -> None:
    with pytest.raises(OutputError, match="is a folder"):
        convert(folder, output.parent)
    with pytest.raises(OutputError, match="does not exist"):
        convert(folder, output / "deeper" / "world.gguf")
    with pytest.raises(OutputError, match="is the checkpoint itself"):
        convert(folder, folder / "model.safetensors", overwrite=True)
    assert load_file(folder / "model.safetensors")
    with pytest.raises(CheckpointError, match="unknown type 'q3_k'"):
        convert(folder, output, "q3_k")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device"), RuntimeError("bug")])
def test_nothing_is_left_after_a_failure(
    error: BaseException, folder: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output.write_bytes(b"mine")
    calls = 0

    def failing(values: Any, kind: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 9:
            raise error
        return encode(values, kind)

    monkeypatch.setattr(writer, "encode", failing)
    wanted = OutputError if isinstance(error, OSError) else type(error)
    with pytest.raises(wanted):
        convert(folder, output, overwrite=True)
    assert calls == 9
    assert list(output.parent.iterdir()) == [output] and output.read_bytes() == b"mine"


def test_the_card_reaches_the_file(folder: Path, output: Path) -> None:
    card = {"name": "N", "author": "A", "license": "MIT", "description": "D", "source": "https://x", "dataset": "S"}
    change_config(folder, lambda c: c.update(card=card))
    convert(folder, output)
    with GGUFFile.open(output) as file:
        assert {key: file.metadata[native.CARD_KEYS[key]] for key in card} == card


def test_every_variant_of_the_profile_converts(tiny_config: GenieConfig, tmp_path: Path) -> None:
    from genie_cpp.convert.reference import checkpoint
    from genie_cpp.convert.reference.model import Genie

    joint = dataclasses.replace(tiny_config.tokenizer.encoder, sublayers=("spacetime", "ffn"), ffn="geglu")
    plain = dataclasses.replace(tiny_config.tokenizer.encoder, sublayers=("ffn", "spatial"), qk_norm=True)
    for kind, stack in (("c-vivit", joint), ("vit", plain)):
        tokenizer = dataclasses.replace(tiny_config.tokenizer, kind=kind, encoder=stack, decoder=stack)
        checkpoint.save(Genie(dataclasses.replace(tiny_config, tokenizer=tokenizer)), tmp_path / kind)
        convert(tmp_path / kind, tmp_path / f"{kind}.gguf")
        with GGUFFile.open(tmp_path / f"{kind}.gguf") as file:
            assert validate(file).stacks["tokenizer.encoder"].sublayers == stack.sublayers
