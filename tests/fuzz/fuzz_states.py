"""Saved worlds damaged at random give a StateError of one line and an unchanged world, or a world that plays."""

from __future__ import annotations

import io
import random
import zipfile
from collections.abc import Callable
from pathlib import Path

import mutate
import numpy as np
from fuzz_worlds import random_model

from genie_cpp import Model, StateError, World


def _member(raw: bytes, rng: random.Random) -> bytes:
    """Damage one member of the archive, not the archive itself."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(raw)) as file, zipfile.ZipFile(out, "w") as bent:
        names = file.namelist()
        which = rng.choice(names)
        for name in names:
            data = file.read(name)
            bent.writestr(name, mutate.data(data, rng) if name == which else data)
    return out.getvalue()


def prepare(folder: Path) -> Callable[[int], None]:
    worlds: list[tuple[World, bytes, bytes]] = []
    for seed in range(6):
        world = World(Model.open(random_model(random.Random(seed), folder / f"base{seed}"), 1, "cpu"))
        hp = world.model.info
        world.reset(np.zeros((hp.frame_height, hp.frame_width, 3), np.uint8), seed)
        before = world.save()
        for _ in range(3):
            world.step(0)
        worlds.append((world, before, world.save()))

    def one(seed: int) -> None:
        rng = random.Random(seed)
        world, before, after = rng.choice(worlds)
        raw = rng.choice((before, after))
        bent = _member(raw, rng) if rng.random() < 0.6 else mutate.data(raw, rng)
        try:
            world.restore(bent)
        except StateError as error:
            assert "\n" not in str(error), repr(str(error))
            assert world.save() == after
            return
        world.step(0)
        world.restore(after)
        assert world.save() == after

    return one
