"""Adaptive decoding (`--steps auto`): how much faster, and how far from 25 steps."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import numpy as np

from genie_cpp import Model, Sampler, World

CLIPS = Path(__file__).resolve().parents[1] / "tests" / "parity" / "clips.npz"
THRESHOLDS = (0.9, 0.8, 0.7, 0.6, 0.5)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Mean over frames, dB, of uint8 [..., H, W, 3]; identical frames 100 dB."""
    mse = ((a.astype(np.float32) - b.astype(np.float32)) ** 2).mean((-3, -2, -1)) / 255**2
    return float((-10 * np.log10(np.maximum(mse, 1e-10))).mean())


def measured(model: Model, sampler: Sampler, clips: np.ndarray, t: int = 4) -> dict[str, Any]:
    """Plays `t` frames from the first of each clip: with the actions that the LAM infers, then with random ones."""
    world, rng = World(model, sampler), np.random.default_rng(0)
    tokens, played, random, seconds, steps = [], [], [], [], []
    for index, clip in enumerate(clips):
        actions = model.infer_actions(clip[: t + 1]).tolist()
        world.reset(clip[0], seed=index)
        for action in actions:
            before = dict(world.timings)
            played.append(world.step(action))
            tokens.append(world.tokens)
            seconds.append(sum(world.timings[name] - before[name] for name in ("dynamics", "decode")))
            steps.append(world.timings["steps"] - before["steps"])
        world.reset(clip[0], seed=index)
        random.append(world.rollout(rng.integers(model.info.action_count, size=t).tolist())[-1])
    last = np.stack(played[t - 1 :: t])
    return {
        "steps": float(np.mean(steps)),
        "seconds": statistics.median(seconds),
        "tokens": np.stack(tokens),
        "frames": np.stack(played),
        "delta4": psnr(last, clips[:, t]) - psnr(np.stack(random), clips[:, t]),
    }


def adaptive(rounds: int, most: int = 25, clips: int | None = None) -> list[dict[str, Any]]:
    """One row per sampler, on real clips and the bundled world.

    most: steps of the sampler compared with. clips: so many only.
    """
    model = Model.open(None, threads=2)
    with np.load(CLIPS) as data:
        # Several starts in each clip; the last leaves four frames to come.
        starts = range(data["frames"].shape[1] - 4)
        video = np.concatenate([data["frames"][:, start : start + 5] for start in starts])[:clips]
    s = model.sampler
    samplers = {f"{most} steps": Sampler(most, s.temperature, s.order, s.noise), f"{s.steps} steps (default)": s}
    for threshold in THRESHOLDS:
        samplers[f"auto, {threshold}"] = Sampler(s.steps, s.temperature, s.order, s.noise, threshold)
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in samplers}
    for _ in range(rounds):
        for name, sampler in samplers.items():
            found[name].append(measured(model, sampler, video))
    exact = found[f"{most} steps"][0]
    return [
        {
            "sampler": name,
            "steps": rows[0]["steps"],
            "seconds": statistics.median(row["seconds"] for row in rows),
            "psnr": psnr(rows[0]["frames"], exact["frames"]),
            "agree": float((rows[0]["tokens"] == exact["tokens"]).mean()),
            "delta4": rows[0]["delta4"],
        }
        for name, rows in found.items()
    ]


if __name__ == "__main__":
    for row in adaptive(3):
        print(row)
