"""Silent connections, odd headers and too few descriptors: correct requests are still answered."""

from __future__ import annotations

import contextlib
import re
import resource
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from genie_cpp import Model

pytest.importorskip("fastapi")
pytest.importorskip("prometheus_client")
import httpx

from genie_cpp.server.common.limits import ServeLimits

from .test_serve_faults import SERVE, Running

pytestmark = [pytest.mark.heavy, pytest.mark.filterwarnings("ignore:connect.. must be used:DeprecationWarning")]
LIMITS = ServeLimits(sessions=4, connections=16, address_connections=12, header_seconds=1.0)


@pytest.fixture(scope="module")
def server(tiny_gguf) -> Iterator[Running]:  # type: ignore[no-untyped-def]
    running = Running(Model.open(tiny_gguf("q8_0"), threads=1), LIMITS)
    yield running
    running.stop()


def silent(server: Running, count: int, says: bytes = b"") -> list[socket.socket]:
    opened = [socket.create_connection(("127.0.0.1", server.port), timeout=20) for _ in range(count)]
    for one in opened:
        if says:
            with contextlib.suppress(OSError):
                one.sendall(says)
    return opened


def closed(one: socket.socket) -> bool:
    one.settimeout(20)
    try:
        while one.recv(4096):
            pass
    except ConnectionError:
        pass
    return True


@pytest.mark.parametrize("says", [b"", b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Half: a head"])
def test_silent_connections_do_not_keep_others_out(server: Running, says: bytes) -> None:
    opened = silent(server, 64, says)
    for _ in range(3):
        with httpx.Client(base_url=server.address, timeout=20) as client:
            assert client.get("/health").status_code == 200
    assert all(closed(one) for one in opened)  # in time, without further data


def test_a_connection_that_is_kept_is_not_kept_for_ever(server: Running) -> None:
    (one,) = silent(server, 1, b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    one.settimeout(20)
    assert one.recv(4096).startswith(b"HTTP/1.1 200")
    one.sendall(b"GET /hea")
    started = time.monotonic()
    assert closed(one) and time.monotonic() - started < 10


def test_websockets_that_ended_take_no_room(server: Running) -> None:
    place = server.create()
    for _ in range(LIMITS.connections + 4):
        with server.socket(place):
            pass
    assert httpx.get(f"{server.address}/health", timeout=20).status_code == 200
    server.http.delete(place)


def test_a_long_answer_is_not_cut_short(server: Running) -> None:
    place = server.create()
    done = server.http.post(f"{place}/rollout?format=npy", json={"actions": "1*200"})
    assert done.status_code == 200
    server.http.delete(place)


def answer(server: Running, head: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as one:
        one.sendall(head)
        found = b""
        with contextlib.suppress(ConnectionError, TimeoutError):
            while part := one.recv(4096):
                found += part
        return found


@pytest.mark.parametrize("head", [b"Host: [", b"Host: [::1", b"Host: 127.0.0.1\r\nOrigin: http://[", b"Host: \xff"])
def test_addresses_that_are_none_are_refused(server: Running, head: bytes) -> None:
    got = answer(server, b"GET /v1/models HTTP/1.1\r\n" + head + b"\r\nConnection: close\r\n\r\n")
    assert re.match(rb"HTTP/1.1 (400|403) ", got), got


def test_a_request_with_a_length_and_an_encoding_is_the_last_on_its_connection(server: Running) -> None:
    place = server.create()
    head = f"POST {place}/step HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    body = b'{"action": 1}'
    smuggled = b"GET /v1/models HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    lengths = f"Content-Length: {len(body)}\r\nTransfer-Encoding: chunked\r\n\r\n{len(body):x}\r\n"
    got = answer(server, head.encode() + lengths.encode() + body + b"\r\n0\r\n\r\n" + smuggled)
    assert got.startswith(b"HTTP/1.1 400 ") and got.count(b"HTTP/1.1 ") == 1, got
    server.http.delete(place)


@pytest.mark.parametrize("method", ["HEAD", "GET", "POST"])
def test_a_body_that_is_none_closes_the_connection(server: Running, method: str, caplog) -> None:  # type: ignore[no-untyped-def]
    """The answer may already have begun when the rest of the request turns out not to be a valid chunk."""
    head = f"{method} /health HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    for rest in (b"\x89PNG\r\n\x1a", b"5\r\nabcde\r\nzz\r\n"):
        (one,) = silent(server, 1, head.encode() + rest)
        assert closed(one)
    assert "Traceback" not in caplog.text and "Fatal" not in caplog.text
    with httpx.Client(base_url=server.address, timeout=20) as client:
        assert client.get("/health").status_code == 200


def test_methods_that_somebody_made_up_are_one_label(server: Running) -> None:
    for k in range(20):
        answer(server, f"M{k} /v1/models HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
    text = server.http.get("/metrics").text
    assert 'method="other"' in text and 'method="M' not in text


def test_few_descriptors_are_said_once(tiny_gguf, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    log = tmp_path / "log"

    def few() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))

    with log.open("wb") as errors:
        words = [SERVE, "-m", tiny_gguf("q8_0"), "--port", "0", "-t", "1"]
        running = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=errors, preexec_fn=few, text=True)
    try:
        assert running.stdout is not None
        port = int(re.search(r":(\d+)/", running.stdout.readline())[1])  # type: ignore[index]
        opened = [socket.create_connection(("127.0.0.1", port), timeout=20) for _ in range(60)]
        time.sleep(3)
        for one in opened:
            one.close()
        until = time.monotonic() + 20
        while True:
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"http://127.0.0.1:{port}/health", timeout=5).status_code == 200:
                    break
            assert time.monotonic() < until
        assert running.poll() is None
    finally:
        running.terminate()
        running.wait(20)
    text = log.read_text(encoding="utf-8", errors="replace")
    assert len(text) < 2000 and "Traceback" not in text and "out of file descriptors" in text
