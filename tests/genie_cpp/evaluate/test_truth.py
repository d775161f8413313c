"""Measures against what really happened: a world that knows the game passes, one that makes mistakes fails."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genie_cpp.errors import GenieError
from genie_cpp.evaluate import truth
from genie_cpp.evaluate.data import DataError, Play
from genie_cpp.evaluate.truth import found_share, meaning, place, ways
from genie_cpp.model import Model

from .conftest import Rerun

pytestmark = pytest.mark.heavy

SAME = np.arange(3)  # latents are the true actions


@pytest.fixture
def ring(recorded: Path, tiny: Model) -> Play:
    return Play.load(recorded, tiny.info)


def kept(ring: Play, **errs: bool) -> dict[str, Any]:
    return place(Rerun(ring, **errs), ring, SAME, 4)  # type: ignore[arg-type]


def test_a_world_that_knows_the_game_keeps_its_map(ring: Play) -> None:
    found = kept(ring)
    assert found["place_frames"] == "33-40"
    assert (found["place_right"], found["landmarks_met"], found["mover_right"]) == (1, 1, 1)
    assert found["place_db"] == 100 and found["steps_right"] == 1
    assert found["landmarks_missed"] == []


def test_a_world_that_is_elsewhere_is_found_out(ring: Play) -> None:
    found = kept(ring, lost=True)
    assert found["place_right"] == 0
    assert found["place_db"] < 15
    assert found["landmarks_missed"] == ["the far column"]
    assert found["steps_right"] < 1


def test_a_mover_that_faces_the_wrong_way_is_found_out(ring: Play) -> None:
    found = kept(ring, backwards=True)
    assert found["place_right"] == 1  # the place is judged without the mover
    assert found["mover_right"] == 0


def test_ways_are_those_of_the_last_action_that_moved() -> None:
    assert ways(np.array([3, 3, 4, 4, 3]), np.array([0, 2, 0, 1])) == [-1, 2, 2, 1]


def test_the_latent_of_a_true_action_is_its_commonest() -> None:
    table = np.array([[9, 1, 0], [0, 2, 0], [1, 0, 6], [0, 5, 0]])
    assert meaning(table).tolist() == [0, 3, 2]
    assert found_share(table) == pytest.approx([0.9, 1.0, 6 / 7])
    mixed = np.array([[4, 0, 74], [0, 0, 68], [90, 0, 0]])  # the purer of two latents; an action that never occurs
    assert meaning(mixed).tolist()[::2] == [2, 1] and found_share(mixed) == pytest.approx([1, 1])


def test_all_of_it_on_a_world_of_random_weights(ring: Play, tiny: Model) -> None:
    found = truth(tiny, ring, clips=6, walks=2)
    again = truth(tiny, ring, clips=6, walks=2)
    assert found == again  # deterministic
    assert np.sum(found["actions"]) == 6 * (tiny.info.context_length - 1)
    assert found["sampled_db"] < found["reconstruction_db"] + 20
    assert {"delta3_psnr", "place_right", "mover_right", "long_play_1_to_10_db"} <= set(found)


def test_frames_alone_are_enough_for_all_that_names_no_action(recorded: Path, tiny: Model) -> None:
    with np.load(recorded / "test.npz") as data:
        frames = data["frames"]
    np.savez(recorded / "test.npz", frames=frames)
    play = Play.load(recorded, tiny.info)
    found = truth(tiny, play, clips=4, walks=2)
    assert play.actions is None and play.action_count == 0
    assert {"reconstruction_db", "sampled_db", "delta3_psnr", "long_play_1_to_10_db"} <= set(found)
    assert "actions" not in found and "place_right" not in found


def test_walls_do_not_count(ring: Play, tiny: Model) -> None:
    walled = replace(ring, blocked=np.ones(ring.actions.shape, bool))
    assert np.sum(truth(tiny, walled, clips=6, walks=2)["actions"]) == 0


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda f: (f / "test.npz").unlink(), "does not exist"),
        (lambda f: (f / "test.npz").write_bytes(b"PK\3\4 nonsense"), "not a readable .npz"),
        (lambda f: np.savez(f / "test.npz", actions=np.zeros((1, 8), np.uint8)), "has no array 'frames'"),
        (
            lambda f: np.savez(
                f / "test.npz", frames=np.zeros((1, 9, 16, 16, 3), np.uint8), places=np.zeros((1, 9), np.int32)
            ),
            "has places, but no array 'actions'",
        ),
        (lambda f: _save(f, (2, 9, 8, 8, 3)), "frames of 8x8 pixels, the world has 16x16"),
        (lambda f: _save(f, (2, 4, 16, 16, 3)), "clips of 4 frames, the world's window holds 4"),
        (lambda f: (f / "places.npz").unlink(), "does not exist"),
        (lambda f: np.savez(f / "test.npz", frames=np.array([object()]), actions=np.zeros(1)), "not a readable .npz"),
    ],
)
def test_a_folder_that_is_not_recorded_play_is_refused(recorded: Path, tiny: Model, spoil: Any, says: str) -> None:
    spoil(recorded)
    with pytest.raises(DataError, match=says) as caught:
        Play.load(recorded, tiny.info)
    assert isinstance(caught.value, GenieError) and caught.value.hint and "\n" not in str(caught.value)


def _save(folder: Path, shape: tuple[int, ...]) -> None:
    np.savez(
        folder / "test.npz", frames=np.zeros(shape, np.uint8), actions=np.zeros((shape[0], shape[1] - 1), np.uint8)
    )
