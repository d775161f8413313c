"""Other people's text, made safe for a terminal, and numbers as words."""

from __future__ import annotations


def printable(text: str) -> str:
    """Text from a file or a user, in which control and odd characters are escaped."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def quoted(text: str, limit: int = 256) -> str:
    """The same, shortened and in quotes."""
    text = text if len(text) <= limit else text[: limit - 1] + "…"
    return f"'{printable(text)}'"


def in_cell(text: object) -> str:
    """The same for a cell of a Markdown table."""
    return printable(str(text)).replace("|", "\\|")


def one_line(error: BaseException) -> str:
    """The first line of another library's message."""
    text = str(error).strip()
    return quoted(text.splitlines()[0] if text else type(error).__name__, 120)[1:-1]


def size(count: float) -> str:
    """Bytes in words, 1024 at a time."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
