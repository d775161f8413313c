"""Frames as text: one character shows two pixels, the upper as foreground, the lower as background colour."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from genie_cpp.model import Frame

BLOCK = "\u2580"  # upper half
_LEVELS = (0, 95, 135, 175, 215, 255)  # of the 6x6x6 cube in the 256-colour palette
_SRGB = np.arange(256) / 255
_LINEAR = np.where(_SRGB <= 0.04045, _SRGB / 12.92, ((_SRGB + 0.055) / 1.055) ** 2.4).astype(np.float32)
_CONES = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ],
    np.float32,
)
_OPPONENTS = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ],
    np.float32,
)


def scaled(frame: Frame, columns: int, rows: int) -> Frame:
    """The largest copy of a frame that fits into this many characters: enlarged by an integer factor, or shrunk."""
    height, width = frame.shape[:2]
    most = min(columns / width, 2 * rows / height)
    if most >= 1:
        return frame.repeat(int(most), 0).repeat(int(most), 1)
    size = max(1, int(width * most)), max(2, int(height * most) & ~1)
    return np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BOX), np.uint8)


def text(frame: Frame, colours: int = 1 << 24) -> list[str]:
    """uint8 [H, W, 3] -> ceil(H / 2) lines of W half-blocks, each ending with colours reset.

    colours: 1 << 24 (truecolour) or 256. A colour code is written only where the colour changes.
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
    """uint8 [..., 3] -> the nearest of the 240 fixed colours, 16…255: a cube of 216 and 24 greys.

    Nearest as the eye sees it, in OKLab (Ottosson 2020, "A perceptual color space for image processing"). In RGB a dark
    green would be nearer to petrol, and brown nearer to grey.
    """
    lab = _oklab(colours)
    distance = (_FIXED**2).sum(-1) - 2 * (lab @ _FIXED.T)  # without the colour's own square, which is the same for all
    return 16 + distance.argmin(-1)


def _oklab(colours: NDArray[np.uint8]) -> NDArray[np.float32]:
    """sRGB uint8 [..., 3] -> lightness, green to red, blue to yellow, float32 [..., 3]."""
    return np.cbrt(_LINEAR[colours] @ _CONES.T) @ _OPPONENTS.T


def _indexed(frame: Frame) -> list[str]:
    return [f"5;{index}" for index in nearest(frame).reshape(-1)]


_CUBE = [(r, g, b) for r in _LEVELS for g in _LEVELS for b in _LEVELS]
_FIXED = _oklab(np.array([*_CUBE, *((8 + 10 * i,) * 3 for i in range(24))], np.uint8))
