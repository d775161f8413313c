"""Whole frames against PyTorch, two threads against one, the sliding window, memory and load time."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from timing import PAUSE, wait_for_cores
from torch import Tensor

from genie_cpp import Sampler, World
from genie_cpp.backends import _native
from genie_cpp.convert.reference import checkpoint
from genie_cpp.convert.reference.model import Dynamics
from genie_cpp.convert.reference.sampler import Sampler as ReferenceSampler
from genie_cpp.convert.reference.sampler import fill, next_frame
from genie_cpp.convert.reference.stack import Attention

ROOT = Path(__file__).resolve().parents[1]
PLAIN, CACHED = "PyTorch fp32, all frames at each step", "PyTorch fp32, cached as ours"


class CachedDynamics:
    """The reference, decoded as in genie_cpp: keys and values of past frames are kept, one frame runs at a time."""

    def __init__(self, model: Dynamics) -> None:
        self.model, self.length = model, 0
        c, g = model.g.dynamics.stack, model.g
        shape = (g.token_count, c.head_count, g.context_length, c.key_length)
        self.kv = [(torch.zeros(shape), torch.zeros(shape)) for _ in model.stack.blk]

    def frame(self, ids_P: Tensor, action: int) -> Tensor:
        """Logits [P, V] of the frame at time index `length`, which stays uncommitted until `length` grows."""
        stack, t = self.model.stack, self.length
        x = self.model.embed(ids_P[None, None], torch.tensor([[action]])) + stack.pos_space + stack.pos_time[t]
        nothing = torch.empty(0)
        for block, (k, v) in zip(stack.blk, self.kv, strict=True):
            for name, sublayer in block.items():
                y = sublayer.norm(x)
                x = x + (self._temporal(sublayer, y, k, v) if name == "temporal" else sublayer(y, nothing))
        logits: Tensor = stack.output(stack.output_norm(x))[0, 0]
        return logits

    def _temporal(self, a: Attention, y: Tensor, past_k: Tensor, past_v: Tensor) -> Tensor:
        t = self.length
        q, k, v = (linear(y).view(-1, a.head_count, 1, a.key_length) for linear in (a.q, a.k, a.v))
        if a.q_norm is not None and a.k_norm is not None:
            q, k = a.q_norm(q), a.k_norm(k)
        past_k[:, :, t], past_v[:, :, t] = k[:, :, 0], v[:, :, 0]
        out = F.scaled_dot_product_attention(q, past_k[:, :, : t + 1], past_v[:, :, : t + 1])
        return a.out(out.reshape(1, 1, len(out), -1))  # type: ignore[no-any-return]

    def commit(self, ids_P: Tensor, action: int) -> None:
        self.frame(ids_P, action)
        self.length += 1

    def next_frame(self, action: int, sampler: ReferenceSampler, seed: int, frame: int) -> Tensor:
        ids_P = torch.full((self.model.g.token_count,), self.model.mask_id)
        for step in range(sampler.steps):
            ids_P = fill(ids_P, self.frame(ids_P, action), sampler, step, seed, frame)
        self.commit(ids_P, action)
        self.length -= 1  # so that the next measurement finds the same window
        return ids_P


def converted(folder: Path, type: str, output: Path) -> Path:
    tool = Path(sys.executable).parent / "genie-convert"
    done = subprocess.run([tool, folder, "-o", output, "-t", type, "-y"], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return output


def stepped(world: World) -> World:
    """A fork that is one frame further, so that each measurement finds the same window."""
    fork = world.fork()
    fork.step(0)
    return fork


def against_torch(name: str, folder: Path, steps: int, work: Path, rounds: int) -> list[dict[str, Any]]:
    """Rows of one model: seconds of the last frame that fits in the window, two threads."""
    torch.set_num_threads(2)
    genie = checkpoint.load(folder).eval()
    T = genie.config.context_length
    sampler = Sampler(steps, 0.1)
    same = ReferenceSampler(steps, 0.1)
    size = (T - 1, genie.config.frame_height, genie.config.frame_width, 3)
    video = np.random.default_rng(0).integers(0, 256, size, np.uint8)
    tokens: dict[str, np.ndarray] = {}
    systems: dict[str, Callable[[], float]] = {}

    def timed(label: str, call: Callable[[], Tensor]) -> Callable[[], float]:
        def run() -> float:
            started = time.perf_counter()
            with torch.inference_mode():
                tokens[label] = call().numpy()
            return time.perf_counter() - started

        return run

    past_TP = torch.empty(0)
    for type in ("f32", "q8_0"):
        world = World.load(converted(folder, type, work / f"{name}-{type}.gguf"), sampler=sampler, threads=2)
        world.reset(video, actions=[0] * (T - 2))
        if type == "f32":
            past_TP = torch.from_numpy(np.stack(list(world.model.tokenize(video)))).long()

        def ours(world: World = world, label: str = f"genie_cpp {type.upper()}") -> float:
            fork = stepped(world)
            tokens[label] = fork.tokens
            return fork.timings["dynamics"]

        systems[f"genie_cpp {type.upper()}"] = ours
    cached = CachedDynamics(genie.dynamics)
    with torch.inference_mode():
        for t in range(T - 1):
            cached.commit(past_TP[t], 0 if t else -1)
    systems[CACHED] = timed(CACHED, lambda: cached.next_frame(0, same, 0, T - 1))
    actions = torch.tensor([-1] + [0] * (T - 1))
    systems[PLAIN] = timed(PLAIN, lambda: next_frame(genie.dynamics, past_TP, actions, same, 0, T - 1))
    times: dict[str, list[float]] = {label: [] for label in systems}
    for _ in range(rounds):
        wait_for_cores(2)
        for label, run in systems.items():
            times[label].append(run())
    agree = {label: float(np.mean(found == tokens[PLAIN])) for label, found in tokens.items()}
    if strangers := [label for label in ("genie_cpp F32", CACHED) if agree[label] < 0.99]:
        raise SystemExit(f"{name}: not the same frame: {', '.join(strangers)}")
    return [
        {"model": name, "system": label, "seconds": statistics.median(found), "agree": agree[label]}
        for label, found in times.items()
    ]


def window(path: Path, counts: dict[str, int]) -> list[dict[str, Any]]:
    """What sliding costs over a long run."""
    rows = []
    for kind, count in counts.items():
        world = World.load(path, window=kind, threads=2)
        hp = world.model.info
        video = np.zeros((hp.context_length, hp.frame_height, hp.frame_width, 3), np.uint8)
        world.reset(video, actions=[0] * (hp.context_length - 1))  # full: the first step slides
        started = time.perf_counter()
        for _ in range(count):
            world.step(0)
        total, sliding = time.perf_counter() - started, world.timings["window"]
        T = hp.context_length
        keep = T - 1 if kind == "exact" else (T + 1) // 2
        again = keep / (T - keep)  # frames that are run again, per new frame
        rows.append({
            "kind": kind, "frames": count, "seconds": total / count, "sliding": sliding / count, "again": again,
            "step": world.timings["maskgit"] / world.timings["steps"],
        })  # fmt: skip
    return rows


CHILD = """
import json, sys, time, numpy as np
from genie_cpp import World
from genie_cpp.file.gguf_file import GGUFFile
from genie_cpp.spec.hparams import validate
from genie_cpp.model import Model
def anonymous():
    return next(1024 * int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssAnon"))
path = sys.argv[1]
before = anonymous()
world = World.load(path, threads=2)
hp = world.model.info
loaded = anonymous()
world.reset(np.zeros((1, hp.frame_height, hp.frame_width, 3), np.uint8))
for _ in range(2):
    world.step(0)
played = anonymous()
states = sum(world.model.state(name).n_bytes for name in ("dynamics", "tokenizer.decoder"))
read, header, load = [], [], []
def timed(times, call):
    started = time.perf_counter()
    kept = call()
    times.append(time.perf_counter() - started)
def checked():
    with GGUFFile.open(path) as file:
        validate(file, finite=False)
for _ in range(9):
    timed(read, lambda: np.fromfile(path, np.uint8).max())
    timed(header, checked)
    timed(load, lambda: Model.open(path, threads=2))
print(json.dumps({"loaded": loaded - before, "played": played - before, "weights": world.model.n_bytes,
                  "states": states, "tensors": len(world.model.tensors),
                  **{name: float(np.median(times)) for name, times in
                     (("read", read), ("header", header), ("load", load))}}))
"""


def memory_and_load(paths: list[Path]) -> list[dict[str, Any]]:
    """Each in its own process; Linux only."""
    rows = []
    for path in paths:
        done = subprocess.run([sys.executable, "-c", CHILD, path], capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(done.stderr)
        rows.append({"model": path.stem, **json.loads(done.stdout)})
    return rows


def scaling(paths: list[Path], rounds: int) -> list[dict[str, Any]]:
    """The speed of two threads relative to one, and the same ratio for arithmetic on registers only."""
    systems: dict[str, list[Callable[[], float]]] = {}

    def arithmetic(threads: int) -> Callable[[], float]:
        pool = _native.Pool(threads)

        def run() -> float:
            started = time.perf_counter()
            _native.peak_operations(_native.isas()[0], pool, 8, 2_000_000)
            return (time.perf_counter() - started) / threads

        return run

    def frame(path: Path, threads: int) -> Callable[[], float]:
        world = World.load(path, threads=threads)
        hp = world.model.info
        size = (hp.context_length - 1, hp.frame_height, hp.frame_width, 3)
        world.reset(np.zeros(size, np.uint8), actions=[0] * (size[0] - 1))

        return lambda: stepped(world).timings["dynamics"]

    systems["calibration: the same int8 products on registers"] = [arithmetic(1), arithmetic(2)]
    for path in paths:
        systems[f"{path.stem}, a frame's dynamics"] = [frame(path, 1), frame(path, 2)]
    times: dict[str, tuple[list[float], list[float]]] = {label: ([], []) for label in systems}
    for _ in range(rounds):
        wait_for_cores(2)
        for label, runs in systems.items():
            for found, run in zip(times[label], runs, strict=True):
                time.sleep(PAUSE)
                found.append(run())
    return [
        {"what": label, "one": statistics.median(one), "two": statistics.median(two)}
        for label, (one, two) in times.items()
    ]
