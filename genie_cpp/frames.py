"""Pictures in: image files, video files and pipes are read and fitted to a model's frame size."""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import re
import stat
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps, features

from genie_cpp.errors import ImageError
from genie_cpp.file import foreign
from genie_cpp.media import metadata, video

Frame = NDArray[np.uint8]
FITS = ("crop", "pad")
# Without this list Pillow would also try dozens of rare formats, and one of them starts Ghostscript.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", *(("AVIF",) if features.check("avif") else ()))
MAX_PIXELS = 64_000_000
MIN_SIDE = 8
STDIN = Path("-")
PIPED_LIMIT = 256 << 20  # bytes
# A pipe can be read only once, but its bytes are needed twice: as pixels and for the hash. -> (bytes, uses so far)
_piped: dict[Path, tuple[bytes, set[str]]] = {}


def load_image(path: Path) -> Frame:
    """The picture as RGB uint8 [height, width, 3]; of an animation or video, the first frame.

    path: also a named pipe, or "-" for standard input. EXIF rotation is applied, transparent pixels are put on black,
    and 16-bit values are scaled to 8 bits. The size is checked before the pixels are decoded: at least 8x8, at most 64
    megapixels. Raises ImageError.
    """
    for frame in iter_frames(path):
        return frame
    raise ImageError(f"{path} holds no picture")


def load_frames(path: Path, most: int = 4096) -> list[Frame]:
    """Up to `most` frames of a picture, an animation or a video, each as `load_image` returns it."""
    return list(itertools.islice(iter_frames(path), most))


def decode_image(data: bytes, most_pixels: int = MAX_PIXELS, least_side: int = MIN_SIDE) -> Frame:
    """As `load_image`, from the bytes of an uploaded file. Raises ImageError."""
    for frame in _iter_frames(io.BytesIO(data), "the picture", most_pixels, least_side):
        return frame
    raise ImageError("the picture is empty")


def iter_frames(path: Path, rate: float | None = None) -> Iterator[Frame]:
    """The frames of a picture, animation or video, each as `load_image` returns it. Holds one in memory at a time.

    rate: of a video, take so many frames a second; None: every frame."""
    name = "standard input" if path == STDIN else str(path)
    data = _from_pipe(path, name, "pixels")
    source = path if data is None else io.BytesIO(data)
    head = data if data is not None else _head(path)
    return _iter_video(source, name, rate) if video.is_video(head) else _iter_frames(source, name, MAX_PIXELS)


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(foreign.HEAD)
    except OSError:
        return b""  # the next read of the file reports the error


def _from_pipe(path: Path, name: str, use: str) -> bytes | None:
    """All bytes from a pipe or standard input; None for a regular file. Raises ImageError.

    If the same use asks again, a named pipe is read again. Standard input is read only once.
    """
    if path in _piped and (path == STDIN or use not in _piped[path][1]):
        _piped[path][1].add(use)
        return _piped[path][0]
    try:
        if path != STDIN and not (stat.S_ISFIFO(path.stat().st_mode) or stat.S_ISSOCK(path.stat().st_mode)):
            return None
        if path == STDIN and sys.stdin.isatty():
            raise ImageError("no picture comes through standard input", "send one: genie-run -p - < picture.png")
        with contextlib.ExitStack() as held:
            file = sys.stdin.buffer if path == STDIN else held.enter_context(path.open("rb"))
            data = file.read(PIPED_LIMIT + 1)
    except (OSError, ValueError):  # not there, or closed
        return None if path != STDIN else b""
    if len(data) > PIPED_LIMIT:
        raise ImageError(f"{name} gives more than {PIPED_LIMIT >> 20} MiB", "give a file's name")
    _piped[path] = data, {use}
    return data


def _iter_video(source: Path | io.BytesIO, name: str, rate: float | None) -> Iterator[Frame]:
    """Frames of a video. Bytes from a pipe are first written to a file, because ffmpeg must seek."""
    with contextlib.ExitStack() as held:
        if isinstance(source, io.BytesIO):
            path = Path(held.enter_context(tempfile.TemporaryDirectory())) / "film"
            path.write_bytes(source.getvalue())
        else:
            path = source
        for frame in video.iter_video(path, name, MAX_PIXELS, rate):
            _check_sides(name, frame.shape[1], frame.shape[0], MAX_PIXELS)
            yield frame


def _iter_frames(source: Path | io.BytesIO, path: str, most_pixels: int, least_side: int = MIN_SIDE) -> Iterator[Frame]:
    """path: the name of the source in error messages."""
    try:
        with contextlib.ExitStack() as held:
            file = source if isinstance(source, io.BytesIO) else held.enter_context(source.open("rb"))
            if found := foreign.described(file.read(foreign.HEAD)):
                raise ImageError(f"{path} is {found[0]}", found[1])
            file.seek(0)
            metadata.check(file)
            with quiet():
                image = held.enter_context(Image.open(file, formats=FORMATS))
            for number in itertools.count():
                with quiet():
                    try:
                        image.seek(number)
                    except EOFError:
                        return
                    _check_sides(path, image.width, image.height, most_pixels, least_side)
                    frame = _rgb(image)
                yield frame
    except (ImageError, MemoryError):
        raise
    except FileNotFoundError:
        raise ImageError(f"{path} does not exist") from None
    except IsADirectoryError:
        raise ImageError(f"{path} is a folder, not a picture") from None
    except PermissionError:
        raise ImageError(f"{path} cannot be read: permission denied") from None
    except Image.DecompressionBombError as error:
        raise ImageError(f"{path} is too large: {error}") from None
    except Exception as error:  # Pillow's parsers raise almost anything on damaged files: TypeError, struct.error …
        # Pillow's message contains the repr of the file object, which shows a memory address of this process.
        why = " ".join(re.sub(r"['\"]?<_io\.[^>]*>['\"]?", "", str(error)).split())[:200]
        raise ImageError(
            f"{path} is not a picture that can be read: {why}",
            "png, jpg, webp, gif, bmp, tiff and, where Pillow has it, avif work; of films mp4, mov, webm and mkv",
        ) from None


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without Pillow's warnings: about size, which is checked here, and about damaged EXIF, which is not needed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _check_sides(path: str, width: int, height: int, most_pixels: int, least_side: int = MIN_SIDE) -> None:
    if width * height > most_pixels:
        raise ImageError(f"{path} has {width}x{height} pixels; {most_pixels / 1e6:g} million are the limit")
    if min(width, height) < least_side:
        raise ImageError(f"{path} has {width}x{height} pixels; {least_side}x{least_side} are the least")


def _in_srgb(image: Image.Image) -> Image.Image:
    """Convert to RGB in sRGB if the picture has another colour profile (phones: Display P3); else return it unchanged.

    A profile that is broken or does not fit the picture's colour mode is ignored, as browsers do.
    """
    profile = image.info.get("icc_profile")
    space = {"RGB": "RGB", "RGBA": "RGB", "P": "RGB", "L": "GRAY", "CMYK": "CMYK"}.get(image.mode)
    if not profile or space is None:
        return image
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
        if source.profile.xcolor_space.strip() != space or _same_primaries(source, srgb):
            return image
        colours = image.convert("RGB") if space == "RGB" else image
        converted = ImageCms.profileToProfile(colours, source, srgb, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError, AttributeError, ImportError):
        return image
    if converted is None:
        return image
    if image.mode == "RGBA":
        converted.putalpha(image.getchannel("A"))
    elif "transparency" in image.info:
        converted.putalpha(image.convert("RGBA").getchannel("A"))
    return converted


def _same_primaries(a: ImageCms.ImageCmsProfile, b: ImageCms.ImageCmsProfile) -> bool:
    """Whether both are sRGB, by name and by primaries. Such a picture is not converted, so its bytes stay the same."""
    if "srgb" not in (ImageCms.getProfileDescription(a) or "").lower():
        return False
    for colour in ("red_colorant", "green_colorant", "blue_colorant"):
        pair = getattr(a.profile, colour), getattr(b.profile, colour)
        if None in pair or np.abs(np.subtract(pair[0][0], pair[1][0])).max() > 0.005:
            return False
    return True


def _rgb(image: Image.Image) -> Frame:
    image = _in_srgb(ImageOps.exif_transpose(image))
    if image.mode.startswith("I"):
        # 16-bit grey: Pillow's own conversion clips instead of scaling.
        grey = np.asarray(image, np.float64)
        return np.repeat(np.rint(grey.clip(0, 65535) / 257).astype(np.uint8)[..., None], 3, 2)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, (0, 0, 0, 255)), rgba)
    return np.asarray(image.convert("RGB"), np.uint8).copy()


def fit(image: Frame, width: int, height: int, how: str = "crop") -> Frame:
    """RGB uint8 [h, w, 3] -> [height, width, 3]: crop to the middle ("crop") or add black bars ("pad"), then scale.

    An image of the right size comes back unchanged. Raises ImageError for an unknown `how`.
    """
    if how not in FITS:
        raise ImageError(f"fit must be one of {', '.join(FITS)}, not {how!r}")
    if image.shape[:2] == (height, width):
        return image.copy()
    picture = Image.fromarray(image)
    if how == "crop":
        fitted = ImageOps.fit(picture, (width, height), Image.Resampling.LANCZOS)
    else:
        # Not ImageOps.pad: in Pillow 10 it fails if a side of a long thin picture shrinks to less than a pixel.
        ratio = min(width / picture.width, height / picture.height)
        inner = max(1, round(picture.width * ratio)), max(1, round(picture.height * ratio))
        fitted = Image.new("RGB", (width, height))
        place = (width - inner[0]) // 2, (height - inner[1]) // 2
        fitted.paste(picture.resize(inner, Image.Resampling.LANCZOS), place)
    return np.asarray(fitted, np.uint8).copy()


def describe_fit(image: Frame, width: int, height: int, how: str) -> str:
    """One sentence on what `fit` does to this image; empty if it does nothing."""
    h, w = image.shape[:2]
    if (w, h) == (width, height):
        return ""
    if w * height == h * width:
        return f"prompt {w}x{h} scaled to {width}x{height}"
    if how == "crop":
        side = (w, round(w * height / width)) if w * height < h * width else (round(h * width / height), h)
        return (
            f"prompt {w}x{h} cropped to {side[0]}x{side[1]} and scaled to {width}x{height} (--fit pad keeps it whole)"
        )
    return f"prompt {w}x{h} padded and scaled to {width}x{height} (--fit crop fills the frame)"


def sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, or of the bytes from a pipe, hexadecimal. Raises ImageError if it cannot be read."""
    try:
        data = _from_pipe(path, str(path), "hash")
        if data is not None:
            return hashlib.sha256(data).hexdigest()
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        return digest.hexdigest()
    except OSError as error:
        raise ImageError(f"{path} cannot be read: {error.strerror}") from None
