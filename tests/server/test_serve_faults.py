"""`genie-serve` under clients that leave, crowd in, stall and send too much: each gets an error, the others go on."""

from __future__ import annotations

import contextlib
import io
import json
import re
import signal
import socket
import struct
import subprocess
import sysconfig
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from genie_cpp import Model

pytest.importorskip("fastapi")
pytest.importorskip("prometheus_client")
import httpx
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from genie_cpp.play.session import Prompt
from genie_cpp.server.api.sessions import Sessions
from genie_cpp.server.api.websocket import SUBPROTOCOL
from genie_cpp.server.common.limits import Limits, ServeLimits
from genie_cpp.server.page.protocol import SUBPROTOCOL as PLAY_SUBPROTOCOL
from genie_cpp.server.page.shelf import Shelf
from genie_cpp.server.run import api_server, listen
from genie_cpp.server.run import server as play_server

pytestmark = [pytest.mark.heavy, pytest.mark.filterwarnings("ignore:connect.. must be used:DeprecationWarning")]
SERVE = Path(sysconfig.get_path("scripts")) / "genie-serve"
PICTURE = np.random.default_rng(3).integers(0, 256, (16, 16, 3), np.uint8)
LIMITS = ServeLimits(
    sessions=8, picture_bytes=1 << 20, rollout_frames=20_000, idle_seconds=60, receive_seconds=1.5, send_seconds=0.7,
    waiting=2,
)  # fmt: skip


class Running:
    """A server in a thread of this process, and how to talk to it."""

    def __init__(self, model: Model, limits: ServeLimits) -> None:
        listener = listen(0)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # to notice soon a client that does not read
        listener.listen(128)
        self.port = listener.getsockname()[1]
        self.runner = api_server([model], [Prompt(PICTURE)], limits)
        self.sessions: Sessions = self.runner.sessions
        self.thread = threading.Thread(target=self.runner.run, kwargs={"sockets": [listener]})
        self.thread.start()
        self.address = f"http://127.0.0.1:{self.port}"
        self.http = httpx.Client(base_url=self.address, timeout=60)
        until(lambda: self.runner.started)

    def stop(self) -> None:
        self.http.close()
        self.runner.should_exit = True
        self.thread.join(20)
        assert not self.thread.is_alive()

    def create(self) -> str:
        return self.http.post("/v1/sessions").headers["location"]

    def step(self, place: str, action: int = 1) -> httpx.Response:
        return self.http.post(f"{place}/step", json={"action": action})

    def socket(self, place: str, **more: Any) -> Any:
        address = f"ws://127.0.0.1:{self.port}{place}/ws"
        opened = connect(address, subprotocols=[Subprotocol(SUBPROTOCOL)], max_size=None, **more)
        assert json.loads(opened.recv())["type"] == "hello"
        return opened

    def frames(self) -> float:
        found = re.search(r"genie_frames_total\{.*\} (\S+)", self.http.get("/metrics").text)
        return float(found[1]) if found else 0.0


def until(true: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture(scope="module")
def model(tiny_gguf) -> Model:  # type: ignore[no-untyped-def]
    return Model.open(tiny_gguf("q8_0"), threads=1)


@pytest.fixture(scope="module")
def server(model: Model) -> Iterator[Running]:
    running = Running(model, LIMITS)
    yield running
    running.stop()


@pytest.fixture
def other(server: Running) -> Iterator[str]:
    """Another client's session. After the test it must still play, and no other session may be left."""
    place = server.create()
    yield place
    assert server.step(place).status_code == 200
    assert server.http.delete(place).status_code == 204
    until(lambda: len(server.sessions) == 0)


def raw(server: Running, head: str, body: bytes = b"") -> socket.socket:
    """A connection with the beginning of a request."""
    opened = socket.create_connection(("127.0.0.1", server.port), timeout=20)
    opened.sendall(f"{head}\r\nHost: 127.0.0.1\r\n".encode() + body)
    return opened


def upgraded(port: int, path: str, subprotocol: str) -> socket.socket:
    """A websocket that is never read, with small receive buffers."""
    opened = socket.socket()
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    opened.connect(("127.0.0.1", port))
    head = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    keys = "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n"
    opened.sendall((head + keys + f"Sec-WebSocket-Protocol: {subprotocol}\r\n\r\n").encode())
    assert opened.recv(1000).startswith(b"HTTP/1.1 101")
    return opened


def masked(text: str) -> bytes:
    """A short text frame, masked with zeros."""
    return bytes([0x81, 0x80 | len(text), 0, 0, 0, 0]) + text.encode()


def read_all(opened: socket.socket) -> bytes:
    with contextlib.suppress(ConnectionResetError), opened:
        return b"".join(iter(lambda: opened.recv(65536), b""))
    return b""


def test_fifty_sessions_at_once_against_a_limit_of_eight(server: Running, other: str) -> None:
    with ThreadPoolExecutor(50) as pool:
        got = list(pool.map(lambda _: httpx.post(f"{server.address}/v1/sessions", timeout=60), range(50)))
    made = [one for one in got if one.status_code == 201]
    refused = [one for one in got if one.status_code == 503]
    assert (len(made), len(refused)) == (7, 43), {one.status_code: one.text for one in got}
    assert all(one.json()["error"] == "8 sessions are the limit" and one.json()["hint"] for one in refused)
    assert server.step(other).status_code == 200
    for one in made:
        assert server.http.delete(one.headers["location"]).status_code == 204
    again = server.create()
    server.http.delete(again)


def test_an_upload_of_100_mb(server: Running, other: str) -> None:
    body = bytes(100_000_000)
    for content in (body, (body[at : at + 1_000_000] for at in range(0, len(body), 1_000_000))):
        got = server.http.post(f"{other}/reset", content=content)  # with a content length, and without
        assert got.status_code == 413 and "1048576 bytes are the limit" in got.json()["error"]
        assert server.step(other).status_code == 200
    with server.socket(other) as opened, pytest.raises(ConnectionClosed) as closed:
        opened.send(body)
        opened.recv()
    assert closed.value.rcvd is None or closed.value.rcvd.code == 1009


def test_a_picture_bomb(server: Running, other: str) -> None:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    rows = zlib.compress(bytes(50_000_000), 9)
    text = b"c\0\0" + zlib.compress(bytes(400_000_000), 9)
    for bomb, why in (
        (chunk(b"IHDR", header) + chunk(b"IDAT", rows), "too large"),
        (chunk(b"IHDR", struct.pack(">IIBBBBB", 16, 16, 8, 2, 0, 0, 0)) + chunk(b"zTXt", text), "picture"),
    ):
        data = b"\x89PNG\r\n\x1a\n" + bomb + chunk(b"IEND", b"")
        got = server.http.post(f"{other}/reset", content=data)
        assert got.status_code == 400 and why in got.json()["error"], got.text
    gif = io.BytesIO()
    blank = Image.new("P", (4001, 4001))
    blank.save(gif, "GIF")
    got = server.http.post(f"{other}/reset", content=gif.getvalue())
    assert got.status_code == 400 and "4001x4001" in got.json()["error"]


def test_a_body_that_does_not_come(server: Running, other: str) -> None:
    head = f"POST {other}/reset HTTP/1.1"
    stalled = [raw(server, head, b"Content-Length: 5000\r\n\r\nhalf") for _ in range(5)]
    assert server.step(other).status_code == 200
    for one in stalled:
        answer = read_all(one)
        assert answer.startswith(b"HTTP/1.1 408 ") and b"took more than 1.5 s" in answer


def test_noise_instead_of_requests(server: Running, other: str) -> None:
    for noise in (b"\x16\x03\x01\x02\x00" * 20, b"GET / HTTP/9.9\r\n\r\n", b"\0" * 1000, b"A" * 100_000):
        opened = socket.create_connection(("127.0.0.1", server.port), timeout=20)
        with contextlib.suppress(OSError):
            opened.sendall(noise)
            opened.shutdown(socket.SHUT_WR)
            read_all(opened)
        opened.close()
    assert server.http.get("/health").json()["status"] == "ok"


def test_a_client_gone_in_the_middle_of_a_rollout(server: Running, other: str) -> None:
    place = server.create()
    server.http.patch(f"{place}/sampler", json={"steps": 64})
    body = json.dumps({"actions": "1*20000"})
    begun = server.frames()
    opened = raw(
        server, f"POST {place}/rollout HTTP/1.1",
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode(),
    )  # fmt: skip
    until(lambda: server.frames() > begun + 3)
    assert server.step(other).status_code == 200  # while the rollout runs
    opened.close()
    assert server.step(place).status_code == 200  # it waited its turn: the rollout has ended
    assert server.frames() < begun + 5000
    websocket = server.socket(place)
    websocket.send(body[:1] + '"type": "rollout", ' + body[1:])
    websocket.recv()
    websocket.socket.shutdown(socket.SHUT_RDWR)  # leaves without closing
    session = server.sessions.find(place.rpartition("/")[2])
    until(lambda: not session.sockets)
    assert server.step(place).status_code == 200
    server.http.delete(place)


def test_a_client_that_does_not_read(server: Running, other: str) -> None:
    place = server.create()
    slow = upgraded(server.port, f"{place}/ws", SUBPROTOCOL)
    slow.sendall(masked('{"type": "rollout", "actions": "1*20000"}'))
    before = "genie_slow_clients_total 0.0"
    until(lambda: server.frames() > 3)
    deadline = time.monotonic() + 30
    while before in server.http.get("/metrics").text:
        assert server.step(other).status_code == 200  # other clients are not slowed down
        assert time.monotonic() < deadline
    session = server.sessions.find(place.rpartition("/")[2])
    until(lambda: not session.sockets)
    assert server.step(place).status_code == 200  # the client may come back
    slow.close()
    server.http.delete(place)


def test_a_page_that_does_not_read(model: Model) -> None:
    listener = listen(0)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    listener.listen(8)
    runner = play_server(Shelf([model], [Prompt(PICTURE)]), Limits(send_seconds=0.7))
    thread = threading.Thread(target=runner.run, kwargs={"sockets": [listener]})
    thread.start()
    players = runner.config.app.state.players  # type: ignore[union-attr]
    port = listener.getsockname()[1]
    slow = upgraded(port, "/ws", PLAY_SUBPROTOCOL)
    with connect(f"ws://127.0.0.1:{port}/ws", subprotocols=[Subprotocol(PLAY_SUBPROTOCOL)]) as other:
        world = json.dumps({"type": "world", "name": json.loads(other.recv())["world"]})
        other.send(world)
        other.recv()
        slow.settimeout(0.2)
        with contextlib.suppress(OSError):
            for text in (world, *['{"type": "reset"}'] * 20_000):
                slow.sendall(masked(text))
        until(lambda: players.connected == 1)
        other.send('{"type": "reset"}')
        assert isinstance(other.recv(), bytes)
    slow.close()
    runner.should_exit = True
    thread.join(20)
    assert not thread.is_alive()


def test_two_tabs_on_one_session(server: Running, other: str) -> None:
    def play(opened: Any) -> list[int]:
        numbers = []
        for _ in range(20):
            opened.send(json.dumps({"type": "step", "action": 1}))
            answer = opened.recv()
            (length,) = struct.unpack_from("<I", answer)
            numbers.append(json.loads(answer[4 : 4 + length])["frame_number"])
        return numbers

    with server.socket(other) as first, server.socket(other) as second, ThreadPoolExecutor(2) as pool:
        one, two = pool.map(play, (first, second))
    assert sorted(one + two) == list(range(2, 42)) and one == sorted(one) and two == sorted(two)
    server.http.patch(f"{other}/sampler", json={"steps": 64})
    with ThreadPoolExecutor(12) as pool:
        address = f"{server.address}{other}/rollout"
        got = list(pool.map(lambda _: httpx.post(address, json={"actions": "1*10"}, timeout=60), range(12)))
    codes = {one.status_code for one in got}
    assert codes <= {200, 429} and 200 in codes  # which of them come first is random
    assert all("wait for this session" in one.json()["error"] for one in got if one.status_code == 429)
    numbers = [one.json()["frame_number"] for one in got if one.status_code == 200]
    assert sorted(numbers) == [41 + 10 * (i + 1) for i in range(len(numbers))]


def test_deleted_while_stepping(server: Running, other: str) -> None:
    place = server.create()
    server.http.patch(f"{place}/sampler", json={"steps": 64})
    with ThreadPoolExecutor(1) as pool:
        begun = server.frames()
        running = pool.submit(httpx.post, f"{server.address}{place}/rollout", json={"actions": "1*20000"}, timeout=60)
        until(lambda: server.frames() > begun + 3)
        assert server.http.delete(place).status_code == 204
        assert running.result().status_code == 404
    assert server.step(place).status_code == 404


def test_idle_sessions_end(model: Model) -> None:
    server = Running(model, ServeLimits(idle_seconds=0.8))
    try:
        idle, busy = server.create(), server.create()
        with server.socket(idle) as opened:
            deadline = time.monotonic() + 20
            while len(server.sessions) == 2:
                assert server.step(busy).status_code == 200 and time.monotonic() < deadline
            with pytest.raises(ConnectionClosed) as closed:
                opened.recv(timeout=10)
            assert closed.value.rcvd is not None and closed.value.rcvd.code == 1001
        assert server.step(idle).status_code == 404 and server.step(busy).status_code == 200
        assert 'genie_sessions_closed_total{reason="idle"} 1.0' in server.http.get("/metrics").text
    finally:
        server.stop()


@pytest.fixture
def place(tmp_path: Path, tiny_gguf) -> Path:  # type: ignore[no-untyped-def]
    (tmp_path / "w.gguf").write_bytes(tiny_gguf("q8_0").read_bytes())
    Image.fromarray(PICTURE).save(tmp_path / "w.png")
    return tmp_path


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_stopped_while_stepping(place: Path, how: signal.Signals) -> None:
    process = subprocess.Popen(
        [SERVE, "-m", "w.gguf", "--port", "0", "--max-frames", "100000"],
        cwd=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None and process.stderr is not None
    found = re.search(r"http://127\.0\.0\.1:\d+/", process.stdout.readline())
    assert found
    with httpx.Client(base_url=found[0], timeout=60) as http, ThreadPoolExecutor(2) as pool:
        where = [http.post("/v1/sessions").headers["location"] for _ in range(2)]
        asked = [pool.submit(http.post, f"{one}/rollout", json={"actions": "1*100000"}) for one in where]
        until(lambda: bool(re.search(r"genie_frames_total\{.*\} \d\d", http.get("/metrics").text)))
        process.send_signal(how)
        assert process.wait(20) in (0, -how)
        for one in asked:
            with pytest.raises(httpx.HTTPError):
                one.result(20).raise_for_status()
    assert "Traceback" not in (said := process.stderr.read()), said
    process.stdout.close()
    process.stderr.close()


def test_faults_of_the_command(place: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(1)
        for words, why in (
            (["--port", str(taken.getsockname()[1])], "cannot be used"),
            (["--host", "0.0.0.0", "--port", "0"], "GENIE_API_KEY"),
            (["--host", "nowhere.invalid"], "not an address of this machine"),
            (["--api-key", "short"], "16 to 1024"),
            (["--cors-origin", "*"], "not an origin"),
            (["-m", "none.gguf"], "none.gguf"),
        ):
            done = subprocess.run(
                [SERVE, "-m", "w.gguf", *words], cwd=place, capture_output=True, text=True, check=False
            )
            assert done.returncode == 1 and why in done.stderr and "Traceback" not in done.stderr, done.stderr
            assert done.stderr.startswith("error: ")
