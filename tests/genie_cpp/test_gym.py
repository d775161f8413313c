"""The Gymnasium environment obeys that library's rules, and its frames are those of the world."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("gymnasium")
import gymnasium
from gymnasium.utils.env_checker import check_env

import genie_cpp.gym
from genie_cpp import ActionError, ImageError, Model, StateError

pytestmark = pytest.mark.heavy

ID = "genie_cpp/World-v0"
PICTURE = np.random.default_rng(3).integers(0, 256, (20, 30, 3), np.uint8)


@pytest.fixture(scope="module")
def path(tiny_gguf) -> Path:  # type: ignore[no-untyped-def]
    return tiny_gguf("q8_0")


@pytest.mark.parametrize("mode", [None, "rgb_array", "ansi", "human"])
def test_check_env(path: Path, mode: str | None) -> None:
    env = gymnasium.make(ID, model=path, prompt=PICTURE, render_mode=mode)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env.unwrapped, skip_render_check=mode is None)
    env.close()


def test_frames_are_the_worlds_by_seed(path: Path) -> None:
    env = gymnasium.make(ID, model=path, prompt=PICTURE, threads=1, max_episode_steps=5)
    runs = []
    for seed in (1, 1, 2):
        frame, _ = env.reset(seed=seed)
        runs.append([frame, *(env.step(a)[0] for a in (0, 1, 2, 2))])
        assert env.step(0)[3], "truncated by max_episode_steps"
    assert np.array_equal(runs[0], runs[1]) and not np.array_equal(runs[0], runs[2])
    world = env.unwrapped.world
    assert world.step(1).tolist() == env.unwrapped.world.frame.tolist()


def test_prompts(path: Path, tmp_path: Path) -> None:
    Image.fromarray(PICTURE).save(tmp_path / "p.png")
    env = gymnasium.make(ID, model=path, prompt=tmp_path / "p.png")
    first = env.reset(seed=0)[0]
    assert np.array_equal(first, gymnasium.make(ID, model=path, prompt=PICTURE).reset(seed=0)[0])
    other = env.reset(seed=0, options={"prompt": 255 - PICTURE})[0]
    assert not np.array_equal(first, other)
    with pytest.raises(ImageError, match="no picture"):
        gymnasium.make(ID, model=path).reset()
    with pytest.raises(ImageError, match="uint8"):
        env.reset(options={"prompt": PICTURE[..., 0]})
    with pytest.raises(StateError, match="render_mode"):
        genie_cpp.gym.WorldEnv(path, PICTURE, "window")
    with pytest.raises(ActionError):
        env.unwrapped.step(3)


def test_rendering_and_keys(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    env = gymnasium.make(ID, model=path, prompt=PICTURE, render_mode="ansi")
    frame, _ = env.reset(seed=0)
    lines = env.render().splitlines()
    r, g, b = frame[0, 0]
    assert len(lines) == 8 and all(line.count("▀") == 16 for line in lines) and f"38;2;{r};{g};{b}" in lines[0]
    assert env.unwrapped.get_keys_to_action() == {
        ("0",): 0, ("1",): 1, ("2",): 2, ("a",): 0, ("d",): 1, ("w",): 2,
    }  # fmt: skip
    env = gymnasium.make(ID, model=path, prompt=PICTURE, render_mode="rgb_array")
    assert np.array_equal(env.reset(seed=0)[0], env.render())
    env = gymnasium.make(ID, model=path, prompt=PICTURE, render_mode="human")
    env.reset(seed=0)
    env.step(0)
    assert capsys.readouterr().out.count("\x1b[H") == 2


def test_a_vector_env_shares_one_model(path: Path) -> None:
    envs = gymnasium.make_vec(ID, 3, vectorization_mode="sync", model=path, prompt=PICTURE)
    frames, _ = envs.reset(seed=[1, 1, 2])
    assert frames.shape == (3, 16, 16, 3)
    frames = envs.step(np.array([0, 0, 2]))[0]
    assert np.array_equal(frames[0], frames[1]) and not np.array_equal(frames[0], frames[2])
    models = {id(env.unwrapped.model) for env in envs.envs}
    assert len(models) == 1
    assert (
        gymnasium.make(ID, model=Model.open(path), prompt=PICTURE).unwrapped.model is not envs.envs[0].unwrapped.model
    )
    envs.close()


def test_a_world_by_its_name() -> None:
    """As everywhere, a bundled world's name or a path. The same model is opened only once."""
    envs = [gymnasium.make(ID, model="maze", threads=1) for _ in range(2)]
    assert envs[0].reset(seed=1)[0].shape == (64, 96, 3)
    assert envs[0].unwrapped.model is envs[1].unwrapped.model
    assert envs[0].unwrapped.model.reference == "maze"
