"""The API as used by a program: sessions, frames, states, the websocket, and every refusal."""

from __future__ import annotations

import base64
import io
import json
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

from genie_cpp import Model, Sampler, World
from genie_cpp.frames import fit

pytest.importorskip("fastapi")
pytest.importorskip("prometheus_client")
from fastapi.testclient import TestClient
from starlette.testclient import WebSocketDenialResponse
from starlette.websockets import WebSocketDisconnect

from genie_cpp.play.session import Prompt
from genie_cpp.server.api.app import create_api
from genie_cpp.server.api.websocket import SUBPROTOCOL
from genie_cpp.server.common.limits import ServeLimits
from genie_cpp.server.run import LOCAL

PICTURE = np.random.default_rng(3).integers(0, 256, (16, 16, 3), np.uint8)
OTHER = np.random.default_rng(4).integers(0, 256, (20, 16, 3), np.uint8)
LIMITS = ServeLimits(sessions=3, picture_bytes=100_000, picture_pixels=10_000, rollout_frames=6)
BASE, WS = "http://127.0.0.1", "ws://127.0.0.1"
KEY = "k" * 20


def file(picture: np.ndarray, kind: str = "PNG") -> bytes:
    out = io.BytesIO()
    Image.fromarray(picture).save(out, kind)
    return out.getvalue()


def pixels(data: bytes) -> list[Any]:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).tolist()


@pytest.fixture(scope="module")
def model(tiny_gguf) -> Model:  # type: ignore[no-untyped-def]
    return Model.open(tiny_gguf("q8_0"), threads=1)


@pytest.fixture(scope="module")
def client(model: Model) -> Iterator[TestClient]:
    app = create_api([model, model], [Prompt(PICTURE), None], LIMITS, hosts=LOCAL)
    with TestClient(app, BASE, raise_server_exceptions=True) as client:
        yield client


@pytest.fixture
def session(client: TestClient) -> Iterator[str]:
    made = client.post("/v1/sessions?seed=9")
    assert made.status_code == 201, made.text
    place = made.headers["location"]
    assert place == f"/v1/sessions/{made.json()['id']}"
    yield place
    client.delete(place)


def test_frames_are_the_worlds(client: TestClient, session: str, model: Model) -> None:
    world = World(model)
    first = world.reset(fit(PICTURE, 16, 16), 9)
    got = client.get(f"{session}/frame")
    assert got.headers["content-type"] == "image/png" and pixels(got.content) == first.tolist()
    frames = [world.step(action) for action in (0, 2, 1, 1, 2, 0)]
    got = client.post(f"{session}/step", json={"action": 0})
    assert pixels(got.content) == frames[0].tolist() and got.headers["genie-frame-number"] == "2"
    got = client.post(f"{session}/step?format=json", json={"action": 2}).json()
    assert pixels(base64.b64decode(got["png"])) == frames[1].tolist() and got["frame_number"] == 3
    got = client.post(f"{session}/step?format=npy", json={"action": 1})
    assert np.load(io.BytesIO(got.content)).tolist() == frames[2].tolist() and float(got.headers["genie-seconds"]) > 0
    got = client.post(f"{session}/rollout?format=npy", json={"actions": [1, 2]})
    assert np.load(io.BytesIO(got.content)).tolist() == np.stack(frames[3:5]).tolist()
    got = client.post(f"{session}/rollout", json={"actions": "0"}).json()
    assert [pixels(base64.b64decode(one)) for one in got["png"]] == [frames[5].tolist()]
    assert client.get(f"{session}/tokens").json() == {"frame_number": 7, "tokens": world.tokens.tolist()}
    info = client.get(session).json()
    assert info["frame_number"] == 7 and info["seed"] == 9 and info["sampler"]["steps"] == 3


def test_a_saved_state_goes_on_in_any_session(client: TestClient, session: str) -> None:
    client.post(f"{session}/rollout", json={"actions": "1*5"})
    state = client.get(f"{session}/state").content
    want = client.post(f"{session}/step", json={"action": 2}).content
    other = client.post("/v1/sessions", params={"model": 1}, content=file(OTHER)).headers["location"]
    assert client.put(f"{other}/state", content=state).headers["genie-frame-number"] == "6"
    assert client.post(f"{other}/step", json={"action": 2}).content == want
    assert client.get(other).json()["seed"] == 9
    before = client.get(f"{other}/frame").content
    for bad in (b"", b"nonsense", state[:-40]):
        got = client.put(f"{other}/state", content=bad)
        assert got.status_code == 400 and "saved world" in got.json()["error"]
    assert client.get(f"{other}/frame").content == before
    assert client.delete(other).status_code == 204


def test_a_state_may_not_ask_for_endless_steps(client: TestClient, session: str, model: Model) -> None:
    world = World(model, Sampler(1024))
    world.reset(PICTURE)
    before = client.get(f"{session}/frame").content
    got = client.put(f"{session}/state", content=world.save())
    assert got.status_code == 400 and "64 are the limit" in got.json()["error"]
    assert client.get(f"{session}/frame").content == before
    assert client.get(session).json()["sampler"]["steps"] == 3


def test_reset_and_pictures(client: TestClient, session: str, model: Model) -> None:
    world = World(model)
    want = world.reset(fit(OTHER, 16, 16), 4).tolist()
    assert pixels(client.post(f"{session}/reset?seed=4", content=file(OTHER)).content) == want
    client.post(f"{session}/step", json={"action": 1})
    assert pixels(client.post(f"{session}/reset?seed=4").content) == want  # the picture is kept
    bad = client.post(f"{session}/reset", content=b"nonsense")
    assert bad.status_code == 400 and "png, jpg" in bad.json()["hint"]
    assert pixels(client.post(f"{session}/reset?seed=4").content) == want  # and a bad one does not take its place
    none = client.post("/v1/sessions?model=1")
    assert none.status_code == 400 and "no picture" in none.json()["error"] and none.json()["hint"]
    assert client.get("/health").json()["sessions"] == 1


def test_the_sampler(client: TestClient, session: str, model: Model) -> None:
    got = client.patch(f"{session}/sampler", json={"steps": 1, "temperature": 0})
    assert got.json()["sampler"] == {**got.json()["sampler"], "steps": 1, "temperature": 0}
    s = model.sampler
    world = World(model, Sampler(1, 0.0, s.order, s.noise))
    world.reset(PICTURE, 9)
    assert pixels(client.post(f"{session}/step", json={"action": 1}).content) == world.step(1).tolist()
    assert client.patch(f"{session}/sampler", json={"steps": 65}).json()["error"] == "65 steps; 64 are the limit"


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "why"),
    [
        ("POST", "/step", {"action": 3}, 400, "0…2"),
        ("POST", "/step", {"action": -1}, 400, "0…2"),
        ("POST", "/step", {"action": True}, 422, "action"),
        ("POST", "/step", {"action": "1"}, 400, "not an action"),
        ("POST", "/step", {"action": 10**400}, 422, ""),
        ("POST", "/step", {}, 422, "action"),
        ("POST", "/step", {"action": 1, "path": "/etc/passwd"}, 422, "path"),
        ("POST", "/step?format=gif", {"action": 1}, 422, "format"),
        ("POST", "/rollout", {"actions": []}, 400, "0 actions"),
        ("POST", "/rollout", {"actions": "0*7"}, 400, "1…6"),
        ("POST", "/rollout", {"actions": [0, 5]}, 400, "action 5"),
        ("POST", "/rollout", {"actions": "/etc/passwd"}, 400, "not an action"),
        ("POST", "/rollout", {"actions": "random"}, 400, "not an action"),
        ("PATCH", "/sampler", {"steps": 0}, 422, "steps"),
        ("PATCH", "/sampler", {"order": "best"}, 422, "order"),
        ("POST", "/reset?seed=-1", None, 422, "seed"),
        ("POST", "/reset?seed=18446744073709551616", None, 422, "seed"),
        ("GET", "/fly", None, 404, "not found"),
        ("DELETE", "/step", None, 405, "not allowed"),
    ],
)
def test_a_bad_request_is_told_and_play_goes_on(
    client: TestClient, session: str, method: str, path: str, body: Any, status: int, why: str
) -> None:
    got = client.request(method, session + path, json=body)
    assert got.status_code == status and why in got.json()["error"] and set(got.json()) == {"error", "hint"}, got.text
    assert client.post(f"{session}/step", json={"action": 0}).status_code == 200


def test_bodies_that_are_no_json(client: TestClient, session: str) -> None:
    for body in (b"{", b"\xff\xfe", b"[" * 50_000, b"null", b'{"action": NaN}'):
        got = client.post(f"{session}/step", content=body, headers={"content-type": "application/json"})
        assert got.status_code in (400, 422) and set(got.json()) == {"error", "hint"}, got.text
    got = client.post(f"{session}/step", content=b'{"action": 1}')
    assert got.status_code == 422 and "Content-Type: application/json" in got.json()["hint"]
    got = client.post(f"{session}/step", content=b" " * (LIMITS.message_bytes + 1))
    assert got.status_code == 413 and "too large" in got.json()["error"]
    got = client.post(f"{session}/reset", content=(bytes(50_000) for _ in range(4)))  # without a content length
    assert got.status_code == 413 and "100000 bytes" in got.json()["error"]
    got = client.post(f"{session}/reset", content=file(np.zeros((200, 200, 3), np.uint8)))
    assert got.status_code == 400 and "0.01 million" in got.json()["error"]


def test_sessions_are_limited_and_found_by_name_only(client: TestClient, session: str) -> None:
    more = [client.post("/v1/sessions") for _ in range(4)]
    assert [one.status_code for one in more] == [201, 201, 503, 503]
    assert more[2].json()["error"] == "3 sessions are the limit" and more[2].headers["retry-after"]
    for one in more[:2]:
        assert client.delete(one.headers["location"]).status_code == 204
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/reset"), ("GET", "/state"), ("GET", "/tokens")):
        got = client.request(method, more[0].headers["location"] + path)
        assert got.status_code == 404 and got.json()["error"] == "there is no such session"
    assert client.post("/v1/sessions?model=2").status_code == 400
    assert client.get("/health").json() == {**client.get("/health").json(), "status": "ok", "sessions": 1}


def test_models_documents_and_metrics(client: TestClient, session: str, model: Model) -> None:
    first, second = client.get("/v1/models").json()
    assert (first["width"], first["actions"], first["tokens"], first["prompt"]) == (16, 3, 16, True)
    assert first["sha256"] == model.sha256 and not second["prompt"] and "path" not in first
    document = client.get("/openapi.json").json()
    assert set(document["paths"]["/v1/sessions/{id}/step"]["post"]["responses"]) >= {"200", "404", "422", "429"}
    assert "image/png" in document["paths"]["/v1/sessions/{id}/step"]["post"]["responses"]["200"]["content"]
    assert "image/*" in document["paths"]["/v1/sessions"]["post"]["requestBody"]["content"]
    page = client.get("/docs")
    assert "/v1/sessions/{id}/rollout" in page.text and "http" not in page.text.replace("Every", "")
    client.post(f"{session}/step", json={"action": 0})
    text = client.get("/metrics").text
    for line in (
        "genie_sessions 1.0",
        "genie_sessions_limit 3.0",
        'genie_frames_total{model="Tiny"}',
        "process_resident",
    ):
        assert line in text, line
    assert 'route="/v1/sessions/{id}/step",status="200"' in text and session not in text


def test_a_page_from_elsewhere_and_a_name_that_is_not_ours(client: TestClient) -> None:
    for headers, status in (
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": BASE}, 201),
        ({"host": "evil.example"}, 400),
        ({"host": "[::1]:8174"}, 201),
    ):
        got = client.post("/v1/sessions", headers=headers)
        assert got.status_code == status, headers
        assert "access-control-allow-origin" not in got.headers
        if status == 201:
            client.delete(got.headers["location"])
    with pytest.raises((WebSocketDisconnect, WebSocketDenialResponse)):
        with client.websocket_connect(f"{WS}/v1/sessions/x/ws", headers={"origin": "http://evil.example"}):
            pass
    assert client.options("/v1/sessions", headers={"origin": "http://evil.example"}).status_code == 403


def test_a_key_and_a_page_that_may_ask(model: Model) -> None:
    app = create_api([model], [Prompt(PICTURE)], LIMITS, KEY, ["https://a.example"])
    with TestClient(app, "http://world.example") as client:
        assert client.get("/health").status_code == 200
        for path in ("/v1/models", "/metrics", "/docs", "/openapi.json", "/v1/sessions/x"):
            for given in ({}, {"authorization": "Bearer nonsense"}, {"authorization": f"Basic {KEY}"}):
                got = client.get(path, headers=given)
                assert got.status_code == 401 and got.headers["www-authenticate"] == "Bearer"
                assert "API key" in got.json()["error"] and KEY not in got.text
        own = {"authorization": f"Bearer {KEY}"}
        got = client.post("/v1/sessions", headers={**own, "origin": "https://a.example"})
        assert got.status_code == 201 and got.headers["access-control-allow-origin"] == "https://a.example"
        asks = {"origin": "https://a.example", "access-control-request-method": "POST"}
        assert client.options("/v1/sessions", headers=asks).status_code == 200
        assert client.options("/v1/sessions", headers={**asks, "origin": "https://b.example"}).status_code == 400
        place = got.headers["location"]
        with pytest.raises((WebSocketDisconnect, WebSocketDenialResponse)):
            with client.websocket_connect(f"{WS}{place}/ws", subprotocols=[SUBPROTOCOL]):
                pass
        with client.websocket_connect(f"{WS}{place}/ws", subprotocols=[SUBPROTOCOL], headers=own) as socket:
            assert socket.receive_json()["type"] == "hello"


def heard(socket: Any) -> dict[str, Any]:
    message = socket.receive()
    if message.get("text") is not None:
        return json.loads(message["text"])
    if message["type"] == "websocket.close":
        raise WebSocketDisconnect(message["code"], message.get("reason"))
    (length,) = struct.unpack_from("<I", message["bytes"])
    return {**json.loads(message["bytes"][4 : 4 + length]), "png": message["bytes"][4 + length :]}


def test_the_websocket_plays(client: TestClient, session: str, model: Model) -> None:
    world = World(model)
    world.reset(PICTURE, 9)
    frames = [world.step(action).tolist() for action in (1, 0, 0, 2)]
    with client.websocket_connect(f"{WS}{session}/ws", subprotocols=[SUBPROTOCOL]) as socket:
        hello = socket.receive_json()
        assert hello["version"] == 1 and hello["session"]["frame_number"] == 1

        def say(type: str, **more: Any) -> dict[str, Any]:
            socket.send_text(json.dumps({"type": type, **more}))
            return heard(socket)

        got = say("step", action=1)
        assert pixels(got["png"]) == frames[0] and got["action"] == 1 and got["frame_number"] == 2
        socket.send_text(json.dumps({"type": "rollout", "actions": "0*2,2"}))
        assert [pixels(heard(socket)["png"]) for _ in range(3)] == frames[1:]
        assert heard(socket) == {"type": "done", "frames": 3}
        assert say("tokens")["tokens"] == world.tokens.tolist()
        assert say("sampler", steps=1)["steps"] == 1
        assert say("reset", seed=3)["frame_number"] == 1
        socket.send_bytes(file(OTHER))
        assert pixels(heard(socket)["png"]) == world.reset(fit(OTHER, 16, 16), 3).tolist()
        for bad, why in (
            ("x", "not JSON"),
            ('{"type": "fly"}', "unknown type 'fly'"),
            ('{"type": "step"}', "action"),
            ('{"type": "step", "action": 7}', "0…2"),
            ('{"type": "rollout", "actions": {}}', "list of whole numbers"),
            ('{"type": "rollout", "actions": "0*9"}', "1…6"),
            ('{"type": "sampler", "steps": 0}', "steps"),
            ('{"type": "sampler", "speed": 0}', "speed"),
            ('{"type": "sampler", "steps": 65}', "64 are the limit"),
            (json.dumps({"type": "step", "x": "x" * LIMITS.message_bytes}), "are the limit"),
            (b"nonsense", "not a picture"),
        ):
            socket.send_bytes(bad) if isinstance(bad, bytes) else socket.send_text(bad)
            answer = heard(socket)
            assert answer["type"] == "error" and why in answer["error"], answer
        assert say("step", action=0)["frame_number"] == 2
        client.delete(session)
        with pytest.raises(WebSocketDisconnect) as left:
            heard(socket)
        assert left.value.code == 1001


def test_a_websocket_of_no_session_or_another_version(client: TestClient, session: str) -> None:
    with pytest.raises((WebSocketDisconnect, WebSocketDenialResponse)):
        with client.websocket_connect(f"{WS}/v1/sessions/none/ws", subprotocols=[SUBPROTOCOL]):
            pass
    with client.websocket_connect(f"{WS}{session}/ws", subprotocols=["genie-serve.9"]) as socket:
        assert f"speaks {SUBPROTOCOL}" in socket.receive_json()["error"]
