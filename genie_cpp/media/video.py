"""Video files in: mp4, webm, mov and mkv, through the ffmpeg that imageio ships (genie_cpp[video])."""

from __future__ import annotations

import contextlib
import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from genie_cpp.errors import ImageError

_PICTURES = (b"avif", b"avis", b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")  # brands of ISO files
_MATROSKA = b"\x1aE\xdf\xa3"
# ffmpeg may use these formats only. Others could make it open more files, such as a playlist of addresses.
_FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm"


def is_video(head: bytes) -> bool:
    """Whether a file with this beginning (12 bytes are enough) is an mp4, mov, webm or mkv."""
    kind, brand = head[4:8], head[8:12]
    return (
        head.startswith(_MATROSKA)
        or kind in (b"moov", b"mdat", b"wide")
        or (kind == b"ftyp" and brand not in _PICTURES)
    )


def iter_video(path: Path, name: str, most_pixels: int, rate: float | None = None) -> Iterator[NDArray[np.uint8]]:
    """The frames of a video as RGB uint8 [height, width, 3], one at a time, rotated as its metadata says.

    name: the name in error messages. rate: take so many frames a second; None: every frame. Raises ImageError.
    """
    timing = ["-fps_mode", "passthrough"] if rate is None else ["-vf", f"fps={rate}"]
    # PPM states its size before every frame. It is not known before: ffmpeg rotates, and the size may change midway.
    command = [*_reading(path, name), "-v", "error", "-map", "0:v:0", *timing,
               "-f", "image2pipe", "-c:v", "ppm", "-pix_fmt", "rgb24", "-"]  # fmt: skip
    with tempfile.TemporaryFile() as complaints:
        ffmpeg = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=complaints)
        assert ffmpeg.stdout is not None
        count = 0
        try:
            while (frame := _ppm(ffmpeg.stdout, name, most_pixels)) is not None:
                count += 1
                yield frame
            code = ffmpeg.wait()
        finally:
            ffmpeg.kill()
            ffmpeg.stdout.close()
            ffmpeg.wait()
        if count == 0 or code:
            complaints.seek(0)
            text = complaints.read(2000).decode("utf-8", "replace").replace(str(path.absolute()), name)
            # Remove memory addresses of ffmpeg's parts, which must not leak.
            lines = re.sub(r"\[[^\]]* @ 0x[0-9a-f]+\] *", "", text).strip().splitlines()
            why = lines[0][:120] if lines else "it holds no pictures"
            raise ImageError(f"{name} is not a film that can be read: {why}", "mp4, mov, webm and mkv work")


def frame_rate(path: Path, name: str) -> float | None:
    """Frames a second, as the file says; None if it does not. Raises ImageError without ffmpeg."""
    said = subprocess.run(_reading(path, name), stdin=subprocess.DEVNULL, capture_output=True, check=False).stderr
    found = re.search(r"Video:.*?([\d.]+) fps", said.decode("utf-8", "replace"))
    return float(found[1]) if found else None


def _reading(path: Path, name: str) -> list[str]:
    """The beginning of a command that reads `path` with ffmpeg."""
    try:
        import imageio_ffmpeg

        program = imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError):
        raise ImageError(f"reading the film {name} needs ffmpeg", "pip install 'genie_cpp[video]'") from None
    return [program, "-nostdin", "-hide_banner", "-protocol_whitelist", "file", "-format_whitelist", _FORMATS,
            "-i", f"file:{path.absolute()}"]  # fmt: skip


def _ppm(stream: IO[bytes], name: str, most_pixels: int) -> NDArray[np.uint8] | None:
    """The next picture of the stream, or None at its end."""
    kind, size, depth = (stream.readline(32) for _ in range(3))
    if not depth:
        return None
    with contextlib.suppress(ValueError):
        width, height = (int(number) for number in size.split())
        if (kind, depth) == (b"P6\n", b"255\n") and width * height <= most_pixels:
            pixels = stream.read(3 * width * height)
            if len(pixels) < 3 * width * height:
                return None
            return np.frombuffer(pixels, np.uint8).reshape(height, width, 3).copy()
        raise ImageError(f"{name} has frames of {width}x{height} pixels; {most_pixels / 1e6:g} million are the limit")
    raise ImageError(f"{name} is not a film that can be read", "mp4, mov, webm and mkv work")
