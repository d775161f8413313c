"""Frames as text: one character is two pixels, the upper its foreground, the lower its background."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .model import Frame

BLOCK = "\u2580"  # upper half
_LEVELS = np.array([0, 95, 135, 175, 215, 255])  # of the 6x6x6 cube in the palette of 256 colours


def scaled(frame: Frame, columns: int, rows: int) -> Frame:
    """The largest copy of a frame that fits into so many characters: whole multiples of its pixels, or shrunk."""
    height, width = frame.shape[:2]
    most = min(columns / width, 2 * rows / height)
    if most >= 1:
        return frame.repeat(int(most), 0).repeat(int(most), 1)
    size = max(1, int(width * most)), max(2, int(height * most) & ~1)
    return np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BOX), np.uint8)


def text(frame: Frame, colours: int = 1 << 24) -> list[str]:
    """uint8 [H, W, 3] -> ceil(H / 2) lines of W half-blocks, each ending with colours reset.

    colours: 1 << 24 (truecolour) or 256. A colour is only said where it changes.
    """
    if len(frame) % 2:
        frame = np.concatenate([frame, np.zeros_like(frame[:1])])
    codes = [f"2;{r};{g};{b}" for r, g, b in frame.reshape(-1, 3)] if colours > 256 else _indexed(frame)
    width, lines = frame.shape[1], []
    for row in range(0, len(frame), 2):
        line, before = [], ("", "")
        for column in range(width):
            upper, lower = codes[row * width + column], codes[(row + 1) * width + column]
            parts = [f"38;{upper}"] if upper != before[0] else []
            parts += [f"48;{lower}"] if lower != before[1] else []
            line.append((f"\x1b[{';'.join(parts)}m" if parts else "") + BLOCK)
            before = upper, lower
        lines.append("".join(line) + "\x1b[0m")
    return lines


def nearest(colours: NDArray[np.uint8]) -> NDArray[np.int64]:
    """uint8 [..., 3] -> the nearest of the 240 fixed colours, 16…255: a cube of 216 and 24 greys."""
    rgb = colours.astype(np.int64)
    steps = np.abs(rgb[..., None] - _LEVELS).argmin(-1)
    cube = _LEVELS[steps]
    grey = np.clip((rgb.mean(-1) - 8 + 5) // 10, 0, 23).astype(np.int64)
    greys = np.repeat((8 + 10 * grey)[..., None], 3, -1)
    of_cube = 16 + 36 * steps[..., 0] + 6 * steps[..., 1] + steps[..., 2]
    return np.where(((cube - rgb) ** 2).sum(-1) <= ((greys - rgb) ** 2).sum(-1), of_cube, 232 + grey)


def _indexed(frame: Frame) -> list[str]:
    return [f"5;{index}" for index in nearest(frame).reshape(-1)]
