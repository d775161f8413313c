"""Long play of a world with random weights: the counts match what was played."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genie_cpp import World
from genie_cpp.errors import SamplerError
from genie_cpp.evaluate import Life, Play, life, sheet
from genie_cpp.evaluate.life import mixed_actions
from genie_cpp.evaluate.report import Report
from genie_cpp.evaluate.sweep import mark, parse, samplers, sweep
from genie_cpp.model import Model

pytestmark = pytest.mark.heavy

SHORT = {"seeds": 2, "held": 12, "mixed": 30, "still": 6, "returns": 2}


@pytest.fixture
def start() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (16, 16, 3), np.uint8)


def test_life_is_what_a_world_plays(tiny: Model, start: np.ndarray) -> None:
    found = life(tiny, [start], **SHORT)
    assert [(h.action, h.seed) for h in found.held] == [(a, s) for s in range(2) for a in range(3)]
    world = World(tiny)
    world.reset(start, seed=1)
    ids = []
    for _ in range(12):
        world.step(2)
        ids.append(world.tokens)
    held = next(h for h in found.held if (h.action, h.seed) == (2, 1))
    assert held.distinct == len(np.unique(np.stack(ids)[6:], axis=0)) / 6
    assert held.changed == pytest.approx((np.stack(ids)[1:] != np.stack(ids)[:-1]).mean())
    assert held.strays is None and not found.still and not found.returns  # neither real frames nor a "stay" were given


def test_life_is_the_same_twice_and_knows_real_play(tiny: Model, start: np.ndarray, recorded: Path) -> None:
    play = Play.load(recorded, tiny.info)
    found, again = (life(tiny, [start], play=play, **SHORT).facts() for _ in range(2))
    assert json.dumps(found) == json.dumps(again)
    assert all(0 <= h["strays"] <= 1 for h in found["held"])
    assert found["real_entropy"] > 0


def test_named_actions_are_returned_from_and_stayed_with(named: Model, start: np.ndarray) -> None:
    found = life(named, [start], **SHORT)
    assert {h.name for h in found.held} == {"left", "right"}  # stay is not held
    assert len(found.still) == 2
    assert [(r.name, r.steps) for r in found.returns] == [
        (f"{name} and back", k) for name in ("left", "right") for k in (1, 3, 5, 7)
    ]


def test_what_was_measured_before_an_interruption_is_kept(tiny: Model, start: np.ndarray) -> None:
    def stops(items: Iterable[Any], label: str, total: int) -> Iterable[Any]:
        if label.startswith("mixed"):
            raise KeyboardInterrupt
        return items

    found = Life()
    with pytest.raises(KeyboardInterrupt):
        life(tiny, [start], into=found, watch=stops, **SHORT)
    assert len(found.held) == 3 and not found.mixed
    assert "an action held" in Report({}, life=found).markdown()


def test_sheets_show_what_was_played(tiny: Model, start: np.ndarray, tmp_path: Path) -> None:
    found = life(tiny, [start], sheet_every=3, **SHORT)
    written = sheet.write(found, tmp_path / "new" / "sheets")
    assert {p.name for p in written} == {"0-0.png", "1-1.png", "2-2.png", "mixed-0.png", "mixed-1.png", "entropy.png"}
    assert sheet.contact(found.sheets["0 0"]).size == (10 * 18, 18)


def test_mixed_actions_are_held_for_3_to_14_frames() -> None:
    actions = mixed_actions([1, 4], 500, 0)
    assert len(actions) == 500 and set(actions) == {1, 4}
    runs = np.diff(np.flatnonzero(np.diff([0, *actions, 0])))
    assert runs[:-1].min() >= 3


def test_a_sweep_has_a_row_per_combination_and_marks_the_cheapest_good_one(
    tiny: Model, start: np.ndarray, recorded: Path
) -> None:
    play = Play.load(recorded, tiny.info)
    rows = sweep(tiny, play, [start], parse(["steps=1,3", "order=random"]), clips=4, walks=1, mixed=10)
    assert [(r["steps"], r["order"], r["passes"]) for r in rows] == [(1, "random", 1), (3, "random", 3)]
    assert sum(r["chosen"] for r in rows) <= 1
    good = {"next_error": 0.5, "strays": 0.0, "place_right": 0.9, "place_right_error": 0.01}
    made = [
        {**good, "next_db": 22.0, "passes": 25},
        {**good, "next_db": 21.5, "passes": 8},
        {**good, "next_db": 20.0, "passes": 4},  # beyond noise
        {**good, "next_db": 22.0, "passes": 2, "place_right": 0.5},  # gets lost
        {**good, "next_db": 22.0, "passes": 1, "strays": 0.2},  # falls apart
    ]
    mark(made)
    assert [row["chosen"] for row in made] == [False, True, False, False, False]


def test_settings_to_sweep(tiny: Model) -> None:
    tried = samplers(parse(["steps=1,2", "temperature=0,0.5"]), tiny.sampler)
    assert [(s.steps, s.temperature) for s in tried] == [(1, 0), (1, 0.5), (2, 0), (2, 0.5)]
    for bad in ("stepz=1", "steps", "steps=", "steps=1,x", "temperature=warm"):
        with pytest.raises(SamplerError):
            parse([bad])
    with pytest.raises(SamplerError):
        samplers(parse(["order=sideways"]), tiny.sampler)
