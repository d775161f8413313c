"""How many CPUs this process may really use."""

from __future__ import annotations

import os
from pathlib import Path

from genie_cpp.backends import cgroups


def usable(root: Path = Path("/")) -> int:
    """Number of CPUs it may run on, limited to the whole CPUs of a container's quota; at least 1.

    root: where proc and sys/fs/cgroup are.
    """
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = (_quota(group, version) for group, version in cgroups.groups("cpu", root))
    return max(1, min([count, *(int(quota) for quota in quotas if quota is not None)]))


def _quota(group: Path, version: int) -> float | None:
    """A quota in CPUs; None if there is no limit ("max", -1, or no such file)."""
    if version == 2:
        quota, _, period = cgroups.text(group / "cpu.max").strip().partition(" ")
    else:
        quota, period = (cgroups.text(group / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period"))
    if not quota.isascii() or not quota.isdigit() or not period.isascii() or not period.isdigit() or int(period) == 0:
        return None
    return int(quota) / int(period)
