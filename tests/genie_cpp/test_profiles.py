"""Colour profiles: pictures are converted to the same colours in sRGB."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from genie_cpp.frames import decode_image

# Display P3: its red, green and blue under D50 (Apple's profile), and the curve of sRGB as a gamma of 2.2.
P3 = np.array([[0.5151, 0.2920, 0.1571], [0.2412, 0.6922, 0.0666], [-0.0011, 0.0419, 0.7841]])
SRGB = np.array([[0.4361, 0.3851, 0.1431], [0.2225, 0.7169, 0.0606], [0.0139, 0.0971, 0.7142]])
GAMMA = 2.2


def profile(primaries: np.ndarray, name: bytes = b"Display P3") -> bytes:
    """A matrix profile, ICC.1:2001."""

    def fixed(*values: float) -> bytes:
        return b"".join(struct.pack(">i", round(v * 65536)) for v in values)

    xyz = [b"XYZ \0\0\0\0" + fixed(*column) for column in primaries.T]
    white = b"XYZ \0\0\0\0" + fixed(0.9642, 1.0, 0.8249)
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(GAMMA * 256)) + b"\0\0"
    text = b"desc\0\0\0\0" + struct.pack(">I", len(name) + 1) + name + b"\0" + bytes(78 + 12)
    tags = {b"desc": text, b"cprt": b"text\0\0\0\0none\0", b"wtpt": white}
    tags |= dict(zip((b"rXYZ", b"gXYZ", b"bXYZ"), xyz, strict=True)) | {k: curve for k in (b"rTRC", b"gTRC", b"bTRC")}
    table, body, at = b"", b"", 128 + 4 + 12 * len(tags)
    for key, data in tags.items():
        data += b"\0" * (-len(data) % 4)
        table, body = table + key + struct.pack(">II", at + len(body), len(data)), body + data
    head = struct.pack(">I4sI4s4s4s", at + len(body), b"lcms", 0x02100000, b"mntr", b"RGB ", b"XYZ ")
    head += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + fixed(0.9642, 1.0, 0.8249)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def picture(kind: str, icc: bytes | None, mode: str = "RGB") -> bytes:
    image = Image.new("RGB", (16, 16), (200, 100, 50))
    image = image.quantize(4) if mode == "P" else image.convert(mode)
    out = io.BytesIO()
    image.save(out, kind, **({"icc_profile": icc} if icc else {}), **({"lossless": True} if kind == "WEBP" else {}))
    return out.getvalue()


def expected() -> np.ndarray:
    """(200, 100, 50) of Display P3 in sRGB, worked out by hand."""
    linear = np.linalg.solve(SRGB, P3 @ (np.array([200, 100, 50]) / 255) ** GAMMA).clip(0, 1)
    curve = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.rint(255 * curve)


@pytest.mark.parametrize(
    ("kind", "mode"), [("PNG", "RGB"), ("PNG", "RGBA"), ("PNG", "P"), ("WEBP", "RGB"), ("TIFF", "RGB")]
)
def test_display_p3_becomes_srgb(kind: str, mode: str) -> None:
    seen = decode_image(picture(kind, profile(P3), mode))[8, 8]
    assert np.abs(seen - expected()).max() <= 3
    assert np.abs(seen - np.array([200, 100, 50])).max() >= 8  # the profile does matter


def test_srgb_keeps_its_bytes() -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert (decode_image(picture("PNG", srgb)) == [200, 100, 50]).all()
    # A profile that is only named sRGB is not sRGB.
    assert (decode_image(picture("PNG", profile(P3, b"sRGB really"))) != [200, 100, 50]).any()


@pytest.mark.parametrize("icc", [b"nonsense", profile(P3)[:200], profile(P3)[:128] + bytes(400)])
def test_a_broken_profile_is_ignored(icc: bytes) -> None:
    assert (decode_image(picture("PNG", icc)) == [200, 100, 50]).all()


def test_a_profile_of_other_colours_than_the_picture_is_ignored() -> None:
    grey = Image.open(io.BytesIO(picture("PNG", profile(P3), "L")))
    assert (decode_image(picture("PNG", profile(P3), "L")) == np.asarray(grey)[..., None]).all()


def test_cmyk_with_a_profile_of_rgb_is_read(tmp_path: Path) -> None:
    Image.new("CMYK", (16, 16), (0, 100, 100, 0)).save(tmp_path / "c.jpg", icc_profile=profile(P3))
    assert decode_image((tmp_path / "c.jpg").read_bytes()).shape == (16, 16, 3)
