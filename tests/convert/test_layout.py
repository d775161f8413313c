"""Folders as users have them: a downloaded tree, a training run, a snapshot from the hub."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from genie_cpp.convert.writer import Report, convert
from genie_cpp.errors import CheckpointError

GOLDEN = Path(__file__).parents[1] / "golden"
TINY, REDUX, ONE_X = (GOLDEN / name for name in ("tinyworlds", "genieredux", "one_x_gpt"))
STEP = TINY / "latent_actions_step_5"


@pytest.fixture
def plain(tmp_path: Path) -> bytes:
    """What every layout of tinyworlds must become."""
    convert([TINY / "tokenizer.pth", STEP, TINY / "dynamics.pth"], tmp_path / "plain.gguf", "q8_0")
    return (tmp_path / "plain.gguf").read_bytes()


def made(paths: Path | list[Path], output: Path, **options: int) -> tuple[bytes, Report]:
    report = convert(paths, output, "q8_0", overwrite=True, **options)  # type: ignore[arg-type]
    return output.read_bytes(), report


def put(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    (shutil.copytree if source.is_dir() else shutil.copy)(source, target)


def downloaded(root: Path) -> None:
    at = root / "2025_09_18_sonic"
    put(TINY / "tokenizer.pth", at / "video_tokenizer/checkpoints/sonic/sonic_video_tokenizer_step_5_2025_09_17.pth")
    put(STEP, at / "actions/checkpoints/sonic/latent_actions_step_5")
    put(TINY / "dynamics.pth", at / "dynamics/checkpoints/sonic/sonic_dynamics_step_9_2025_09_18.pth")


def trained(root: Path) -> None:
    """Of several steps the newest is taken. The older files are not real checkpoints, so taking one would fail."""
    for step in (100, 2000, 900):
        at = root / "run" / "dynamics" / "checkpoints" / f"dynamics_step_{step}.pth"
        put(TINY / "dynamics.pth", at)
        if step != 2000:
            at.write_bytes(b"old")
    put(TINY / "tokenizer.pth", root / "run" / "video_tokenizer" / "checkpoints" / "video_tokenizer_step_7.pth")
    put(STEP, root / "run" / "latent_actions" / "checkpoints" / "latent_actions_step_5")
    put(STEP, root / "run" / "latent_actions" / "checkpoints" / "latent_actions_step_4")
    (root / "run" / "latent_actions" / "checkpoints" / "latent_actions_step_4" / "model_state_dict.pt").write_bytes(
        b"x"
    )
    put(TINY / "tokenizer.pth", root / "run" / "wandb" / "optim_state.pt")


def snapshot(root: Path) -> None:
    downloaded(root / "models")
    (root / ".cache").mkdir(parents=True)
    put(TINY / "tokenizer.pth", root / ".cache" / "x.pth")
    (root / "README.md").write_text("worlds")


@pytest.mark.parametrize("layout", [downloaded, trained, snapshot])
def test_tinyworlds(layout: Callable[[Path], None], plain: bytes, tmp_path: Path) -> None:
    layout(tmp_path / "results")
    got, report = made(tmp_path / "results", tmp_path / "w.gguf")
    assert got == plain
    chosen = [line for line in report.assumed if "newest" in line]
    if layout is trained:
        assert chosen == [
            "step 2000 of 'dynamics_', the newest (there are 100, 900 too)",
            "step 5 of 'latent_actions_', the newest (there are 4 too)",
        ]
    else:
        assert not chosen


def test_several_suites_are_asked_about(tmp_path: Path) -> None:
    downloaded(tmp_path / "all" / "one")
    downloaded(tmp_path / "all" / "two")
    with pytest.raises(CheckpointError, match="are both the") as caught:
        convert(tmp_path / "all", tmp_path / "w.gguf")
    assert caught.value.hint == "give one of them"


def test_genieredux(tmp_path: Path) -> None:
    """The tree of its download script. The repository's three files together make two worlds."""
    convert([REDUX / "tokenizer.pt", REDUX / "guided.pt"], tmp_path / "plain.gguf", "q8_0")
    put(REDUX / "tokenizer.pt", tmp_path / "checkpoints" / "tokenizer" / "model.pt")
    put(REDUX / "guided.pt", tmp_path / "checkpoints" / "genie_redux_guided" / "model-180000.pt")
    got, _ = made(tmp_path / "checkpoints", tmp_path / "w.gguf")
    assert got == (tmp_path / "plain.gguf").read_bytes()
    put(REDUX / "genieredux.pt", tmp_path / "checkpoints" / "genie_redux" / "model.pt")
    with pytest.raises(CheckpointError, match="are both the dynamics"):
        convert(tmp_path / "checkpoints", tmp_path / "no.gguf")


def test_1xgpt(tmp_path: Path) -> None:
    """The hub's folder and the data's folder, in which the tokenizer lies beside tokens; and settings in YAML."""
    convert([ONE_X / "qk_norm", ONE_X / "magvit2.ckpt"], tmp_path / "plain.gguf", "q8_0")
    put(ONE_X / "qk_norm", tmp_path / "GENIE_35M")
    put(ONE_X / "magvit2.ckpt", tmp_path / "data" / "magvit2.ckpt")
    (tmp_path / "data" / "train_v1.1").mkdir()
    (tmp_path / "data" / "train_v1.1" / "metadata.json").write_text("{}")
    plain = (tmp_path / "plain.gguf").read_bytes()
    assert made([tmp_path / "GENIE_35M", tmp_path / "data"], tmp_path / "w.gguf")[0] == plain
    config = tmp_path / "GENIE_35M" / "config.json"
    settings = json.loads(config.read_text())
    config.with_suffix(".yaml").write_text(yaml.safe_dump(settings))
    config.unlink()
    assert made([tmp_path / "GENIE_35M", tmp_path / "data"], tmp_path / "w.gguf")[0] == plain
    config.write_bytes(json.dumps(settings).encode("utf-16"))
    assert made([tmp_path / "GENIE_35M", tmp_path / "data"], tmp_path / "w.gguf")[0] == plain


def test_heads_that_no_file_says(plain: bytes, tmp_path: Path) -> None:
    folder = tmp_path / "bare"
    for name, file in (("tokenizer", TINY / "tokenizer.pth"), ("dynamics", TINY / "dynamics.pth")):
        state = torch.load(file, weights_only=True)
        heads = state["config"].pop("num_heads")
        folder.mkdir(exist_ok=True)
        torch.save(state, folder / f"{name}.pth")
    put(STEP / "model_state_dict.pt", folder / "actions.pth")
    got, report = made(folder, tmp_path / "w.gguf", heads=heads)
    assert not any("heads" in line for line in report.assumed)
    assert len(got) == len(plain)
    with pytest.raises(CheckpointError, match=f"has {heads} heads, not 1"):
        convert([TINY / "tokenizer.pth", STEP, TINY / "dynamics.pth"], tmp_path / "no.gguf", heads=1)
    with pytest.raises(CheckpointError, match="say how many heads"):
        convert([REDUX / "tokenizer.pt", REDUX / "guided.pt"], tmp_path / "no.gguf", heads=2)


def test_nothing_below_is_said_so(tmp_path: Path) -> None:
    deep = tmp_path / "a" / "b" / "c" / "d" / "e" / "f" / "g" / "h"
    deep.mkdir(parents=True)
    put(TINY / "tokenizer.pth", deep / "x.pth")  # deeper than any real tree
    with pytest.raises(CheckpointError):
        convert(tmp_path / "a", tmp_path / "w.gguf")
