"""A game so small that a test can hold all of it: a ring of 12 places, and a walker with a nose."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import write

from genie_cpp.convert.reference.config import GenieConfig
from genie_cpp.evaluate.data import Play
from genie_cpp.model import Model

PLACES, SIDE = 12, 16
MOVER = (4, 4, 8, 8)


def picture(place: int) -> np.ndarray:
    """16x16 pixels of the ring from `place` on; each place is a column of 4 pixels."""
    colours = np.random.default_rng(0).integers(0, 256, (PLACES, 4, 3), np.uint8)
    columns = [np.repeat(np.repeat(colours[(place + k) % PLACES][:, None], 4, 0), 4, 1) for k in range(4)]
    return np.concatenate(columns, 1)


def frame(place: int, way: int) -> np.ndarray:
    image = picture(place)
    image[4:8, 4:8] = 255
    image[5:7, 4 if way == 1 else 7] = (200, 0, 0)  # the nose points where the walker goes
    return image


def walk(seed: int, length: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    place, way = int(rng.integers(PLACES)), 1
    frames, actions, places = [frame(place, way)], [], [place]
    for _ in range(length - 1):
        action = int(rng.integers(3))  # stay, left, right
        if action:
            place, way = (place + (-1 if action == 1 else 1)) % PLACES, action
        frames.append(frame(place, way))
        actions.append(action)
        places.append(place)
    return {"frames": np.stack(frames), "actions": np.array(actions, np.uint8), "places": np.array(places, np.int32)}


@pytest.fixture
def tiny(tiny_gguf: Any) -> Model:
    return Model.open(tiny_gguf("f32"), threads=1)


@pytest.fixture
def named(tiny_config: GenieConfig, tmp_path: Path) -> Model:
    """`tiny`, with names for its actions."""
    write(tmp_path / "named.gguf", "f32", dataclasses.replace(tiny_config, action_names=["stay", "left", "right"]))
    return Model.open(tmp_path / "named.gguf", threads=1)


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """A folder like those of examples/training/collect.py."""
    walks = [walk(seed, 41) for seed in range(4)]
    np.savez(tmp_path / "test.npz", **{k: np.stack([w[k] for w in walks]) for k in walks[0]})
    np.savez(
        tmp_path / "places.npz",
        frames=np.stack([picture(p) for p in range(PLACES)]),
        mover=np.array(MOVER),
        landmarks=np.array([[p, 0, 0, 12, 16, 16] for p in range(PLACES)], np.int32),
        landmark_names=np.array(["the far column"]),
    )
    return tmp_path


class Rerun:
    """Stands in for a `World` that knows the game: it walks the ring, and can be told to make mistakes."""

    def __init__(self, play: Play, lost: bool = False, backwards: bool = False) -> None:
        self.play, self.lost, self.backwards = play, lost, backwards

    def reset(self, image: np.ndarray, seed: int = 0, **_: Any) -> np.ndarray:
        assert self.play.places is not None
        self.place, self.way = int(self.play.places[seed, 0]), 1
        return image

    def rollout(self, actions: list[int]) -> np.ndarray:
        frames = []
        for action in actions:
            if action:
                self.place, self.way = (self.place + (-1 if action == 1 else 1)) % PLACES, action
            way = 3 - self.way if self.backwards else self.way
            frames.append(frame((self.place + 5 * self.lost) % PLACES, way))
        return np.stack(frames)
