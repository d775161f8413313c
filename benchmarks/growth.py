"""How the time of a MaskGIT step grows with each parameter: random weights, one parameter varied at a time."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from timing import System, in_turns, repeated

from genie_cpp.backends import _native
from genie_cpp.cli import synthetic
from genie_cpp.model import Model
from genie_cpp.spec.hparams import HParams

# tokens, width, layers, window, threads
BASE = {"tokens": 256, "width": 512, "layers": 4, "window": 16, "threads": 2}
VARIED = {
    "tokens": (64, 144, 256, 576, 1024),
    "width": (128, 256, 512, 768, 1024),
    "layers": (1, 2, 4, 8, 12),
    "window": (2, 4, 8, 16, 32, 64),
    "threads": (1, 2),
}


def hparams(tokens: int, width: int, layers: int, window: int) -> HParams:
    """Heads of 64, feed-forward length four times the width. The tokenizer is tiny, because it does not run."""
    tiny = synthetic.SIZES["tiny"]
    side = 4 * round(tokens**0.5)
    dynamics = dataclasses.replace(
        tiny.stacks["dynamics"], block_count=layers, embedding_length=width, feed_forward_length=4 * width,
        head_count=width // 64, key_length=64,
    )  # fmt: skip
    return dataclasses.replace(
        tiny, frame_width=side, frame_height=side, lam_patch_size=4, context_length=window,
        stacks={**tiny.stacks, "dynamics": dynamics},
    )  # fmt: skip


def one_step(folder: Path, name: str, point: dict[str, int]) -> System:
    """A step on the last frame of a full window."""
    hp = hparams(*(point[name] for name in ("tokens", "width", "layers", "window")))
    model = Model.open(synthetic.write(hp, name, "q8_0", folder), point["threads"])
    state, rng = model.state("dynamics"), np.random.default_rng(0)
    for t in range(point["window"] - 1):
        ids_P = rng.integers(0, hp.codebook_size, model.token_count).astype(np.int32)
        state.forward(ids_P, 0 if t else -1, output=False)
    sampler = _native.sampler_struct(8, 1.0, "confidence", 0.0)

    def call() -> None:
        ids_P = np.full(model.token_count, hp.codebook_size, np.int32)
        state.maskgit_step(sampler, 0, 0, point["window"] - 1, 0, ids_P, None)

    return System(repeated(call))


def growth(rounds: int, least: float, small: bool = False) -> dict[str, Any]:
    """Seconds per step, by parameter and value."""
    base = {"tokens": 16, "width": 64, "layers": 1, "window": 3, "threads": 1} if small else BASE
    varied = {name: (base[name], 2 * base[name]) for name in ("layers", "window")} if small else VARIED
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, values in varied.items():
            systems = {str(value): one_step(Path(folder), f"{name}-{value}", {**base, name: value}) for value in values}
            found[name] = in_turns(systems, rounds, least, base["threads"])
            print(f"  {name}", flush=True)
    return {"base": base, "times": found}
