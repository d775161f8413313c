"""Why some targets are missed, from the same measurements."""

from __future__ import annotations

import math
from typing import Any

from targets import OURS, Results, against, rows_of
from text import ms, table


def _mean(values: list[float]) -> float:
    return math.exp(sum(math.log(value) for value in values) / len(values))


def _products(results: Results) -> list[str]:
    """By ISA and threads: the peak of Q8_0's block instructions on registers alone, ours, and their ratio."""
    body = []
    for isa, threads in dict.fromkeys((row["isa"], row["threads"]) for row in results["products"]["rows"]):
        rows = [row for row in rows_of(results, isa, threads) if row["peak"] and row["limit"]]
        if rows:
            limit = _mean([row["limit"] / row["peak"] for row in rows])
            mine = _mean([row["speed"]["ours: Q8_0"] / row["peak"] for row in rows])
            body.append([f"{isa}, {threads}t", *(f"{100 * share:.0f} %" for share in (limit, mine, mine / limit))])
    first = results["products"]["rows"][0]["isa"]
    at_limit = [
        {**row, "speed": {**row["speed"], "limit": row["limit"]}} for row in rows_of(results, first) if row["limit"]
    ]
    rivals = {
        "the best 8-bit block engine": ("block: OpenVINO 8", "block: ONNX Runtime MatMulNBits 8"),
        "the best ggml": ("block: ggml",),
        "the best coarse engine": ("coarse: ",),
    }
    ratios = {name: against(at_limit, "limit", *starts).values() for name, starts in rivals.items()}
    would = ", ".join(f"{min(found):.2f}…{max(found):.2f} times {name}" for name, found in ratios.items() if found)
    return [
        "**Products.** The peak counts int8 multiply-adds and nothing else. Weights with a scale per 32 columns",
        "also need one float multiplication for every eight of them (AVX-512), on the same units. AVX2 has no",
        "exact int8 product at all; two planes of four bits are the fewest instructions we found. The first column",
        "is the limit that follows: the speed of all these instructions alone, from registers, with nothing",
        "loaded. The coarse engines need no such multiplications, which is why the best of them can be faster.",
        "",
        *table(["Q8_0, M = 256 (gmean)", "limit, of the peak", "ours, of the peak", "ours, of the limit"], body),
        *([f"At that limit the speed of Q8_0 would be, depending on the shape, {would}.", ""] if would else []),
    ]


def _step(row: dict[str, Any], whole: float) -> list[str]:
    parts = [row[name] for name in ("products", "spatial", "temporal")]
    cells = [ms(t) for t in (whole, *parts, whole - sum(parts))]
    return [row["model"], *cells, f"{sum(parts) / row['products']:.2f}", f"{whole / row['products']:.2f}"]


def section(results: Results) -> list[str]:
    lines = ["## What stands in the way", ""]
    if "products" in results:
        lines += _products(results)
    small = results["small_step"]
    large = [row for row in results.get("step", []) if row["threads"] == 1]
    rows = [*large, small]
    body = [_step(row, row["times"][OURS]) for row in large]
    body.append(_step(small, small["step"]))
    lines += [
        "**A step.** Its parts are measured alone, on one thread. The rest is norms, quantization, the",
        "feed-forward's activation, laying out keys and values, sampling, and what products lose when their",
        "weights come from memory instead of the cache. Attention takes time too, so even a step without the rest",
        "takes longer than its products: the column before the last is this ratio.",
        "A step reads all windows once: "
        + ", ".join(f"{row['windows'] / 2**20:.0f} MiB of {row['model']}" for row in rows)
        + ".",
        "",
        *table(
            ["ms", "step", "products", "in a frame", "over the window", "rest", "without it", "step / products"], body
        ),
    ]
    if small["at_peak"]:
        share = 100 * small["at_peak"]
        lines += [
            f"At the peak, the products of {small['model']} would take {ms(small['at_peak'])} ms: "
            f"{share / small['step']:.0f} % of its step, or "
            f"{share / sum(small[name] for name in ('products', 'spatial', 'temporal')):.0f} % of a step that has the "
            "same attention and no rest.",
            "",
        ]
    for row in results.get("memory", []):
        lines += [
            f"**Loading {row['model']}** takes {ms(row['load'])} ms. In {ms(row['header'])} ms of this, Python reads "
            f"the header and checks it against the {row['tensors']} tensors that it must have. "
            f"Reading the file, with one pass over it, takes {ms(row['read'])} ms.",
            "",
        ]
    return lines
