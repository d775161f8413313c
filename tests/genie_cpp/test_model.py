"""A model stays what was read, whatever happens to its file."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from genie_cpp import GGUFError, Model, World
from genie_cpp.backends import assembly

PICTURE = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)


def test_the_hash_is_of_what_was_loaded(tiny_gguf: Callable[[str], Path], tmp_path: Path) -> None:
    path = tmp_path / "w.gguf"
    path.write_bytes(tiny_gguf("q8_0").read_bytes())
    model = Model.open(path, threads=1)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    (tmp_path / "new").write_bytes(tiny_gguf("f32").read_bytes())
    os.replace(tmp_path / "new", path)
    assert model.sha256 == digest
    path.unlink()
    world = World(model)
    frame = world.reset(PICTURE)
    assert (world.restore(world.save()) == frame).all()


def test_a_file_called_as_a_bundled_world_is_found_by_its_path(
    tiny_gguf: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "meadow").write_bytes(tiny_gguf("q8_0").read_bytes())
    assert Model.open("meadow", threads=1).called == "meadow"
    for given in ("./meadow", Path("meadow")):
        model = Model.open(given, threads=1)
        assert model.called is None and Model.open(model.reference, threads=1).sha256 == model.sha256


def test_a_file_written_to_while_it_loads_is_refused(
    tiny_gguf: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "w.gguf"
    path.write_bytes(tiny_gguf("q8_0").read_bytes())
    load = assembly.load

    def slowly(*args: object) -> object:
        os.utime(path, ns=(1, 1))  # as a write would
        return load(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(assembly, "load", slowly)
    with pytest.raises(GGUFError, match="changed while it was read"):
        Model.open(path, threads=1)
