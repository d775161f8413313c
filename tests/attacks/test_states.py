"""Saved worlds from strangers: damaged or forged ones give a StateError of one line, and the world stays as it was."""

from __future__ import annotations

import io
import random
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from genie_cpp import Model, StateError, World
from genie_cpp.file import state_file

PICTURE = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)


@pytest.fixture(scope="module")
def model(tiny_gguf: Callable[[str], Path]) -> Model:
    return Model.open(tiny_gguf("q8_0"), threads=1)


def saved(model: Model, window: str) -> bytes:
    world = World(model, window=window)
    world.reset(PICTURE, seed=3)
    world.rollout([0, 1, 2])
    return world.save()


def mutated(base: bytes, rng: random.Random) -> bytes:
    data = bytearray(base)
    for _ in range(rng.choice((1, 1, 2, 5, 20))):
        kind, at = rng.random(), rng.randrange(len(data))
        if kind < 0.6:
            data[at] = rng.randrange(256)
        elif kind < 0.8:
            del data[at : at + rng.choice((1, 4, 50))]
        else:
            data[at:at] = rng.randbytes(rng.choice((1, 4, 30)))
    return bytes(data)


@pytest.mark.parametrize("window", ["half", "retokenize"])
def test_mutated_states(model: Model, window: str) -> None:
    base, rng, world = saved(model, window), random.Random(7), World(model, window=window)
    world.restore(base)
    for _ in range(1500):
        try:
            world.restore(mutated(base, rng))
        except StateError as error:
            assert "\n" not in str(error)
        else:
            world.restore(base)
    world.restore(base)
    assert world.save() == base


def test_truncated_states(model: Model) -> None:
    base = saved(model, "half")
    for end in range(len(base)):
        with pytest.raises(StateError):
            World(model).restore(base[:end])


def member(head: object, **arrays: np.ndarray) -> bytes:
    """A hand-made state. A head given as bytes is written unchanged."""
    out = io.BytesIO()
    raw = head if isinstance(head, bytes) else repr(head).replace("'", '"').replace("None", "null").encode()
    np.savez(out, head=np.frombuffer(raw, np.uint8), **arrays)
    return out.getvalue()


def head(model: Model, /, **changes: object) -> dict[str, object]:
    sampler = {"steps": 2, "temperature": 0.5, "order": "confidence", "noise": 0.0, "threshold": 0.0}
    plain = {"version": 1, "model": model.sha256, "seed": 1, "frame_number": 1, "window": "half", "sampler": sampler}
    return {**plain, **changes}


IDS, ACTIONS = np.zeros((1, 16), np.int32), np.full(1, -1, np.int32)


def test_a_state_of_our_own_making_is_read(model: Model) -> None:
    World(model).restore(member(head(model), ids=IDS, actions=ACTIONS))


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1.0}, {"seed": 2**64}, {"seed": None}, {"seed": [1]}, {"frame_number": 10**400}, {"frame_number": 0},
        {"frame_number": 1.5}, {"window": ["half"]}, {"window": "sideways"}, {"window": {}}, {"sampler": None},
        {"sampler": []}, {"sampler": {"temperature": 10**400}},
        {"sampler": {"steps": 10**9}}, {"sampler": {"speed": 1}}, {"model": 7}, {"version": []},
        {"backend": {}}, {"window": "retokenize"},
    ],
)  # fmt: skip
def test_heads_that_say_impossible_things(model: Model, changes: dict[str, object]) -> None:
    with pytest.raises(StateError) as caught:
        World(model).restore(member(head(model, **changes), ids=IDS, actions=ACTIONS))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "arrays",
    [
        {"ids": IDS.astype(np.int64), "actions": ACTIONS}, {"ids": IDS + 16, "actions": ACTIONS},
        {"ids": IDS - 1, "actions": ACTIONS}, {"ids": IDS[:, :8], "actions": ACTIONS}, {"ids": IDS},
        {"ids": IDS[:0], "actions": ACTIONS[:0]}, {"ids": IDS, "actions": np.zeros((1, 1), np.int32)},
        {"ids": IDS, "actions": ACTIONS, "more": IDS}, {"ids": IDS, "actions": np.full(1, 3, np.int32)},
        {"ids": np.array(["a"]), "actions": ACTIONS}, {"ids": np.array([None]), "actions": ACTIONS},
        {"ids": np.asfortranarray(np.zeros((2, 16), np.int32)), "actions": np.zeros(2, np.int32)},
    ],
)  # fmt: skip
def test_arrays_of_other_kinds(model: Model, arrays: dict[str, np.ndarray]) -> None:
    with pytest.raises(StateError):
        World(model).restore(member(head(model), **arrays))


def test_arrays_at_odd_places_reach_the_core_aligned(model: Model) -> None:
    state = bytearray(member(head(model), ids=IDS, actions=ACTIONS))
    with zipfile.ZipFile(io.BytesIO(bytes(state))) as members:
        parts = {info.filename: members.read(info) for info in members.infolist()}
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as members:
        for name, data in parts.items():
            length = int.from_bytes(data[8:10], "little")
            text = data[10 : 10 + length].rstrip() + b"\n"
            text = text if len(text) % 2 else text[:-1] + b" \n"
            members.writestr(name, data[:8] + len(text).to_bytes(2, "little") + text + data[10 + length :])
    _, arrays = state_file.unpack(out.getvalue(), 1 << 20)
    assert all(array.flags.aligned for array in arrays.values())
    World(model).restore(out.getvalue())


@pytest.mark.parametrize("raw", [b"", b"[" * 4000, b"1", b"null", b"{", b"\xff", b'{"version": 1}'])
def test_heads_that_are_no_json(model: Model, raw: bytes) -> None:
    with pytest.raises(StateError):
        World(model).restore(member(raw, ids=IDS, actions=ACTIONS))


def test_a_member_that_unpacks_into_much_is_refused(model: Model) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as members:
        members.writestr("ids.npy", bytes(1 << 24))
    with pytest.raises(StateError, match="compressed"):
        World(model).restore(out.getvalue())
