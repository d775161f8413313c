"""report.html of a run: what it learns from, its losses so far, pictures, and in the end its figures."""

from __future__ import annotations

import base64
import csv
import html
import io
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from genie_cpp.evaluate.sheet import contact

PARTS = ("tokenizer", "lam", "dynamics")
_STYLE = """body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
  color-scheme: light dark; color: CanvasText; background: Canvas }
table { border-collapse: collapse } td, th { padding: .2rem .8rem; border-bottom: 1px solid #8886; text-align: left }
img, svg { max-width: 100%; height: auto } svg { background: #fff }
.sheet { width: 100%; image-rendering: pixelated }"""


def write(run: Path, facts: Mapping[str, Any], figures: Mapping[str, Any], tables: Sequence[str] = ()) -> None:
    """Write report.html from what the run's folder holds. figures: a table. tables: Markdown, shown as text."""
    parts = [_table(facts)]
    for part in PARTS:
        curves = _curves(run / f"{part}.csv")
        sheets = sorted((run / "samples").glob(f"{part}*.png"))
        if curves or sheets:
            parts.append(f"<h2>{html.escape(part)}</h2>{curves}")
            parts += [_picture(path) for path in sheets]
    if figures:
        parts.append("<h2>on held-out clips</h2>" + _table(figures))
    parts += [f"<pre>{html.escape(text)}</pre>" for text in tables]
    title = html.escape(str(facts.get("world", "a world")))
    page = f"""<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title><style>{_STYLE}</style><h1>{title}</h1>{"".join(parts)}</html>"""
    made = run / "report.part"
    made.write_text(page, encoding="utf-8")
    os.replace(made, run / "report.html")


def _table(rows: Mapping[str, Any]) -> str:
    shown = "".join(f"<tr><th>{html.escape(str(k))}<td>{html.escape(_text(v))}" for k, v in rows.items())
    return f"<table>{shown}</table>"


def _text(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _picture(path: Path) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    name = html.escape(path.stem.replace("-", " "))
    return f'<figure><img class="sheet" src="data:image/png;base64,{data}" alt="{name}"><figcaption>{name}</figure>'


def _curves(path: Path) -> str:
    """The columns of a log over minutes, as one SVG; "" before the first lines."""
    if not path.exists():
        return ""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    if len(rows) < 2:
        return ""
    from matplotlib.figure import Figure  # half a second, and only the report draws

    names = [name for name in rows[0] if name not in ("step", "seconds")]
    minutes = np.array([float(row["seconds"]) for row in rows]) / 60
    figure = Figure(figsize=(10, 2.4), layout="constrained")
    for k, name in enumerate(names):
        axes = figure.add_subplot(1, len(names), k + 1)
        values = np.array([float(row[name]) for row in rows])
        axes.plot(minutes, values, color="#bbb", linewidth=0.8)
        axes.plot(minutes, _smooth(values), color="#1f5fbf")
        axes.set_title(name, fontsize=9)
        axes.set_xlabel("minutes", fontsize=8)
        axes.tick_params(labelsize=7)
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    return re.sub(r"^.*?<svg", "<svg", text.getvalue(), flags=re.S)


def _smooth(values: NDArray[np.float64], over: int = 9) -> NDArray[np.float64]:
    if len(values) < over:
        return values
    sums = np.convolve(values, np.ones(over), "same")
    return sums / np.convolve(np.ones(len(values)), np.ones(over), "same")


def sheet(path: Path, rows: Sequence[NDArray[np.uint8]], scale: int = 2) -> None:
    """Save rows of frames [N, H, W, 3] of equal length as one picture."""
    frames = [frame for row in rows for frame in row]
    image = contact(frames, len(rows[0]))
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST).save(part, "PNG", optimize=True)
    os.replace(part, path)
