"""The output of 1xgpt's own code (make_one_x_gpt.py), compared with the converted checkpoints.

GENIE_GOLDEN_1XGPT=folder[:folder] adds folders that the script made elsewhere, such as the full-size ones.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from genie_cpp import Model, Sampler, World
from genie_cpp.convert.reference import sampler as reference
from genie_cpp.convert.writer import Report, convert

SMALL = Path(__file__).parent / "one_x_gpt"
FOLDERS = [SMALL, *(Path(name) for name in os.environ.get("GENIE_GOLDEN_1XGPT", "").split(":") if name)]
KINDS = ("pre_norm", "qk_norm")
TOLERANCE = 1e-4  # of the largest value
Golden = tuple[Report, Model, dict[str, np.ndarray]]


METAL = pytest.mark.skipif(find_spec("mlx") is None, reason="MLX is not installed")
RUNS = [(folder, kind, backend) for folder in FOLDERS for kind in KINDS for backend in ("cpu", "metal")]


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(run, id="-".join([run[0].name, *run[1:]]), marks=METAL if run[2] == "metal" else ())
        for run in RUNS
    ],
)
def golden(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Golden:
    folder, kind, backend = request.param
    output = tmp_path_factory.mktemp("golden") / "f32.gguf"
    report = convert([folder / kind, folder / "magvit2.ckpt"], output, "f32")
    with np.load(folder / "expected.npz") as data:
        want = {k.removeprefix(f"{kind}_"): v for k, v in data.items() if not k.startswith(KINDS) or k.startswith(kind)}
    return report, Model.open(output, threads=2, backend=backend), want


def near(got: np.ndarray | None, want: np.ndarray) -> None:
    assert got is not None
    error = np.abs(got - want).max() / np.abs(want).max()
    print(f"{error:.1e} of the largest")
    assert error <= TOLERANCE


def play(model: Model, sampler: Sampler, want: dict[str, np.ndarray], threads: int = 2) -> World:
    """A world after the prompt, which is given as tokens."""
    world = World(model if threads == 2 else Model.open(model.path, threads, model.backend), sampler)
    world.reset_tokens(want["prompt"], seed=5)
    return world


def test_what_is_said(golden: Golden) -> None:
    report, model, _ = golden
    assert report.recognised.startswith("1xgpt: dynamics '") and report.recognised.endswith("tokenizer 'magvit2.ckpt'")
    assert [line.split(",")[0] for line in report.assumed] == ["2 steps", "pictures in -1…1"]
    assert model.sampler == Sampler(2, 0.0, "random") and model.info.action_count == 0


def test_tokens_of_frames(golden: Golden) -> None:
    _, model, want = golden
    state = model.state("tokenizer.encoder")
    for frame, latents in zip(want["video"], want["latents"], strict=True):
        near(state.forward(model.patches(frame, model.info.tokenizer_patch_size)), latents)
    np.testing.assert_array_equal(model.tokenize(want["video"]), want["tokens"])


def test_decoded_pixels(golden: Golden) -> None:
    _, model, want = golden
    state = model.state("tokenizer.decoder")
    got = [model._joined(state.forward(model.codes(ids.astype(np.int32)))) for ids in want["tokens"]]
    near(2 * np.stack(got), want["decoded"])
    pixels = np.rint((want["decoded"].clip(-1, 1) + 1) / 2 * 255)
    assert np.abs(model.detokenize(want["tokens"]) - pixels).max() <= 1


def test_logits_of_every_step(golden: Golden) -> None:
    _, model, want = golden
    state = model.state("dynamics")
    for ids in want["prompt"]:
        state.forward(ids.astype(np.int32), output=False)
    for ids, logits in zip(want["step_ids"], want["step_logits"], strict=True):
        near(state.forward(ids.astype(np.int32), commit=False), logits)


@pytest.mark.parametrize("threads", [1, 2])
def test_greedy_generation(golden: Golden, threads: int) -> None:
    """The most likely tokens first, up to the end of the window."""
    _, model, want = golden
    world = play(model, Sampler(len(want["step_ids"]), 0.0, "confidence"), want, threads)
    for index, ids in enumerate(want["greedy"]):
        world.step()
        np.testing.assert_array_equal(world.tokens, ids, err_msg=f"frame {index}")


def test_random_generation(golden: Golden) -> None:
    """The upstream with our random numbers: settings as in the file, two steps in random order."""
    _, model, want = golden
    world = play(model, model.sampler, want)
    for index, ids in enumerate(want["random"]):
        if index % 2:
            saved, world = world.save(), World(model)
            np.testing.assert_array_equal(world.restore(saved), world.fork().frame)
        world.step()
        np.testing.assert_array_equal(world.tokens, ids, err_msg=f"frame {index}")


def test_it_goes_on_when_the_window_is_full(golden: Golden) -> None:
    _, model, want = golden
    world = play(model, model.sampler, want)
    frames = world.rollout([0] * (2 * model.info.context_length))
    assert frames.shape[1:] == (model.info.frame_height, model.info.frame_width, 3)
    assert world.n_frames == len(want["prompt"]) + len(frames)


def test_the_schedule() -> None:
    with np.load(SMALL / "expected.npz") as data:
        rows = data["schedule"].tolist()
    for total, steps, m, masked in rows:
        got = reference._filled(reference.Sampler(steps, schedule="cosine-ceil"), m, total, total)
        assert total - got == masked, (total, steps, m)


@pytest.mark.parametrize("backend", ["cpu", pytest.param("metal", marks=METAL)])
def test_quantized_types_run(tmp_path: Path, backend: str) -> None:
    with np.load(SMALL / "expected.npz") as data:
        video = data["video"]
    for type in ("f16", "q8_0", "q4_0"):
        convert([SMALL / "pre_norm", SMALL / "magvit2.ckpt"], tmp_path / f"{type}.gguf", type)
        model = Model.open(tmp_path / f"{type}.gguf", threads=2, backend=backend)
        for window in ("exact", "half", "retokenize"):
            world = World(model, window=window)
            world.reset(video[:2], seed=3)
            assert len(world.rollout([0] * 5)) == 5
