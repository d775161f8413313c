"""Systems are timed in turns, so that a change of the machine's speed affects all of them.

The time of one run is that of the fastest round. If a call first packs weights or lays out keys, one run is (the
fastest call with `1 + count` runs - the fastest with 1) / count, which leaves that preparation out.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from genie_cpp.backends import _native

Run = Callable[[int], object]  # does its work that many times
# The longest that threads of other systems may still spin after their last run.
PAUSE = 0.01
_in_vain: set[int] = set()  # thread counts for which waiting for cores failed before


class System(NamedTuple):
    """What is measured, and its last output (None: nothing to compare)."""

    run: Run
    output: Callable[[], np.ndarray] | None = None
    prepares: bool = False  # each call does work of its own before the runs


def repeated(call: Callable[[], object]) -> Run:
    def run(times: int) -> None:
        for _ in range(times):
            call()

    return run


def clocked(run: Run, times: int) -> float:
    started = time.perf_counter()
    run(times)
    return time.perf_counter() - started


def wait_for_cores(threads: int, patience: float = 20.0) -> bool:
    """Wait until each of `threads` threads is as fast as one alone, or `patience` seconds. Returns whether they are.

    A virtual machine's CPUs may temporarily be hyperthreads of one core. Products then run at half speed on each.
    """
    isa, until = _native.isas()[0], time.perf_counter() + (0 if threads in _in_vain else patience)
    pools = [_native.Pool(count) for count in (1, threads)]

    def seconds(pool: _native.Pool) -> float:
        return min(clocked(lambda rounds: _native.peak_operations(isa, pool, 8, rounds), 100_000) for _ in range(3))

    while not (whole := seconds(pools[1]) < 1.25 * seconds(pools[0])) and time.perf_counter() < until:
        time.sleep(0.5)
    if not whole and threads not in _in_vain:  # this machine may never have them: do not wait again
        print(f"  no {threads} whole cores: {threads} threads are measured as they are", flush=True)
        _in_vain.add(threads)
    return whole


def in_turns(systems: dict[str, System], rounds: int, least: float = 0.05, threads: int = 1) -> dict[str, float]:
    """Seconds of one run of each system. Each measurement takes at least `least` seconds. threads: those they use."""
    counts, one, many = {}, {}, {}
    for name, system in systems.items():
        clocked(system.run, 1)
        once, count = clocked(system.run, 1), 1
        while clocked(system.run, count + system.prepares) - once * system.prepares < least:
            count *= 2
        counts[name] = count
        one[name] = many[name] = float("inf")
    for _ in range(rounds):
        if threads > 1:
            wait_for_cores(threads)
        for name, system in systems.items():
            time.sleep(PAUSE)
            clocked(system.run, 1)  # wakes its threads
            for _ in range(3 if system.prepares else 0):
                one[name] = min(one[name], clocked(system.run, 1))
            many[name] = min(many[name], clocked(system.run, counts[name] + system.prepares))
    found = {}
    for name, system in systems.items():
        seconds = many[name] - one[name] if system.prepares else many[name]
        while seconds < least / 4:  # the calibration was disturbed: repeat, or noise would be divided by noise
            counts[name] *= 2
            many[name] = min(clocked(system.run, counts[name] + system.prepares) for _ in range(3))
            seconds = many[name] - one[name] if system.prepares else many[name]
        found[name] = seconds / counts[name]
    return found


def relative_error(y: np.ndarray, exact: np.ndarray) -> float:
    return float(np.linalg.norm(y.reshape(exact.shape) - exact) / np.linalg.norm(exact))


def quiet_threads() -> None:
    """Call before any engine starts: waiting threads must not spin for long on CPUs where another system is timed."""
    os.environ.setdefault("GOMP_SPINCOUNT", "100000")
