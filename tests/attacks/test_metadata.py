"""Pictures whose metadata would keep a CPU busy for minutes are refused at once. What cameras write is read."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from genie_cpp.errors import ImageError
from genie_cpp.frames import decode_image
from genie_cpp.media.metadata import MAX_CHUNKS, MAX_PIECES, MAX_SCANS, MAX_SEGMENTS


def saved(kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (16, 16), (9, 8, 7)).save(out, kind, **options)
    return out.getvalue()


def exif_pieces(count: int) -> bytes:
    plain = saved("JPEG")
    return plain[:2] + (b"\xff\xe1\0\x09Exif\0\0x") * count + plain[2:]


def scans(count: int) -> bytes:
    return saved("JPEG")[:-2] + b"\xff\xda\0\x08\x01\x01\0\0\x3f\0\0" * count + b"\xff\xd9"


def text_chunks(count: int) -> bytes:
    plain, data = saved("PNG"), b"tEXtk\0v"
    chunk = struct.pack(">I", len(data) - 4) + data + struct.pack(">I", zlib.crc32(data))
    return plain[:33] + chunk * count + plain[33:]


def comment_pieces(count: int) -> bytes:
    plain = saved("GIF")
    at = plain.index(b"," + bytes(4))
    return plain[:at] + b"!\xfe" + b"\x01x" * count + b"\0" + plain[at:]


def riff_chunks(count: int) -> bytes:
    plain = saved("WEBP")
    body = plain[8:] + b"JUNK\0\0\0\0" * count
    return b"RIFF" + struct.pack("<I", len(body)) + body


@pytest.mark.parametrize(
    ("make", "most"),
    [
        (exif_pieces, MAX_SEGMENTS), (scans, MAX_SCANS), (text_chunks, MAX_CHUNKS), (comment_pieces, MAX_PIECES),
        (riff_chunks, MAX_CHUNKS),
    ],
)  # fmt: skip
def test_metadata_in_too_many_pieces_is_refused(make, most: int) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ImageError, match=r"no camera writes so much|passes over its pixels"):
        decode_image(make(most + 1))
    if make is not scans:  # a decoder cannot read these scans
        decode_image(make(20))


def test_the_report_of_four_mebibytes_of_exif_pieces() -> None:
    with pytest.raises(ImageError, match="pieces of metadata"):
        decode_image(exif_pieces((4 << 20) // 11))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF"])
def test_truncated_anywhere_it_is_an_error_or_a_picture(kind: str) -> None:
    whole = saved(kind)
    for end in range(len(whole)):
        try:
            decode_image(whole[:end])
        except ImageError as error:
            assert "\n" not in str(error)


def test_a_motion_photo_is_a_picture_with_a_film_behind_it() -> None:
    for progressive in (False, True):
        film = np.random.default_rng(0).bytes(8 << 20)  # by chance, some bytes look like a scan's marker
        assert decode_image(saved("JPEG", progressive=progressive) + film).shape == (16, 16, 3)


def test_what_cameras_write_is_read() -> None:
    exif = Image.Exif()
    exif[0x010E] = "x" * 60000
    for kind in ("JPEG", "PNG", "WEBP"):
        assert decode_image(saved(kind, exif=exif)).shape == (16, 16, 3)
    assert decode_image(saved("JPEG", progressive=True, icc_profile=bytes(500_000))).shape == (16, 16, 3)
