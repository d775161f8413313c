"""How fast the WebAssembly core plays in Chromium, with one thread and with more, beside the native one.

    python benchmarks/web.py maze meadow

Native, one thread and several take turns; each frame has the world's own sampler. Prints medians in ms a frame, and for
each round the time of several threads as a share of one thread's.
"""

from __future__ import annotations

import argparse
import functools
import http.server
import shutil
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright

from genie_cpp import World
from genie_cpp.catalog.bundled import locate
from genie_cpp.web.export import export

BEGIN = """async threads => {
  const worker = new Worker("worker.mjs", { type: "module" }), waiting = new Map();
  const call = (call, given) => new Promise((resolve, reject) => {
    const id = waiting.size;
    waiting.set(id, [resolve, reject]);
    worker.postMessage({ id, call, given });
  });
  worker.onmessage = ({ data: { id, result, error } }) => {
    if (id !== undefined) waiting.get(id)[error ? 1 : 0](error ?? result);
  };
  const url = new URL("plan.json", location).href;
  const made = await call("load", { url, threads });
  await call("reset", { picture: made.starts[0], seed: 1, sampler: {} });
  (globalThis.players ??= {})[threads] = call;
  return made.threads;
}"""
STEPS = """async ([threads, frames]) => {
  const times = [];
  for (let k = 0; k < frames; k++)
    times.push((await globalThis.players[threads]("step", { action: (k >> 3) % 4, sampler: {} })).ms);
  return times;
}"""


class Isolated(http.server.SimpleHTTPRequestHandler):
    """With the headers that let a page share memory with its workers."""

    def end_headers(self) -> None:
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


def native(world: World, frames: int) -> list[float]:
    times = []
    for k in range(frames):
        began = time.perf_counter()
        world.step((k >> 3) % 4)
        times.append(1000 * (time.perf_counter() - began))
    return times


def measure(page: Page, world: World, threads: int, rounds: int, frames: int) -> dict[str, list[float]]:
    """Median ms a frame of each round, by what played it."""
    for count in (1, threads):
        made = page.evaluate(BEGIN, count)
        if made != count:
            raise SystemExit(f"error: the page has {made} threads instead of {count}")
    found: dict[str, list[float]] = {"native, 1 thread": [], "page, 1 thread": [], f"page, {threads} threads": []}
    for _ in range(rounds):
        for times, play in zip(
            found.values(),
            (
                lambda: native(world, frames),
                lambda: page.evaluate(STEPS, [1, frames]),
                lambda: page.evaluate(STEPS, [threads, frames]),
            ),
            strict=True,
        ):
            times.append(statistics.median(play()))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="bundled worlds or GGUF files")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--frames", type=int, default=40)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for name in args.models:
            site = Path(folder) / Path(name).name
            export(locate(name)[0], site)
            handler = functools.partial(Isolated, directory=str(site))
            server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
            threading.Thread(target=server.serve_forever, daemon=True).start()
            page = browser.new_page()
            page.goto(f"http://127.0.0.1:{server.server_port}/LICENSE-missing")  # this origin, without the player
            world = World.load(name, threads=1)
            world.reset()
            found = measure(page, world, args.threads, args.rounds, args.frames)
            one, more = list(found.values())[1:]
            print(name)
            for system, times in found.items():
                print(f"  {system}: {statistics.median(times):.1f} ms a frame ({min(times):.1f} to {max(times):.1f})")
            shares = sorted(b / a for a, b in zip(one, more, strict=True))
            print(f"  {args.threads} threads take {shares[0]:.2f} to {shares[-1]:.2f} of one thread's time", flush=True)
            page.close()
            server.shutdown()
            server.server_close()
        browser.close()


if __name__ == "__main__":
    main()
