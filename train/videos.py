"""Videos in: which files there are, their frames at the model's size and rate, and where they are cut."""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from genie_cpp.frames import Frame, fit, iter_frames, load_image
from genie_cpp.media import video
from genie_cpp.train.errors import TrainError
from genie_cpp.words import quoted

FILMS = (".mp4", ".m4v", ".webm", ".mov", ".mkv", ".gif", ".webp", ".apng")
PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".avif", ".tif", ".tiff", ".webp")
MOST_RATE = 10.0  # frames/s taken from a film by default: games answer a key some ten times a second
# A cut: the colours of two frames differ, and the frames differ much more than neighbours in this video do.
CUT_COLOURS, CUT_TIMES = 0.35, 4.0
_HINT = "mp4, webm, mov, mkv and gif files, folders of pictures, or .npz files with frames [N, L, H, W, 3]"


@dataclass(frozen=True)
class Video:
    """Something that frames come from. named: the user named it, it was not found in a folder."""

    path: Path
    kind: str  # "film", "pictures" (a folder of them, in the order of their numbers) or "arrays" (.npz)
    named: bool = True

    @property
    def bytes(self) -> int:
        files = self.path.iterdir() if self.kind == "pictures" else [self.path]
        return sum(file.stat().st_size for file in files if file.is_file())


class Facts(NamedTuple):
    """What a video says of itself. rate: frames/s; None where it says nothing."""

    width: int
    height: int
    rate: float | None


def find(paths: Sequence[Path]) -> list[Video]:
    """The videos among files and folders. A folder that holds pictures is one video; others are searched.

    Raises TrainError for a path that is none, and if there is no video at all.
    """
    found: list[Video] = []
    for path in paths:
        if not path.exists():
            raise TrainError(f"{quoted(str(path))} does not exist", _HINT)
        if path.is_dir():
            inside = list(_inside(path))
            if not inside:
                raise TrainError(f"the folder {quoted(str(path))} holds no videos", _HINT)
            found += inside
        elif path.suffix.lower() == ".npz":
            found.append(Video(path, "arrays"))
        elif path.suffix.lower() in FILMS:
            found.append(Video(path, "film"))
        else:
            raise TrainError(f"{quoted(str(path))} is no video", _HINT)
    return found


def _inside(folder: Path) -> Iterator[Video]:
    entries = sorted(folder.iterdir(), key=lambda path: _natural(path.name))
    collected = folder / "train.npz"
    if collected.is_file():  # as examples/training/collect.py makes it; its test.npz is held out
        yield Video(collected, "arrays", named=False)
        return
    if any(path.suffix.lower() in PICTURES for path in entries) and not any(_is_film(path) for path in entries):
        yield Video(folder, "pictures", named=False)
    for path in entries:
        if path.name.startswith("."):
            continue
        if path.is_dir():
            yield from _inside(path)
        elif _is_film(path):
            yield Video(path, "film", named=False)
        elif path.suffix.lower() == ".npz":
            yield Video(path, "arrays", named=False)


def _is_film(path: Path) -> bool:
    return path.suffix.lower() in set(FILMS) - set(PICTURES)


def _natural(name: str) -> list[tuple[int, str]]:
    """frame-9 comes before frame-10."""
    return [(int(part), "") if part.isdigit() else (-1, part.lower()) for part in re.split(r"(\d+)", name)]


def facts(source: Video) -> Facts:
    """Size and rate. Raises ImageError, TrainError."""
    if source.kind == "arrays":
        height, width = arrays(source.path)["frames"].shape[2:4]
        return Facts(width, height, None)
    if source.kind == "pictures":
        first = load_image(next(_pictures(source.path)))
        return Facts(first.shape[1], first.shape[0], None)
    with source.path.open("rb") as file:
        rate = video.frame_rate(source.path, quoted(str(source.path))) if video.is_video(file.read(12)) else None
    first = load_image(source.path)
    return Facts(first.shape[1], first.shape[0], rate)


def _pictures(folder: Path) -> Iterator[Path]:
    files = sorted(folder.iterdir(), key=lambda path: _natural(path.name))
    return (path for path in files if path.suffix.lower() in PICTURES)


def frames(source: Video, width: int, height: int, rate: float) -> Iterator[Frame]:
    """The frames of a film or of pictures at this size, cropped to it; of a film that has more than `rate` of them a
    second, so many. Raises ImageError.
    """
    shown: Iterable[Frame]
    if source.kind == "pictures":
        shown = (load_image(path) for path in _pictures(source.path))
    else:
        own = facts(source).rate
        shown = iter_frames(source.path, rate if own is not None and own > rate else None)
    return (fit(frame, width, height) for frame in shown)


def arrays(path: Path) -> dict[str, NDArray[Any]]:
    """frames [N, L, H, W, 3] uint8 of a .npz; actions and blocked [N, L-1] where it has them. Raises TrainError."""
    try:
        with np.load(path, allow_pickle=False) as data:
            found = {name: data[name] for name in ("frames", "actions", "blocked") if name in data}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise TrainError(f"{quoted(str(path))} is not a readable .npz file: {error}") from None
    shown = found.get("frames")
    if shown is None or shown.dtype != np.uint8 or shown.ndim not in (4, 5) or shown.shape[-1] != 3 or not shown.size:
        raise TrainError(f"{quoted(str(path))} has no array 'frames' of uint8 [N, L, H, W, 3]")
    if shown.ndim == 4:
        found["frames"] = shown = shown[None]
    for name in ("actions", "blocked"):
        if name in found and found[name].shape != (len(shown), shown.shape[1] - 1):
            raise TrainError(f"{quoted(str(path))} has {name} {found[name].shape} for frames {shown.shape}")
    return found


class Cuts:
    """Finds where a video is cut, from its frames one at a time."""

    def __init__(self) -> None:
        self._before: tuple[Frame, NDArray[np.float64]] | None = None
        self._change: list[float] = []
        self._colours: list[float] = []

    def see(self, frame: Frame) -> None:
        bins = (frame.reshape(-1, 3) >> 5).astype(np.int32) @ np.array([64, 8, 1], np.int32)
        colours = np.bincount(bins, minlength=512) / len(bins)
        if self._before is not None:
            self._change.append(float(np.abs(frame.astype(np.int16) - self._before[0]).mean()))
            self._colours.append(float(np.abs(colours - self._before[1]).sum()) / 2)
        self._before = frame, colours

    def found(self) -> list[int]:
        """The numbers of frames that begin a new shot; never 0."""
        change, colours = np.array(self._change), np.array(self._colours)
        if not change.size:
            return []
        usual = float(np.median(change[change > 0])) if change.any() else 0.0
        return [int(k) + 1 for k in ((colours > CUT_COLOURS) & (change > CUT_TIMES * usual)).nonzero()[0]]


def moves(clip: NDArray[np.uint8]) -> bool:
    """Whether anything changes in [L, H, W, 3], beyond a film's noise."""
    if len(clip) < 2:
        return False
    picked = clip[:: max(1, len(clip) // 16)].astype(np.int16)
    return bool(np.abs(np.diff(picked, axis=0)).max(initial=0) > 12)
