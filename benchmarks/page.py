"""Writes docs/performance.md from the measurements: the targets first, then a section for each."""

from __future__ import annotations

import math
from typing import Any

import limits
from targets import best, rows_of, verdicts
from text import ms, table

Results = dict[str, Any]
PLOTS = {
    "products": "Products at M = 256: each engine's share of the int8 peak",
    "frames": "Frames per second by system",
    "parts": "Where a frame's time goes, one thread",
    "growth": "How a MaskGIT step grows",
}


def products(results: Results) -> list[str]:
    lines = ["## Matrix products", ""]
    lines += [
        "In GOP/s. Activations are float; quantizing them is part of the time. Peak: the int8 multiply-add",
        "instructions of the same ISA from registers, in the same rounds. Error: relative, against float64 on",
        'Gaussian data, for the worst shape. "block": a scale per 32 columns of a weight; "coarse": one per',
        "channel or tensor, which is less work.",
        "",
    ]
    for build, features in results["products"]["ggml"].items():
        lines += [
            f"ggml, {'AVX2 wheel' if build == 'wheel' else 'built here'}: compiled with {', '.join(features)}.",
            "",
        ]
    for isa, threads, M in dict.fromkeys((r["isa"], r["threads"], r["M"]) for r in results["products"]["rows"]):
        rows = rows_of(results, isa, threads, M)
        lines += [f"### M = {M}, {threads} thread{'s' * (threads > 1)}, {isa}", ""]
        names = sorted(rows[0]["speed"], key=lambda name: (name.split(":")[0] != "ours", -rows[0]["speed"][name]))
        body = [["peak", *(f"{row['peak']:.0f}" for row in rows), "", ""]]
        for name in names:
            shares = [row["speed"][name] / row["peak"] if row["peak"] else 0 for row in rows]
            mean = math.exp(sum(math.log(max(share, 1e-9)) for share in shares) / len(shares))
            cells = [f"{row['speed'][name]:.0f}" for row in rows]
            body.append([name, *cells, f"{100 * mean:.0f} %", f"{max(r['errors'][name] for r in rows):.1e}"])
        lines += table(["", *(f"{r['K']} → {r['N']}" for r in rows), "of peak (gmean)", "error"], body)
    return lines


def attention(results: Results) -> list[str]:
    lines = ["## Attention, one thread", ""]
    titles = {
        "spatial": "Inside a frame: 256 tokens, 8 heads of 64; ours without laying out the keys (once per layer)",
        "temporal": "One new frame over the cache: 256 positions, 8 heads of 64, 16 keys each",
    }
    for kind, title in titles.items():
        found = results["attention"][kind]
        lines += [f"### {title}", ""]
        base = best(found["times"], "torch SDPA")[1]
        body = [
            [name, ms(t), f"{found['operations'] / t / 1e9:.0f}", f"{base / t:.2f}", f"{found['errors'][name]:.1e}"]
            for name, t in sorted(found["times"].items(), key=lambda item: item[1])
        ]
        lines += table(["", "ms", "GFLOP/s", "best torch SDPA = 1", "error"], body)
    return lines


def step(results: Results) -> list[str]:
    lines = ["## One MaskGIT step with a full window", ""]
    lines += [
        "Ours includes sampling; the others stop at the logits. The others get keys and values of past frames as",
        "inputs and score the new frame's key separately, so nothing is copied. Error: of the logits, against fp32",
        "PyTorch.",
        "",
    ]
    for row in results["step"]:
        mine = row["times"]["genie_cpp Q8_0"]
        body = [
            [name, ms(t), f"{mine / t:.2f}", f"{row['errors'][name]:.1e}"]
            for name, t in sorted(row["times"].items(), key=lambda item: item[1])
        ]
        lines += [f"### {row['model']}, {row['threads']} thread{'s' * (row['threads'] > 1)}", ""]
        lines += table(["", "ms", "speed, ours = 1", "error"], body)
        lines += [f"Its matrix products, each measured alone: {ms(row['products'])} ms; the step takes "
                  f"{mine / row['products']:.2f} times as long.", ""]  # fmt: skip
    return lines


def models(results: Results) -> list[str]:
    lines = ["## Whole models", "", "As `genie-bench` measures them: the last frame that fits in the window.", ""]
    body = [
        [
            r["model"], r["isa"], f"{r['threads']}", f"{r['steps']}", f"{r['step']:.2f}", f"{r['tokens']:.2f}",
            f"{r['dynamics']:.1f}", f"{r['decode']:.2f}", f"{1e3 / r['frame']:.2f}", f"{100 * r['share']:.0f} %",
        ]
        for r in results["models"]
    ]  # fmt: skip
    titles = ["model", "ISA", "threads", "steps", "ms/step", "tokens ms", "dynamics ms", "decode ms", "frames/s"]
    return [*lines, *table([*titles, "step, of peak"], body)]


def frames(results: Results) -> list[str]:
    lines = ["## A whole frame against PyTorch, two threads", ""]
    lines += [
        "Tokens of the last frame of a full window, with the same weights, sampler and noise. The weights of",
        "appendix-f are random, so its logits are nearly flat, and quantization changes more tokens.",
        "",
    ]
    body = []
    for r in results["frames"]:
        same = {other["system"]: other["seconds"] for other in results["frames"] if other["model"] == r["model"]}
        slow = next(t for name, t in same.items() if "all frames" in name)
        cached = next(t for name, t in same.items() if "cached" in name)
        ratios = [f"{slow / r['seconds']:.1f}", f"{cached / r['seconds']:.2f}"]
        body.append([r["model"], r["system"], ms(r["seconds"]), *ratios, f"{100 * r['agree']:.1f} %"])
    titles = ["model", "system", "ms", "all frames at each step = 1", "cached PyTorch = 1", "tokens as fp32 PyTorch"]
    return [*lines, *table(titles, body)]


def scaling(results: Results) -> list[str]:
    body = [[r["what"], ms(r["one"]), ms(r["two"]), f"{r['one'] / r['two']:.2f}"] for r in results["scaling"]]
    return ["## Two threads against one", "", *table(["", "one thread ms", "two threads ms", "ratio"], body)]


def window(results: Results) -> list[str]:
    body = [
        [
            r["kind"], f"{r['frames']}", ms(r["seconds"]), ms(r["sliding"]),
            f"{100 * r['sliding'] / r['seconds']:.0f} %", f"{r['again']:.0f}", ms(r["sliding"] / r["again"]),
            ms(r["step"]),
        ]
        for r in results["window"]
    ]  # fmt: skip
    titles = [
        "window",
        "frames",
        "ms per frame",
        "of it sliding",
        "share",
        "run again, per frame",
        "ms each",
        "ms a step",
    ]
    lines = ["## Sliding the window", ""]
    lines += [
        "When a window slides, the frames that are kept get new positions in time. So they run again, as far as",
        "the last cached keys. Each costs as much as a MaskGIT step. Several frames in one pass would not make",
        "products faster: with the rows of one frame they are already as close to their limit as above.",
        "",
    ]
    return [*lines, *table(titles, body)]


def memory(results: Results) -> list[str]:
    lines = ["## Memory and load time", ""]
    lines += [
        "Memory: anonymous resident memory beyond what the process had before. On paper: packed weights, and what",
        "the states of the dynamics and the decoder ask for. Load: from page cache, including packing; read: the",
        "file read into an array, with one pass over it. Both are medians of 9.",
        "",
    ]
    body = []
    for r in results["memory"]:
        mib = [r[name] / 2**20 for name in ("weights", "loaded", "states", "played")]
        cells = [
            r["model"],
            *(f"{value:.1f}" for value in mib),
            f"{100 * r['played'] / (r['weights'] + r['states']):.0f} %",
        ]
        body.append([*cells, ms(r["load"]), ms(r["read"]), f"{r['load'] / r['read']:.2f}"])
    titles = [
        "model",
        "packed MiB",
        "loaded MiB",
        "states MiB",
        "played MiB",
        "of paper",
        "load ms",
        "read ms",
        "ratio",
    ]
    return [*lines, *table(titles, body)]


def samplers(results: Results) -> list[str]:
    lines = ["## Samplers", ""]
    lines += [
        "`genie-eval --sweep` on each bundled world. Next frame: the sampled one against the true one (with its",
        "standard error). Strays and entropy: of a mixed walk, entropy as a share of real play's. At its place: of",
        "a world that is one place, how many frames at the end of a walk of 500 are where the map says. Chosen:",
        "the fewest passes within noise of the best in all of these.",
        "",
    ]
    for name, rows in results["samplers"].items():
        body = [
            [
                f"{r['steps']}", f"{r['temperature']:.3g}", r["order"], f"{r['next_db']:.1f} ± {r['next_error']:.1f}",
                f"{100 * r['strays']:.2f} %", f"{r['entropy_share']:.2f}", f"{100 * r.get('place_right', 0):.0f} %",
                f"{r['ms']:.1f}", "<- chosen" if r["chosen"] else "",
            ]
            for r in rows
        ]  # fmt: skip
        titles = ["steps", "temperature", "order", "next frame dB", "strays", "entropy", "at its place", "ms", ""]
        lines += [f"### {name}", "", *table(titles, body)]
    return lines


def growth(results: Results) -> list[str]:
    found = results["growth"]
    base = ", ".join(f"{value} {name}" for name, value in found["base"].items())
    lines = [
        "## How a step grows",
        "",
        f"Milliseconds of a MaskGIT step, random Q8_0 weights. Unless varied: {base}.",
        "",
    ]
    body = [[name, ", ".join(f"{v}: {ms(t)}" for v, t in times.items())] for name, times in found["times"].items()]
    return [*lines, *table(["varied", "value: ms"], body)]


SECTIONS = {
    "small_step": limits.section, "products": products, "attention": attention, "step": step, "models": models,
    "frames": frames, "scaling": scaling,
    "window": window, "memory": memory, "growth": growth, "samplers": samplers,
}  # fmt: skip


def page(results: Results, plots: dict[str, str]) -> str:
    """plots: paths relative to the page, by the keys of PLOTS."""
    lines = ["# Performance", "", "Written by `make bench`, not by hand.", "", results["environment"], ""]
    lines += [results["versions"], "", *(f"{line}\n" for line in results["notes"])]
    lines += [
        "All systems are timed in turns. For products, attention, steps and growth the fastest of the rounds",
        "counts, for whole models the mean, for frames the median.",
        "",
        "## Targets",
        "",
    ]
    verdict = [[v.what, v.target, v.measured, v.text()] for v in verdicts(results)]
    lines += table(["what", "target", "measured", "verdict"], verdict)
    for name, title in PLOTS.items():
        if name in plots:
            lines += [f"![{title}]({plots[name]})", ""]
    for name, section in SECTIONS.items():
        if name in results:
            lines += section(results)
    return "\n".join(lines).rstrip() + "\n"
