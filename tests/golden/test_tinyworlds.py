"""The output of the upstream's own code (make_tinyworlds.py), compared with the converted checkpoints.

GENIE_GOLDEN=folder[:folder] adds folders that the script made elsewhere, such as the full-size ones.
"""

from __future__ import annotations

import io
import json
import os
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from genie_cpp import Model, Sampler, StateError, World
from genie_cpp.convert.reference import sampler as reference
from genie_cpp.convert.writer import Report, convert
from genie_cpp.play.session import Prompt, Session

SMALL = Path(__file__).parent / "tinyworlds"
# With experts in the dynamics; and with a dynamics that knows no actions, so that there is no LAM.
EXPERTS, ALONE = (SMALL.with_name(f"tinyworlds_{name}") for name in ("experts", "alone"))
FOLDERS = [SMALL, EXPERTS, ALONE, *(Path(name) for name in os.environ.get("GENIE_GOLDEN", "").split(":") if name)]
TOKENIZER, LAM, DYNAMICS = "tokenizer.pth", "latent_actions_step_5", "dynamics.pth"
TOLERANCE = 1e-4  # of the largest value


METAL = pytest.mark.skipif(find_spec("mlx") is None, reason="MLX is not installed")
RUNS = [(folder, backend) for folder in FOLDERS for backend in ("cpu", "metal")]


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(run, id="-".join([run[0].name, run[1]]), marks=METAL if run[1] == "metal" else ()) for run in RUNS
    ],
)
def golden(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Model, dict]:
    folder, backend = request.param
    output = tmp_path_factory.mktemp("golden") / "f32.gguf"
    report = convert(parts(folder), output, "f32")
    with np.load(folder / "expected.npz") as data:
        return report, Model.open(output, threads=2, backend=backend), dict(data)


def parts(folder: Path) -> list[Path]:
    return [folder / name for name in (TOKENIZER, LAM, DYNAMICS) if (folder / name).exists()]


def near(got: np.ndarray, want: np.ndarray) -> None:
    error = np.abs(got - want).max() / np.abs(want).max()
    print(f"{error:.1e} of the largest")
    assert error <= TOLERANCE


def test_what_is_said(golden) -> None:  # type: ignore[no-untyped-def]
    report, model, want = golden
    lam = "latent action model 'latent_actions_step_5', " if "actions" in want else ""
    assert report.recognised == f"tinyworlds: tokenizer 'tokenizer.pth', {lam}dynamics 'dynamics.pth'"
    said = ["a", "10"] if lam else ["no", "a", "10"]  # without actions; the window, the sampler
    assert [line.split()[0] for line in report.assumed] == said
    assert model.info.has_lam == bool(lam) == (model.info.action_count > 0)
    assert model.sampler == Sampler(10, 0.5, "largest-probability") and model.info.context_length == 3


def test_tokens_of_frames(golden) -> None:  # type: ignore[no-untyped-def]
    _, model, want = golden
    got = []
    for start in (0, 1):  # the window holds three frames
        got.append(model.tokenize(want["video"][start : start + 3]))
    np.testing.assert_array_equal(got[0], want["tokens"][:3])


def test_tokens_in_a_longer_window(golden, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """--context-length 4: all frames that the upstream saw in one pass."""
    _, model, want = golden
    folder = next(folder for folder in FOLDERS if same(folder, want))
    convert(parts(folder), tmp_path / "w.gguf", "f32", context_length=4)
    longer = Model.open(tmp_path / "w.gguf", threads=2, backend=model.backend)
    np.testing.assert_array_equal(longer.tokenize(want["video"]), want["tokens"])
    if "actions" in want:
        np.testing.assert_array_equal(longer.infer_actions(want["video"]), want["actions"])
    state, patches = longer.state("tokenizer.decoder"), []
    for ids in want["tokens"]:
        patches.append(longer._joined(state.forward(longer.codes(ids.astype(np.int32)))))
    near(2 * np.stack(patches), want["decoded"])
    pixels = np.rint((want["decoded"].clip(-1, 1) + 1) / 2 * 255)
    assert np.abs(longer.detokenize(want["tokens"]) - pixels).max() <= 1


def same(folder: Path, want: dict) -> bool:
    with np.load(folder / "expected.npz") as data:
        names = ("video", "step_logits")
        return all(data[name].shape == want[name].shape and np.array_equal(data[name], want[name]) for name in names)


def forced(want: dict) -> list[int]:
    """The actions that lead to the prompt's second frame and to the new one; none in a world without actions."""
    return want["forced_actions"].tolist() if "forced_actions" in want else [-1, -1]


def test_logits_of_every_step(golden) -> None:  # type: ignore[no-untyped-def]
    _, model, want = golden
    state = model.state("dynamics")
    for index, ids in enumerate(want["tokens"][:2]):
        state.forward(ids.astype(np.int32), -1 if index == 0 else forced(want)[index - 1])
    for ids, logits in zip(want["step_ids"], want["step_logits"], strict=True):
        got = state.forward(ids.astype(np.int32), forced(want)[-1], commit=False)
        assert got is not None
        near(got, logits)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_frame_of_tokens(golden, threads: int) -> None:  # type: ignore[no-untyped-def]
    _, model, want = golden
    world = World(Model.open(model.path, threads, model.backend), Sampler(10, 0.0, model.sampler.order))
    world.reset(want["video"][:2], actions=forced(want)[:1])
    world.step(max(forced(want)[1], 0))
    np.testing.assert_array_equal(world.tokens, want["sampled"])


def test_the_loop(golden) -> None:  # type: ignore[no-untyped-def]
    """Pixels are fed back unclamped: the same tokens, frames equal within rounding; saved and restored in between."""
    _, model, want = golden
    world = World(model, Sampler(10, 0.0, model.sampler.order))
    assert world.window == "retokenize"
    world.reset(want["video"][:2])
    for index, action in enumerate(want.get("loop_actions", np.zeros(len(want["loop_tokens"]), int)).tolist()):
        if index % 2:
            saved, world = world.save(), World(model)
            shown = world.restore(saved)
            np.testing.assert_array_equal(shown, world.fork().frame)
        elif index:
            world = world.fork()
        frame = world.step(action)
        np.testing.assert_array_equal(world.tokens, want["loop_tokens"][index], err_msg=f"frame {index}")
        pixels = np.rint((want["loop_frames"][index].clip(-1, 1) + 1) / 2 * 255)
        assert np.abs(frame - pixels).max() <= 1
        assert not world.rewind(1)


def test_a_session_goes_back(golden) -> None:  # type: ignore[no-untyped-def]
    """A window from pixels cannot rewind. It is restored from a saved state, which gives the same frames."""
    _, model, want = golden
    session = Session(model)
    session.reset(Prompt(want["video"][0]), seed=4)
    choices = model.info.choices
    first = [session.step(action % choices).png for action in range(5)]
    session.seek(2)
    assert [session.step(action % choices).png for action in range(2, 5)] == first[2:]


def test_the_schedule() -> None:
    """How many tokens are wanted after each step: the upstream computes in float32, this project in double."""
    with np.load(SMALL / "expected.npz") as data:
        rows = data["schedule"].tolist()
    for total, steps, m, wanted in rows:
        got = reference._filled(reference.Sampler(steps, schedule="exponential"), m, total, total)
        assert got == min(max(wanted, total // 16, 1), total), (total, steps, m)


@pytest.mark.parametrize("backend", ["cpu", pytest.param("metal", marks=METAL)])
@pytest.mark.parametrize("folder", [SMALL, EXPERTS], ids=lambda folder: folder.name)
def test_quantized_types_run(tmp_path: Path, folder: Path, backend: str) -> None:
    with np.load(folder / "expected.npz") as data:
        video = data["video"]
    for type in ("f16", "q8_0", "q4_0"):
        convert(parts(folder), tmp_path / f"{type}.gguf", type)
        world = World.load(tmp_path / f"{type}.gguf", threads=2, backend=backend)
        frames = {}
        for window in ("retokenize", "exact", "half"):
            world = World(world.model, window=window)
            world.reset(video[0], seed=3)
            frames[window] = world.rollout([1, 2, 3, 0, 1])
            assert world.timings["steps"] <= 50
        np.testing.assert_array_equal(frames["exact"], frames["half"])  # with a window of three they are the same


def test_a_saved_world_without_a_lam_infers_nothing(tmp_path: Path) -> None:
    """Inferring the actions of a prompt again needs a model with a LAM."""
    convert(parts(ALONE), tmp_path / "w.gguf", "f32")
    with np.load(ALONE / "expected.npz") as data:
        video = data["video"]
    world = World.load(tmp_path / "w.gguf", threads=1)
    world.reset(video[:2])
    saved = world.save()
    world.restore(saved)
    world.rollout([0, 0, 0])
    with np.load(io.BytesIO(saved)) as data:
        arrays = dict(data)
    head = {**json.loads(arrays.pop("head").tobytes()), "inferred": 1}
    out = io.BytesIO()
    np.savez(out, head=np.frombuffer(json.dumps(head).encode(), np.uint8), **arrays)
    with pytest.raises(StateError, match="damaged"):
        world.restore(out.getvalue())
