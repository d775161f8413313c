"""How many sessions genie-serve plays at which latency, and what batching them into one pass could gain.

Prints the tables of docs/serving.md. Clients step over the websocket as fast as answers come, each in its own process;
the server is one process, with the model's own sampler. `engine`: the same number of worlds, stepped from threads of
one process, without a server. The last table is an upper bound: the dynamics' matrix products with the rows of several
sessions.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import re
import signal
import subprocess
import sysconfig
import threading
import time
import urllib.request
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import ours
from timing import in_turns
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from genie_cpp import Model, World
from genie_cpp.backends import _native
from genie_cpp.frames import fit
from genie_cpp.play.session import Prompt

SERVE = Path(sysconfig.get_path("scripts")) / "genie-serve"
COUNTS = (1, 2, 4, 8)


def client(address: str, seconds: float, start: Any, out: Any) -> None:
    warnings.simplefilter("ignore")
    request = urllib.request.Request(f"{address}/v1/sessions", method="POST")
    place = urllib.request.urlopen(request).headers["Location"]
    uri = address.replace("http", "ws") + f"{place}/ws"
    with connect(uri, subprotocols=[Subprotocol("genie-serve.1")], max_size=None) as socket:
        socket.recv()
        message = json.dumps({"type": "step", "action": 3})
        socket.send(message)
        socket.recv()
        start.wait()
        times, until = [], time.perf_counter() + seconds
        while (began := time.perf_counter()) < until:
            socket.send(message)
            socket.recv()
            times.append(time.perf_counter() - began)
    out.put(times)
    urllib.request.urlopen(urllib.request.Request(f"{address}{place}", method="DELETE"))


def served(address: str, count: int, seconds: float) -> dict[str, float]:
    context = multiprocessing.get_context("spawn")
    start, out = context.Barrier(count), context.Queue()
    began = figures(address)
    clients = [context.Process(target=client, args=(address, seconds, start, out)) for _ in range(count)]
    for one in clients:
        one.start()
    times = np.concatenate([out.get() for _ in clients])
    for one in clients:
        one.join()
    spent, made = (after - before for after, before in zip(figures(address), began, strict=True))
    p50, p95 = np.percentile(times, (50, 95)) * 1000
    row = {"sessions": count, "frames/s": len(times) / seconds, "p50 ms": p50, "p95 ms": p95}
    return row | {"CPU ms a frame": 1000 * spent / made}


def figures(address: str) -> tuple[float, float]:
    """The server's CPU seconds and frames so far."""
    text = urllib.request.urlopen(f"{address}/metrics").read().decode()
    cpu, frames = (
        re.search(rf"^{name}(?:{{.*}})? (\S+)$", text, re.M)
        for name in ("process_cpu_seconds_total", "genie_frames_total")
    )
    return float(cpu[1]) if cpu else 0.0, float(frames[1]) if frames else 0.0


def engine(model: Model, count: int, seconds: float) -> dict[str, float]:
    """Frames/s of `count` worlds together, and the CPU that one takes."""
    hp, made = model.info, [0] * count
    prompt = Prompt.beside(model)
    assert prompt is not None
    frame = fit(prompt.picture, hp.frame_width, hp.frame_height)
    worlds = [World(model) for _ in range(count)]
    for world in worlds:
        world.reset(frame)
    spent, began = time.process_time(), time.perf_counter()
    until = began + seconds

    def play(index: int) -> None:
        while time.perf_counter() < until:
            worlds[index].step(3)
            made[index] += 1

    threads = [threading.Thread(target=play, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {
        "engine frames/s": sum(made) / (time.perf_counter() - began),
        "engine CPU ms": 1000 * (time.process_time() - spent) / sum(made),
    }


def batched(model: Model, threads: int, tokens: int) -> dict[str, float]:
    """The speed-up of the products of a dynamics block when one call has the rows of several sessions."""
    s = model.info.stacks["dynamics"]
    inner = s.head_count * s.key_length
    # q, k, v and output of both attentions; then the two products of the FFN
    shapes = [(s.embedding_length, inner)] * 6 + [(inner, s.embedding_length)] * 2
    shapes += [(s.embedding_length, s.feed_forward_length), (s.feed_forward_length, s.embedding_length)]
    pool, rng, times = _native.Pool(threads), np.random.default_rng(0), dict.fromkeys(COUNTS, 0.0)
    isa = ours.int8_isas()[0]
    for K, N in set(shapes):
        w_NK = rng.standard_normal((N, K), np.float32)
        systems = {
            str(count): ours.product(isa, pool, "Q8_0", w_NK, rng.standard_normal((tokens * count, K), np.float32))
            for count in COUNTS
        }
        for name, seconds in in_turns(systems, 5).items():
            times[int(name)] += seconds * shapes.count((K, N))
    row: dict[str, float] = {"tokens of a frame": tokens, "µs a block": 1e6 * times[1]}
    return row | {f"{count} sessions": count * times[1] / times[count] for count in COUNTS[1:]}


def table(rows: list[dict[str, float]]) -> None:
    print("| " + " | ".join(rows[0]) + " |\n|" + " --: |" * len(rows[0]))
    for row in rows:
        print("| " + " | ".join(f"{v}" if isinstance(v, int) else f"{v:.2f}" for v in row.values()) + " |")
    print(flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", "-m", type=Path, help="[the bundled world]")
    parser.add_argument("--threads", "-t", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=20, help="of each load")
    given = parser.parse_args()
    model = Model.open(given.model, given.threads)
    print(f"{model.name} {model.type}, {model.isa}, {given.threads} threads, {model.sampler.steps} steps\n")
    words = [str(SERVE), "--port", "0", "-t", str(given.threads), *(["-m", str(given.model)] if given.model else [])]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    found = re.search(r"http://[\d.]+:\d+", process.stdout.readline())
    assert found
    try:  # in turns with the engine, so that other load on the machine affects both alike
        rows = [served(found[0], count, given.seconds) | engine(model, count, given.seconds) for count in COUNTS]
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)
    table(rows)
    table([batched(model, given.threads, tokens) for tokens in (16, 64, model.token_count)])


if __name__ == "__main__":
    main()
