"""The same bytes from any number of threads while other programs load the CPUs, on every instruction set."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest

from genie_cpp import Model, World
from genie_cpp.backends import _native

pytestmark = pytest.mark.heavy


@pytest.fixture(scope="module")
def load() -> Iterator[None]:
    """A busy loop in its own process for each CPU."""
    command = [sys.executable, "-c", "while True: pass"]
    busy = [subprocess.Popen(command) for _ in range(os.cpu_count() or 1)]
    yield
    for program in busy:
        program.kill()
        program.wait()


@pytest.mark.parametrize(
    "isa", [isa if k == 0 else pytest.param(isa, marks=pytest.mark.slow) for k, isa in enumerate(_native.isas())]
)
def test_threads_under_load(isa: str, load: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENIE_ISA", isa)
    played = set()
    for threads in (1, 2, 3, 8):
        world = World(Model.open("meadow", threads, "cpu"))
        world.reset(seed=5)
        frames = [world.step(action % world.model.info.choices) for action in range(2)]
        played.add(np.stack(frames).tobytes() + world.save())
    assert len(played) == 1
