"""How fast a model plays on this machine: the time of each stage, compared with the peak speed of the CPU."""

from __future__ import annotations

import os
import platform
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from genie_cpp.backends import _native
from genie_cpp.errors import BenchError
from genie_cpp.file.gguf_file import TensorType
from genie_cpp.model import Model, Window, default_threads
from genie_cpp.sampler import Sampler
from genie_cpp.spec.hparams import expected_tensors
from genie_cpp.version import __version__
from genie_cpp.world import World

MAX_REPETITIONS = 10_000
# Long enough to hide timer resolution and wake-up time, short enough that the CPU does not heat up.
_PEAK_SECONDS, _PEAK_TRIES = 0.03, 8

Progress = Callable[[], None]


class Sample(NamedTuple):
    """One repetition in milliseconds: tokenize a frame, one MaskGIT step, all dynamics, decode, the whole frame."""

    tokens: float
    step: float
    dynamics: float
    decode: float
    frame: float


@dataclass
class Result:
    """One row. Keys of `operations` (per MaskGIT step) and `peaks` (per second): the arithmetic, "int8" or "float"."""

    model: str
    size: int  # of the file, bytes
    parameters: int
    type: str
    backend: str
    isa: str
    threads: int  # 0: the backend chooses
    steps: int
    window: int  # frames the last frame sees, itself included
    operations: dict[str, int]
    peaks: dict[str, float]
    samples: list[Sample] = field(default_factory=list)

    @property
    def frames_per_second(self) -> list[float]:
        return [1000 / sample.frame for sample in self.samples]

    @property
    def share(self) -> list[float]:
        """Least possible time of a MaskGIT step's matrix products / measured time of the step. Empty without a peak.

        The least time is operations / peak; for several kinds of arithmetic the least times add up.
        """
        if any(not self.peaks.get(kind) for kind in self.operations):
            return []
        least = sum(count / self.peaks[kind] for kind, count in self.operations.items())
        return [1000 * least / sample.step for sample in self.samples]


def mean_sd(samples: list[float]) -> tuple[float, float]:
    """Mean and sample standard deviation; the deviation of a single sample is 0."""
    return statistics.fmean(samples), statistics.stdev(samples) if len(samples) > 1 else 0.0


def matmul_operations(model: Model) -> dict[str, int]:
    """Operations (2 per multiply-add) of the matrix products of one MaskGIT step, as {"int8": …, "float": …}."""
    count = {"int8": 0, "float": 0}
    for name, (shape, matrix) in expected_tensors(model.info).items():
        # Token embeddings are looked up, not multiplied.
        if matrix and name.startswith("dynamics.") and name != "dynamics.token_embd.weight":
            quantized = model.tensors[name].type in (TensorType.Q4_0, TensorType.Q8_0)
            used = model.info.stacks["dynamics"].expert_used_count or 1 if len(shape) > 2 else 1
            count["int8" if quantized else "float"] += 2 * shape[0] * shape[1] * used * model.token_count
    return {kind: operations for kind, operations in count.items() if operations}


def measure_peak(isa: str, threads: int, kind: str) -> float:
    """Peak "int8" or "float" operations per second without memory access, best of several tries; 0 if unknown."""
    pool, type = _native.Pool(threads), int(TensorType.Q8_0 if kind == "int8" else TensorType.F32)
    rounds, best, tries = 1 << 10, 0.0, 0
    while tries < _PEAK_TRIES:
        started = time.perf_counter()
        operations = _native.peak_operations(isa, pool, type, rounds)
        seconds = time.perf_counter() - started
        if operations == 0:
            return 0.0
        if seconds < _PEAK_SECONDS:
            rounds *= 2
            continue
        tries += 1
        best = max(best, operations / seconds)
    return best


class Bench:
    """Measures one row after another. An interrupted row stays in `results` with the samples it has."""

    def __init__(self, repetitions: int = 5) -> None:
        """Raises BenchError for repetitions outside 1…10000."""
        if not 1 <= repetitions <= MAX_REPETITIONS:
            raise BenchError(f"repetitions must be in 1…{MAX_REPETITIONS}, not {repetitions}", "try -r 5")
        self.repetitions = repetitions
        self.results: list[Result] = []
        self._peaks: dict[tuple[str, int, str], float] = {}

    def run(
        self,
        path: Path | None,
        threads: int,
        steps: list[int | None],
        progress: Progress = lambda: None,
        backend: str = "auto",
        force: bool = False,
    ) -> None:
        """One row per number of MaskGIT steps (None: the model's). progress: called after each frame, also the warm-up.

        Every timed frame is the last that fits in its window: the key/value cache is largest, and no window slides.
        """
        model = Model.open(path, threads, backend, force)
        hp, default = model.info, model.sampler
        operations = matmul_operations(model)
        rng = np.random.default_rng(0)
        shape = (hp.context_length - 1, hp.frame_height, hp.frame_width, 3)
        video = rng.integers(0, 256, shape, np.uint8)
        for wanted in steps:
            sampler = Sampler(
                default.steps if wanted is None else wanted, default.temperature, default.order, default.noise
            )
            world = World(model, sampler)
            world.reset(video, actions=[0] * (len(video) - 1))
            result = Result(
                model.path.stem, model.path.stat().st_size, hp.parameter_count(), model.type, model.backend,
                model.isa, model.threads, sampler.steps, hp.context_length, operations,
                {kind: self._peak(model.isa, threads, kind) for kind in operations if model.backend == "cpu"},
            )  # fmt: skip
            encoder = model.state("tokenizer.encoder")
            self._frame(world, encoder, video)
            progress()
            self.results.append(result)
            for _ in range(self.repetitions):
                result.samples.append(self._frame(world, encoder, video))
                progress()

    def _frame(self, world: World, encoder: Window, video: NDArray[np.uint8]) -> Sample:
        encoder.truncate(0)
        started = time.perf_counter()
        world.model.encode_frame(encoder, video[-1])
        tokens = time.perf_counter() - started
        fork = world.fork()  # so that each repetition starts from the same window
        started = time.perf_counter()
        fork.step(0)
        frame = time.perf_counter() - started
        t = fork.timings
        return Sample(
            1000 * tokens, 1000 * t["maskgit"] / fork.sampler.steps, 1000 * t["dynamics"], 1000 * t["decode"],
            1000 * frame,
        )  # fmt: skip

    def _peak(self, isa: str, threads: int, kind: str) -> float:
        key = (isa, threads, kind)
        if key not in self._peaks:
            self._peaks[key] = measure_peak(isa, threads, kind)
        return self._peaks[key]


def environment() -> dict[str, str | int]:
    """What a reader needs to judge a figure: cpu, cores this process may use, isa, os, version, commit, date.

    The commit is "" if it is unknown.
    """
    return {
        "cpu": _cpu(),
        "cores": default_threads(),
        "isa": _native.wanted_isa(),
        "os": f"{platform.system()} {platform.release()} {platform.machine()}",
        "version": __version__,
        "commit": _commit(),
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%MZ"),
    }


def environment_line(where: dict[str, str | int]) -> str:
    """`environment()` on one line for a reader."""
    commit = f" ({where['commit']})" if where["commit"] else ""
    return (
        f"{where['cpu']}, {where['cores']} cores, {where['isa']}, {where['os']}, "
        f"genie_cpp {where['version']}{commit}, {where['date']}"
    )


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    if platform.system() == "Darwin" and (name := _said("sysctl", "-n", "machdep.cpu.brand_string")):
        return name
    return platform.processor() or platform.machine() or "unknown"


def _commit() -> str:
    """The commit of the running source tree; "" if this is not a checkout or git is missing."""
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():  # the package may lie in another project's checkout, whose commit would be wrong
        return ""
    return _said("git", "-C", str(root), "describe", "--always", "--dirty", "--exclude=*")


def _said(*command: str) -> str:
    """What a program prints, "" if it is missing or fails."""
    if shutil.which(command[0]) is None:
        return ""
    try:
        done = subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", timeout=10, check=False,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
