"""GenieRedux files: recognised, and every fault named before anything is written."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from genie_cpp import Model
from genie_cpp.convert.writer import convert
from genie_cpp.errors import CheckpointError
from genie_cpp.file.gguf_file import GGUFFile
from genie_cpp.spec.hparams import validate

GOLDEN = Path(__file__).parents[1] / "golden" / "genieredux"
TOKENIZER, GUIDED, LATENT = "tokenizer.pt", "guided.pt", "genieredux.pt"
AT = "dynamics.maskgit."


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """The files, for tests to damage."""
    folder = tmp_path / "world"
    folder.mkdir()
    for name in (TOKENIZER, GUIDED, LATENT):
        shutil.copy(GOLDEN / name, folder)
    return folder


@pytest.fixture
def output(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "world.gguf"


def refused(paths: list[Path], output: Path, message: str, **options: Any) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        convert(paths, output, "f32", **options)
    assert caught.value.hint and "\n" not in str(caught.value)
    assert list(output.parent.iterdir()) == []


def rewrite(path: Path, change: Callable[[Any], object]) -> None:
    state = torch.load(path, weights_only=True)
    change(state)
    torch.save(state, path)


def tensor(name: str, change: Callable[[torch.Tensor], torch.Tensor] | None = None) -> Callable[[Any], object]:
    """Change or drop a tensor. Its name is the one used in messages."""

    def edit(state: Any) -> None:
        table, key = state["model"], name
        for part in ("dynamics", "latent_action_model"):
            if name.startswith(f"{part}."):
                table, key = table[part], name.removeprefix(f"{part}.")
        if change is None:
            del table[key]
        else:
            table[key] = change(table.get(key, torch.zeros(2)))

    return edit


def test_however_the_files_are_given(world: Path, output: Path) -> None:
    convert([world / TOKENIZER, world / GUIDED], output, "q8_0")
    again = output.with_name("again.gguf")
    convert([world / GUIDED, world / TOKENIZER], again, "q8_0", family="genieredux")
    assert output.read_bytes() == again.read_bytes()
    (world / LATENT).unlink()
    convert(world, again, "q8_0", overwrite=True)
    assert output.read_bytes() == again.read_bytes()
    with GGUFFile.open(output) as file:
        hp = validate(file)
    dynamics = hp.stacks["dynamics"]
    assert (hp.frame_width, hp.context_length, hp.action_count, hp.codebook_size) == (64, 6, 7, 48)
    assert (dynamics.embedding_length, dynamics.norm_length, dynamics.feed_forward_length) == (64, 33, 96)


def test_a_window_as_long_as_there_are_positions(world: Path, output: Path) -> None:
    report = convert([world / TOKENIZER, world / GUIDED], output, "f32", context_length=3)
    assert not any("window" in line for line in report.assumed)
    output.unlink()
    refused([world / TOKENIZER, world / GUIDED], output, "positions for 5 frames, not for 6", context_length=7)


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        (TOKENIZER, tensor("vq.project_in.bias"), "vq.project_in.bias is missing"),
        (TOKENIZER, tensor("extra", lambda t: t), "unknown tensor 'extra'"),
        (TOKENIZER, tensor("to_pixels.0.bias", lambda t: t[:3]), r"to_pixels.0.bias must be \[192\], not \[3\]"),
        (TOKENIZER, tensor("to_pixels.0.bias", lambda t: t / 0), "to_pixels.0.bias has NaN or infinite"),
        (TOKENIZER, tensor("to_patch_emb_first_frame.2.weight", lambda t: t[:, :100]), "100 values are not a square"),
        (TOKENIZER, tensor("to_patch_emb.2.weight", lambda t: t.repeat(1, 2)), "patches of 2 frames, which"),
        (TOKENIZER, tensor("encoder.layers.0.0.spatial_attention.q_scale", lambda t: t[:5]), "not heads of 5"),
        (TOKENIZER, lambda s: s.pop("model"), "an optimizer's state and no weights"),
        (TOKENIZER, lambda s: s.clear(), "not a table of tensors"),
        (GUIDED, tensor(f"{AT}transformer.layers.1.0.temporal_ff.4.weight"), "temporal_ff.4.weight is missing"),
        (GUIDED, tensor(f"{AT}token_emb.weight", lambda t: t[:, :26].repeat(1, 2)[:, :33]), "no action beside them"),
        (GUIDED, tensor(f"{AT}to_logits.weight", lambda t: t[:-1]), r"must be \[48, 33\], not \[47, 33\]"),
        (GUIDED, tensor(f"{AT}to_logits.bias", lambda t: t.to(torch.int8)), "has the type torch.int8"),
        (GUIDED, lambda s: s["model"].update(latent_action_model={"a": torch.zeros(1)}), "unknown tensor 'latent_act"),
        (LATENT, lambda s: s["model"].pop("latent_action_model"), "no latent action model"),
        (LATENT, tensor("latent_action_model.to_action_emb.2.bias"), "to_action_emb.2.bias is missing"),
        (LATENT, tensor("latent_action_model.to_action_emb.1.weight", lambda t: t[:, :50]), "50 values, which are no"),
    ],
)
def test_faults_are_named(part: str, change: Callable[[Any], object], message: str, world: Path, output: Path) -> None:
    rewrite(world / part, change)
    refused([world / TOKENIZER, world / (GUIDED if part == TOKENIZER else part)], output, message)


def test_files_that_do_not_belong_together(world: Path, output: Path) -> None:
    def fewer_codes(state: Any) -> None:
        for name in ("embed", "embed_avg", "cluster_size"):
            state["model"][f"vq._codebook.{name}"] = state["model"][f"vq._codebook.{name}"][:, :40]

    rewrite(world / TOKENIZER, fewer_codes)
    refused([world / TOKENIZER, world / GUIDED], output, "predicts 48 tokens; the tokenizer .* has 40 codes")
    tinyworlds = GOLDEN.parent / "tinyworlds" / "tokenizer.pth"
    refused([world / GUIDED, tinyworlds], output, "is not part of a tinyworlds world")
    refused([world / GUIDED, tinyworlds], output, "is not part of a genieredux world", family="genieredux")


def test_parts_that_lack_or_repeat(world: Path, output: Path) -> None:
    refused([world / TOKENIZER], output, "the dynamics of this genieredux world is missing; given: tokenizer")
    refused([world / LATENT], output, "the tokenizer of this genieredux world is missing; given: dynamics")
    refused([world], output, "are both the dynamics")
    whole = (world / TOKENIZER).read_bytes()
    for length in (0, 10, len(whole) // 2, len(whole) - 7):
        (world / TOKENIZER).write_bytes(whole[:length])
        refused([world / TOKENIZER, world / GUIDED], output, "is not a PyTorch checkpoint|is refused")


def test_codes_as_long_as_embeddings(world: Path, output: Path) -> None:
    """With codebook_dim == dim no projection is needed, and the files have none."""

    def unprojected(state: Any) -> None:
        table = state["model"]
        width, out, bias = (table.pop(f"vq.project_{name}") for name in ("in.weight", "out.weight", "out.bias"))
        table.pop("vq.project_in.bias")
        for name in ("embed", "embed_avg"):
            codes = table[f"vq._codebook.{name}"][0]
            table[f"vq._codebook.{name}"] = (codes @ out.T + bias)[None]
        assert width.shape[1] == out.shape[0]

    convert([world / TOKENIZER, world / GUIDED], output, "f32")
    whole = Model.open(output, backend="cpu")
    rewrite(world / TOKENIZER, unprojected)
    again = output.with_name("again.gguf")
    convert([world / TOKENIZER, world / GUIDED], again, "f32")
    model = Model.open(again, backend="cpu")
    assert model.info.tokenizer_latent_length == model.info.stacks["tokenizer.encoder"].norm_length == 26
    # The decoder gets the same embeddings, now directly from the codebook.
    tokens = np.arange(64)[None] % 48
    np.testing.assert_array_equal(model.detokenize(tokens), whole.detokenize(tokens))
    codes = torch.load(world / TOKENIZER, weights_only=True)["model"]["vq._codebook.embed"][0]
    assert codes.shape == (48, 26)


def settings(folder: Path, text: str) -> None:
    (folder / "config.yaml").write_text(text, encoding="utf-8")


def test_embedded_actions_are_in_no_file(world: Path, output: Path) -> None:
    """The trainer of the later code leaves them out. The settings show it, and so does the width."""
    both = [world / TOKENIZER, world / GUIDED]
    settings(world, "dynamics: {use_action_embeddings: true, is_guided: true}")
    refused(both, output, "trained with embedded actions .* holds no actions")
    (world / "config.yaml").unlink()
    rewrite(world / GUIDED, tensor(f"{AT}token_emb.weight", lambda t: t[:, :16]))
    rewrite(world / GUIDED, tensor(f"{AT}pos_emb.weight", lambda t: t[:, :16]))
    narrow = {"spatial_attention.to_q.weight": (32, 32)}
    for end, shape in narrow.items():
        rewrite(world / GUIDED, tensor(f"{AT}transformer.layers.0.0.{end}", lambda t, s=shape: torch.zeros(s)))
    refused(both, output, "trained with embedded actions .* holds no actions")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dynamics: {use_token: often}", "use_token: 'often', which is neither true nor false"),
        ("dynamics: {use_token: [", "cannot be read as YAML"),
        ("!!python/object/apply:os.system ['touch it-ran']", "cannot be read as YAML"),
        ("<!doctype html><html>", "is a web page"),
        ("x" * (1 << 20) + "x", "too long for settings"),
        ("[" * 100_000, "cannot be read as YAML"),
        ("dynamics: {image_size: 63}", "patches of 8 pixels, .* frames of 63"),
        ("dynamics: {image_size: [64, 32]}", "which is not a whole number"),
        ("dynamics: {image_size: 128}\ntokenizer: {image_size: 64}", "frames are of different sizes"),
    ],
)
def test_settings_beside_the_file(text: str, message: str, world: Path, output: Path) -> None:
    settings(world, text)
    refused([world / TOKENIZER, world / GUIDED], output, message)


def test_the_size_of_a_frame(world: Path, output: Path) -> None:
    """For GenieRedux-G only the settings or the caller give it; for GenieRedux the latent action model does."""
    both = [world / TOKENIZER, world / GUIDED]
    report = convert(both, output, "f32", frame_size=32, context_length=4)
    assert report.file_bytes and not any("frames of" in line for line in report.assumed)
    with GGUFFile.open(output) as file:
        assert validate(file).frame_width == 32
    output.unlink()
    settings(world, "dynamics: {image_size: 32, use_token: false}")
    assert not any("use_token" in line for line in convert(both, output, "f32", context_length=4).assumed)
    output.unlink()
    refused(both, output, "--frame-size has 64", frame_size=64)
    (world / "config.yaml").unlink()
    refused([world / TOKENIZER, world / LATENT], output, "of different sizes: .* has 64, --frame-size", frame_size=32)
    refused(both, output, "frames have 1…16384 pixels", frame_size=0)


class Bomb:
    """What a hostile file would run."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


@pytest.mark.parametrize("where", ["model", "optim"])
def test_a_hostile_pickle_is_not_run(where: str, world: Path, output: Path, tmp_path: Path) -> None:
    """Not even in the optimizer's state, which is not used here."""
    mark = tmp_path / "it-ran"
    state = torch.load(world / GUIDED, weights_only=True)
    state[where]["x"] = Bomb(f"touch {mark}")
    torch.save(state, world / GUIDED)
    refused([world / TOKENIZER, world / GUIDED], output, "is refused: it holds more than tensors")
    assert not mark.exists()
