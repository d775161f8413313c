"""The figures of docs/performance.md: SVG, beside the page. Needs matplotlib."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from targets import OURS, best, rows_of

Results = dict[str, Any]
MINE, THEIRS = "#1b6ca8", "#b8b8b8"


def products(results: Results, axes: Any) -> None:
    """The best of each engine's block-32 and coarser kinds, by shape, one thread."""
    isa = results["products"]["rows"][0]["isa"]
    rows = rows_of(results, isa, 1)
    kinds = {"ours Q8_0": ("ours: Q8_0",), "ours Q4_0": ("ours: Q4_0",)}
    for engine in ("OpenVINO", "ONNX Runtime", "PyTorch", "ggml"):
        kinds |= {f"{engine}, {kind}": (f"{kind}: {engine}",) for kind in ("coarse", "block")}
    shapes = [f"{row['K']} → {row['N']}" for row in rows]
    for name, starts in kinds.items():
        found = [best(row["speed"], *starts, most=True) for row in rows]
        if all(found):
            y = [
                100 * pair[1] / row["peak"] if row["peak"] else math.nan for pair, row in zip(found, rows, strict=True)
            ]
            mine = name.startswith("ours")
            axes.plot(shapes, y, marker="o", lw=2.5 if mine else 1.2, ls="--" if "block" in name else "-", label=name)
    axes.axhline(84, color="black", lw=0.8, ls=":")
    axes.set(ylim=(0, 105), ylabel=f"% of the int8 peak ({isa}, 1 thread)", xlabel="K → N, M = 256")
    axes.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))
    axes.tick_params("x", labelrotation=20)


def frames(results: Results, axes: Any) -> None:
    rows = results["frames"][::-1]
    names = [f"{row['model']}: {row['system']}" for row in rows]
    values = [1 / row["seconds"] for row in rows]
    bars = axes.barh(names, values, color=[MINE if "genie_cpp" in name else THEIRS for name in names])
    axes.bar_label(bars, [f"{value:.2g}" for value in values], padding=3, fontsize=8)
    axes.set(xscale="log", xlabel="frames per second (tokens of a frame, 2 threads, log scale)")
    axes.margins(x=0.15)


def parts(results: Results, axes: Any) -> None:
    """MaskGIT steps, split in proportion to their parts measured alone; one thread."""
    for row in (row for row in results["step"] if row["threads"] == 1):
        model = next((m for m in results["models"] if m["threads"] == 1 and m["model"] == f"{row['model']}-q8_0"), None)
        if model is None:
            continue
        total = row["times"][OURS]
        split = {
            "products": row["products"],
            "spatial attention": row["spatial"],
            "temporal attention": row["temporal"],
        }
        split["norms, quantizing, sampling, rest"] = max(total - sum(split.values()), 0.0)
        steps = model["step"] * model["steps"]
        pieces = {name: part / sum(split.values()) * steps for name, part in split.items()}
        pieces["pass that commits"] = max(model["dynamics"] - steps, 0.0)
        pieces["decoding to pixels"] = model["decode"]
        left = 0.0
        for i, (name, value) in enumerate(pieces.items()):
            share = f"{100 * value / sum(pieces.values()):.0f} %"
            axes.barh([model["model"]], [value], left=left, label=f"{name} ({share})", color=f"C{i}")
            left += value
        axes.set_xlabel(f"milliseconds of a frame of {model['steps']} steps, 1 thread")
    axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.35), ncols=2)


def growth(results: Results, figure: Any) -> None:
    times = results["growth"]["times"]
    units = {
        "tokens": "tokens per frame",
        "width": "embedding length",
        "layers": "blocks",
        "window": "frames in the window",
    }
    for axes, (name, found) in zip(figure.subplots(1, len(times)), times.items(), strict=True):
        x, y = [int(value) for value in found], [1e3 * t for t in found.values()]
        axes.plot(x, y, marker="o", color=MINE)
        axes.set(xlabel=units.get(name, name), ylim=(0, 1.1 * max(y)), xlim=(0, 1.05 * max(x)))
    figure.axes[0].set_ylabel("ms per MaskGIT step")


def draw(results: Results, folder: Path) -> dict[str, str]:
    """Write the figures of all sections that were measured. Returns their file names."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update(
        {"svg.hashsalt": "genie_cpp", "svg.fonttype": "none", "axes.spines.top": False, "axes.spines.right": False}
    )
    import matplotlib.pyplot as plt

    needs = {"products": ("products",), "frames": ("frames",), "parts": ("step", "models"), "growth": ("growth",)}
    sizes = {"products": (8.5, 3.8), "frames": (8, 3), "parts": (8, 2.4), "growth": (12, 2.8)}
    drawn = {}
    for name, needed in needs.items():
        if all(section in results for section in needed):
            figure = plt.figure(figsize=sizes[name])
            if name == "growth":
                growth(results, figure)
            else:
                {"products": products, "frames": frames, "parts": parts}[name](results, figure.add_subplot())
            figure.savefig(folder / f"performance-{name}.svg", bbox_inches="tight", metadata={"Date": None})
            plt.close(figure)
            drawn[name] = f"performance-{name}.svg"
    return drawn
