"""Recorded play, in the format of `examples/training/collect.py`."""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genie_cpp.errors import GenieError
from genie_cpp.spec.hparams import HParams
from genie_cpp.words import quoted


class DataError(GenieError):
    """The folder does not hold recorded play of this world."""


_HINT = "a folder as examples/training/collect.py makes it has train.npz, test.npz and, of a place, places.npz"


@dataclass(frozen=True)
class Play:
    """Held-out episodes, and what is known about the game.

    actions: None where only frames were recorded. places: index into `pictures` for each frame. landmarks: rows of
    place, landmark number, top, left, bottom, right.
    """

    frames: NDArray[np.uint8]  # [N, L, H, W, 3]
    actions: NDArray[np.uint8] | None  # [N, L-1], the game's own
    blocked: NDArray[np.bool_]  # [N, L-1]: a wall blocked the step
    places: NDArray[np.int32] | None = None  # [N, L]
    pictures: NDArray[np.uint8] | None = None  # [K, H, W, 3], without the moving figure
    mover: tuple[int, int, int, int] = (0, 0, 0, 0)  # top, left, bottom, right, in pixels
    landmarks: NDArray[np.int32] = field(default_factory=lambda: np.empty((0, 6), np.int32))
    landmark_names: tuple[str, ...] = ()

    @staticmethod
    def load(folder: Path, hp: HParams) -> Play:
        """Read test.npz and places.npz and check that they fit the world. Raises DataError."""
        test = _arrays(folder / "test.npz", ("frames",), ("actions", "places", "blocked"))
        frames, actions = test["frames"], test.get("actions")
        where = quoted(str(folder))
        if frames.dtype != np.uint8 or frames.ndim != 5:
            raise DataError(f"{where} has frames {frames.shape} of {frames.dtype}, not uint8 [N, L, H, W, 3]", _HINT)
        steps = len(frames), frames.shape[1] - 1
        if actions is not None and actions.shape != steps:
            raise DataError(f"{where} has frames {frames.shape} and actions {actions.shape}, which do not fit", _HINT)
        height, width = frames.shape[2:4]
        if (height, width) != (hp.frame_height, hp.frame_width):
            raise DataError(
                f"{where} has frames of {width}x{height} pixels, the world has {hp.frame_width}x{hp.frame_height}",
                "give recorded play of this world",
            )
        if frames.shape[1] <= hp.context_length:
            raise DataError(
                f"{where} has clips of {frames.shape[1]} frames, the world's window holds {hp.context_length}",
                f"collect episodes of {hp.context_length + 1} frames at least",
            )
        blocked = test.get("blocked", np.zeros(steps, bool))
        numbers_only = actions is None or (actions.dtype.kind in "iu" and actions.size)
        if blocked.shape != steps or blocked.dtype != bool or not numbers_only or not frames.size:
            raise DataError(f"{where} has actions that are not integers, or `blocked` of another shape", _HINT)
        places = test.get("places")
        if places is None:
            return Play(frames, actions, blocked)
        if actions is None:
            raise DataError(f"{where} has places, but no array 'actions' that led to them", _HINT)
        known = _arrays(folder / "places.npz", ("frames", "mover", "landmarks", "landmark_names"), ())
        pictures, mover, landmarks = known["frames"], known["mover"], known["landmarks"]
        fits = pictures.shape[1:] == frames.shape[2:] and pictures.dtype == np.uint8 and mover.shape == (4,)
        fits = fits and places.shape == frames.shape[:2] and landmarks.ndim == 2 and landmarks.shape[1] == 6
        numbers = landmarks[:, 1] if fits and len(landmarks) else np.zeros(1, int)
        fits = fits and 0 <= numbers.min() and (not len(landmarks) or numbers.max() < len(known["landmark_names"]))
        if not fits or (places.size and not 0 <= places.min() <= places.max() < len(pictures)):
            raise DataError(f"places.npz in {where} does not fit test.npz", "collect both again")
        names = tuple(str(name) for name in known["landmark_names"])
        top, left, bottom, right = (int(v) for v in mover)
        return Play(frames, actions, blocked, places, pictures, (top, left, bottom, right), landmarks, names)

    @property
    def action_count(self) -> int:
        """All true actions are below this number; 0 if they are not known."""
        return 0 if self.actions is None else int(self.actions.max()) + 1

    def clips(self, count: int, length: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None, NDArray[np.bool_]]:
        """(frames [count, length, H, W, 3], actions and blocked [count, length-1]), taken from all episodes in turn."""
        starts = np.random.default_rng(0).integers(0, self.frames.shape[1] - length + 1, count)
        pairs = [(k % len(self.frames), int(start)) for k, start in enumerate(starts)]
        return (
            np.stack([self.frames[e, s : s + length] for e, s in pairs]),
            None if self.actions is None else np.stack([self.actions[e, s : s + length - 1] for e, s in pairs]),
            np.stack([self.blocked[e, s : s + length - 1] for e, s in pairs]),
        )


def _arrays(path: Path, needed: tuple[str, ...], optional: tuple[str, ...]) -> dict[str, NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as data:
            missing = [name for name in needed if name not in data]
            if missing:
                raise DataError(f"{quoted(str(path))} has no array {missing[0]!r}", _HINT)
            return {name: data[name] for name in (*needed, *optional) if name in data}
    except FileNotFoundError:
        raise DataError(f"{quoted(str(path))} does not exist", _HINT) from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{quoted(str(path))} is not a readable .npz file: {error}", _HINT) from None
