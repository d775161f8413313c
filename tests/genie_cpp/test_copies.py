"""Worlds that are copied, pickled or inherited by a fork continue independently; wrong arguments are reported."""

from __future__ import annotations

import copy
import os
import pickle
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genie_cpp import ActionError, ImageError, Model, ModelError, NativeError, SamplerError, StateError, World
from genie_cpp.backends import _native

pytestmark = pytest.mark.heavy

PICTURE = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
AHEAD = [1, 2, 0, 1, 1, 2]


@pytest.fixture
def model(tiny_gguf: Callable[[str], Path], tmp_path: Path) -> Model:
    path = tmp_path / "w.gguf"
    path.write_bytes(tiny_gguf("q8_0").read_bytes())
    return Model.open(path, threads=2)


@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, lambda w: pickle.loads(pickle.dumps(w)), World.fork])
def test_a_copy_goes_on_by_itself(model: Model, way: Callable[[World], World]) -> None:
    world, alone = World(model), World(model)
    for w in (world, alone):
        w.reset(PICTURE, seed=1)
        w.rollout(AHEAD)
    other = way(world)
    other.rollout([2, 2, 0])
    assert (world.rollout(AHEAD) == alone.rollout(AHEAD)).all()
    back = way(alone)
    assert (back.rollout(AHEAD) == alone.rollout(AHEAD)).all()
    assert way(World(model)).n_frames == 0  # not reset yet


def test_a_model_is_shared_by_copies_and_found_again_by_pickle(model: Model) -> None:
    assert copy.copy(model) is model and copy.deepcopy(model) is model
    again = pickle.loads(pickle.dumps(model))
    assert (again.sha256, again.threads) == (model.sha256, 2)
    pickled = pickle.dumps(model)
    model.path.write_bytes(Model.open().path.read_bytes())
    with pytest.raises(ModelError, match="not the file that was pickled"):
        pickle.loads(pickled)


def test_an_environment_is_copied(model: Model) -> None:
    gymnasium = pytest.importorskip("gymnasium")
    import genie_cpp.gym  # noqa: F401

    env = gymnasium.make("genie_cpp/World-v0", model=model, prompt=PICTURE)
    env.reset(seed=3)
    other = copy.deepcopy(env)
    other.step(1)
    assert (env.step(2)[0] == copy.deepcopy(env).unwrapped.world.frame).all()


@pytest.mark.parametrize("seed", [np.int64(7), np.uint8(7), True + 6])
def test_numpy_seeds_are_seeds(model: Model, seed: Any) -> None:
    world = World(model)
    world.reset(PICTURE, seed=seed)
    same = World(model)
    same.reset(PICTURE, seed=7)
    assert world.save() == same.save() and type(world.seed) is int


@pytest.mark.parametrize(
    ("wrong", "kind", "says"),
    [
        (lambda m: World(m).reset(PICTURE, seed=1.0), StateError, "seed must be a whole number, not 1.0"),
        (lambda m: World(m).reset(PICTURE, seed=-1), StateError, "seed must be in 0"),
        (lambda m: World(m).reset("picture.png"), ImageError, "not <U11"),
        (lambda m: World(m).reset(PICTURE.astype(float)), ImageError, "not float64"),
        (lambda m: World(m).reset(), ImageError, "no pictures of its own"),
        (lambda m: World("w.gguf"), StateError, "made on a Model, not on str"),
        (lambda m: World(m, sampler="fast"), SamplerError, "not str"),
        (lambda m: setattr(World(m), "sampler", None), SamplerError, "not NoneType"),
        (lambda m: Model.open(m.path, threads=0), NativeError, "threads must be a whole number in 1…1024, not 0"),
        (lambda m: Model.open(m.path, threads=1.5), NativeError, "not 1.5"),
        (lambda m: _stepped(m, 3), ActionError, "action 3 is not in 0…2"),
        (lambda m: _stepped(m, "right"), ActionError, "'right' is not an action"),
        (lambda m: _stepped(m, 1.0), ActionError, "action 1.0"),
        (lambda m: _stepped(m, True), ActionError, "action True"),
    ],
)
def test_what_is_given_wrongly_is_told_so(model: Model, wrong: Any, kind: type[Exception], says: str) -> None:
    with pytest.raises(kind, match=says.replace("(", r"\(")):
        wrong(model)


def _stepped(model: Model, action: Any) -> None:
    world = World(model)
    world.reset(PICTURE)
    world.step(action)


def test_worlds_and_models_say_what_they_are(model: Model) -> None:
    world = World(model)
    assert repr(model).startswith("<Model 'Tiny' Q8_0, 16x16, 3 actions; cpu: ")
    assert "not reset yet" in repr(world)
    world.reset(PICTURE, seed=4)
    world.step(1)
    assert "frame 2, seed 4" in repr(world)


FORKED = """
import os, sys
import numpy as np
from genie_cpp import World
world = World.load(sys.argv[1], threads=3)
world.reset(np.zeros((16, 16, 3), np.uint8), seed=1)
world.rollout([1, 2])
reading, writing = os.pipe()
child = os.fork()
frames = world.rollout([0, 1, 2])
if child == 0:
    os.write(writing, frames.tobytes())
    os._exit(0)
os.waitpid(child, 0)
assert os.read(reading, 1 << 20) == frames.tobytes()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_has_threads_of_its_own(model: Model) -> None:
    """Without its own threads it would wait for ever for those of its parent."""
    done = subprocess.run([sys.executable, "-c", FORKED, str(model.path)], timeout=60, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()


def test_readme_s_lines_work_in_a_checkout(tmp_path: Path) -> None:
    """After `pip install .` the checkout's sources hide the installed package, but they have no compiled core."""
    root = Path(__file__).parents[2]
    shutil.copytree(root / "genie_cpp", tmp_path / "genie_cpp", ignore=shutil.ignore_patterns("__pycache__"))
    code = (root / "README.md").read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    installed = Path(_native._find("genie_cdef.py")).parents[1]
    code = f"import sys; sys.path.append({str(installed)!r})\n{code}\nprint(frame.shape, len(state) > 0)"
    # -S: without the editable install of this checkout, which would be found first.
    site = sysconfig.get_path("purelib")
    code = code.replace("\n", f"\nsys.path.append({site!r})\n", 1)
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0 and done.stdout == "(80, 128, 3) True\n", done.stderr
