"""`make fuzz`: random input for all code that reads foreign input, for as long as asked.

    python tests/fuzz/fuzz.py --minutes 30                    every fuzzer in turn
    python tests/fuzz/fuzz.py --only gguf,states --seconds 10
    python tests/fuzz/fuzz.py --only gguf --seed 4711 --count 1     one case again

A case is determined by its seed. Each fuzzer runs in its own process, which prints the seed before each case. So if
the process dies, hangs or finds a fault, the seed is known; it is printed with the command that repeats the case. Exit
code 1: a fault. Fuzzers are the modules beside this one with `prepare(folder)`. It returns a function of a seed, which
raises if it finds a fault.
"""

from __future__ import annotations

import argparse
import importlib
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path

NAMES = ("gguf", "states", "sessions", "pictures", "worlds", "http", "openapi")
CASE_SECONDS = 60.0  # a case that takes longer counts as a hang
GROWTH_MIB = 400  # limit for the growth of a process over all its cases


def resident_mib() -> float:
    """Resident memory of this process; 0 if the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    except OSError:
        return 0.0


def work(name: str, seed: int, count: int, seconds: float) -> int:
    """In the fuzzer's own process: cases from `seed` on. Prints each seed before its case."""
    with tempfile.TemporaryDirectory() as folder:
        one = importlib.import_module(f"fuzz_{name}").prepare(Path(folder))
        started, first = time.monotonic(), 0.0
        for case in range(seed, seed + count):
            print(case, flush=True)
            began = time.monotonic()
            try:
                one(case)
            except Exception:
                traceback.print_exc()
                return 1
            if time.monotonic() - began > CASE_SECONDS:
                print("the case took too long", file=sys.stderr)
                return 1
            if case == seed + 20:
                first = resident_mib()
            if first and resident_mib() - first > GROWTH_MIB:
                print(f"memory grew from {first:.0f} to {resident_mib():.0f} MiB", file=sys.stderr)
                return 1
            if time.monotonic() - started > seconds:
                break
    print("done", flush=True)
    return 0


def run(name: str, seed: int, count: int, seconds: float) -> tuple[int, str]:
    """(number of cases that ended well, what went wrong or an empty text). Starts one process."""
    command = [sys.executable, *(["-S"] if sys.flags.no_site else []), __file__, "--work", "--only", name]
    command += ["--seed", str(seed), "--count", str(count), "--seconds", str(seconds)]
    with tempfile.TemporaryFile() as said:
        worker = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, text=True, start_new_session=True)
        assert worker.stdout is not None
        lines: queue.Queue[str] = queue.Queue()
        stream = worker.stdout

        def read() -> None:
            for line in stream:
                lines.put(line.strip())
            lines.put("")

        threading.Thread(target=read, daemon=True).start()
        last, why = seed - 1, ""
        try:
            while line := lines.get(timeout=2 * CASE_SECONDS):
                if line == "done":
                    return last + 1 - seed, ""
                last = int(line)
        except queue.Empty:
            why = "it hangs"
        finally:
            if hasattr(os, "killpg"):
                os.killpg(worker.pid, signal.SIGKILL)  # with the servers that it started
            worker.kill()
            code = worker.wait()
        said.seek(0)
        tail = said.read().decode("utf-8", "replace")[-4000:]
        again = f"python tests/fuzz/fuzz.py --only {name} --seed {last} --count 1"
        return max(0, last - seed), f"{name}, seed {last}: {why or f'exit code {code}'}\n{tail}\nagain: {again}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(NAMES), help="fuzzers, comma-separated")
    parser.add_argument("--minutes", type=float, help="of all of them together")
    parser.add_argument("--seconds", type=float, default=60.0, help="the same in seconds")
    parser.add_argument("--seed", type=int, default=None, help="of the first case; by default the time")
    parser.add_argument("--count", type=int, default=10**9, help="cases of each")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    names, seed = args.only.split(","), int(time.time()) * 1000 if args.seed is None else args.seed
    seconds = args.seconds if args.minutes is None else 60 * args.minutes
    if unknown := [name for name in names if name not in NAMES]:
        parser.error(f"there is no fuzzer {unknown[0]}; there are {', '.join(NAMES)}")
    if args.work:
        sys.exit(work(names[0], seed, args.count, seconds))
    faults = []
    for name in names:
        began = time.monotonic()
        cases, fault = run(name, seed, args.count, seconds / len(names))
        print(f"{name}: {cases} cases from seed {seed} on, {time.monotonic() - began:.0f} s", flush=True)
        if fault:
            faults.append(fault)
            print(fault, file=sys.stderr, flush=True)
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
