"""Frames out: GIF, WebP, PNG (animated), MP4 or a folder of PNGs. Each holds its recipe, and none is ever half-written.

GIF, WebP and PNG are assembled here from single pictures that Pillow compresses. Pillow's own animation writers would
merge equal neighbours and hold every frame in memory.
"""

from __future__ import annotations

import errno
import importlib.util
import io
import os
import re
import shutil
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from genie_cpp.errors import OutputError
from genie_cpp.leftovers import REPLACED, folder_beside

# The largest side in pixels that each format can store.
EXTENSIONS = {".gif": 65535, ".webp": 16383, ".png": 2**31 - 1, ".mp4": 16384}
Frame = NDArray[np.uint8]


KEY = "genie_cpp"  # key of the text that says how a file was made


class Description(Protocol):
    """What a file stores about its frames and how to show them: a Recipe or a recipe.Played."""

    @property
    def fps(self) -> int: ...
    @property
    def scale(self) -> int: ...
    def to_json(self) -> str: ...


_PALETTE_PIXELS = 1 << 24
_MAX_ARGUMENT = 100_000  # bytes; Linux allows 128 KiB


def check_output(path: Path, overwrite: bool, folder: bool = False) -> None:
    """Refuse an output that cannot be written, before any work is done. Raises OutputError.

    An empty folder counts as absent. A folder with files that genie-run did not write is never replaced.
    """
    if not folder and path.suffix.lower() not in EXTENSIONS:
        raise OutputError(f"{path}: unknown kind of output", f"end it in {', '.join(EXTENSIONS)}, or in / for a folder")
    if not folder and path.suffix.lower() == ".mp4":
        if any(importlib.util.find_spec(name) is None for name in ("imageio", "imageio_ffmpeg")):
            raise OutputError("mp4 needs the video extra", "pip install 'genie_cpp[video]'")
    path = path.resolve()
    if path.is_dir() and not folder:
        raise OutputError(f"{path} is a folder")
    if folder and path.exists() and not path.is_dir():
        raise OutputError(f"{path} exists and is not a folder")
    if folder and path.is_dir():
        names = [p.name for p in path.iterdir()]
        strange = [name for name in names if not re.fullmatch(r"frame_\d{4,}\.png|recipe\.json", name)]
        if strange or (names and "recipe.json" not in names):
            raise OutputError(f"{path} holds files that genie-run did not write", "choose another folder")
        if names and not overwrite:
            raise OutputError(f"{path} exists", "-y overwrites it")
    elif path.exists() and not overwrite:
        raise OutputError(f"{path} exists", "-y overwrites it")
    if not path.parent.is_dir():
        raise OutputError(f"the folder {path.parent} does not exist")
    if not os.access(path.parent, os.W_OK):
        raise OutputError(f"the folder {path.parent} is not writable")


def check_size(path: Path, width: int, height: int, folder: bool = False) -> None:
    """Refuse a size in pixels (after enlargement) that the format of `path` cannot store. Raises OutputError."""
    most = EXTENSIONS[".png" if folder else path.suffix.lower()]
    if max(width, height) > most:
        raise OutputError(f"{path.suffix} holds at most {most}x{most} pixels, not {width}x{height}", "lower --scale")


def write(
    path: Path, frames: Sequence[Frame], recipe: Description, overwrite: bool = False, folder: bool = False
) -> None:
    """Write frames (uint8 [H, W, 3] each), enlarged by recipe.scale, at recipe.fps. Raises OutputError.

    Every frame is kept, also identical neighbours. The same frames and recipe give the same bytes. WebP, PNG and
    folders store the exact pixels, GIF the nearest of 256 colours. Players do not show GIFs faster than 50 frames/s.
    """
    check_output(path, overwrite, folder)
    if not frames:
        raise OutputError("there are no frames to write")
    check_size(path, frames[0].shape[1] * recipe.scale, frames[0].shape[0] * recipe.scale, folder)
    target = path.resolve()  # of a symbolic link, the target is replaced, not the link
    # Everything is made in a temporary folder beside the output, and replaces the output in one step.
    try:
        temporary = folder_beside(target)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror}") from None
    try:
        made, kind = temporary / target.name, target.suffix.lower()
        if folder:
            _write_folder(made, frames, recipe)
            _on_disk(made)
            _replace_folder(made, target)
            return
        if kind == ".mp4":
            _write_mp4(made, frames, recipe)
        else:
            _write_animation(made, frames, recipe, kind)
        _on_disk(made)
        os.replace(made, target)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise OutputError(f"{path} cannot be written: {why}") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _on_disk(path: Path) -> None:
    """Flush a file, or a folder's files, to disk, safe from a power cut. Raises OSError, also if it is full."""
    for file in path.iterdir() if path.is_dir() else (path,):
        with file.open("rb+") as handle:
            os.fsync(handle.fileno())


def _replace_folder(made: Path, target: Path) -> None:
    old = made.parent / REPLACED
    if not target.exists():
        os.replace(made, target)
        return
    os.replace(target, old)
    try:
        os.replace(made, target)
    except BaseException:
        os.replace(old, target)
        raise


def _write_folder(path: Path, frames: Iterable[Frame], recipe: Description) -> None:
    path.mkdir()
    for index, frame in enumerate(frames):
        Image.fromarray(_enlarge(frame, recipe.scale)).save(path / f"frame_{index:04d}.png")
    (path / "recipe.json").write_text(recipe.to_json() + "\n", encoding="ascii")


def _write_animation(path: Path, frames: Sequence[Frame], recipe: Description, kind: str) -> None:
    parts = {".gif": _gif, ".webp": _webp, ".png": _png}[kind](frames, recipe)
    with path.open("wb") as file:
        file.writelines(parts)
        if kind == ".webp":  # its second field is the file's length
            length = file.tell() - 8
            file.seek(4)
            file.write(struct.pack("<I", length))


def _enlarge(frame: Frame, scale: int) -> Frame:
    return frame.repeat(scale, 0).repeat(scale, 1)


def _changes(frames: Iterable[Frame], scale: int) -> Iterator[tuple[int, int, Frame]]:
    """left, top and pixels (enlarged) of the box that changed. The first is the whole frame; none is empty."""
    before: Frame | None = None
    for frame in frames:
        top, left, bottom, right = 0, 0, *frame.shape[:2]
        if before is not None:
            differs = (frame != before).reshape(*frame.shape[:2], -1).any(2)
            rows, columns = np.flatnonzero(differs.any(1)), np.flatnonzero(differs.any(0))
            # WebP can only store even corners. If nothing changed, one pixel is written to keep the frame.
            top, left = (int(rows[0]) & ~1, int(columns[0]) & ~1) if rows.size else (0, 0)
            bottom, right = (int(rows[-1]) + 1, int(columns[-1]) + 1) if rows.size else (1, 1)
        yield left * scale, top * scale, _enlarge(frame[top:bottom, left:right], scale)
        before = frame


def _delays(count: int, fps: int, unit: int, least: int = 1) -> list[int]:
    """The duration of each frame in 1/unit s, rounded so that the sum is right."""
    times = [(2 * i * unit + fps) // (2 * fps) for i in range(count + 1)]
    return [max(after - before, least) for before, after in pairwise(times)]


def _alone(pixels: Frame, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind, **options)
    return out.getvalue()


def _gif(frames: Sequence[Frame], recipe: Description) -> Iterator[bytes]:
    # One palette for all frames: separate palettes would make colours flicker and the file larger.
    height, width = frames[0].shape[:2]
    stride = -(-len(frames) * height * width // _PALETTE_PIXELS)
    palette = Image.fromarray(np.concatenate(frames[::stride])).quantize(256, Image.Quantize.MEDIANCUT)
    shown = (np.asarray(Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE)) for frame in frames)
    text = recipe.to_json().encode("ascii")
    yield b"GIF89a" + struct.pack("<HHBBB", width * recipe.scale, height * recipe.scale, 0xF7, 0, 0)
    yield bytes(palette.getpalette() or []).ljust(768, b"\0")
    yield b"!\xff\x0bNETSCAPE2.0\x03\x01\0\0\0"  # loop forever
    yield b"!\xfe" + b"".join(bytes([len(c)]) + c for i in range(0, len(text), 255) if (c := text[i : i + 255])) + b"\0"
    # Players treat less than 2/100 s as an error and show the frame for 10/100 s.
    for delay, (left, top, part) in zip(
        _delays(len(frames), recipe.fps, 100, 2), _changes(shown, recipe.scale), strict=True
    ):
        data = _alone(part, "GIF", optimize=False, interlace=0)  # grey levels are the palette's indices
        at = 13 + 3 * (2 << (data[10] & 7))
        while data[at] == 0x21:  # an extension, whose blocks end with an empty one
            at += 2
            while data[at]:
                at += 1 + data[at]
            at += 1
        at += 10 + (3 * (2 << (data[at + 9] & 7)) if data[at + 9] & 0x80 else 0)
        yield b"!\xf9\x04\x04" + struct.pack("<H", delay) + b"\0\0"
        yield b"," + struct.pack("<HHHHB", left, top, part.shape[1], part.shape[0], 0) + data[at:-1]
    yield b";"


def _webp(frames: Sequence[Frame], recipe: Description) -> Iterator[bytes]:
    def chunk(name: bytes, data: bytes) -> bytes:
        return name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) & 1)

    def three(value: int) -> bytes:
        return struct.pack("<I", value)[:3]

    height, width = (side * recipe.scale for side in frames[0].shape[:2])
    exif = Image.Exif()
    exif[0x010E] = recipe.to_json()  # ImageDescription
    yield b"RIFF\0\0\0\0WEBP" + chunk(b"VP8X", b"\x0a\0\0\0" + three(width - 1) + three(height - 1))  # EXIF, animation
    yield chunk(b"ANIM", b"\0" * 6)
    for delay, (left, top, part) in zip(
        _delays(len(frames), recipe.fps, 1000), _changes(frames, recipe.scale), strict=True
    ):
        data = _alone(part, "WEBP", lossless=True, quality=50, method=1)[12:]
        place = three(left // 2) + three(top // 2) + three(part.shape[1] - 1) + three(part.shape[0] - 1)
        yield chunk(b"ANMF", place + three(delay) + b"\x02" + data)  # 2: do not blend
    yield chunk(b"EXIF", exif.tobytes().removeprefix(b"Exif\0\0"))


def _png(frames: Sequence[Frame], recipe: Description) -> Iterator[bytes]:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width = (side * recipe.scale for side in frames[0].shape[:2])
    yield b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    yield chunk(b"acTL", struct.pack(">II", len(frames), 0))
    yield chunk(b"tEXt", KEY.encode() + b"\0" + recipe.to_json().encode("ascii"))
    sequence = 0
    for left, top, part in _changes(frames, recipe.scale):
        control = struct.pack(">IIIIIHHBB", sequence, part.shape[1], part.shape[0], left, top, 1, recipe.fps, 0, 0)
        yield chunk(b"fcTL", control)
        first, sequence, data, at = sequence == 0, sequence + 1, _alone(part, "PNG"), 8
        while at < len(data):
            length, name = struct.unpack_from(">I4s", data, at)
            if name == b"IDAT" and first:
                yield chunk(b"IDAT", data[at + 8 : at + 8 + length])
            elif name == b"IDAT":
                yield chunk(b"fdAT", struct.pack(">I", sequence) + data[at + 8 : at + 8 + length])
                sequence += 1
            at += 12 + length
    yield chunk(b"IEND", b"")


def _write_mp4(path: Path, frames: Sequence[Frame], recipe: Description) -> None:
    import imageio.v2 as imageio
    import imageio_ffmpeg

    text = recipe.to_json()
    comment = ["-metadata", f"comment={text}"] if len(text) < _MAX_ARGUMENT else []
    with imageio.get_writer(
        path,
        format="FFMPEG",
        fps=recipe.fps,
        macro_block_size=1,
        # One thread: x264 splits the work by the number of threads, which changes the bytes.
        output_params=[*comment, "-bitexact", "-threads", "1"],
    ) as writer:
        for frame in frames:
            big = _enlarge(frame, recipe.scale)
            # 4:2:0 colour needs an even width and height.
            writer.append_data(np.pad(big, ((0, big.shape[0] & 1), (0, big.shape[1] & 1), (0, 0)), "edge"))  # type: ignore[attr-defined]
    # ffmpeg may fail without an error, for example on a full disk, so the written frames are counted.
    try:
        written = imageio_ffmpeg.count_frames_and_secs(str(path))[0] if path.exists() else 0
    except RuntimeError:
        written = 0
    if written != len(frames):
        raise OSError(errno.EIO, f"ffmpeg wrote {written} of {len(frames)} frames; is the disk full?")
    if not comment:  # the recipe was too long for a command line: append it as a box that players skip
        with path.open("ab") as file:
            file.write(struct.pack(">I", 8 + len(text)) + b"free" + text.encode("ascii"))
