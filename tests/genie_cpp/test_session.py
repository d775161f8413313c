"""A session's past: going back, branching, bookmarks, bounded memory, and recordings that tell the truth."""

from __future__ import annotations

import json
import subprocess
import sysconfig
from pathlib import Path

import numpy as np
import pytest

from genie_cpp import Model, Sampler, StateError, World
from genie_cpp.frames import fit
from genie_cpp.play.keyboard import default_keys
from genie_cpp.play.recipe import Played, Recipe, read, read_played
from genie_cpp.play.session import MAX_BOOKMARKS, Prompt, Session, pixels, png

PICTURE = np.random.default_rng(3).integers(0, 256, (16, 16, 3), np.uint8)


@pytest.fixture(scope="module")
def model(tiny_gguf) -> Model:  # type: ignore[no-untyped-def]
    return Model.open(tiny_gguf("q8_0"), threads=1)


def started(model: Model, **more: int) -> Session:
    session = Session(model, **more)
    session.reset(Prompt(PICTURE, "p.png", "cd" * 32), seed=5)
    return session


def test_frames_are_the_worlds_and_survive_going_back(model: Model) -> None:
    actions = [0, 2, 1, 1, 2, 0, 2]  # the window of 4 slides
    world = World(model)
    frames = [world.reset(fit(PICTURE, 16, 16), seed=5), *(world.step(a) for a in actions)]
    session = started(model)
    for action in actions:
        session.step(action)
    np.testing.assert_array_equal(pixels([session.nodes[id].png for id in session.path]), frames)
    for depth in (6, 3, 1):
        assert pixels([session.seek(depth).png])[0].tolist() == frames[depth].tolist()
        for action, frame in zip(actions[depth:], frames[depth + 1 :], strict=True):
            assert pixels([session.step(action).png])[0].tolist() == frame.tolist()
    assert session.node.depth == len(actions)
    assert session.seek(-5).depth == 0 and session.seek(99).depth == len(actions)


def test_a_step_from_the_past_is_a_branch_and_bookmarks_keep_the_other(model: Model) -> None:
    session = started(model)
    for action in (0, 1, 2):
        session.step(action)
    old = session.bookmark()
    assert session.bookmark() is old and session.bookmarks == [old.id]
    session.seek(1)
    made = session.step(2)
    assert made.depth == 2 and len(session.path) == 3 and old.id not in session.path
    assert session.go_to(old.id) is old
    assert [session.nodes[id].action for id in session.path] == [-1, 0, 1, 2]
    session.forget(old.id)
    with pytest.raises(StateError, match="no such bookmark"):
        session.forget(old.id)
    with pytest.raises(StateError, match="no longer"):
        session.go_to(12345)


def test_a_reset_keeps_bookmarks_and_the_sampler_is_the_players(model: Model) -> None:
    session = started(model)
    session.step(1)
    mark = session.bookmark()
    session.sampler = Sampler(1, 0.0)
    session.reset(Prompt(PICTURE), seed=6)
    session.go_to(mark.id)
    assert session.step(0).sampler == Sampler(1, 0.0) == session.world.sampler


def test_memory_is_bounded_and_bookmarks_stay(model: Model) -> None:
    session = started(model, max_bytes=40_000)
    session.step(1)
    mark = session.bookmark()
    for _ in range(150):
        session.step(2)
    assert session.n_bytes <= 40_000
    assert session.n_bytes == sum(node.n_bytes for node in session.nodes.values())
    assert mark.id in session.nodes and 10 < len(session.path) < 150
    depths = [session.nodes[id].depth for id in session.path]
    assert depths == list(range(depths[0], 152))
    assert session.seek(0).depth == depths[0]
    session.go_to(mark.id)
    assert session.step(0).depth == 2


def test_there_is_a_limit_of_bookmarks(model: Model) -> None:
    session = started(model)
    for _ in range(MAX_BOOKMARKS):
        session.bookmark()
        session.step(0)
    with pytest.raises(StateError, match="limit"):
        session.bookmark()


def test_nothing_works_before_a_picture(model: Model) -> None:
    session = Session(model)
    for call in (lambda: session.step(0), lambda: session.seek(0), session.bookmark):
        with pytest.raises(StateError, match="no frame yet"):
            call()


def test_a_recording_is_a_recipe_only_where_that_is_true(model: Model) -> None:
    session = started(model)
    nodes = [session.node, session.step(0), session.step(2), session.step(2)]
    pngs, says = session.recording(nodes[0].id, nodes[3].id, 10, 4)
    assert pngs == [node.png for node in nodes]
    assert isinstance(says, Recipe) and says.actions == "0,2*2" and says.seed == 5
    assert Recipe.from_json(says.to_json()) == says
    _, says = session.recording(nodes[1].id, nodes[3].id, 10, 4)  # from the middle
    assert isinstance(says, Played) and Recipe.from_json(says.to_json()) is None
    session.sampler = Sampler(1, 0.0)
    last = session.step(1)
    _, says = session.recording(nodes[0].id, last.id, 10, 4)  # two samplers
    assert isinstance(says, Played) and says.actions == "0,2*2,1"
    session.reset(Prompt(PICTURE))
    _, says = session.recording(session.node.id, session.step(0).id, 10, 4)  # no file
    assert isinstance(says, Played)
    with pytest.raises(StateError, match="no longer"):
        session.recording(last.id, nodes[0].id, 10, 4)


@pytest.mark.parametrize("kind", ["gif", "webp"])
def test_genie_info_reads_what_a_recording_says(kind: str, model: Model, tmp_path: Path) -> None:
    from genie_cpp.media.output import write

    session = started(model)
    first = session.step(0)
    pngs, says = session.recording(first.id, session.step(2).id, 10, 4)
    write(tmp_path / f"a.{kind}", pixels(pngs), says)
    assert read(tmp_path / f"a.{kind}") is None and read_played(tmp_path / f"a.{kind}") == says
    command = [Path(sysconfig.get_path("scripts")) / "genie-info", "--json", tmp_path / f"a.{kind}"]
    facts = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    assert facts["model"] == model.name and facts["actions"] == "2" and facts["frames/s"] == 10


def test_the_bundled_world_has_a_picture_beside_it() -> None:
    assert (prompt := Prompt.beside(Model.open(threads=1))) is not None
    assert prompt.path == "start:village" and len(prompt.sha256) == 64  # no path of this machine


def test_png_is_lossless() -> None:
    assert pixels([png(PICTURE)])[0].tolist() == PICTURE.tolist()


def test_default_keys() -> None:
    assert default_keys(3) == {
        "0": 0, "1": 1, "2": 2, "ArrowLeft": 0, "a": 0, "ArrowRight": 1, "d": 1, "ArrowUp": 2, "w": 2,
    }  # fmt: skip
    assert set(default_keys(300).values()) == set(range(10))
