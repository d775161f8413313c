"""The server as seen by a program: answers, faults, limits, and what is freed when a client leaves."""

from __future__ import annotations

import io
import json
import shlex
import struct
import subprocess
import sysconfig
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from genie_cpp import Model, World
from genie_cpp.frames import fit
from genie_cpp.play.recipe import Recipe, read

pytest.importorskip("fastapi")
from fastapi.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from genie_cpp.play.session import Prompt
from genie_cpp.server.common.limits import Limits
from genie_cpp.server.page.app import STATIC, create_app
from genie_cpp.server.page.protocol import SUBPROTOCOL
from genie_cpp.server.page.shelf import Shelf

PICTURE = np.random.default_rng(3).integers(0, 256, (16, 16, 3), np.uint8)
NAMES: list[str] = []  # of the two worlds
LIMITS = Limits(sessions=2, linger_seconds=0, picture_bytes=100_000, picture_pixels=10_000, recording_frames=6)


def file(picture: np.ndarray, kind: str = "PNG") -> bytes:
    out = io.BytesIO()
    Image.fromarray(picture).save(out, kind)
    return out.getvalue()


@pytest.fixture(scope="module")
def model(tiny_gguf) -> Model:  # type: ignore[no-untyped-def]
    return Model.open(tiny_gguf("q8_0"), threads=1)


@pytest.fixture(scope="module")
def client(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    path = tmp_path_factory.mktemp("prompt") / "p.png"
    Image.fromarray(PICTURE).save(path)
    shelf = Shelf([model, model], [Prompt.load(path), None])
    NAMES[:] = [row["name"] for row in shelf.rows()]
    with TestClient(create_app(shelf, LIMITS), "http://127.0.0.1") as client:
        yield client


class Talk:
    """One websocket; say(message) -> the answer, a frame's PNG under "png"."""

    def __init__(self, socket: Any) -> None:
        self.socket = socket

    def hear(self) -> dict[str, Any]:
        message = self.socket.receive()
        if message["type"] == "websocket.close":
            raise WebSocketDisconnect(message["code"], message.get("reason"))
        if message.get("text") is not None:
            return json.loads(message["text"])
        data = message["bytes"]
        (length,) = struct.unpack_from("<I", data)
        return {**json.loads(data[4 : 4 + length]), "png": data[4 + length :]}

    def say(self, type: str, **more: Any) -> dict[str, Any]:
        self.socket.send_text(json.dumps({"type": type, **more}))
        return self.hear()


def connect(client: TestClient, **more: Any) -> Any:
    return client.websocket_connect("ws://127.0.0.1/ws", subprotocols=[SUBPROTOCOL], **more)


@pytest.fixture
def talk(client: TestClient) -> Iterator[Talk]:
    with connect(client) as socket:
        talk = Talk(socket)
        talk.hello = talk.hear()  # type: ignore[attr-defined]
        yield talk
    wait(lambda: not len(client.app.state.players))  # type: ignore[attr-defined]


def wait(until: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not until():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def picture(answer: dict[str, Any]) -> list[Any]:
    return np.asarray(Image.open(io.BytesIO(answer["png"])).convert("RGB")).tolist()


def test_the_page_and_its_files(client: TestClient) -> None:
    page = client.get("/")
    assert page.status_code == 200 and "default-src 'self'" in page.headers["content-security-policy"]
    for name in sorted(path.name for path in STATIC.iterdir() if path.suffix != ".html"):
        found = client.get(f"/static/{name}")
        assert found.status_code == 200, name
        outside = found.text.replace("http://www.w3.org/2000/svg", "")
        assert "http:" not in outside and "https:" not in outside, f"{name} asks outside"
    assert client.get("/static/../app.py").status_code == 404
    assert client.get("/docs").status_code == 404


def test_play_is_the_worlds(talk: Talk, model: Model) -> None:
    assert talk.hello["version"] == 2 and len(talk.hello["worlds"]) == 2  # type: ignore[attr-defined]
    world = talk.say("world", name=NAMES[0])
    assert (world["width"], world["height"], world["actions"], world["prompt"]) == (16, 16, 3, True)
    twin = World(model)
    assert picture(talk.say("reset", seed=9)) == twin.reset(fit(PICTURE, 16, 16), 9).tolist()
    frames = [talk.say("step", action=action) for action in (0, 2, 2, 1)]
    seen = [twin.step(action).tolist() for action in (0, 2, 2, 1)]
    assert [picture(frame) for frame in frames] == seen
    assert frames[-1]["depth"] == frames[-1]["last"] == 4 and frames[-1]["ms"]["maskgit"] > 0
    back = talk.say("seek", depth=2)
    assert picture(back) == seen[1] and (back["first"], back["depth"], back["last"]) == (0, 2, 4)
    assert talk.say("bookmark") == {"type": "bookmark", "id": back["id"], "depth": 2}
    assert picture(talk.say("step", action=2)) == seen[2]
    there = talk.say("goto", id=back["id"])
    assert there["depth"] == there["last"] == 2 and len(there["path"]) == 3
    assert talk.say("forget", id=back["id"])["type"] == "forgotten"
    assert talk.say("settings", steps=1, temperature=0)["steps"] == 1
    assert talk.say("step", action=0)["depth"] == 3


def test_files_of_a_session(talk: Talk, client: TestClient, tmp_path: Path) -> None:
    talk.say("world", name=NAMES[0])
    frames = [talk.say("reset", seed=1), talk.say("step", action=2), talk.say("step", action=2)]
    place = f"/sessions/{talk.hello['player']}/{frames[0]['play']}"  # type: ignore[attr-defined]
    assert client.get(f"{place}/frames/{frames[1]['id']}.png").content == frames[1]["png"]
    kinds = talk.hello["recordings"]  # type: ignore[attr-defined]
    assert kinds[:2] == ["gif", "webp"]
    for kind in kinds:
        got = client.get(f"{place}/recording.{kind}", params={"first": frames[0]["id"], "last": frames[2]["id"]})
        assert got.headers["content-disposition"].startswith('attachment; filename="tiny-'), got.text
        path = tmp_path / f"a.{kind}"
        path.write_bytes(got.content)
        recipe = read(path)
        assert isinstance(recipe, Recipe) and recipe.actions == "2*2" and recipe.seed == 1
        if kind != "mp4":
            with Image.open(path) as image:
                assert image.n_frames == 3 and image.size == (64, 64)
        again = tmp_path / f"again.{kind}"
        command = shlex.split(recipe.command(str(again)))
        subprocess.run(
            [Path(sysconfig.get_path("scripts")) / command[0], *command[1:]], check=True, capture_output=True
        )
        assert again.read_bytes() == path.read_bytes(), "genie-run makes another file"
    for address, code in (
        (f"{place}/frames/99.png", 404),
        ("/sessions/nobody/1/frames/0.png", 404),
        (f"{place}/recording.gif?first=0&last=99", 404),
        (f"{place}/recording.exe?first=0&last=1", 404),
        (f"{place}/recording.gif?first=0&last=1&scale=99", 422),
    ):
        assert client.get(address).status_code == code, address
    for _ in range(4):
        last = talk.say("step", action=0)
    assert "6 at most" in client.get(f"{place}/recording.gif?first={frames[0]['id']}&last={last['id']}").text


def test_a_session_is_saved_and_opened(talk: Talk, client: TestClient) -> None:
    talk.say("world", name=NAMES[0])
    talk.say("reset", seed=3)
    for action in (0, 1, 2, 1, 0):
        talk.say("step", action=action)
    talk.say("bookmark")
    talk.say("seek", depth=2)
    talk.say("settings", steps=2, temperature=0.25)
    talk.say("step", action=2)
    there = talk.say("step", action=2)
    place = f"/sessions/{talk.hello['player']}/{talk.say('show')['play']}/session.genie"  # type: ignore[attr-defined]
    got = client.get(place)
    assert got.headers["content-disposition"] == 'attachment; filename="tiny-4.genie"'
    want = talk.say("step", action=1)
    assert "no session is being opened" in talk.say("replay")["message"]
    with connect(client) as socket:
        other = Talk(socket)
        other.hear()
        other.say("world", name=NAMES[1])
        socket.send_bytes(got.content)
        answer = other.hear()
        assert answer == {"type": "replay", "done": 0, "total": 8}
        while answer["type"] == "replay":
            answer = other.say("replay")
        assert answer["png"] == there["png"] and (answer["first"], answer["depth"], answer["last"]) == (0, 4, 4)
        assert (answer["steps"], answer["temperature"], answer["seed"], answer["drifted"]) == (2, 0.25, 3, 0)
        assert [depth for _, depth in answer["bookmarks"]] == [5]
        assert other.say("step", action=1)["png"] == want["png"]
        assert other.say("goto", id=answer["bookmarks"][0][0])["depth"] == 5
        assert other.say("reset", seed=3)["depth"] == 0  # starts from its own picture
        before = other.say("step", action=0)
        endless = json.loads(got.content)
        endless["samplers"][0]["steps"] = 1000
        for data, why in (
            (got.content[:300], "not a session file"),
            (json.dumps(endless).encode(), "more than 64 steps"),
            (got.content.replace(b'"sha256": "', b'"sha256": "x')[:-1], "not a session file|another model"),
        ):
            socket.send_bytes(data)
            fault = other.hear()
            assert fault["type"] == "error" and any(part in fault["message"] for part in why.split("|"))
        wrong = json.loads(got.content)
        wrong["frames"][3][3] = "0" * 32
        socket.send_bytes(json.dumps(wrong).encode())
        assert other.hear()["type"] == "replay"
        assert "is not what its recipe gives" in other.say("replay")["message"]
        assert other.say("seek", depth=1)["png"] == before["png"]  # the session that was open goes on


def test_a_picture_starts_a_world(talk: Talk) -> None:
    talk.say("world", name=NAMES[1])
    assert "no picture" in talk.say("reset")["message"]
    talk.socket.send_bytes(file(PICTURE[:12], "JPEG"))
    assert talk.hear()["depth"] == 0
    assert talk.say("step", action=1)["depth"] == 1
    assert talk.say("reset")["depth"] == 0


@pytest.mark.parametrize(
    ("message", "why"),
    [
        ("not json", "not JSON"),
        ("[" * 3000, "not JSON"),
        ("[1]", "with a type"),
        ("{}", "with a type"),
        ('{"type": 3}', "with a type"),
        ('{"type": "fly"}', "unknown type 'fly'"),
        ('{"type": "__init__"}', "unknown type"),
        (json.dumps({"type": "step", "more": "x" * 5000}), "4096 are the limit"),
        ('{"type": "step"}', "action must be a whole number in 0…2, not null"),
        ('{"type": "step", "action": 3}', "0…2"),
        ('{"type": "step", "action": true}', "0…2"),
        ('{"type": "step", "action": "0"}', "0…2"),
        ('{"type": "step", "action": -1}', "0…2"),
        ('{"type": "reset", "seed": 18446744073709551616}', "seed"),
        ('{"type": "seek", "depth": 1.5}', "depth"),
        ('{"type": "settings", "steps": 65, "temperature": 1}', "1…64"),
        ('{"type": "settings", "steps": 6, "temperature": NaN}', "temperature"),
        ('{"type": "settings", "steps": 6, "temperature": 1e999}', "temperature"),
        ('{"type": "goto", "id": 999}', "no longer kept"),
        ('{"type": "forget", "id": 999}', "no such bookmark"),
        ('{"type": "world", "name": "nowhere"}', "no world 'nowhere' here"),
        ('{"type": "world", "name": 3}', "name must be a text"),
        ('{"type": "fetch", "name": "maze"}', "to fetch"),
        ('{"type": "start", "number": 7}', "no such start picture"),
        ('{"type": "explain"}', "was not made by the model"),
        (b"", "not a picture"),
        (b"\x89PNG\r\n\x1a\nnonsense", "not a picture"),
        (b"x" * 100_001, "100000 are the limit"),
        (file(np.zeros((200, 200, 3), np.uint8)), "200x200 pixels; 0.01 million"),
        (file(np.zeros((2, 2, 3), np.uint8)), "the least"),
    ],
)
def test_a_bad_message_is_told_and_play_goes_on(talk: Talk, message: str | bytes, why: str) -> None:
    talk.say("world", name=NAMES[0])
    before = talk.say("reset")
    if isinstance(message, bytes):
        talk.socket.send_bytes(message)
    else:
        talk.socket.send_text(message)
    answer = talk.hear()
    assert answer["type"] == "error" and why in answer["message"]
    assert picture(talk.say("seek", depth=0)) == picture(before)
    assert talk.say("step", action=0)["depth"] == 1


def test_before_a_model(talk: Talk) -> None:
    for type in ("step", "reset", "seek", "bookmark", "settings"):
        assert "no world is chosen" in talk.say(type, action=0, depth=0, steps=1, temperature=0)["message"]


def test_too_many_sessions_and_room_again(client: TestClient) -> None:
    with connect(client) as first, connect(client) as second:
        Talk(first).hear(), Talk(second).hear()
        with connect(client) as third:
            talk = Talk(third)
            assert "2 sessions are the limit" in talk.hear()["message"]
            with pytest.raises(WebSocketDisconnect) as left:
                talk.hear()
            assert left.value.code == 1013
        assert Talk(first).say("world", name=NAMES[0])["type"] == "world"
    wait(lambda: not len(client.app.state.players))  # type: ignore[attr-defined]
    with connect(client) as again:
        assert Talk(again).hear()["type"] == "hello"


def test_only_our_own_page_may_play(client: TestClient) -> None:
    with connect(client, headers={"origin": "http://127.0.0.1"}) as socket:
        assert Talk(socket).hear()["type"] == "hello"
    with pytest.raises(WebSocketDisconnect), connect(client, headers={"origin": "http://evil.example"}):
        pass
    assert client.get("/", headers={"host": "evil.example"}).status_code == 400


def test_another_version_is_told(client: TestClient) -> None:
    with client.websocket_connect("ws://127.0.0.1/ws", subprotocols=["genie-play.99"]) as socket:
        assert f"speaks {SUBPROTOCOL}" in Talk(socket).hear()["message"]
