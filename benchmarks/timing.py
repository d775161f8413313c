"""Systems timed in turns, so that a change of the machine's speed meets all of them.

The time of one run is that of the fastest round. Where a call first packs weights or lays out keys, one run is (the
fastest call with `1 + count` runs - the fastest with 1) / count, so that this does not count.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from genie_cpp.backends import _native

Run = Callable[[int], object]  # does its work so many times
# What other systems' threads may still spin after their last run, at most.
PAUSE = 0.01
_in_vain: set[int] = set()  # numbers of threads that cores were waited for in vain


class System(NamedTuple):
    """What is measured, and what it computed last (None: nothing to compare)."""

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
    """Until so many threads do as much each as one does alone, or patience (in seconds) is at an end: whether they do.

    A virtual machine's CPUs may be hyperthreads of one core for a while, where products run at half the speed each.
    """
    isa, until = _native.isas()[0], time.perf_counter() + (0 if threads in _in_vain else patience)
    pools = [_native.Pool(count) for count in (1, threads)]

    def seconds(pool: _native.Pool) -> float:
        return min(clocked(lambda rounds: _native.peak_operations(isa, pool, 8, rounds), 100_000) for _ in range(3))

    while not (whole := seconds(pools[1]) < 1.25 * seconds(pools[0])) and time.perf_counter() < until:
        time.sleep(0.5)
    if not whole and threads not in _in_vain:  # a machine may never have them: it is not waited for again
        print(f"  no {threads} whole cores: {threads} threads are measured as they are", flush=True)
        _in_vain.add(threads)
    return whole


def in_turns(systems: dict[str, System], rounds: int, least: float = 0.05, threads: int = 1) -> dict[str, float]:
    """Seconds of one run of each system; `least` seconds go into each measurement. threads: that they use."""
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
        while seconds < least / 4:  # a disturbed calibration: noise would be divided by noise
            counts[name] *= 2
            many[name] = min(clocked(system.run, counts[name] + system.prepares) for _ in range(3))
            seconds = many[name] - one[name] if system.prepares else many[name]
        found[name] = seconds / counts[name]
    return found


def relative_error(y: np.ndarray, exact: np.ndarray) -> float:
    return float(np.linalg.norm(y.reshape(exact.shape) - exact) / np.linalg.norm(exact))


def quiet_threads() -> None:
    """Before any engine starts: waiting threads must not spin for long on CPUs that another system is timed on."""
    os.environ.setdefault("GOMP_SPINCOUNT", "100000")
