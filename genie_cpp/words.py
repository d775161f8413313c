"""Text from outside, made safe for a terminal, and numbers in words."""

from __future__ import annotations


def printable(text: str) -> str:
    """Text from a file or a user, with control and other non-printable characters escaped."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def quoted(text: str, limit: int = 256) -> str:
    """As `printable`, shortened and in quotes."""
    text = text if len(text) <= limit else text[: limit - 1] + "…"
    return f"'{printable(text)}'"


def in_cell(text: object) -> str:
    """As `printable`, for a cell of a Markdown table."""
    return printable(str(text)).replace("|", "\\|")


def one_line(error: BaseException) -> str:
    """The first line of another library's message."""
    text = str(error).strip()
    return quoted(text.splitlines()[0] if text else type(error).__name__, 120)[1:-1]


def size(count: float) -> str:
    """A number of bytes in words, in steps of 1024."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
