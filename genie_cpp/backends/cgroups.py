"""The Linux control groups of this process, which hold a container's limits."""

from __future__ import annotations

from pathlib import Path


def groups(controller: str, root: Path = Path("/")) -> list[tuple[Path, int]]:
    """(folder, version 1 or 2) of this process's groups for a controller ("cpu", "memory"), and of all parent groups.

    root: where proc and sys/fs/cgroup are.
    """
    found: list[tuple[Path, int]] = []
    for line in text(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            top, version = root / "sys/fs/cgroup", 2
        elif controller in controllers.split(","):
            top, version = root / "sys/fs/cgroup" / controllers, 1
            top = top if top.is_dir() else root / "sys/fs/cgroup" / controller
        else:
            continue
        # In a container the path may be the host's, with the group itself mounted at the top. Then only the top exists.
        parts = [part for part in path.split("/") if part not in ("", "..")]
        found += [(top.joinpath(*parts[:depth]), version) for depth in range(len(parts) + 1)]
    return found


def text(path: Path) -> str:
    """The text of a system file; empty if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def number(path: Path) -> int | None:
    """The integer in a file; None for anything else ("max", no such file)."""
    digits = text(path).strip()
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 20 else None
