"""The output of the upstream's own code (make_genieredux.py), compared with the converted checkpoints.

GENIE_GOLDEN_GENIEREDUX=folder[:folder] adds folders that the script made elsewhere, such as the full-size ones.
"""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genie_cpp import Model, Sampler, World
from genie_cpp.convert.writer import Report, convert
from genie_cpp.errors import ActionError

SMALL = Path(__file__).parent / "genieredux"
FOLDERS = [SMALL, *(Path(name) for name in os.environ.get("GENIE_GOLDEN_GENIEREDUX", "").split(":") if name)]
TOLERANCE = 1e-4  # of the largest value
PROMPT = 2
Golden = tuple[Report, Model, dict[str, np.ndarray]]


METAL = pytest.mark.skipif(find_spec("mlx") is None, reason="MLX is not installed")


@pytest.fixture(
    scope="module",
    params=[
        pytest.param((f, m, b), id=f"{f.name}-{m}-{b}", marks=METAL if b == "metal" else ())
        for f in FOLDERS
        for m in ("guided", "genieredux")
        for b in ("cpu", "metal")
    ],
)
def golden(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Golden:
    """Expectations for one model, without its name in the keys: guided_logits becomes logits."""
    folder, name, backend = request.param
    output = tmp_path_factory.mktemp("golden") / f"{name}.gguf"
    report = convert([folder / f"{name}.pt", folder / "tokenizer.pt"], output, "f32")
    with np.load(folder / "expected.npz") as data:
        want = {key.removeprefix(f"{name}_"): value for key, value in data.items()}
    return report, Model.open(output, threads=2, backend=backend), want


def near(got: Any, want: np.ndarray) -> None:
    error = np.abs(got - want).max() / np.abs(want).max()
    print(f"{error:.1e} of the largest")
    assert error <= TOLERANCE


def ids(tokens_P: np.ndarray) -> np.ndarray:
    return tokens_P.astype(np.int32)


def test_what_is_said(golden: Golden) -> None:
    report, model, want = golden
    guided = not model.info.has_lam
    assert report.recognised.startswith("GenieRedux-G: tokenizer 'tok" if guided else "GenieRedux, with its latent act")
    said = ["attention", "tokens", "frames", "a", "1"] if guided else ["attention", "tokens", "a", "1"]
    assert [line.split()[0] for line in report.assumed] == said
    assert model.sampler == Sampler(1, 0.0) and model.info.action_count == 7
    assert model.token_count == want["tokens"].shape[1]


def test_tokens_of_frames(golden: Golden) -> None:
    _, model, want = golden
    np.testing.assert_array_equal(model.tokenize(want["video"]), want["tokens"])


def test_decoded_pixels(golden: Golden) -> None:
    _, model, want = golden
    state = model.state("tokenizer.decoder")
    tokens = want["tokens"][: len(want["decoded"])]
    patches = [state.forward(model.codes(ids(frame))) for frame in tokens]
    near(np.stack([model._joined(p) for p in patches]) + 0.5, want["decoded"])  # type: ignore[arg-type]
    pixels = np.rint(want["decoded"].clip(0, 1) * 255)
    assert np.abs(model.detokenize(tokens) - pixels).max() <= 1


def test_actions(golden: Golden) -> None:
    _, model, want = golden
    if model.info.has_lam:
        np.testing.assert_array_equal(model.infer_actions(want["video"]), want["actions"])
        return
    with pytest.raises(ActionError, match="no latent action model"):
        model.infer_actions(want["video"])
    with pytest.raises(ActionError, match="no latent action model"):
        World(model).reset(want["video"])


def test_logits_of_the_next_frames(golden: Golden) -> None:
    _, model, want = golden
    state = model.state("dynamics")
    pairs = zip(want["tokens"][:-1], want["forced_actions"], strict=True)
    near(np.stack([state.forward(ids(frame), int(action)) for frame, action in pairs]), want["logits"])  # type: ignore[misc]


def test_logits_of_every_step(golden: Golden) -> None:
    """Two frames are generated together: at every step, the second sees more of the first unmasked."""
    _, model, want = golden
    state, action = model.state("dynamics"), int(want["forced_actions"][0])
    for seen, logits in zip(want["step_ids"], want["step_logits"], strict=True):
        np.testing.assert_array_equal(seen[:PROMPT], want["tokens"][:PROMPT])
        state.truncate(0)
        got = [state.forward(ids(frame), action) for frame in seen]
        near(np.stack(got[-2:]), logits)  # type: ignore[arg-type]
    assert len({seen.tobytes() for seen in want["step_ids"][:, -1]}) > 1


@pytest.mark.parametrize("threads", [1, 2])
def test_generation(golden: Golden, threads: int) -> None:
    """Frame by frame, like its interactive generation with dream_length 1; saved, forked and rewound in between."""
    _, model, want = golden
    actions = want["loop_actions"].tolist()
    world = World(Model.open(model.path, threads, model.backend))
    world.reset(want["video"][:PROMPT], actions=actions[: PROMPT - 1])
    for index, action in enumerate(actions[PROMPT - 1 :]):
        if index == 1:
            saved, world = world.save(), World(world.model)
            world.restore(saved)
        elif index == 2:
            world = world.fork()
        frame = world.step(action)
        np.testing.assert_array_equal(world.tokens, want["loop_tokens"][index], err_msg=f"frame {index}")
        assert np.abs(frame.astype(int) - want["loop_frames"][index]).max() <= 1
        if world.rewind(1):
            world.step(action)
            np.testing.assert_array_equal(world.tokens, want["loop_tokens"][index])
    assert world.timings["steps"]


def test_generation_by_twos(golden: Golden) -> None:
    """A dream_length of 2: the second frame of a pair is predicted from a first that is all masks."""
    _, model, want = golden
    mask = np.full(model.token_count, model.info.codebook_size, np.int32)
    state, actions = model.state("dynamics"), iter(want["loop_actions"].tolist())
    frame = ids(want["tokens"][0])
    for index in range(1, PROMPT):
        state.forward(frame, next(actions), output=False)
        frame = ids(want["tokens"][index])
    for index in range(0, len(want["pair_tokens"]), 2):
        first = state.forward(frame, next(actions))
        action = next(actions, int(want["loop_actions"][-1]))  # the upstream repeats the last one
        second = state.forward(mask, action, commit=False)
        assert first is not None and second is not None
        np.testing.assert_array_equal(first.argmax(-1), want["pair_tokens"][index])
        np.testing.assert_array_equal(second.argmax(-1), want["pair_tokens"][index + 1])
        state.forward(ids(first.argmax(-1)), action, output=False)
        frame = ids(second.argmax(-1))


def test_a_window_from_pixels(golden: Golden) -> None:
    """`retokenize` begins with the prompt's own pixels, so the first frame is the same."""
    _, model, want = golden
    actions = want["loop_actions"].tolist()
    world = World(model, window="retokenize")
    world.reset(want["video"][:PROMPT], actions=actions[: PROMPT - 1])
    world.step(actions[PROMPT - 1])
    np.testing.assert_array_equal(world.tokens, want["loop_tokens"][0])
    world.step(actions[PROMPT])
    assert not world.rewind(1)


@pytest.mark.parametrize("name", ["guided", "genieredux"])
def test_quantized_types_run(name: str, tmp_path: Path) -> None:
    """Also beyond the window, with several steps and a temperature; the same for any number of threads."""
    with np.load(SMALL / "expected.npz") as data:
        video = data["video"]
    for type in ("f16", "q8_0", "q4_0"):
        convert([SMALL / "tokenizer.pt", SMALL / f"{name}.pt"], tmp_path / f"{type}.gguf", type)
        played = []
        for threads in (1, 2):
            world = World.load(tmp_path / f"{type}.gguf", threads, Sampler(3, 1.0))
            world.reset(video[0], seed=3)
            played.append(world.rollout([1, 2, 3, 0, 6] * 3).tobytes())
            assert world.timings["frames"] == 15
        assert played[0] == played[1]


@pytest.mark.parametrize("name", ["guided", "genieredux"])
def test_its_later_code_with_codes_added(name: str, tmp_path: Path) -> None:
    """What config.yaml beside the file says (make_genieredux_tokens.py)."""
    for file in ("tokenizer.pt", f"{name}.pt"):
        shutil.copy(SMALL / file, tmp_path)
    (tmp_path / "config.yaml").write_text(
        "model: genie_redux\ndynamics:\n  use_token: true\n  use_action_embeddings: false\n  image_size: 64\n"
    )
    report = convert(tmp_path, tmp_path / "world.gguf", "f32")
    assert not any("use_token" in line or "frames of" in line for line in report.assumed)
    with np.load(SMALL / "use_token.npz") as data, np.load(SMALL / "expected.npz") as inputs:
        want, tokens = data[f"{name}_logits"], inputs["tokens"]
        actions = inputs["guided_forced_actions"]
        before = inputs[f"{name}_logits"]
    assert np.abs(want - before).max() > 0.1 * np.abs(want).max()  # it matters
    state = Model.open(tmp_path / "world.gguf", threads=2, backend="cpu").state("dynamics")
    near(np.stack([state.forward(ids(f), int(a)) for f, a in zip(tokens[:-1], actions, strict=True)]), want)  # type: ignore[misc]
