"""1xgpt's checkpoints: recognised, and every fault named before anything is written."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from genie_cpp.convert.writer import convert
from genie_cpp.errors import CheckpointError
from genie_cpp.file.gguf_file import GGUFFile
from genie_cpp.spec.hparams import validate

GOLDEN = Path(__file__).parents[1] / "golden" / "one_x_gpt"
TINYWORLDS = Path(__file__).parents[1] / "golden" / "tinyworlds"
DYNAMICS, TOKENIZER, WEIGHTS, CONFIG = "pre_norm", "magvit2.ckpt", "model.safetensors", "config.json"
Change = Callable[[Any], object]


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """Both parts, for tests to damage."""
    folder = tmp_path / "world"
    shutil.copytree(GOLDEN, folder)
    return folder


@pytest.fixture
def output(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "world.gguf"


def parts(folder: Path, dynamics: str = DYNAMICS) -> list[Path]:
    return [folder / dynamics, folder / TOKENIZER]


def refused(paths: list[Path], output: Path, message: str, **options: Any) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        convert(paths, output, "f32", **options)
    assert caught.value.hint and "\n" not in str(caught.value)
    assert list(output.parent.iterdir()) == []


def weights(change: Change) -> Callable[[Path], None]:
    """Write another model.safetensors."""

    def edit(folder: Path) -> None:
        state = load_file(folder / DYNAMICS / WEIGHTS)
        change(state)
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, folder / DYNAMICS / WEIGHTS)

    return edit


def config(**values: Any) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = folder / DYNAMICS / CONFIG
        data = {**json.loads(path.read_text()), **values}
        path.write_text(json.dumps({key: value for key, value in data.items() if value is not None}))

    return edit


def lightning(change: Change) -> Callable[[Path], None]:
    """Write another magvit2.ckpt."""

    def edit(folder: Path) -> None:
        state = load_lightning(folder / TOKENIZER)
        change(state)
        torch.save(state, folder / TOKENIZER)

    return edit


def load_lightning(path: Path) -> dict[str, Any]:
    from genie_cpp.convert.files import load_pickle

    state = load_pickle(path, ("magvit2.config.",))
    state.pop("hyper_parameters")  # of a class that does not exist here
    return dict(state)


def put(name: str, change: Change) -> Change:
    def edit(state: Any) -> None:
        table = state.get("state_dict", state)
        table[name] = change(table[name])

    return edit


def test_however_the_files_are_given(world: Path, output: Path) -> None:
    """In any order; the file instead of its folder; the tokenizer inside the folder; named or recognised."""
    report = convert(parts(world), output, "q8_0")
    assert report.recognised == "1xgpt: dynamics 'pre_norm', tokenizer 'magvit2.ckpt'"
    with GGUFFile.open(output) as file:
        hp = validate(file)
    assert (hp.action_count, hp.codebook_size, hp.factor_count, hp.tokenizer_patch_size) == (0, 256, 2, 2)
    assert set(hp.stacks) == {"dynamics"} and hp.stacks["dynamics"].unnormed == ("temporal",)
    again = output.with_name("again.gguf")
    for paths in (
        parts(world)[::-1],
        [world / DYNAMICS / WEIGHTS, world / TOKENIZER],
        [world / DYNAMICS],
    ):
        if len(paths) == 1:
            shutil.copy(world / TOKENIZER, world / DYNAMICS)
        convert(paths, again, "q8_0", overwrite=True, family="1xgpt")
        assert output.read_bytes() == again.read_bytes()


def test_a_shorter_window(world: Path, output: Path) -> None:
    convert(parts(world), output, "f32", context_length=3)
    with GGUFFile.open(output) as file:
        assert validate(file).context_length == 3
    output.unlink()
    refused(parts(world), output, "positions for 4 frames, not 5", context_length=5)


def test_what_the_settings_leave_open(world: Path, output: Path) -> None:
    """The weights show everything but the heads and muP. The defaults of these are reported."""
    (world / DYNAMICS / CONFIG).write_text("{}")
    report = convert(parts(world), output, "f32")
    assert any(line.startswith("8 attention heads") for line in report.assumed)
    with GGUFFile.open(output) as file:
        assert validate(file).stacks["dynamics"].head_count == 8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (weights(lambda s: s.pop("out_x_proj.bias")), "out_x_proj.bias is missing"),
        (weights(lambda s: s.update(extra=torch.zeros(2))), "unknown tensor 'extra'"),
        (weights(put("out_x_proj.weight", lambda t: t[:-1])), r"out_x_proj.weight must be \[32, 32\], not \[31, 32\]"),
        (weights(put("pos_embed_TSC", lambda t: t[0])), "pos_embed_TSC must have 4 dimensions"),
        (weights(put("pos_embed_TSC", lambda t: t[:, :, :15])), "config.json has S 16, the weights 15"),
        (weights(put("out_x_proj.bias", lambda t: t / 0)), "out_x_proj.bias has NaN or infinite"),
        (weights(put("out_x_proj.bias", lambda t: t.to(torch.int8))), "has the type torch.int8"),
        (weights(lambda s: s.pop("token_embed.factored_embeds.1.weight")), "num_factored_vocabs 2, the weights 1"),
        (weights(lambda s: s.pop("decoder.layers.0.temporal_attn.qkv.weight")), "temporal_attn.qkv.weight is missing"),
        (config(num_layers=3), r"decoder.layers.2.*is missing"),
        (config(num_layers=10**9), "1000000000 layers"),
        (config(num_heads=5), "5 heads do not divide a width of 32"),
        (config(d_model=64), "d_model 64, the weights 32"),
        (config(image_vocab_size=1 << 18), "image_vocab_size 262144, the weights 256"),
        (config(d_model="wide"), "d_model 'wide', the weights 32"),
        (lightning(put("decoder.conv_in.weight", lambda t: t[:, :7])), r"predicts 256 tokens, the tok.* gives 2\^7"),
        (lightning(lambda s: s["state_dict"].pop("decoder.conv_out.bias")), "decoder.conv_out.bias is missing"),
        (lightning(lambda s: s["state_dict"].pop("encoder.conv_in.weight")), "encoder.conv_in.weight is missing"),
        (lightning(put("decoder.norm_out.bias", lambda t: t[:5])), r"norm_out.bias must be \[64\], not \[5\]"),
        (lightning(put("encoder.mid_block.0.conv2.weight", lambda t: t[:, :, :1])), r"not \[32, 32, 1, 3\]"),
        (lightning(put("decoder.conv_out.bias", lambda t: t * torch.inf)), "conv_out.bias has NaN or infinite"),
        (lightning(lambda s: s["state_dict"].update({"quant_conv.weight": torch.zeros(1)})), "unknown tensor 'quant"),
        (lightning(put("encoder.conv_in.weight", lambda t: t[:, :1])), "conv_in.weight must take 3 channels, not 1"),
        (lightning(lambda s: s.pop("state_dict")), "an optimizer's state and no weights"),
        (lightning(lambda s: s.clear()), "not a table of tensors"),
    ],
)  # fmt: skip
def test_faults_are_named(change: Callable[[Path], None], message: str, world: Path, output: Path) -> None:
    change(world)
    refused(parts(world), output, message)


def test_parts_that_lack_or_repeat(world: Path, output: Path) -> None:
    dynamics, tokenizer = parts(world)
    refused([dynamics], output, "the tokenizer of this 1xgpt world is missing; given: dynamics 'pre_norm'")
    refused([tokenizer], output, "the dynamics of this 1xgpt world is missing; given: tokenizer 'magvit2.ckpt'")
    refused([dynamics, world / "qk_norm", tokenizer], output, "are both the dynamics")
    refused([dynamics, world / "gone.ckpt"], output, "does not exist")
    refused([dynamics, TINYWORLDS / "tokenizer.pth"], output, "is not part of a tinyworlds world")
    refused([dynamics, TINYWORLDS / "tokenizer.pth"], output, "is not part of a 1xgpt world", family="1xgpt")
    (dynamics / CONFIG).unlink()  # without it, the folder looks like a native checkpoint that lacks its settings
    refused([dynamics, tokenizer], output, "a native checkpoint among others")


def test_the_first_public_format_is_not_known(world: Path, output: Path) -> None:
    """Version 0 had a single vocabulary and other names."""

    def older(state: Any) -> None:
        table = {f"model.{name}": tensor for name, tensor in state.items() if "token_embed" not in name}
        state.clear()
        state.update(table | {"model.token_embed.weight": torch.zeros(257, 32)})

    weights(older)(world)
    refused(parts(world), output, "is not part of a 1xgpt world, as the other files are")
    refused([world / DYNAMICS], output, "of no family known here: .* tensors, model")


class Bomb:
    """What a hostile file would run."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


@pytest.mark.parametrize("where", ["hyper_parameters", "callbacks", "state_dict", "file"])
def test_a_hostile_lightning_file_is_not_run(where: str, world: Path, output: Path, tmp_path: Path) -> None:
    mark = tmp_path / "it-ran"
    bomb = Bomb(f"touch {mark}")
    if where == "file":
        torch.save(bomb, world / TOKENIZER)
    else:
        lightning(lambda state: state.setdefault(where, {}).update(x=bomb))(world)
    refused(parts(world), output, "is refused: it holds more than tensors")
    assert not mark.exists()


def test_truncated_files(world: Path, output: Path) -> None:
    for path, message in (
        (world / TOKENIZER, "is not a PyTorch checkpoint|is refused"),
        (world / DYNAMICS / WEIGHTS, "is not a whole safetensors file"),
    ):
        whole = path.read_bytes()
        for length in (0, 10, len(whole) // 2, len(whole) - 7):
            path.write_bytes(whole[:length])
            refused(parts(world), output, message)
        path.write_bytes(whole)
    (world / DYNAMICS / CONFIG).write_text("{")
    refused(parts(world), output, "a native checkpoint among others")
    refused([world / DYNAMICS], output, "config.json is not JSON")
