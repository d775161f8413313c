"""Measures on frames and tokens. T frames, P tokens per frame, in a grid of rows x columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from genie_cpp.model import Frame, Ids

LONGEST_PERIOD = 20  # frames; a world that repeats itself within so few frames is dead


class Watch(Protocol):
    """Iterates over items and shows the progress, like `rich.progress.track`."""

    def __call__(self, items: Iterable[Any], label: str, total: int) -> Iterable[Any]: ...


def unwatched(items: Iterable[Any], label: str, total: int) -> Iterable[Any]:
    return items


def psnr(a: NDArray[np.uint8], b: NDArray[np.uint8], mask_HW: NDArray[np.bool_] | None = None) -> NDArray[np.float64]:
    """dB per frame of uint8 [..., H, W, 3]; 100 for identical frames. mask_HW: the pixels to compare."""
    square = (a.astype(np.float32) - b.astype(np.float32)) ** 2
    mse = square.mean((-3, -2, -1)) if mask_HW is None else square[..., mask_HW, :].mean((-2, -1))
    return -10 * np.log10(np.maximum(np.asarray(mse, np.float64) / 255**2, 1e-10))


def overall(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """PSNR in dB of the mean squared error over all pixels; at most 100."""
    mse = float(np.mean((a.astype(np.float32) - b.astype(np.float32)) ** 2, dtype=np.float64)) / 255**2
    return float(-10 * np.log10(max(mse, 1e-10)))


def mean_error(values: Sequence[float] | NDArray[Any]) -> tuple[float, float]:
    """(mean, its standard error); the error of a single value is 0."""
    x = np.asarray(values, np.float64)
    return float(x.mean()), float(x.std(ddof=1) / np.sqrt(len(x))) if len(x) > 1 else 0.0


def entropy(ids: Ids) -> float:
    """Bits per token, with all tokens seen as draws from one distribution (Shannon 1948)."""
    counts = np.bincount(np.asarray(ids).reshape(-1))
    share = counts[counts > 0] / counts.sum()
    return float(max(0.0, -(share * np.log2(share)).sum()))


def distinct(ids_TP: Ids) -> float:
    """Number of different frames / number of frames: 1.0 if no frame occurs twice."""
    return len(np.unique(ids_TP, axis=0)) / len(ids_TP)


def period(ids_TP: Ids, longest: int = LONGEST_PERIOD) -> int:
    """The smallest p in 1…longest with frame t = frame t - p for all t, or 0 if there is none."""
    for p in range(1, min(longest, len(ids_TP) - 1) + 1):
        if (ids_TP[p:] == ids_TP[:-p]).all():
            return p
    return 0


def changed(ids_TP: Ids) -> float:
    """Share of tokens that differ from the frame before."""
    return float((ids_TP[1:] != ids_TP[:-1]).mean()) if len(ids_TP) > 1 else 0.0


class Neighbours:
    """Which pairs of tokens have been seen next to each other, horizontally and vertically."""

    def __init__(self, codebook_size: int, columns: int, mover_P: NDArray[np.bool_]) -> None:
        self._seen = np.zeros((2, codebook_size, codebook_size), bool)
        self._columns, self._mover = columns, mover_P.reshape(-1, columns)

    def _pairs(self, ids_TP: Ids) -> list[tuple[Ids, Ids]]:
        grid = np.asarray(ids_TP).reshape(len(ids_TP), -1, self._columns)
        still = ~self._mover
        beside, below = still[:, 1:] & still[:, :-1], still[1:] & still[:-1]
        return [
            (grid[:, :, :-1][:, beside], grid[:, :, 1:][:, beside]),
            (grid[:, :-1][:, below], grid[:, 1:][:, below]),
        ]

    def add(self, ids_TP: Ids) -> None:
        """Remember the token pairs of real frames."""
        for seen, (a, b) in zip(self._seen, self._pairs(ids_TP), strict=True):
            seen[a, b] = True

    def strays(self, ids_TP: Ids) -> float:
        """Share of the pairs in these frames that `add` has never seen. Pairs that touch the mover do not count."""
        pairs = self._pairs(ids_TP)
        strange = sum(int((~seen[a, b]).sum()) for seen, (a, b) in zip(self._seen, pairs, strict=True))
        return strange / sum(a.size for a, _ in pairs)


class Nearest:
    """Finds which of many pictures is nearest to a frame, by squared error outside the mover."""

    def __init__(self, pictures: NDArray[np.uint8], mask_HW: NDArray[np.bool_]) -> None:
        self._mask = mask_HW
        self._flat = pictures[:, mask_HW].reshape(len(pictures), -1).astype(np.float32) - 128
        self._norm = np.einsum("ki,ki->k", self._flat, self._flat)

    def holds(self, frames: NDArray[np.uint8], places_T: NDArray[np.integer[Any]]) -> NDArray[np.bool_]:
        """[T]: is the picture of the frame's place the nearest one, up to rounding?"""
        distance = self._distance(frames)
        own = distance[np.arange(len(frames)), places_T]
        slack = 1e-4 * np.abs(self._norm).max()
        return own <= distance.min(1) + slack

    def among(self, frame: NDArray[np.uint8], places: NDArray[np.integer[Any]]) -> int:
        """The place whose picture is nearest to a frame; of equals, the first."""
        return int(places[self._distance(frame[None], places)[0].argmin()])

    def _distance(
        self, frames: NDArray[np.uint8], places: NDArray[np.integer[Any]] | slice = slice(None)
    ) -> NDArray[np.float32]:
        """[T, K], without the term that is the same for every picture."""
        x = frames[:, self._mask].reshape(len(frames), -1).astype(np.float32) - 128
        found: NDArray[np.float32] = self._norm[places] - 2 * (x @ self._flat[places].T)
        return found


def pixels_of(mover: tuple[int, int, int, int], height: int, width: int) -> NDArray[np.bool_]:
    """[H, W]: True outside the mover's box (top, left, bottom, right)."""
    mask = np.ones((height, width), bool)
    mask[mover[0] : mover[2], mover[1] : mover[3]] = False
    return mask


def tokens_of(mover: tuple[int, int, int, int], rows: int, columns: int, patch: int) -> NDArray[np.bool_]:
    """[P]: True for tokens that overlap the mover's box."""
    tokens = np.zeros((rows, columns), bool)
    if mover[2] > mover[0] and mover[3] > mover[1]:
        tokens[mover[0] // patch : -(-mover[2] // patch), mover[1] // patch : -(-mover[3] // patch)] = True
    return tokens.reshape(-1)


def boxes_db(frame: Frame, truth: Frame, boxes: NDArray[np.integer[Any]]) -> list[float]:
    """PSNR between two frames in each box (top, left, bottom, right)."""
    return [float(psnr(frame[t:b, left:r], truth[t:b, left:r])) for t, left, b, r in boxes]
