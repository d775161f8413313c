"""Searches sampler settings for a world: each is measured against recorded play (`truth`) and in long play (`life`)."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Sequence
from typing import Any

from genie_cpp.errors import SamplerError
from genie_cpp.evaluate.data import Play
from genie_cpp.evaluate.life import life
from genie_cpp.evaluate.measures import Watch, mean_error, unwatched
from genie_cpp.evaluate.truth import action_table, meaning, one_step, place
from genie_cpp.model import Frame, Model
from genie_cpp.sampler import Sampler
from genie_cpp.world import World

KEYS = ("steps", "temperature", "order", "noise", "threshold")
_NOISE = 2.0  # differences below this many standard errors count as noise


def parse(items: Sequence[str]) -> dict[str, list[Any]]:
    """["steps=1,8", "order=random"] -> {"steps": [1, 8], "order": ["random"]}. Raises SamplerError."""
    grid: dict[str, list[Any]] = {}
    for item in items:
        key, equals, text = item.partition("=")
        if key not in KEYS or not equals or not text:
            raise SamplerError(f"{item!r} is not a setting to sweep", f"write one of {', '.join(KEYS)} as steps=1,8,25")
        kind = int if key == "steps" else str if key == "order" else float
        try:
            grid[key] = [kind(value) for value in text.split(",")]
        except ValueError:
            raise SamplerError(f"{item!r} has a value that is not a number", "write steps=1,8,25") from None
    return grid


def samplers(grid: dict[str, list[Any]], default: Sampler) -> list[Sampler]:
    """Every combination. Raises SamplerError."""
    return [
        dataclasses.replace(default, **dict(zip(grid, values, strict=True)))
        for values in itertools.product(*grid.values())
    ]


def sweep(
    model: Model,
    play: Play,
    starts: Sequence[Frame],
    grid: dict[str, list[Any]],
    *,
    clips: int = 100,
    walks: int = 4,
    mixed: int = 400,
    into: list[dict[str, Any]] | None = None,
    watch: Watch = unwatched,
) -> list[dict[str, Any]]:
    """One row per combination: its settings; passes and milliseconds per frame; the sampled next frame against the true
    one; strays and entropy of a mixed walk; and, for a place, the share of frames that match the map.

    `chosen` marks the row with the fewest passes among those within noise of the best in every judged column.
    """
    rows: list[dict[str, Any]] = [] if into is None else into
    frames, actions, blocked = play.clips(clips, model.info.context_length)
    moving = model.info.context_length // 2
    meant = None
    if model.info.has_lam and actions is not None:
        meant = meaning(action_table(model, frames, actions, blocked, play.action_count))
    for sampler in samplers(grid, model.sampler):
        label = " ".join(f"{key}={getattr(sampler, key)}" for key in grid)
        world = World(model, sampler)
        one = one_step(world, frames, moving, watch, label)
        alive = life(
            model, starts, play=play, sampler=sampler, seeds=1, held=0, mixed=mixed, still=0, returns=0, watch=watch
        )
        row: dict[str, Any] = {
            **{key: getattr(sampler, key) for key in KEYS},
            "next_db": one.get("sampled_mean_db", 0.0),
            "next_error": one.get("sampled_error", 0.0),
            "strays": alive.mixed[0].strays,
            "entropy_share": mean_error(alive.mixed[0].entropy)[0] / (alive.real_entropy or 1.0),
        }
        if play.places is not None and meant is not None:
            kept = place(world, play, meant, walks, watch)
            row |= {k: kept[k] for k in ("place_right", "place_right_error", "place_db")}
        row |= _cost(world, starts[0])
        rows.append(row)
        mark(rows)
    return rows


def _cost(world: World, start: Frame, frames: int = 24) -> dict[str, float]:
    """Dynamics passes and milliseconds per frame, measured in a short play."""
    world.reset(start, seed=0)
    started = time.perf_counter()
    world.rollout([i // 4 % world.model.info.choices for i in range(frames)])
    seconds = time.perf_counter() - started
    return {"passes": world.timings["steps"] / frames, "ms": 1000 * seconds / frames}


def mark(rows: list[dict[str, Any]]) -> None:
    """Set `chosen` on the row with the fewest passes among those within noise of the best in every judged column."""
    best_next = max(rows, key=lambda row: row["next_db"])
    best_place = max(rows, key=lambda row: row.get("place_right", 0.0))
    best_strays = min(row["strays"] for row in rows)

    def good(row: dict[str, Any]) -> bool:
        near = row["next_db"] >= best_next["next_db"] - _NOISE * max(best_next["next_error"], row["next_error"])
        noise = _NOISE * max(best_place.get("place_right_error", 0.0), row.get("place_right_error", 0.0), 0.005)
        keeps = row.get("place_right", 0.0) >= best_place.get("place_right", 0.0) - noise
        return bool(near and keeps and row["strays"] <= best_strays + 0.005)

    cheapest = min((row for row in rows if good(row)), key=lambda row: row["passes"], default=None)
    for row in rows:
        row["chosen"] = row is cheapest
