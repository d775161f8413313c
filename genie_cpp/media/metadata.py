"""Limits on a picture's metadata, checked before Pillow reads it.

Pillow joins the pieces of a JPEG's Exif or a GIF's comment one by one, which takes quadratic time: 4 MiB of one-byte
pieces keep a CPU busy for a minute. No real camera writes more than these limits.
"""

from __future__ import annotations

import struct
from typing import BinaryIO

MAX_SEGMENTS = 512  # of a JPEG before its pixels; files with depth maps have about a hundred
MAX_SCANS = 100  # passes over a JPEG's pixels
MAX_CHUNKS = 4096  # of a PNG or WebP that are not pixels
MAX_PIECES = 1 << 15  # of a GIF's comments and other extensions
MAX_BYTES = 32 << 20  # of all metadata


class TooMuchError(ValueError):
    """More metadata than any camera or program writes."""


def check(file: BinaryIO) -> None:
    """Refuse a picture with too much metadata. Keeps the file's position. Raises TooMuchError, OSError."""
    start = file.tell()
    head = file.read(12)
    file.seek(start)
    try:
        if head[:2] == b"\xff\xd8":
            _jpeg(file)
        elif head[:8] == b"\x89PNG\r\n\x1a\n":
            _chunks(file, 8, ">I4s", (b"IDAT", b"fdAT", b"fcTL"), 4)
        elif head[:4] == b"RIFF" and head[8:] == b"WEBP":
            _chunks(file, 12, "<4sI", (b"ANMF", b"VP8 ", b"VP8L", b"ALPH"), 0)
        elif head[:4] == b"GIF8":
            _gif(file)
    finally:
        file.seek(start)


class _Count:
    def __init__(self, most: int) -> None:
        self.pieces, self.bytes, self.most = 0, 0, most

    def add(self, length: int) -> None:
        self.pieces, self.bytes = self.pieces + 1, self.bytes + length
        if self.pieces > self.most or self.bytes > MAX_BYTES:
            raise TooMuchError(f"{self.pieces} pieces of metadata with {self.bytes} bytes; no camera writes so much")


def _jpeg(file: BinaryIO) -> None:
    count = _Count(MAX_SEGMENTS)
    file.seek(2, 1)
    while len(marker := file.read(2)) == 2 and marker[0] == 0xFF:
        if marker[1] == 0xFF:  # fill byte
            file.seek(-1, 1)
            count.add(1)
            continue
        if marker[1] == 0x01 or 0xD0 <= marker[1] <= 0xD8:  # markers without a length
            count.add(2)
            continue
        if marker[1] == 0xDA:
            break
        length = file.read(2)
        if len(length) < 2:
            return
        (size,) = struct.unpack(">H", length)
        count.add(size)
        file.seek(max(0, size - 2), 1)
    _scans(file)


def _scans(file: BinaryIO) -> None:
    """Counts scans from after the first scan's marker to the end of the image. A motion photo's film comes after it."""
    scans, block, at = 1, b"", 0

    def more() -> bool:
        """Keep the rest of the block and read the next one."""
        nonlocal block, at
        rest = block[at:]
        block, at = rest + file.read(1 << 20), 0
        return len(block) > len(rest)

    while True:
        at = block.find(b"\xff", at)
        if at < 0 or at + 1 >= len(block):
            at = len(block) if at < 0 else at
            if not more():
                return
            continue
        marker = block[at + 1]
        if marker == 0xD9:
            return
        if marker in (0x00, 0xFF) or 0xD0 <= marker <= 0xD7:  # stuffed byte, fill byte, restart markers
            at += 1 if marker == 0xFF else 2
            continue
        if marker == 0xDA:
            scans += 1
            if scans > MAX_SCANS:
                raise TooMuchError(f"more than {MAX_SCANS} passes over its pixels")
        while at + 4 > len(block):
            if not more():
                return
        length = int.from_bytes(block[at + 2 : at + 4], "big")
        while at + 2 + length > len(block):
            if not more():
                return
        at += 2 + length


def _chunks(file: BinaryIO, first: int, form: str, pixels: tuple[bytes, ...], checksum: int) -> None:
    """Chunks of PNG and RIFF: length and name (in either order), data, checksum."""
    count = _Count(MAX_CHUNKS)
    file.seek(first, 1)
    while len(head := file.read(8)) == 8:
        a, b = struct.unpack(form, head)
        length, name = (a, b) if isinstance(a, int) else (b, a)
        if name not in pixels:
            count.add(length)
        file.seek(length + (length & 1 if not checksum else checksum), 1)


def _gif(file: BinaryIO) -> None:
    count = _Count(MAX_PIECES)
    head = file.read(13)
    if len(head) < 13:
        return
    if head[10] & 0x80:
        file.seek(3 * (2 << (head[10] & 7)), 1)
    while (kind := file.read(1)) in (b"!", b","):
        if kind == b",":
            place = file.read(9)
            if len(place) < 9:
                return
            file.seek((3 * (2 << (place[8] & 7)) if place[8] & 0x80 else 0) + 1, 1)
        else:
            file.seek(1, 1)
        while (size := file.read(1)) not in (b"", b"\0"):
            if kind == b"!":
                count.add(size[0])
            file.seek(size[0], 1)
