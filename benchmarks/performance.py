"""Measure this machine and write docs/performance.md: `make bench`, on an idle machine.

Systems are timed in turns within each round, so that a change of the machine's speed meets all of them; the tables give
medians over rounds. Products and attention are those of the library's test entries: packed once, then run many times;
the time of one run is the difference between many runs and one, so packing does not count.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import torch
import torch.nn.functional as F
from whole_frame import sections

from genie_cpp import _native
from genie_cpp.bench import environment, environment_line

M, SECONDS = 256, 0.06  # rows of x, and the least time of one measurement
SHAPES = ((512, 512), (512, 1536), (512, 2048), (2048, 512), (1024, 4096))  # columns, rows of w
TYPES = {"Q8_0": gguf.GGMLQuantizationType.Q8_0, "Q4_0": gguf.GGMLQuantizationType.Q4_0}
Run = Callable[[int], None]  # does its work so many times


def seconds(run: Run) -> float:
    """Of one run."""
    count = 1
    while True:
        start = time.perf_counter()
        run(1)
        middle = time.perf_counter()
        run(1 + count)
        many = (time.perf_counter() - middle) - (middle - start)
        if many >= SECONDS:
            return many / count
        count = max(2 * count, int(1.3 * count * SECONDS / max(many, 1e-4)))


def in_turns(systems: dict[str, Run], rounds: int) -> dict[str, float]:
    """Median seconds of each."""
    for run in systems.values():
        run(1)
    times: dict[str, list[float]] = {name: [] for name in systems}
    for _ in range(rounds):
        for name, run in systems.items():
            times[name].append(seconds(run))
    return {name: statistics.median(t) for name, t in times.items()}


def buffer(array: np.ndarray, kind: str = "float") -> object:
    return _native.ffi.from_buffer(f"{kind}[]", array)


def our_product(isa: str, pool: _native.Pool, type: str, w: np.ndarray, x: np.ndarray, y: np.ndarray) -> Run:
    packed = gguf.quants.quantize(w, TYPES[type])

    def run(times: int) -> None:
        status = _native.lib.genie_matmul(
            isa.encode(), pool.handle, TYPES[type].value, *w.shape, buffer(packed, "char"), packed.nbytes, buffer(x),
            len(x), times, buffer(y),
        )  # fmt: skip
        _native.check(status, "matmul")

    return run


def repeat(call: Callable[[], object]) -> Run:
    def run(times: int) -> None:
        with torch.inference_mode():
            for _ in range(times):
                call()

    return run


def peak(isa: str, pool: _native.Pool) -> Run:
    return lambda times: _native.peak_operations(isa, pool, 8, times * 10_000) and None


def products(isa: str, threads: int, rounds: int) -> list[str]:
    torch.set_num_threads(threads)
    pool, rng = _native.Pool(threads), np.random.default_rng(0)
    head = ["Q8_0", "Q4_0", "torch int8", "torch fp32"]
    lines = [f"### {threads} thread{'s' * (threads > 1)}, {isa}", ""]
    lines += ["| K → N | peak | " + " | ".join(head) + " | Q8_0 of peak | Q8_0 error | Q4_0 error |", "|---" * 9 + "|"]
    for columns, rows in SHAPES:
        w = rng.standard_normal((rows, columns)).astype(np.float32)
        x = rng.standard_normal((M, columns)).astype(np.float32)
        linear, x_torch = torch.nn.Linear(columns, rows, bias=False), torch.from_numpy(x)
        linear.weight.data = torch.from_numpy(w)
        int8 = torch.ao.quantization.quantize_dynamic(torch.nn.Sequential(linear), {torch.nn.Linear})
        y = {type: np.empty((M, rows), np.float32) for type in TYPES}
        systems: dict[str, Run] = {type: our_product(isa, pool, type, w, x, y[type]) for type in TYPES}
        systems["torch int8"] = repeat(lambda model=int8, x=x_torch: model(x))  # type: ignore[misc]
        systems["torch fp32"] = repeat(lambda w=linear.weight, x=x_torch: F.linear(x, w))  # type: ignore[misc]
        systems["peak"] = peak(isa, pool)
        times = in_turns(systems, rounds)
        speed = {name: 2 * M * rows * columns / times[name] / 1e9 for name in head}
        most = _native.peak_operations(isa, pool, 8, 10_000) / times["peak"] / 1e9
        exact = x.astype(np.float64) @ w.T.astype(np.float64)
        errors = [np.linalg.norm(y[type] - exact) / np.linalg.norm(exact) for type in TYPES]
        cells = [f"{columns} → {rows}", f"{most:.0f}", *(f"{speed[name]:.0f}" for name in head)]
        cells += [f"{100 * speed['Q8_0'] / most:.0f} %", *(f"{e:.4f}" for e in errors)]
        lines.append("| " + " | ".join(cells) + " |")
    return [*lines, ""]


def attention(isas: list[str], rounds: int) -> list[str]:
    """One frame of 256 tokens, 8 heads of 64, one thread."""
    torch.set_num_threads(1)
    P, H, D = 256, 8, 64
    rng = np.random.default_rng(1)
    q, k, v = (rng.standard_normal((P, H, D)).astype(np.float32) for _ in range(3))
    results, systems = {}, {}
    for isa in isas:
        for bf16 in (0, 1) if isa == "avx512bf16" else (0,):
            name = f"{isa}, {'bf16' if bf16 else 'fp32'}"
            y = results[name] = np.empty_like(q)

            def run(times: int, isa: str = isa, bf16: int = bf16, y: np.ndarray = y) -> None:
                _native.check(
                    _native.lib.genie_attention(
                        isa.encode(), P, P, H, D, buffer(q), buffer(k), buffer(v), 0, bf16, times, buffer(y)
                    ),
                    "attention",
                )

            systems[name] = run
    apart = [torch.from_numpy(a).transpose(0, 1)[None].contiguous() for a in (q, k, v)]
    systems["torch scaled_dot_product_attention, fp32"] = repeat(lambda: F.scaled_dot_product_attention(*apart))
    half = [a.bfloat16() for a in apart]
    systems["torch scaled_dot_product_attention, bf16"] = repeat(lambda: F.scaled_dot_product_attention(*half))
    times = in_turns(systems, rounds)
    exact = F.scaled_dot_product_attention(*(a.double() for a in apart))[0].transpose(0, 1).numpy()
    base = times["torch scaled_dot_product_attention, fp32"]
    lines = ["| | ms | GFLOP/s | torch fp32 = 1 | error |", "|---|---:|---:|---:|---:|"]
    for name, t in times.items():
        error = np.linalg.norm(results[name] - exact) / np.linalg.norm(exact) if name in results else None
        shown = "" if error is None else f"{error:.1e}"
        lines.append(f"| {name} | {t * 1e3:.2f} | {4 * H * P * P * D / t / 1e9:.0f} | {base / t:.2f} | {shown} |")
    return [*lines, ""]


def command(*arguments: str) -> list[str]:
    found = subprocess.run(
        [str(Path(sys.executable).parent / "genie-bench"), *arguments], capture_output=True, text=True
    )
    if found.returncode:
        raise SystemExit(found.stderr)
    return ["", f"`genie-bench {' '.join(arguments)}`", "", *found.stdout.splitlines()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("-r", "--rounds", type=int, default=7)
    args = parser.parse_args()
    isas = [isa for isa in _native.isas() if isa != "scalar"]
    lines = [
        "# Performance",
        "",
        "Made by `make bench`; not edited by hand.",
        "",
        environment_line(environment()),
        "",
    ]
    lines += [f"## Matrix products, M = {M}, GOP/s", ""]
    lines += ["Activations are float and quantized inside the time; error is against float64 on Gaussian data.", ""]
    lines += [
        "The peak is of the int8 multiply-add instructions of the same ISA, from registers, in the same rounds.",
        "",
    ]
    for isa in isas:
        if isa != "avx512bf16":  # its products are those of avx512vnni
            for threads in (1, 2):
                lines += products(isa, threads, args.rounds)
    lines += ["## Attention inside a frame: 256 tokens, 8 heads of 64, one thread", ""]
    lines += ["Ours without laying out keys and values for the kernel, which a pass does once per frame and layer.", ""]
    lines += attention(isas, args.rounds)
    lines += [
        "## Whole models",
        *command("-t", "1,2", "-r", "5"),
        *command("-t", "2", "--steps", "1,4,8,25", "-r", "5"),
    ]
    lines += command("--synthetic", "tiny,appendix-f", "--type", "q8_0,q4_0", "-t", "1,2", "--steps", "8", "-r", "3")
    with tempfile.TemporaryDirectory() as work:
        lines += ["", *sections(Path(work))]
    args.output.write_text("\n".join(lines) + "\n")
    print(args.output)


if __name__ == "__main__":
    main()
