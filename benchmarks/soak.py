"""`make soak`: genie-serve under clients that come, go, crowd in and misbehave. Its memory must stay flat.

Clients open sessions, from the model's picture and from their own, and step, roll out, save and restore them over REST
and the websocket; then they delete them, leave them to idle out, or vanish in the middle of a rollout. Some send noise,
too much data, or decompression bombs. Every answer must be one that docs/serving.md allows. Memory is what the server's
own /metrics reports. Exit code 1: memory grew, sessions were left over, or an answer was wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import json
import random
import re
import signal
import socket
import struct
import subprocess
import sys
import sysconfig
import threading
import time
import warnings
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Subprotocol

SERVE = Path(sysconfig.get_path("scripts")) / "genie-serve"
IDLE, CLIENTS = 3, 12
GROWTH_MIB = 10.0  # growth of the ninth decile (all sessions open) from the second quarter to the last


class IdledOut(Exception):
    """The machine was so busy that the client itself was too late. Not a fault of the server."""


class Client(threading.Thread):
    """Sessions one after another, until told to stop."""

    def __init__(self, address: str, seed: int, stop: threading.Event, tally: Counter[str], faults: list[str]) -> None:
        super().__init__(daemon=True)
        self.address, self.stop, self.tally, self.faults = address, stop, tally, faults
        self.rng = random.Random(seed)
        self.http = httpx.Client(base_url=address, timeout=120)
        self.answered = 0.0

    def run(self) -> None:
        try:
            while not self.stop.is_set():
                with contextlib.suppress(IdledOut):
                    self.session()
        except Exception as error:  # any exception fails the run
            if not self.stop.is_set():
                self.faults.append(f"{type(error).__name__}: {error}"[:300])

    def ask(self, method: str, path: str, *allowed: int, **more: Any) -> httpx.Response:
        got = self.http.request(method, path, **more)
        silent, self.answered = time.monotonic() - self.answered, time.monotonic()
        words = path.partition("?")[0].split("/")
        self.tally[
            f"{method} {words[4] if len(words) > 4 else words[-1] if method != 'DELETE' else ''} {got.status_code}"
        ] += 1
        if got.status_code == 404 and silent > IDLE:
            raise IdledOut
        if got.status_code not in (allowed or (200, 201, 204)):
            self.faults.append(f"{method} {path}: {got.status_code} {got.text[:200]}")
        return got

    def session(self) -> None:
        picture = self.rng.random() < 0.5
        made = self.ask(
            "POST",
            f"/v1/sessions?seed={self.rng.getrandbits(32)}",
            201,
            503,
            content=self.picture() if picture else b"",
        )
        if made.status_code == 503:
            time.sleep(self.rng.random())
            return
        place = made.headers["location"]
        self.ask("PATCH", f"{place}/sampler", json={"steps": self.rng.randint(1, 4)})
        for _ in range(self.rng.randint(1, 8)):
            self.rng.choice((self.step, self.rollout, self.states, self.talk, self.misbehave, self.reset))(place)
        ending = self.rng.random()
        if ending < 0.6:
            self.ask("DELETE", place)
        elif ending < 0.8:
            self.vanish(place)

    def picture(self) -> bytes:
        return self.rng.choice(pictures())

    def action(self) -> int:
        return self.rng.randrange(4)

    def step(self, place: str) -> None:
        kind = self.rng.choice(("png", "npy", "json"))
        self.ask("POST", f"{place}/step?format={kind}", json={"action": self.action()})

    def rollout(self, place: str) -> None:
        self.ask("POST", f"{place}/rollout", json={"actions": [self.action() for _ in range(self.rng.randint(1, 40))]})

    def reset(self, place: str) -> None:
        self.ask("POST", f"{place}/reset", content=self.picture() if self.rng.random() < 0.5 else b"")

    def states(self, place: str) -> None:
        state = self.ask("GET", f"{place}/state").content
        self.ask("POST", f"{place}/step", json={"action": self.action()})
        self.ask("PUT", f"{place}/state", content=state)
        self.ask("GET", f"{place}/tokens")

    def talk(self, place: str) -> None:
        try:
            with connect(
                self.address.replace("http", "ws") + f"{place}/ws",
                subprotocols=[Subprotocol("genie-serve.1")],
                max_size=None,
            ) as opened:
                opened.recv()
                for _ in range(self.rng.randint(1, 10)):
                    opened.send(json.dumps({"type": "step", "action": self.action()}))
                    opened.recv()
                if self.rng.random() < 0.3:  # leaves while an answer is on its way
                    opened.send(json.dumps({"type": "rollout", "actions": "1*30"}))
                    opened.socket.shutdown(socket.SHUT_RDWR)
            self.tally["websocket"] += 1
        except (ConnectionClosed, InvalidStatus, OSError):
            self.tally["websocket, ended"] += 1

    def misbehave(self, place: str) -> None:
        what = self.rng.randrange(5)
        if what == 0:
            self.ask(
                "POST", f"{place}/step", 400, 422, content=b"[" * 1000, headers={"content-type": "application/json"}
            )
        elif what == 1:
            self.ask("POST", f"{place}/reset", 413, content=bytes(20_000_000))
        elif what == 2:
            self.ask("POST", f"{place}/reset", 400, content=bomb())
        elif what == 3:
            self.ask("PUT", f"{place}/state", 400, content=self.rng.randbytes(1000))
        else:
            self.ask("GET", "/metrics")

    def vanish(self, place: str) -> None:
        host, _, port = self.address.removeprefix("http://").partition(":")
        body = b'{"actions": "1*200"}'
        with contextlib.suppress(OSError), socket.create_connection((host, int(port))) as opened:
            head = f"POST {place}/rollout HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
            opened.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            time.sleep(0.2)
        self.tally["vanished"] += 1


@functools.cache
def pictures() -> list[bytes]:
    """Made only once, because the clients' own work should not be measured."""
    made, rng = [], np.random.default_rng(0)
    for side, kind in ((64, "PNG"), (200, "WEBP"), (600, "PNG"), (2000, "JPEG")):
        out = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (side, side, 3), np.uint8)).save(out, kind)
        made.append(out.getvalue())
    return made


@functools.cache
def bomb() -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 12_000, 12_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(5_000_000), 9))
        + chunk(b"IEND", b"")
    )


def figure(text: str, name: str) -> float:
    found = re.search(rf"^{name}(?:\{{.*\}})? (\S+)$", text, re.M)
    return float(found[1]) if found else 0.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--model", "-m", help="[the bundled world]")
    parser.add_argument("--threads", "-t", default="1")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    words = [str(SERVE), "--port", "0", "--idle", str(IDLE), "-t", given.threads]
    process = subprocess.Popen(
        [*words, *(["-m", given.model] if given.model else [])], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    found = re.search(r"http://[\d.]+:\d+", process.stdout.readline())
    if not found:
        return 1
    stop, tally, faults, seen = threading.Event(), Counter(), [], []
    clients = [Client(found[0], given.seed + i, stop, tally, faults) for i in range(CLIENTS)]
    began, shown, text = time.monotonic(), 0.0, ""
    for client in clients:
        client.start()
    try:
        while time.monotonic() < began + 60 * given.minutes and not faults and process.poll() is None:
            time.sleep(1)
            with contextlib.suppress(httpx.HTTPError):  # 12 clients on one CPU: a late answer is not a fault
                text = httpx.get(f"{found[0]}/metrics", timeout=60).text
                seen.append(figure(text, "process_resident_memory_bytes") / 2**20)
            if seen and time.monotonic() - shown > 60 * given.minutes / 20:
                shown = time.monotonic()
                frames, opened = (figure(text, f"genie_{name}_total") for name in ("frames", "sessions_opened"))
                minutes = (shown - began) / 60
                print(f"{minutes:5.1f} min {seen[-1]:7.1f} MiB {frames:8.0f} frames {opened:6.0f} sessions", flush=True)
        stop.set()
        for client in clients:
            client.join(120)
        deadline, left = time.monotonic() + 10 * IDLE, 1
        while left and time.monotonic() < deadline:
            left = httpx.get(f"{found[0]}/health", timeout=60).json()["sessions"]
            time.sleep(0.5)
    except KeyboardInterrupt:
        stop.set()
        left = 0
    finally:
        process.send_signal(signal.SIGINT)
        code = process.wait(60)
    quarter = max(1, len(seen) // 4)
    second, last = (float(np.percentile(part, 90)) for part in (seen[quarter : 2 * quarter] or seen, seen[-quarter:]))
    slope = np.polyfit(range(len(seen[quarter:])), seen[quarter:], 1)[0] * 60 if len(seen) > 8 else 0.0
    print(f"{dict(sorted(tally.items()))}")
    print(f"memory, ninth decile: second quarter {second:.1f} MiB, last {last:.1f} MiB, most {max(seen):.1f} MiB")
    print(f"slope after the first quarter: {slope:+.2f} MiB/min")
    print(f"sessions left: {left}; exit code {code}; faults: {faults or 'none'}")
    return int(bool(faults) or left > 0 or code != 0 or last - second > GROWTH_MIB)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    sys.exit(main())
