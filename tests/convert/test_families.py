"""Other projects' checkpoints: recognised, and every fault named before anything is written."""

from __future__ import annotations

import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from genie_cpp.convert.families import NAMES
from genie_cpp.convert.files import Inert, load_pickle
from genie_cpp.convert.writer import convert
from genie_cpp.errors import CheckpointError
from genie_cpp.file.gguf_file import GGUFFile
from genie_cpp.spec.hparams import validate

GOLDEN = Path(__file__).parents[1] / "golden" / "tinyworlds"
FAMILIES = Path(__file__).parents[2] / "convert" / "families"
TOKENIZER, LAM, DYNAMICS = "tokenizer.pth", "latent_actions_step_5", "dynamics.pth"
CONFIG_CLASSES = ("utils.config.",)


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """The three parts, for tests to damage."""
    folder = tmp_path / "world"
    shutil.copytree(GOLDEN, folder)
    return folder


@pytest.fixture
def output(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "world.gguf"


def parts(folder: Path) -> list[Path]:
    return [folder / TOKENIZER, folder / LAM, folder / DYNAMICS]


def refused(paths: list[Path], output: Path, message: str, **options: Any) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        convert(paths, output, "f32", **options)
    assert caught.value.hint and "\n" not in str(caught.value)
    assert list(output.parent.iterdir()) == []


def rewrite(path: Path, change: Callable[[Any], object]) -> None:
    """A published file with other contents."""
    state = torch.load(path, weights_only=True)
    change(state)
    torch.save(state, path)


def change_tensor(name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Any], object]:
    def edit(state: Any) -> None:
        key = next(key for key in state["model"] if key.endswith(name))
        state["model"][key] = change(state["model"][key])

    return edit


def same_file(a: Path, b: Path) -> bool:
    return a.read_bytes() == b.read_bytes()


def test_however_the_files_are_given(world: Path, output: Path) -> None:
    """In any order, as one folder, as the file inside a part's folder, in the other format, named or recognised."""
    (convert(parts(world), output, "q8_0"))
    with GGUFFile.open(output) as file:
        hp = validate(file)
    assert (hp.action_count, hp.codebook_size, hp.stacks["dynamics"].feed_forward_length) == (4, 64, 64)
    again = output.with_name("again.gguf")
    for number, paths in enumerate(
        (
            parts(world)[::-1],
            [world],
            [world / TOKENIZER, world / LAM / "model_state_dict.pt", world / DYNAMICS],
        )
    ):
        convert(paths, again, "q8_0", overwrite=True, family="tinyworlds" if number else None)
        assert same_file(output, again)
    # The published format of the LAM, the later one of the dynamics.
    weights = torch.load(world / LAM / "model_state_dict.pt", weights_only=True)
    config = {"num_heads": 2, "frame_size": 16, "patch_size": 4, "embed_dim": 24, "num_blocks": 1}
    torch.save({"model": weights, "optimizer_state_dict": {}, "config": config, "step": 1}, world / "lam.pth")
    later = world / "dynamics_step_9"
    later.mkdir()
    published = torch.load(world / DYNAMICS, weights_only=True)
    torch.save(published.pop("model"), later / "model_state_dict.pt")
    torch.save(published, later / "state.pt")
    convert([world / TOKENIZER, world / "lam.pth", later], again, "q8_0", overwrite=True)
    assert same_file(output, again)


def test_a_longer_window(world: Path, output: Path) -> None:
    report = convert(parts(world), output, "f32", context_length=5)
    assert not any("window" in line for line in report.assumed)
    with GGUFFile.open(output) as file:
        assert validate(file).context_length == 5


def test_without_settings_the_defaults_are_said(world: Path, output: Path) -> None:
    """Its three heads and the assumed eight both divide this width. So the file converts and says what was assumed."""
    (world / LAM / "state.pt").unlink()
    for name in (TOKENIZER, DYNAMICS):
        rewrite(world / name, lambda state: state.pop("config"))
    report = convert(parts(world), output, "f32")
    assert {line.split(" in ")[0] for line in report.assumed if "heads" in line} == {"8 attention heads"}
    assert "frames of 64x64 pixels (--frame-size)" in report.assumed


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        (DYNAMICS, change_tensor("output_mlp.weight", lambda t: t[:-1]), "output_mlp.bias must be .63.*not .64"),
        (DYNAMICS, lambda s: s["model"].pop("_orig_mod.latent_embed.bias"), "latent_embed.bias is missing"),
        (DYNAMICS, lambda s: s["model"].update(extra=torch.zeros(2)), "unknown tensor 'extra'"),
        (DYNAMICS, lambda s: s["config"].update(num_blocks=3), "blocks.2.*is missing"),
        (DYNAMICS, lambda s: s["config"].update(num_blocks=10**9), "1000000000 blocks"),
        (DYNAMICS, lambda s: s["config"].update(num_heads=5), "5 heads do not divide"),
        (DYNAMICS, lambda s: s["config"].update(frame_size=32), "different sizes"),
        (DYNAMICS, lambda s: s["config"].update(frame_size=[64, 96]), r"frame_size '\[64, 96\]', which is not a whole"),
        (DYNAMICS, lambda s: s["config"].update(frame_size="64"), "frame_size '64', which is not a whole number"),
        (DYNAMICS, lambda s: s["config"].update(frame_size=-64), "frame_size '-64', which is not a whole number"),
        (DYNAMICS, lambda s: s["config"].update(frame_size=63.5), "frame_size '63.5', which is not a whole number"),
        (DYNAMICS, change_tensor("output_mlp.bias", lambda t: t / 0), "output_mlp.bias has NaN or infinite"),
        (DYNAMICS, change_tensor("output_mlp.bias", lambda t: t.to(torch.int8)), "has the type torch.int8"),
        (DYNAMICS, change_tensor("ffn.w_v.weight", lambda t: t[0]), "w_v.weight must have 2 dimensions"),
        (TOKENIZER, lambda s: s["config"].update(patch_size=8), "not a patch of 8 pixels"),
        (TOKENIZER, change_tensor("basis", lambda t: t.double()), "basis must hold whole numbers"),
        (TOKENIZER, change_tensor("basis", lambda t: t * 2), "3 digits of 8 values"),
        (TOKENIZER, change_tensor("to_pixels.bias", lambda t: t[:3]), "to_pixels.bias must be .48.*not .3"),
        (TOKENIZER, lambda s: s.clear(), "not a table of tensors"),
        (TOKENIZER, lambda s: s.pop("model"), "an optimizer's state and no weights"),
    ],
)
def test_faults_are_named(part: str, change: Callable[[Any], object], message: str, world: Path, output: Path) -> None:
    rewrite(world / part, change)
    refused(parts(world), output, message)


def test_files_that_do_not_belong_together(world: Path, output: Path) -> None:
    def fewer_digits(state: Any) -> None:
        model = state["model"]
        for name in ("encoder.latent_head.1.weight", "encoder.latent_head.1.bias", "quantizer.basis"):
            model[name] = model[name][:2]
        model["decoder.latent_embed.weight"] = model["decoder.latent_embed.weight"][:, :2]

    rewrite(world / TOKENIZER, fewer_digits)
    refused(parts(world), output, "predicts 64 tokens and takes 3 digits.*gives 2 digits of 4")


def test_actions_that_do_not_belong_together(world: Path, output: Path) -> None:
    def wider(state: Any) -> None:
        for name, tensor in state["model"].items():
            if name.endswith("to_gamma_beta.1.weight"):
                state["model"][name] = torch.cat([tensor, tensor], 1)

    rewrite(world / DYNAMICS, wider)
    refused(parts(world), output, "takes actions of 4 digits.* gives 2")


def test_parts_that_lack_or_repeat(world: Path, output: Path) -> None:
    tokenizer, lam, dynamics = parts(world)
    refused([tokenizer, lam], output, "the dynamics of this tinyworlds world is missing; given: tokenizer")
    refused([tokenizer], output, "the latent action model .* is missing")
    refused([tokenizer, lam, dynamics, tokenizer], output, "are both the tokenizer")
    refused([lam / "optim_state_dict.pt", tokenizer, dynamics], output, "an optimizer's state and no weights")
    refused([tokenizer, lam, world / "gone.pth"], output, "does not exist")
    torch.save({"a": torch.zeros(2)}, world / "other.pt")
    refused([tokenizer, lam, world / "other.pt"], output, "is not part of a tinyworlds world")
    refused([world / "other.pt"], output, "of no family known here: 1 tensors, a")
    refused(parts(world), output, "unknown family 'nobody'", family="nobody")
    refused(parts(world), output, "a native checkpoint is one folder", family="native")
    refused(parts(world), output, "2…1024 frames, not 1", context_length=1)
    modules = {path.stem for path in FAMILIES.glob("*.py")} - {"__init__", "layout", "part"}
    assert {name.replace("1xgpt", "one_x_gpt") for name in NAMES} == {"native", *modules}


def test_experts(world: Path, output: Path) -> None:
    """Only the settings say how many experts a token uses. Every expert must be in the file."""
    experts = GOLDEN.with_name("tinyworlds_experts") / DYNAMICS
    shutil.copy(experts, world / DYNAMICS)
    convert(parts(world), output, "q8_0")
    with GGUFFile.open(output) as file:
        stack = validate(file).stacks["dynamics"]
        assert (stack.expert_count, stack.expert_used_count) == (4, 2)
        assert file.tensors["dynamics.blk.1.ffn.down.weight"].shape == (64, 24, 4)
    output.unlink()

    def settings(state: Any, **changes: int) -> None:
        state["config"].update(changes)

    for change, message in (
        (lambda s: settings(s, top_k_experts=5), "expert_used_count must be at most the expert_count"),
        (change_tensor("0.ffn.router.weight", lambda t: t[:3]), "0.ffn.router.weight has 3 rows for 4 experts"),
        (change_tensor("1.ffn.router.weight", lambda t: t[:3]), r"blocks.1.ffn.router.weight must be \[4, 24\]"),
        (change_tensor("1.ffn.experts.3.w_o.weight", lambda t: t[1:]), "1.ffn.experts.3.w_o.weight must be .24, 33"),
        (lambda s: s["model"].pop("_orig_mod.transformer.blocks.0.ffn.experts.2.w_g.bias"), "2.w_g.bias is missing"),
        (lambda s: s["model"].pop("_orig_mod.transformer.blocks.1.ffn.router.weight"), "1.ffn.router.*is missing"),
    ):
        shutil.copy(experts, world / DYNAMICS)
        rewrite(world / DYNAMICS, change)
        refused(parts(world), output, message)
    shutil.copy(experts, world / DYNAMICS)
    rewrite(world / DYNAMICS, lambda state: state["config"].pop("top_k_experts"))
    report = convert(parts(world), output, "f32")
    assert "2 experts a token in 'dynamics.pth', whose settings do not say" in report.assumed


def test_a_dynamics_without_actions(world: Path, output: Path) -> None:
    """If no norm depends on actions, the dynamics needs no LAM and cannot use one."""

    def edit(state: Any) -> None:
        model = state["model"]
        for key in [key for key in model if "to_gamma_beta" in key]:
            del model[key]
        for block in range(2):
            for sublayer in ("spatial_attn", "temporal_attn", "ffn"):
                model[f"_orig_mod.transformer.blocks.{block}.{sublayer}.norm.rms.weight"] = torch.full((24,), 0.5)

    tokenizer, lam, dynamics = parts(world)
    rewrite(dynamics, edit)
    said = convert([tokenizer, dynamics], output, "f32").assumed
    assert "no actions: the world goes on by itself" in said
    with GGUFFile.open(output) as file:
        hp = validate(file)
        assert (hp.action_count, hp.has_lam, hp.stacks["dynamics"].norm) == (0, False, "rmsnorm")
        assert set(file.data("dynamics.blk.0.ffn.norm.weight").view("<f4").tolist()) == {0.5}
    again = output.with_name("again.gguf")
    report = convert([tokenizer, lam, dynamics], again, "f32")
    assert f"no use for '{lam}': the dynamics takes no actions" in report.assumed
    assert report.recognised == "tinyworlds: tokenizer 'tokenizer.pth', dynamics 'dynamics.pth'"
    assert same_file(output, again)


def test_a_dynamics_trained_without_actions(world: Path, output: Path) -> None:
    """Its settings say so. If a LAM lies beside it there are actions anyway, as in the upstream's scripts."""
    tokenizer, lam, dynamics = parts(world)
    refused([tokenizer, dynamics], output, "the latent action model of this tinyworlds world is missing")
    rewrite(dynamics, lambda state: state["config"].update(use_actions=False))
    convert([tokenizer, dynamics], output, "f32")
    with GGUFFile.open(output) as file:
        hp = validate(file)
        assert (hp.action_count, hp.has_lam, hp.stacks["dynamics"].norm) == (0, False, "layernorm")
    again = output.with_name("again.gguf")
    said = convert([tokenizer, lam, dynamics], again, "f32").assumed
    assert "actions, though the settings of 'dynamics.pth' say that it was trained without" in said
    with GGUFFile.open(again) as file:
        assert validate(file).action_count == 4


class Bomb:
    """What a hostile file would run."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


@pytest.mark.parametrize("where", ["state", "weights", "published", "spoofed"])
def test_a_hostile_pickle_is_not_run(where: str, world: Path, output: Path, tmp_path: Path) -> None:
    """Not even if the bomb poses as a settings class of the family."""
    mark = tmp_path / "it-ran"
    bomb = Bomb(f"touch {mark}")
    if where == "state":
        torch.save({"config": {"num_heads": 2, "device": bomb}}, world / LAM / "state.pt")
    elif where == "weights":
        torch.save({"a": bomb}, world / LAM / "model_state_dict.pt")
    elif where == "published":
        state = torch.load(world / TOKENIZER, weights_only=True)
        torch.save({**state, "config": {**state["config"], "x": bomb}}, world / TOKENIZER)
    else:  # the name of an allowed module, but an attribute that is not one of its classes
        text = b"cutils.config\nos.system\n(S'touch " + str(mark).encode() + b"'\ntR."
        with zipfile.ZipFile(world / LAM / "state.pt", "w") as members:
            members.writestr("state/data.pkl", text)
            members.writestr("state/version", "3\n")
    if where == "spoofed":
        with pytest.raises(CheckpointError):
            convert(parts(world), output, "f32")
    else:
        refused(parts(world), output, "is refused: it holds more than tensors")
    assert not mark.exists() and list(output.parent.iterdir()) == []


def test_truncated_files(world: Path, output: Path) -> None:
    whole = (world / TOKENIZER).read_bytes()
    for length in (0, 10, len(whole) // 2, len(whole) - 7):
        (world / TOKENIZER).write_bytes(whole[:length])
        refused(parts(world), output, "is not a PyTorch checkpoint|is refused")


def test_a_stand_in_keeps_nothing(tmp_path: Path) -> None:
    """The settings of distributed training are objects of classes that do not exist here. They are left out."""
    state = load_pickle(GOLDEN / LAM / "state.pt", CONFIG_CLASSES)
    assert state["config"]["num_heads"] == 2
    assert isinstance(state["config"]["distributed"], Inert) and vars(state["config"]["distributed"]) == {}
    with pytest.raises(CheckpointError, match=r"utils\.config"):
        load_pickle(GOLDEN / LAM / "state.pt")
    (tmp_path / "p.pt").write_bytes(pickle.dumps(Bomb("true")))
    with pytest.raises(CheckpointError):
        load_pickle(tmp_path / "p.pt", CONFIG_CLASSES)
