"""Numbers and other people's messages as words."""

from __future__ import annotations

from genie_cpp.file.gguf_file import quoted


def size(count: float) -> str:
    """Bytes in words, 1024 at a time."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def one_line(error: BaseException) -> str:
    """The first line of another library's message, safe for a terminal."""
    text = str(error).strip()
    return quoted(text.splitlines()[0] if text else type(error).__name__, 120)[1:-1]
