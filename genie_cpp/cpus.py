"""How many CPUs this process may really use."""

from __future__ import annotations

import os
from pathlib import Path


def usable(root: Path = Path("/")) -> int:
    """CPUs it may run on, and no more whole ones than a container's quota pays for; at least 1.

    root: where proc and sys/fs/cgroup are.
    """
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([count, *(int(quota) for quota in _quotas(root))]))


def _quotas(root: Path) -> list[float]:
    """In CPUs, of the process's control groups and of all above them: version 2 (cpu.max) and 1 (cpu.cfs_quota_us)."""
    found = []
    for line in _text(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            top, read = root / "sys/fs/cgroup", _quota_of_2
        elif "cpu" in controllers.split(","):
            top, read = root / "sys/fs/cgroup" / controllers, _quota_of_1
            top = top if top.is_dir() else root / "sys/fs/cgroup/cpu"
        else:
            continue
        # In a container the path may be the host's, and the group itself what is mounted: then only the top is there.
        parts = [part for part in path.split("/") if part not in ("", "..")]
        groups = [top.joinpath(*parts[:depth]) for depth in range(len(parts) + 1)]
        found += [quota for group in groups if (quota := read(group)) is not None]
    return found


def _quota_of_2(group: Path) -> float | None:
    quota, _, period = _text(group / "cpu.max").strip().partition(" ")
    return _ratio(quota, period)


def _quota_of_1(group: Path) -> float | None:
    return _ratio(_text(group / "cpu.cfs_quota_us").strip(), _text(group / "cpu.cfs_period_us").strip())


def _ratio(quota: str, period: str) -> float | None:
    """None where there is no limit: "max", -1, or no such file."""
    if not quota.isascii() or not quota.isdigit() or not period.isascii() or not period.isdigit() or int(period) == 0:
        return None
    return int(quota) / int(period)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
