"""Noise for genie-serve and genie-play, over raw TCP and their websockets: no 500, no traceback, and still alive."""

from __future__ import annotations

import atexit
import contextlib
import io
import json
import random
import re
import socket
import subprocess
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import mutate
import numpy as np
from fuzz_worlds import random_model
from PIL import Image
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect
from websockets.typing import Subprotocol

SCRIPTS = Path(sysconfig.get_path("scripts"))
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "BREW")
MESSAGES: tuple[dict[str, Any], ...] = (
    {"type": "step", "action": 0}, {"type": "rollout", "actions": "0*3"}, {"type": "reset", "seed": 1},
    {"type": "tokens"}, {"type": "sampler", "steps": 2}, {"type": "seek", "depth": 1}, {"type": "bookmark"},
    {"type": "goto", "id": 1}, {"type": "forget", "id": 1}, {"type": "replay", "steps": 3},
    {"type": "settings", "steps": 2, "temperature": 0.5}, {"type": "world", "name": "maze"},
    {"type": "start", "number": 0}, {"type": "explain"}, {"type": "worlds"}, {"type": "show"},
    {"type": "fetch", "name": "nowhere"},
)  # fmt: skip


class Server:
    """A program that listens on a free port, and its output so far."""

    def __init__(self, name: str, model: Path, folder: Path, *words: str) -> None:
        self.log = folder / f"{name}.log"
        with self.log.open("wb") as file:
            command = [SCRIPTS / name, "-m", model, "--port", "0", "-t", "1", *words]
            self.process = subprocess.Popen([str(word) for word in command], stdout=file, stderr=file)
        atexit.register(self.process.kill)
        deadline = time.monotonic() + 60
        while not (found := re.search(r"http://127\.0\.0\.1:(\d+)", self.text())):
            assert time.monotonic() < deadline and self.process.poll() is None, self.text()
            time.sleep(0.05)
        self.port = int(found[1])
        self.address = f"http://127.0.0.1:{self.port}"

    def text(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def check(self) -> None:
        """Alive, answering, and without a traceback."""
        assert self.process.poll() is None, self.text()[-2000:]
        assert "Traceback" not in self.text(), self.text()[-2000:]
        assert self.log.stat().st_size < 1 << 20, "it writes without end"

    def send(self, raw: bytes, seconds: float = 0.2) -> bytes:
        """The answer to raw bytes."""
        got = b""
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 10) as opened:
            opened.settimeout(seconds)
            opened.sendall(raw)
            while len(got) < 1 << 16 and (piece := opened.recv(1 << 14)):
                got += piece
        return got


def prepare(folder: Path) -> Callable[[int], None]:
    model = random_model(random.Random(1), folder)
    serve = Server("genie-serve", model, folder, "--max-sessions", "20", "--idle", "5")
    play = Server("genie-play", model, folder)
    client = httpx.Client(base_url=serve.address, timeout=30)
    state: dict[str, Any] = {"place": ""}
    picture = io.BytesIO()
    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(picture, "PNG")

    def session() -> str:
        """Open a session."""
        if not state["place"] or client.get(f"{state['place']}/tokens").status_code != 200:
            made = client.post("/v1/sessions", content=picture.getvalue())
            assert made.status_code in (201, 503), made.text
            state["place"] = made.headers.get("location", "")
        return str(state["place"]) or "/v1/sessions/x"

    def request(rng: random.Random) -> bytes:
        path = rng.choice(("/", "/v1/sessions", "/v1/models", "/metrics", "/openapi.json", "/ws", f"{session()}/step",
                           f"{session()}/rollout", f"{session()}/state", f"{session()}/frame"))  # fmt: skip
        body = rng.choice((b"", picture.getvalue(), json.dumps(mutate.tree(MESSAGES[0], rng)).encode(errors="replace"),
                           b"[" * 3000, rng.randbytes(300)))  # fmt: skip
        headers = [b"Host: 127.0.0.1", b"Content-Length: " + str(len(body)).encode(), b"Connection: close"]
        for _ in range(rng.randrange(3)):
            headers.append(rng.choice((
                b"Host: [", b"Origin: http://[", b"Origin: null", b"Transfer-Encoding: chunked",
                b"Expect: 100-continue", b"Content-Length: -1",
                b"Authorization: Bearer \xff\xfe", b"Content-Type: " + rng.randbytes(9),
                b"Upgrade: websocket", b"Sec-WebSocket-Key: x", b"Range: bytes=0-", b"X: " + b"y" * 9000,
                b"Accept-Encoding: " + b"gzip," * 500,
            )))  # fmt: skip
        method = rng.choice(METHODS).encode()
        return method + b" " + path.encode() + b" HTTP/1.1\r\n" + b"\r\n".join(headers) + b"\r\n\r\n" + body

    def spoken(rng: random.Random, server: Server, path: str, protocol: str) -> None:
        with contextlib.suppress(WebSocketException, OSError, TimeoutError):
            with connect(
                server.address.replace("http", "ws") + path,
                subprotocols=[Subprotocol(protocol)],
                origin=server.address,
                open_timeout=20,
                max_size=None,
            ) as opened:  # type: ignore[arg-type]
                if server is play and rng.random() < 0.8:
                    hello = json.loads(opened.recv(timeout=20))
                    if hello["type"] == "hello":
                        opened.send(json.dumps({"type": "world", "name": hello["world"]}))
                        opened.recv(timeout=20)
                for _ in range(rng.randint(1, 6)):
                    kind = rng.random()
                    if kind < 0.7:
                        text = json.dumps(
                            mutate.tree(rng.choice(MESSAGES), rng) if kind < 0.6 else rng.choice(MESSAGES)
                        )
                        opened.send(text.encode(errors="replace").decode(errors="replace"))
                    elif kind < 0.9:
                        opened.send(mutate.data(picture.getvalue(), rng))
                    else:
                        opened.send("\ud7ff" * rng.choice((0, 1, 5000)))
                    with contextlib.suppress(TimeoutError):
                        answer = opened.recv(timeout=0.05)
                        if isinstance(answer, str) and '"error"' in answer:
                            assert "Traceback" not in answer and not re.search(r"\b0x[0-9a-f]{6,}", answer), answer

    def one(seed: int) -> None:
        rng = random.Random(seed)
        kind = rng.random()
        server = rng.choice((serve, play))
        if kind < 0.6:
            raw = request(rng)
            got = server.send(mutate.data(raw, rng) if rng.random() < 0.5 else raw)
            assert not got.startswith(b"HTTP/1.1 500"), (raw[:500], got[:1000])
        elif kind < 0.7:
            server.send(rng.randbytes(rng.choice((1, 20, 3000))), 0.05)
        elif server is serve:
            spoken(rng, serve, f"{session()}/ws", "genie-serve.1")
        else:
            spoken(rng, play, "/ws", "genie-play.2")
        server.check()
        if seed % 50 == 0:
            assert client.get("/v1/models").status_code == 200
            assert httpx.get(play.address, timeout=30).status_code == 200

    return one
