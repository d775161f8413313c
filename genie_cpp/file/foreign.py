"""Recognises files that are not what was asked for, such as broken downloads and phone formats, so errors name them."""

from __future__ import annotations

from pathlib import Path

HEAD = 512  # bytes needed to recognise a file


def described(head: bytes) -> tuple[str, str] | None:
    """(what a file with this beginning is, what to do), or None if it is not recognised."""
    text = head[:HEAD].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith(b"version https://git-lfs.github.com/spec/"):
        return "a Git LFS pointer, not the file itself", "git lfs pull fetches it, or download it by its link"
    if text.startswith((b"<!doctype html", b"<html", b"<?xml")) or b"<html" in text:
        return "a web page, not a file", "the link may need you to sign in, or leads to a page about the file"
    if head[4:8] == b"ftyp" and head[8:12] in (b"heic", b"heix", b"mif1", b"msf1", b"heim", b"heis"):
        return (
            "a HEIC picture, which is not read here",
            "save it as JPEG or PNG",
        )
    return None


def of(path: Path) -> tuple[str, str] | None:
    """As `described`, for a file; None also if it cannot be read."""
    try:
        with path.open("rb") as file:
            return described(file.read(HEAD))
    except OSError:
        return None
