"""Pictures damaged at random give an ImageError of one line, or pixels."""

from __future__ import annotations

import io
import random
import re
from collections.abc import Callable
from pathlib import Path

import mutate
import numpy as np
from PIL import Image, ImageCms

from genie_cpp.errors import ImageError
from genie_cpp.frames import FORMATS, decode_image, fit, load_frames

ADDRESS = re.compile(r"\b0x[0-9a-f]{6,}")  # of an object in memory, which must not be shown


def prepare(folder: Path) -> Callable[[int], None]:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (24, 33, 3), np.uint8)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x0112] = 6
    bases = []
    for kind in FORMATS:
        picture = Image.fromarray(pixels)
        for image in (picture, picture.convert("L"), picture.convert("P"), picture.convert("RGBA")):
            for extra in ({}, {"icc_profile": profile}, {"exif": exif}):
                out = io.BytesIO()
                try:
                    image.save(out, kind, **extra)
                except (OSError, TypeError, ValueError):  # this format does not have this mode
                    continue
                bases.append(out.getvalue())
    moving = io.BytesIO()
    frames = [Image.fromarray(np.roll(pixels, shift, 0)) for shift in range(4)]
    frames[0].save(moving, "GIF", save_all=True, append_images=frames[1:])
    bases.append(moving.getvalue())
    path = folder / "picture"

    def one(seed: int) -> None:
        rng = random.Random(seed)
        raw = mutate.data(rng.choice(bases), rng)
        try:
            if rng.random() < 0.2:
                path.write_bytes(raw)
                got = load_frames(path, 8)
            else:
                got = [decode_image(raw, 4_000_000)]
        except ImageError as error:
            assert "\n" not in str(error) and not ADDRESS.search(str(error)), repr(str(error))
            return
        for frame in got:
            assert frame.dtype == np.uint8 and frame.ndim == 3 and frame.shape[2] == 3
            fit(frame, 16, 16, rng.choice(("crop", "pad")))

    return one
