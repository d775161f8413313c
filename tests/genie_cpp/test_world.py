"""A world in play: the same bytes whichever way a frame is reached, and clear error messages."""

from __future__ import annotations

import io
import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from genie_cpp import ActionError, ImageError, Model, NativeError, Sampler, SamplerError, StateError, World


@pytest.fixture(scope="module")
def model(tiny_gguf) -> Model:  # type: ignore[no-untyped-def]
    return Model.open(tiny_gguf("q8_0"), threads=2)


@pytest.fixture
def prompt(model: Model) -> np.ndarray:
    shape = (model.info.frame_height, model.info.frame_width, 3)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


ACTIONS = [0, 1, 2, 1, 0, 2, 2, 1, 0, 1]


@pytest.mark.parametrize("window", ["half", "exact", "retokenize"])
def test_save_restore_and_fork_change_nothing(model: Model, prompt: np.ndarray, window: str) -> None:
    world = World(model, window=window)
    world.reset(prompt, seed=9)
    whole = world.rollout(ACTIONS)
    for cut in range(len(ACTIONS)):
        world.reset(prompt, seed=9)
        world.rollout(ACTIONS[:cut])
        saved, fork = world.save(), world.fork()
        other = World(model, Sampler(1, 0.0), "half")
        np.testing.assert_array_equal(other.restore(saved), world.frame)
        for continued in (world, fork, other):
            np.testing.assert_array_equal(continued.rollout(ACTIONS[cut:]), whole[cut:])


@pytest.mark.parametrize("window", ["half", "exact"])
@pytest.mark.parametrize("prompts", [1, 3])
def test_rewind_is_restore(model: Model, prompt: np.ndarray, window: str, prompts: int) -> None:
    world, done, refused = World(model, window=window), 0, 0
    start = np.stack([prompt, 255 - prompt, prompt // 2])[:prompts]
    for cut in range(1, len(ACTIONS) + 1):
        for frames in range(1, cut + 2):
            world.reset(start, seed=9)
            saves = [world.save()]
            for action in ACTIONS[:cut]:
                world.step(action)
                saves.append(world.save())
            if not world.rewind(frames):
                assert world.save() == saves[cut]
                refused += 1
                continue
            assert frames <= cut, "further than the prompt"
            done += 1
            other = World(model)
            np.testing.assert_array_equal(world.frame, other.restore(saves[cut - frames]))
            assert world.save() == saves[cut - frames]
            twin = world.fork()
            want = other.rollout(ACTIONS[:5])
            np.testing.assert_array_equal(world.rollout(ACTIONS[:5]), want)
            np.testing.assert_array_equal(twin.rollout(ACTIONS[:5]), want)
    assert done >= 4 - prompts and refused > 10
    assert not world.rewind(0) and not world.rewind(-1)


def test_seeds_and_worlds_are_apart(model: Model, prompt: np.ndarray) -> None:
    a, b = World(model, Sampler(2, 3.0)), World(model, Sampler(2, 3.0))
    a.reset(prompt, seed=1)
    b.reset(prompt, seed=2)
    assert (a.rollout(ACTIONS) != b.rollout(ACTIONS)).any()
    first = a.tokens
    b.step(0)
    np.testing.assert_array_equal(a.tokens, first)


def test_many_worlds_in_many_threads(model: Model, prompt: np.ndarray) -> None:
    def play(seed: int) -> bytes:
        world = World(model)
        world.reset(prompt, seed=seed)
        return world.rollout(ACTIONS * 2).tobytes()

    alone = [play(seed) for seed in range(8)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(play, range(8))) == alone


def test_what_a_frame_is(model: Model, prompt: np.ndarray) -> None:
    world = World(model)
    frame = world.reset(prompt)
    assert frame.dtype == np.uint8 and frame.shape == prompt.shape
    np.testing.assert_array_equal(frame, model.detokenize(model.tokenize(prompt[None]))[0])
    frame = world.step(1)
    np.testing.assert_array_equal(frame, world.frame)
    assert world.tokens.shape == (model.token_count,) and world.tokens.max() < model.info.codebook_size
    assert world.logits.shape == (model.token_count, model.info.codebook_size)
    assert world.timings["frames"] == 1 and world.n_frames == 2
    assert model.type == "Q8_0" and model.name == "Tiny" and len(model.sha256) == 64


@pytest.mark.parametrize("window", ["half", "exact", "retokenize"])
def test_logits_are_those_of_the_last_step(model: Model, prompt: np.ndarray, window: str) -> None:
    """Asking for them runs that step again, but does not change the frames that follow."""
    asked, other = (World(model, Sampler(2, 0.0), window) for _ in range(2))
    for world in (asked, other):
        world.reset(prompt)
    for action in ACTIONS:
        np.testing.assert_array_equal(asked.step(action), other.step(action))
        logits = asked.logits
        np.testing.assert_array_equal(asked.logits, logits)
        likeliest = logits.argmax(1) == asked.tokens
        assert likeliest.sum() >= len(likeliest) // 2, "what the last of two steps fills is the likeliest"
    asked.restore(other.save())
    with pytest.raises(StateError, match="no frame has been generated"):
        _ = asked.logits


def test_a_prompt_of_several_frames(model: Model, prompt: np.ndarray) -> None:
    video = np.stack([np.roll(prompt, i, 1) for i in range(6)])  # longer than the window
    world = World(model)
    world.reset(video)
    assert world.n_frames == model.info.context_length
    inferred = world.step(0)
    world.reset(video, actions=model.infer_actions(video[-model.info.context_length :]).tolist())
    np.testing.assert_array_equal(world.step(0), inferred)
    with pytest.raises(ActionError):
        world.reset(video[:3], actions=[0])


def test_faults(model: Model, prompt: np.ndarray) -> None:
    world = World(model)
    for early in (lambda: world.step(0), world.save, lambda: world.frame, lambda: world.tokens, lambda: world.logits):
        with pytest.raises(StateError):
            early()
    world.reset(prompt)
    for action in (-1, model.info.action_count, 1.0, "1", True, None):
        with pytest.raises(ActionError):
            world.step(action)  # type: ignore[arg-type]
    for picture in (
        prompt[:-1],
        prompt.astype(np.float32),
        prompt[..., :1],
        prompt[0],
        np.zeros((0, 8, 8, 3), np.uint8),
    ):
        with pytest.raises(ImageError):
            world.reset(picture)
    for seed in (-1, 1 << 64):
        with pytest.raises(StateError):
            world.reset(prompt, seed=seed)
    for settings in ({"steps": 0}, {"steps": 1.5}, {"temperature": -1}, {"temperature": float("nan")}, {"order": "x"}):
        with pytest.raises(SamplerError):
            Sampler(**settings)  # type: ignore[arg-type]
    with pytest.raises(NativeError):
        Model.open(model.path, threads=0)


def changed_state(state: bytes, **changes: object) -> bytes:
    """A saved world with other arrays or other values in its head."""
    with np.load(io.BytesIO(state)) as data:
        parts = dict(data)
    head = json.loads(parts["head"].tobytes())
    for key, value in changes.items():
        if key in parts:
            parts[key] = value
        else:
            head[key] = value
    parts["head"] = np.frombuffer(json.dumps(head).encode(), np.uint8)
    out = io.BytesIO()
    np.savez(out, **parts)
    return out.getvalue()


def test_windows_from_pixels(model: Model, prompt: np.ndarray) -> None:
    """`retokenize` starts like the others, then differs. It cannot rewind, and its saved state has pixels."""
    start = np.stack([prompt, 255 - prompt, prompt // 2])
    worlds = {window: World(model, Sampler(2, 0.0), window) for window in ("exact", "retokenize")}
    for world in worlds.values():
        world.reset(start, actions=[1, 2])
    first = {window: world.step(0) for window, world in worlds.items()}
    np.testing.assert_array_equal(first["exact"], first["retokenize"])
    assert not worlds["retokenize"].rewind(1)
    with np.load(io.BytesIO(worlds["retokenize"].save())) as data:
        assert data["pixels"].shape == (4, model.token_count, 48) and data["pixels"].dtype == np.float32
        np.testing.assert_array_equal(model.pixels(data["pixels"][-1]), first["retokenize"])
    # Once the window has moved, inferred actions are inferred again; given actions stay.
    moved, given = World(model, Sampler(2, 0.0), "retokenize"), worlds["retokenize"]
    moved.reset(start)
    led = model.infer_actions(start).tolist()
    moved.step(0)
    moved.step(1)
    given.step(1)
    seen = [model.patches(frame, model.info.tokenizer_patch_size) for frame in start]
    assert led and moved._window.actions == [-1, int(model.infer_from_patches(seen[1:])[0]), 0, 1]
    assert given._window.actions == [-1, 2, 0, 1]


def test_damaged_states(model: Model, prompt: np.ndarray) -> None:
    for changes in (
        {"pixels": np.zeros((3, model.token_count, 47), np.float32)},
        {"pixels": np.zeros((3, model.token_count, 48))},
        {"pixels": np.full((3, model.token_count, 48), np.nan, np.float32)},
        {"pixels": np.zeros((2, model.token_count, 48), np.float32)},
        {"inferred": 3},
        {"inferred": -1},
        {"inferred": "1"},
        {"inferred": None},
    ):
        world = World(model, window="retokenize")
        world.reset(prompt)
        world.rollout([0, 1])
        with pytest.raises(StateError):
            world.restore(changed_state(world.save(), **changes))
    world = World(model)
    world.reset(prompt)
    world.rollout([0, 1])
    good = world.save()
    for bad in (b"", b"PK", good[:50], good[:-30], b"x" * 1000):
        with pytest.raises(StateError):
            world.restore(bad)

    ids = np.zeros((2, model.token_count), np.int32)
    for changes in (
        {"version": 99},
        {"model": "0" * 64},
        {"seed": -1},
        {"seed": "x"},
        {"window": "none"},
        {"sampler": {"steps": 0}},
        {"sampler": [1]},
        {"ids": ids - 1},
        {"ids": ids + model.info.codebook_size},
        {"ids": ids[:, :-1]},
        {"ids": ids.astype(np.float64)},
        {"actions": np.array([99, 99], np.int32)},
        {"frame_number": 1.5},
    ):
        with pytest.raises(StateError):
            world.restore(changed_state(good, **changes))
    out = io.BytesIO()
    np.savez_compressed(out, head=np.zeros(10_000_000, np.uint8))
    with pytest.raises(StateError):
        world.restore(out.getvalue())
    out = io.BytesIO()
    np.savez(out, head=np.frombuffer(b"[" * 4000, np.uint8), ids=ids, actions=ids[0])
    with pytest.raises(StateError):
        world.restore(out.getvalue())
    assert world.restore(good).shape == prompt.shape
