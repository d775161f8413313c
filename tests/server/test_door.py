"""Who is let in to genie-play's page: this machine's own pages, and whoever has the key."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from genie_cpp import Model

pytest.importorskip("fastapi")
from fastapi.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from genie_cpp.play.session import Prompt
from genie_cpp.server.common.limits import Limits
from genie_cpp.server.page.app import create_app
from genie_cpp.server.page.protocol import SUBPROTOCOL
from genie_cpp.server.page.shelf import Shelf

PICTURE = np.random.default_rng(3).integers(0, 256, (16, 16, 3), np.uint8)
COOKIE = "genie_key_8173"
HOME = "http://10.0.0.7:8173"
FILES = ("/", "/static/play.js", "/starts/0.png?world=tiny", "/invite.svg", "/sessions/a/0/session.genie")

Open = Callable[..., TestClient]


@pytest.fixture
def opened(tiny_gguf: Callable[[str], Path]) -> Open:
    """opened(key=…) -> a client that follows no redirection and keeps no cookie."""
    model = Model.open(tiny_gguf("q8_0"), threads=1)

    def make(home: str = HOME, **more: str) -> TestClient:
        app = create_app(Shelf([model], [Prompt(PICTURE)]), Limits(sessions=2), port=8173, **more)  # type: ignore[arg-type]
        return TestClient(app, home, follow_redirects=False)

    return make


def plays(client: TestClient, path: str = "/ws", **headers: str) -> bool:
    try:
        with client.websocket_connect(f"ws://x{path}", [SUBPROTOCOL], headers=headers) as socket:
            return bool(socket.receive_json()["type"] == "hello")
    except WebSocketDisconnect:
        return False


def test_the_key_comes_once_and_becomes_a_cookie(opened: Open) -> None:
    client = opened(key="sesame")
    answer = client.get("/?key=sesame&world=maze")
    assert answer.status_code == 303 and answer.headers["location"] == "./?world=maze"
    cookie = answer.headers["set-cookie"].lower()
    assert cookie.startswith(f"{COOKIE}=sesame;") and "httponly" in cookie and "samesite=strict" in cookie
    assert client.get("/").status_code == 200  # by the cookie
    client.cookies.clear()
    for path in FILES:
        assert client.get(path).status_code == 401, path


@pytest.mark.parametrize(
    ("cookie", "lets_in"),
    [
        (f"{COOKIE}=sesame", True),
        (f"other=1; {COOKIE}=sesame", True),
        (f"{COOKIE}=sesam", False),
        (f"{COOKIE}=", False),
        ("genie_key_8174=sesame", False),  # of another port
        ("\x00;;=", False),
        (f"{COOKIE}=\u00e9", False),
    ],
)
def test_cookies(cookie: str, lets_in: bool, opened: Open) -> None:
    client = opened(key="sesame")
    headers = {"cookie": cookie.encode("latin-1")}
    assert client.get("/", headers=headers).status_code == (200 if lets_in else 401)  # type: ignore[arg-type]
    assert plays(client, host="10.0.0.7:8173", **headers) == lets_in  # type: ignore[arg-type]


def test_another_sites_page_may_not_play_even_with_the_key(opened: Open) -> None:
    client, key = opened(key="sesame"), f"{COOKIE}=sesame"
    assert plays(client, cookie=key, host="10.0.0.7:8173", origin=HOME)
    assert plays(client, "/ws?key=sesame", host="10.0.0.7:8173")  # a program, which names no page
    assert not plays(client, cookie=key, host="10.0.0.7:8173", origin="http://evil.example")
    assert not plays(client, cookie=key, host="10.0.0.7:8173", origin="null")
    assert not plays(client, cookie=key, host="10.0.0.7:8173", origin="http://10.0.0.7:8174")
    proxied = {"host": "127.0.0.1:8173", "x-forwarded-host": "play.example", "cookie": key}
    assert plays(client, origin="https://play.example", **proxied)
    assert not plays(client, origin="https://evil.example", **proxied)


@pytest.mark.parametrize("host", ["127.0.0.1:8173", "localhost", "[::1]:8173"])
def test_without_a_key_this_machines_names_are_answered(host: str, opened: Open) -> None:
    client = opened()
    assert client.get("/", headers={"host": host}).status_code == 200
    assert plays(client, host=host, origin=f"http://{host}")
    assert not plays(client, host=host, origin="http://evil.example")


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "10.0.0.7", "", "[", "localhost."])
def test_without_a_key_no_other_name_is(host: str, opened: Open) -> None:
    client = opened()
    for path in FILES:
        assert client.get(path, headers={"host": host}).status_code == 400, path
    assert not plays(client, host=host)
    assert not plays(client, host=host, **{"x-forwarded-host": "localhost"})


def test_a_path_before_the_page(opened: Open) -> None:
    """A proxy may take it away or leave it."""
    client = opened(key="sesame", root_path="/user/me")
    for path in ("/", "/user/me/"):
        answer = client.get(f"{path}?key=sesame")
        assert answer.status_code == 303 and answer.headers["location"] == "./"
        assert "Path=/user/me" in answer.headers["set-cookie"]
    client.cookies.clear()
    for path in ("/", "/user/me/", "/static/play.js", "/user/me/static/play.js"):
        assert client.get(path, headers={"cookie": f"{COOKIE}=sesame"}).status_code == 200, path
        assert client.get(path).status_code == 401, path


def test_nothing_is_fetched_for_players_from_elsewhere(opened: Open) -> None:
    client = opened(key="sesame")
    with client.websocket_connect("ws://x/ws?key=sesame", [SUBPROTOCOL]) as socket:
        hello = socket.receive_json()
        assert {row["state"] for row in hello["worlds"]} == {"here"}
        socket.send_json({"type": "fetch", "name": "tinyworlds:sonic"})
        assert socket.receive_json()["type"] == "error"
