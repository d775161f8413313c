"""The frames of a run on disk: written once from the videos, then read in windows.

frames.rgb    uint8 [N, H, W, 3], the frames of all clips, one after the other
clips.json    size, where each clip begins and ends, which are held out, what was left out and why
keys.npz      where the videos' true actions are known: actions and blocked [N], of the step to the next frame
test.npz      held-out clips of equal length, as `genie-eval --data` reads them
"""

from __future__ import annotations

import functools
import itertools
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from genie_cpp.errors import ImageError
from genie_cpp.leftovers import folder_beside
from genie_cpp.train.errors import TrainError
from genie_cpp.train.videos import Cuts, Video, arrays, frames, moves
from genie_cpp.words import quoted

Say = Callable[[str], None]
Watch = Callable[[str, int, int], None]  # what, how many of how many
TOGETHER = 20_000  # frames of a film that are in memory at a time
MOST_HELD = 101  # frames of a held-out clip
UNKNOWN = 255  # an action that is not known


class Clip(NamedTuple):
    """Frames `begin` to `end` - 1 of the file follow each other without a cut."""

    begin: int
    end: int
    held: bool


class Piece(NamedTuple):
    """What one source gave: frames [L, H, W, 3] without a cut and, where known, the step's actions and walls [L-1]."""

    frames: NDArray[np.uint8]
    actions: NDArray[np.uint8] | None = None
    blocked: NDArray[np.bool_] | None = None
    held: bool = False


def write(
    folder: Path, videos: list[Video], width: int, height: int, rate: float, length: int, say: Say, watch: Watch
) -> None:
    """Write the videos' frames to `folder`, whole or not at all.

    rate: frames a second to take of a film that has more. length: of the model's window; a clip has one frame more at
    least. Raises TrainError if nothing is left to learn from, ImageError for a named video that cannot be read.
    """
    work = folder_beside(folder)
    made = work / "data"
    made.mkdir()
    try:
        clips, left, keys = list[Clip](), list[str](), list[Any]()
        count = 0
        with (made / "frames.rgb").open("wb") as file:
            for number, source in enumerate(videos):
                try:
                    for piece in _pieces(source, width, height, rate, functools.partial(_seen, watch, number, videos)):
                        if why := _useless(piece.frames, length):
                            left.append(f"{source.path.name}: {len(piece.frames)} frames {why}")
                            continue
                        file.write(piece.frames.tobytes())
                        clips.append(Clip(count, count + len(piece.frames), piece.held))
                        count += len(piece.frames)
                        keys.append(_keys(piece))
                except ImageError as error:
                    if source.named:
                        raise
                    left.append(f"{source.path.name}: {error}")
        for line in left[:8]:
            say(f"left out {line}")
        if len(left) > 8:
            say(f"left out {len(left) - 8} more (clips.json in the run's data/ lists them)")
        if not clips:
            raise TrainError(
                f"the videos hold nothing to learn from: no clip of {length + 1} frames in which something moves",
                "a film that stands still or is cut all the time teaches nothing; --fps 30 takes more frames of a film",
            )
        clips = _held_out(clips, length)
        about = {"width": width, "height": height, "frames": count, "clips": clips, "left_out": left}
        (made / "clips.json").write_text(json.dumps(about), encoding="utf-8")
        labelled = all(actions is not None for actions, _ in keys)
        if labelled:
            np.savez(made / "keys.npz", actions=np.concatenate([a for a, _ in keys]),
                     blocked=np.concatenate([b for _, b in keys]))  # fmt: skip
        shown = np.memmap(made / "frames.rgb", np.uint8, "r", shape=(count, height, width, 3))
        _write_held(made, shown, clips, length)
        del shown
        _with_places(videos, made, width, height)
        os.replace(made, folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _seen(watch: Watch, number: int, videos: list[Video], frame: int) -> None:
    if frame % 100 == 0:
        watch(f"reading {videos[number].path.name}, {frame:,} frames", number, len(videos))


def _pieces(source: Video, width: int, height: int, rate: float, seen_so_far: Callable[[int], None]) -> Iterator[Piece]:
    if source.kind == "arrays":
        files = [(source.path, False)]
        beside = source.path.with_name("test.npz")
        if source.path.name == "train.npz" and beside.is_file():
            files.append((beside, True))
        for path, held in files:
            found = arrays(path)
            if found["frames"].shape[2:4] != (height, width):
                across, down = found["frames"].shape[3], found["frames"].shape[2]
                raise TrainError(
                    f"{quoted(str(path))} has frames of {across}x{down}, not {width}x{height}",
                    f"arrays are taken as they are: --size {across}x{down}",
                )
            blocked = found.get("blocked", np.zeros(found["frames"].shape[:2], bool)[:, 1:])
            for k, clip in enumerate(found["frames"]):
                yield Piece(clip, found["actions"][k] if "actions" in found else None, blocked[k], held)
        return
    shown, count = frames(source, width, height, rate), itertools.count()
    while True:
        cuts, seen = Cuts(), list[NDArray[np.uint8]]()
        for frame in itertools.islice(shown, TOGETHER):
            seen_so_far(next(count))
            cuts.see(frame)
            seen.append(frame)
        if not seen:
            return
        shots = cuts.found()
        for begin, end in zip([0, *shots], [*shots, len(seen)], strict=True):
            yield Piece(np.stack(seen[begin:end]))


def _useless(clip: NDArray[np.uint8], length: int) -> str:
    if len(clip) <= length:
        return f"without a cut are too few, {length + 1} are needed"
    return "" if moves(clip) else "in which nothing moves"


def _keys(piece: Piece) -> tuple[NDArray[np.uint8] | None, NDArray[np.bool_]]:
    """Actions and walls with one more entry, so that they are as long as the frames."""
    blocked = np.zeros(len(piece.frames) - 1, bool) if piece.blocked is None else piece.blocked
    actions = None if piece.actions is None else np.append(piece.actions, UNKNOWN).astype(np.uint8)
    return actions, np.append(blocked, False)


def _held_out(clips: list[Clip], length: int) -> list[Clip]:
    """Keep a tenth back: of many clips every tenth, of few long ones the end of each."""
    if any(clip.held for clip in clips):
        return clips
    if len(clips) >= 20:
        return [Clip(c.begin, c.end, k % 10 == 9) for k, c in enumerate(clips)]
    found = []
    for begin, end, _ in clips:
        tail = max(length + 1, (end - begin) // 10)
        if end - begin - tail > length:
            found += [Clip(begin, end - tail, False), Clip(end - tail, end, True)]
        else:
            found.append(Clip(begin, end, False))
    if not any(clip.held for clip in found):
        raise TrainError(
            f"the videos are too short: none has {2 * (length + 1)} frames without a cut",
            "give longer ones, or more frames a second (--fps)",
        )
    return found


def _write_held(folder: Path, shown: NDArray[np.uint8], clips: list[Clip], length: int) -> None:
    held = [clip for clip in clips if clip.held]
    whole = min(min(clip.end - clip.begin for clip in held), max(MOST_HELD, length + 1))
    if all(clip.end - clip.begin == held[0].end - held[0].begin for clip in held):
        whole = held[0].end - held[0].begin  # recorded play: as long as it is
    starts = [start for clip in held for start in range(clip.begin, clip.end - whole + 1, whole)]
    found: dict[str, Any] = {"frames": np.stack([shown[start : start + whole] for start in starts])}
    if (folder / "keys.npz").exists():
        with np.load(folder / "keys.npz") as keys:
            for name in ("actions", "blocked"):
                found[name] = np.stack([keys[name][start : start + whole - 1] for start in starts])
    np.savez(folder / "test.npz", **found)


def _with_places(videos: list[Video], made: Path, width: int, height: int) -> None:
    """Recorded play of one place brings its own test.npz and map."""
    if len(videos) == 1 and videos[0].path.with_name("places.npz").is_file():
        for name in ("test.npz", "places.npz"):
            if (source := videos[0].path.with_name(name)).is_file():
                shutil.copyfile(source, made / name)


class Dataset:
    """Windows of `length` frames of the clips that are not held out, or (held) of those that are."""

    def __init__(self, folder: Path, length: int, held: bool = False, device: str | torch.device = "cpu") -> None:
        about = json.loads((folder / "clips.json").read_text(encoding="utf-8"))
        self.shape = about["height"], about["width"]
        shown = np.memmap(folder / "frames.rgb", np.uint8, "r", shape=(about["frames"], *self.shape, 3))
        self.frames, self.length, self.device = shown, length, device
        self.clips = [Clip(*clip) for clip in about["clips"] if bool(clip[2]) == held and clip[1] - clip[0] >= length]
        self.actions: NDArray[np.uint8] | None = None
        self.blocked = np.zeros(len(shown), bool)
        if (folder / "keys.npz").exists():
            with np.load(folder / "keys.npz") as keys:
                self.actions, self.blocked = keys["actions"], keys["blocked"]
        # Every first frame of a window is equally likely, in a long clip as in a short one.
        counts = [clip.end - clip.begin - length + 1 for clip in self.clips]
        self._ends = np.cumsum(counts)
        self._offsets = np.array([clip.begin for clip in self.clips]) - self._ends + np.array(counts)

    def __len__(self) -> int:
        """Number of windows, overlapping ones included."""
        return int(self._ends[-1])

    def _starts(self, size: int) -> NDArray[np.int64]:
        picked = torch.randint(len(self), (size,)).numpy()
        return picked + self._offsets[np.searchsorted(self._ends, picked, "right")]

    def batch(self, size: int, mixed: bool = False) -> Tensor:
        """[size, length, H, W, 3] float in [0, 1]. mixed: frames from anywhere, for models of single frames."""
        starts = self._starts(size * self.length if mixed else size)
        at = starts.reshape(size, self.length) if mixed else starts[:, None] + np.arange(self.length)
        return to_float(torch.from_numpy(self.frames[at]).to(self.device))

    def labelled(self, size: int) -> tuple[Tensor, Tensor]:
        """(as `batch`, true actions [size, length-1], -1 where a wall was in the way)."""
        assert self.actions is not None
        at = self._starts(size)[:, None] + np.arange(self.length)
        known = np.where(self.blocked | (self.actions == UNKNOWN), -1, self.actions.astype(np.int64))[at[:, :-1]]
        return to_float(torch.from_numpy(self.frames[at]).to(self.device)), torch.from_numpy(known).to(self.device)

    def windows(self, stride: int) -> NDArray[np.int64]:
        """[M, length]: the frames of windows that begin every `stride` frames of a clip, and of its last window."""
        starts = []
        for begin, end, _ in self.clips:
            last = end - self.length
            starts += [*range(begin, last, stride), last]
        return np.array(starts)[:, None] + np.arange(self.length)


def to_float(shown: Tensor) -> Tensor:
    return shown.float() / 255
