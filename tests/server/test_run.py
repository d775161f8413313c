"""`genie-play` as a process, under clients that leave, crowd in, and send too much."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sysconfig
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fastapi")
pytest.importorskip("websockets")
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from genie_cpp.server.common.limits import Limits
from genie_cpp.server.page.protocol import SUBPROTOCOL

pytestmark = [pytest.mark.heavy, pytest.mark.filterwarnings("ignore:connect.. must be used:DeprecationWarning")]
PLAY = Path(sysconfig.get_path("scripts")) / "genie-play"


@pytest.fixture
def place(tmp_path: Path, tiny_gguf) -> Path:  # type: ignore[no-untyped-def]
    """A folder with w.gguf and its start picture w.png."""
    (tmp_path / "w.gguf").write_bytes(tiny_gguf("q8_0").read_bytes())
    Image.fromarray(np.random.default_rng(3).integers(0, 256, (16, 16, 3), np.uint8)).save(tmp_path / "w.png")
    return tmp_path


@pytest.fixture
def running(place: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    words = [PLAY, "-m", "w.gguf,v.gguf", "--port", "0", "--no-open"]
    (place / "v.gguf").write_bytes((place / "w.gguf").read_bytes())
    process = subprocess.Popen(words, cwd=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    found = re.search(r"http://127\.0\.0\.1:\d+/", line)
    assert found, line
    yield process, found[0]
    process.kill()
    process.wait()


def open_session(address: str) -> Any:
    """A websocket whose hello was read; None if the server is full."""
    socket = connect(address.replace("http", "ws") + "ws", subprotocols=[Subprotocol(SUBPROTOCOL)], max_size=None)
    return socket if json.loads(socket.recv())["type"] == "hello" else None


def say(socket: Any, **message: Any) -> Any:
    socket.send(json.dumps(message))
    return socket.recv()


def play(socket: Any) -> None:
    assert json.loads(say(socket, type="world", name="w.gguf"))["prompt"]
    assert isinstance(say(socket, type="reset"), bytes)
    assert isinstance(say(socket, type="step", action=1), bytes)


def test_fifty_clients_come_and_go(running: tuple[subprocess.Popen[str], str]) -> None:
    _, address = running
    first = open_session(address)
    play(first)
    opened = [open_session(address) for _ in range(49)]
    assert sum(one is not None for one in opened) == Limits().sessions - 1
    for one in filter(None, opened):
        say(one, type="world", name="v.gguf")
        one.send(json.dumps({"type": "step", "action": 1}))
        one.socket.shutdown(socket.SHUT_RDWR)  # leaves without closing, while an answer is on its way
    deadline = time.monotonic() + 30
    while (again := open_session(address)) is None:
        assert time.monotonic() < deadline, "a client that is gone keeps its place"
        time.sleep(0.1)
    play(again)
    assert isinstance(say(first, type="step", action=2), bytes)


def test_a_message_of_100_mb(running: tuple[subprocess.Popen[str], str]) -> None:
    _, address = running
    first, second = open_session(address), open_session(address)
    play(first)
    with pytest.raises(ConnectionClosed) as closed:
        second.send(bytes(100_000_000))
        second.recv()
    assert closed.value.rcvd is None or closed.value.rcvd.code == 1009
    assert isinstance(say(first, type="step", action=2), bytes)


def test_ctrl_c_while_stepping(running: tuple[subprocess.Popen[str], str]) -> None:
    process, address = running
    with urllib.request.urlopen(address) as page:
        assert b"<canvas" in page.read()
    session = open_session(address)
    play(session)
    for _ in range(20):
        session.send(json.dumps({"type": "step", "action": 1}))
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 0
    assert process.stderr is not None and process.stderr.read() == ""
    with pytest.raises(ConnectionClosed):
        while True:
            session.recv()


def test_faults_of_the_command(place: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(1)
        for words, why in (
            (["-m", "w.gguf", "--port", str(taken.getsockname()[1])], "cannot be used"),
            (["-m", "none.gguf"], "none.gguf"),
            (["-m", "w.gguf", "-p", "w.gguf"], "not a picture"),
        ):
            done = subprocess.run([PLAY, "--no-open", *words], cwd=place, capture_output=True, text=True, check=False)
            assert done.returncode == 1 and why in done.stderr and "Traceback" not in done.stderr
