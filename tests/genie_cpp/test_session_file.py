"""`.genie` files: the same frames again, byte for byte; states where the past is gone; and hostile files."""

from __future__ import annotations

import dataclasses
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fuzz_worlds import random_params

from genie_cpp import GenieError, Model, Sampler, StateError
from genie_cpp.cli import synthetic
from genie_cpp.convert.writer import convert
from genie_cpp.play.session import Prompt, Session
from genie_cpp.play.session_file import MAGIC, Replay, SessionFile

TINYWORLDS = Path(__file__).parents[1] / "golden" / "tinyworlds"
PICTURE = np.random.default_rng(3).integers(0, 256, (20, 16, 3), np.uint8)


@pytest.fixture(scope="module")
def model(tiny_gguf) -> Model:  # type: ignore[no-untyped-def]
    return Model.open(tiny_gguf("q8_0"), threads=1)


@pytest.fixture(scope="module", params=["half", "retokenize"])
def sliding(request: pytest.FixtureRequest, model: Model, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A model for each way of saving a window: tokens, or pixels, from which a world cannot rewind."""
    if request.param == "half":
        return model
    output = tmp_path_factory.mktemp("tinyworlds") / "f32.gguf"
    convert([TINYWORLDS / name for name in ("tokenizer.pth", "latent_actions_step_5", "dynamics.pth")], output, "f32")
    return Model.open(output, threads=1)


def played(model: Model, **more: int) -> Session:
    """Two branches, three samplers, two prompts, a bookmark on each branch and one in another world."""
    session = Session(model, **more)
    session.reset(Prompt(PICTURE, "p.png", "cd" * 32), seed=2**63 + 5)
    session.step(1)
    session.bookmark()
    session.reset(Prompt(PICTURE[::-1].copy(), fit="pad"), seed=7)
    for action in (0, 1, 2, 2, 1, 0):  # the window of 4 slides
        session.step(action)
    session.bookmark()
    session.seek(2)
    session.sampler = Sampler(2, 0.25, "random", 0.5, 0.75)
    for action in (2, 0, 1):
        session.step(action)
    session.seek(4)
    session.bookmark()
    return session


def frames(session: Session) -> list[bytes]:
    return [session.nodes[id].png for id in session.path]


def test_a_session_comes_back_byte_for_byte(sliding: Model) -> None:
    model, session = sliding, played(sliding)
    data = SessionFile.of(session).to_bytes()
    assert data.startswith(MAGIC) and b"p.png" not in data  # the path of a picture stays private
    file = SessionFile.from_bytes(data)
    assert file.window == session.world.window == model.info.window_policy
    assert file.to_bytes() == data and [file.depth(mark) for mark in file.bookmarks] == [1, 6, 4]
    replay = Replay(file, model)
    again = replay.run()
    assert replay.drifted == 0 and again.node.depth == 4 and frames(again) == frames(session)
    for mark, other in zip(again.bookmarks, session.bookmarks, strict=True):
        again.go_to(mark), session.go_to(other)
        assert frames(again) == frames(session)
        assert again.node.sampler == session.node.sampler
        session.sampler = again.sampler = again.node.sampler
        assert again.step(1).png == session.step(1).png  # and they go on alike
    assert SessionFile.of(Replay(file, model).run()).to_bytes() == data


def test_one_line_to_a_bookmark(sliding: Model) -> None:
    model, session = sliding, played(sliding)
    file = SessionFile.from_bytes(SessionFile.of(session).to_bytes())
    for number in (0, 1, 2, 3):
        at = file.at(number)
        replay = Replay(file, model, to=at)
        assert list(replay.steps()) == list(range(1, replay.total + 1)) and replay.total == file.depth(at) + 1
        session.go_to(session.bookmarks[number - 1 if number else 2])
        assert frames(replay.session) == frames(session)
    for wrong in (-1, 4):
        with pytest.raises(StateError, match="no bookmark"):
            file.at(wrong)


def test_where_the_past_is_gone_a_state_stands_for_it(sliding: Model) -> None:
    model, measured = sliding, Session(sliding)
    for _ in range(model.info.context_length):
        measured.reset(Prompt(PICTURE)) if not measured.path else measured.step(1)
    session = Session(model, 60 * measured.node.n_bytes)  # a full window's
    session.reset(Prompt(PICTURE), seed=1)
    session.step(1)
    session.bookmark()
    for action in [0, 1, 2] * 40:
        session.step(action)
    assert session.nodes[session.path[0]].depth > 5  # the first frames were dropped
    data = SessionFile.of(session).to_bytes()
    assert any(root.state for root in SessionFile.from_bytes(data).roots)
    again = Replay(SessionFile.from_bytes(data), model).run()
    assert frames(again) == frames(session) and again.node.depth == 121
    assert again.nodes[again.bookmarks[0]].png == session.nodes[session.bookmarks[0]].png
    assert again.step(2).png == session.step(2).png
    assert SessionFile.of(Replay(SessionFile.from_bytes(data), model).run()).to_bytes() == data


def test_another_model_isa_and_a_wrong_frame(model: Model, tiny_gguf) -> None:  # type: ignore[no-untyped-def]
    file = SessionFile.of(played(model))
    with pytest.raises(StateError, match="another model, 'Tiny'"):
        Replay(file, Model.open(tiny_gguf("f32"), threads=1))
    wrong = dataclasses.replace(file, frames=[*file.frames[:-1], dataclasses.replace(file.frames[-1], digest="0" * 32)])
    with pytest.raises(StateError, match="is not what its recipe gives"):
        Replay(wrong, model).run()
    replay = Replay(dataclasses.replace(wrong, isa="other"), model)
    replay.run()
    assert replay.drifted == 1


def test_what_is_no_session_file(model: Model, tmp_path: Path) -> None:
    good: dict[str, Any] = json.loads(SessionFile.of(played(model)).to_bytes())
    many = [[-1, -1, 0, ""], *([0, 0, 0, ""] for _ in range(100_001))]
    for change in (
        {"genie_session": 2}, {"genie_session": True}, {"roots": []}, {"samplers": []}, {"frames": []},
        {"frames": [[0, 0, 0, ""]]}, {"frames": [[-9, 0, 0, ""]]}, {"frames": [[-1, 0, 9, ""]]}, {"frames": [[-1, 0]]},
        {"frames": [[-1, -1, 0, ""], [-1, -1, 0, ""]]}, {"frames": many}, {"bookmarks": [99]}, {"bookmarks": [0, 0]},
        {"bookmarks": [True]}, {"shown": -1}, {"shown": None}, {"newest": 0}, {"window": "open"}, {"window": []},
        {"model": "x"}, {"model": {"name": 1, "sha256": ""}}, {"isa": "x" * 99}, {"samplers": [{"steps": 0}]},
        {"samplers": [{"speed": 0}]}, {"samplers": [3]}, {"roots": [{**good["roots"][0], "seed": -1}]},
        {"roots": [{**good["roots"][0], "picture": "§"}]}, {"roots": [{**good["roots"][0], "picture": ""}]},
    ):  # fmt: skip
        with pytest.raises(StateError, match="not a session file"):
            SessionFile.from_bytes(json.dumps({**good, **change}).encode())
    # Sixteen MiB of small values would take half a GiB.
    bomb = MAGIC + b"[" + b"[]," * (5 << 20) + b"[]]}"
    for data in (b"", b"[]", b"[" * 100_000, b"\xff", MAGIC, b"null", bomb):
        with pytest.raises(StateError, match="not a session file"):
            SessionFile.from_bytes(data)
    for change in (
        {"roots": [{"picture": "aaaa", "seed": 0, "state": "", "depth": 0}]},
        {"roots": [{"picture": "", "seed": 0, "state": "aaaa", "depth": 0}]},
    ):
        one = {**good, "frames": [[-1, -1, 0, ""]], "bookmarks": [], "shown": 0, "newest": 0, **change}
        with pytest.raises(GenieError, match=r"picture|saved world"):
            Replay(SessionFile.from_bytes(json.dumps(one).encode()), model).run()
    action = {**good, "frames": [[-1, -1, 0, good["frames"][0][3]], [0, 3, 0, ""]], "bookmarks": []}
    with pytest.raises(StateError, match="action"):
        Replay(SessionFile.from_bytes(json.dumps({**action, "shown": 1, "newest": 1}).encode()), model).run()


def test_the_frame_that_was_shown_may_have_made_room_for_others(model: Model) -> None:
    session = Session(model)
    session.reset(Prompt(PICTURE))
    session.bookmark()
    for step in range(60):
        session.step(step % 3)
    session.seek(0)
    saved = SessionFile.from_bytes(SessionFile.of(session).to_bytes())
    for room in (1 << 13, 1 << 14, 1 << 16, 1 << 22):
        again = Replay(saved, model, max_bytes=room).run()
        assert again.node.id in again.nodes and set(again.bookmarks) <= set(again.nodes)
    assert again.node.png == session.node.png and len(again.bookmarks) == 1  # with room it is all there


def test_a_world_of_a_few_pixels_comes_back(tmp_path: Path) -> None:
    """Its frames are smaller than any picture that one may start from."""
    seed = next(seed for seed in range(99) if random_params(random.Random(seed)).frame_height < 8)
    model = Model.open(synthetic.write(random_params(random.Random(seed)), "small", "f32", tmp_path), threads=1)
    session = Session(model)
    session.reset(Prompt(PICTURE))
    session.step(0)
    again = Replay(SessionFile.from_bytes(SessionFile.of(session).to_bytes()), model)
    again.run()
    assert frames(again.session) == frames(session)
