"""Images of a long play: contact sheets, and a plot of the tokens' entropy over time."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from genie_cpp.evaluate.life import STRETCH, Life
from genie_cpp.model import Frame

_COLUMNS, _GAP = 10, 2
_COLOURS = ("#3366cc", "#dc3912", "#ff9900", "#109618", "#990099", "#0099c6", "#dd4477", "#66aa00")


def contact(frames: Sequence[Frame], columns: int = _COLUMNS) -> Image.Image:
    """Frames in rows; the first is at the top left."""
    height, width, _ = frames[0].shape
    rows = -(-len(frames) // columns)
    sheet = np.full((rows * (height + _GAP), columns * (width + _GAP), 3), 255, np.uint8)
    for k, frame in enumerate(frames):
        y, x = k // columns * (height + _GAP), k % columns * (width + _GAP)
        sheet[y : y + height, x : x + width] = frame
    return Image.fromarray(sheet)


def entropy_plot(life: Life) -> Image.Image:
    """Bits per token of each stretch of the mixed walks. The dashed line is the value of real play."""
    width, height, left, bottom = 640, 320, 40, 30
    image = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(image)
    curves = [walk.entropy for walk in life.mixed]
    longest = max(map(len, curves))
    top = max([v for curve in curves for v in curve] + [life.real_entropy or 0.0]) * 1.1 or 1.0

    def at(stretch: float, bits: float) -> tuple[float, float]:
        across = (width - left - 20) * stretch / max(1, longest - 1)
        return left + across, height - bottom - (height - bottom - 10) * bits / top

    draw.line([at(0, 0), at(max(1, longest - 1), 0)], fill="black")
    draw.line([at(0, 0), at(0, top)], fill="black")
    for bits in range(int(top) + 1):
        draw.text((8, at(0, bits)[1] - 6), f"{bits}", fill="black")
    for k in range(longest):
        draw.text((at(k, 0)[0] - 8, height - bottom + 6), f"{(k + 1) * STRETCH}", fill="black")
    if life.real_entropy is not None:
        y = at(0, life.real_entropy)[1]
        for x in range(left, width - 20, 12):
            draw.line([(x, y), (x + 6, y)], fill="gray")
    for colour, curve in zip(_COLOURS * len(curves), curves, strict=False):
        points = [at(k, bits) for k, bits in enumerate(curve)]
        draw.line(points * (2 if len(points) == 1 else 1), fill=colour, width=2)
    draw.text(
        (left + 8, 4), "bits per token, stretches of mixed walks by their last frame; dashed: real play", fill="black"
    )
    return image


def write(life: Life, folder: Path) -> list[Path]:
    """Write a sheet per action and walk, and the plot, as PNG. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, frames in life.sheets.items():
        written.append(folder / f"{re.sub(r'[^a-z0-9-]+', '-', name.lower())}.png")
        contact(frames).save(written[-1])
    if life.mixed:
        written.append(folder / "entropy.png")
        entropy_plot(life).save(written[-1])
    return written
