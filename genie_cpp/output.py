"""Frames out: GIF, WebP, PNG (animated), MP4 or a folder of PNGs, with the recipe inside and never half-written."""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from .errors import OutputError
from .recipe import KEY, Recipe

EXTENSIONS = (".gif", ".webp", ".png", ".mp4")
Frame = NDArray[np.uint8]


def check_output(path: Path, overwrite: bool, folder: bool = False) -> None:
    """Refuse, before any work is done, an output that cannot be written. Raises OutputError."""
    if not folder and path.suffix.lower() not in EXTENSIONS:
        raise OutputError(f"{path}: unknown kind of output", f"end it in {', '.join(EXTENSIONS)}, or in / for a folder")
    if path.suffix.lower() == ".mp4" and importlib.util.find_spec("imageio_ffmpeg") is None:
        raise OutputError("mp4 needs the video extra", "pip install 'genie_cpp[video]'")
    if path.is_dir() and not folder:
        raise OutputError(f"{path} is a folder")
    if path.exists() and not overwrite:
        raise OutputError(f"{path} exists", "-y overwrites it")
    if folder and path.exists() and not path.is_dir():
        raise OutputError(f"{path} exists and is not a folder")
    if folder and path.is_dir() and any(path.iterdir()) and not (path / "recipe.json").exists():
        raise OutputError(f"{path} holds files that genie-run did not write", "choose another folder")
    parent = path.resolve().parent
    if not parent.is_dir():
        raise OutputError(f"the folder {parent} does not exist")
    if not os.access(parent, os.W_OK):
        raise OutputError(f"the folder {parent} is not writable")


def write(path: Path, frames: Sequence[Frame], recipe: Recipe, overwrite: bool = False, folder: bool = False) -> None:
    """Write frames (uint8 [H, W, 3] each), enlarged by recipe.scale, at recipe.fps. Raises OutputError.

    Every frame is kept, identical neighbours too; the same frames and recipe give the same bytes.
    """
    check_output(path, overwrite, folder)
    if not frames:
        raise OutputError("there are no frames to write")
    big = [frame.repeat(recipe.scale, 0).repeat(recipe.scale, 1) for frame in frames]
    # Everything is made in a folder of its own beside the output, which takes its place in one step.
    try:
        temporary = Path(tempfile.mkdtemp(prefix=".genie-", dir=path.resolve().parent))
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror}") from None
    try:
        made = temporary / (path.name or "frames")
        if folder:
            _write_folder(made, big, recipe)
            if path.exists():
                path.rename(temporary / "old")
        elif path.suffix.lower() == ".mp4":
            _write_mp4(made, big, recipe)
        else:
            _write_animation(made, big, recipe)
        os.replace(made, path)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_folder(path: Path, frames: Sequence[Frame], recipe: Recipe) -> None:
    path.mkdir()
    for index, frame in enumerate(frames):
        Image.fromarray(frame).save(path / f"frame_{index:04d}.png")
    (path / "recipe.json").write_text(recipe.to_json() + "\n")


def _write_animation(path: Path, frames: Sequence[Frame], recipe: Recipe) -> None:
    images = [Image.fromarray(frame) for frame in frames]
    if path.suffix.lower() != ".gif":
        images = _distinct(images)
    milliseconds = round(1000 / recipe.fps)
    suffix = path.suffix.lower()
    if suffix == ".gif":
        _write_gif(path, images, milliseconds, recipe)
        return
    if suffix == ".webp":
        exif = Image.Exif()
        exif[0x010E] = recipe.to_json()  # ImageDescription
        images[0].save(
            path, save_all=True, append_images=images[1:], duration=milliseconds, loop=0, lossless=True, exif=exif,
            minimize_size=False, kmin=1, kmax=1,
        )  # fmt: skip
        return
    text = PngImagePlugin.PngInfo()
    text.add_itxt(KEY, recipe.to_json())
    images[0].save(path, save_all=True, append_images=images[1:], duration=milliseconds, loop=0, pnginfo=text)


def _distinct(images: list[Image.Image], spare_of: int = 0) -> list[Image.Image]:
    """Pillow merges equal neighbours whatever the format; one pixel one level off keeps every frame a frame.

    Images with a palette have that level as colour 255, a shade of colour `spare_of`.
    """
    kept = images[:1]
    for image in images[1:]:
        if image.tobytes() == kept[-1].tobytes():
            image = image.copy()
            if image.mode == "P":
                at = max(image.tobytes().find(bytes([spare_of])), 0)
                image.putpixel((at % image.width, at // image.width), 255)
            else:
                r, g, b = image.getpixel((0, 0))  # type: ignore[misc]
                image.putpixel((0, 0), (r, g, b ^ 1))
        kept.append(image)
    return kept


def _write_gif(path: Path, images: list[Image.Image], milliseconds: int, recipe: Recipe) -> None:
    # One palette for all frames: palettes of their own would make colours flicker and the file large.
    width, height = images[0].size
    sheet = Image.new("RGB", (width, height * len(images)))
    for index, image in enumerate(images):
        sheet.paste(image, (0, height * index))
    palette = sheet.quantize(255, Image.Quantize.MEDIANCUT)
    colours = (palette.getpalette() or []) + [0] * 768
    common = int(np.bincount(np.asarray(palette).reshape(-1)).argmax())
    shown = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
    r, g, b = colours[3 * common : 3 * common + 3]
    for image in shown:  # the spare colour comes after: quantize() could not tell it from the one it resembles
        image.putpalette([*colours[: 255 * 3], r, g, b ^ 1])
    shown = _distinct(shown, common)
    shown[0].save(
        path, save_all=True, append_images=shown[1:], duration=milliseconds, loop=0, comment=recipe.to_json().encode(),
        optimize=False,
    )  # fmt: skip


def _write_mp4(path: Path, frames: Sequence[Frame], recipe: Recipe) -> None:
    import imageio.v2 as imageio

    with imageio.get_writer(
        path,
        format="FFMPEG",
        fps=recipe.fps,
        macro_block_size=2,
        output_params=["-metadata", f"comment={recipe.to_json()}", "-bitexact"],
    ) as writer:
        for frame in frames:
            writer.append_data(frame)  # type: ignore[attr-defined]
