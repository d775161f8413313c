"""The default number of threads: at most the process's CPUs, and at most the CPU limit of its container."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from genie_cpp.backends.cpus import usable


@pytest.fixture(autouse=True)
def eight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)


def system(root: Path, groups: str, **files: str) -> Path:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(groups, encoding="utf-8")
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name.replace("__", "/").replace("cpu_", "cpu.")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


@pytest.mark.parametrize(
    ("groups", "files", "count"),
    [
        ("0::/\n", {"cpu_max": "200000 100000\n"}, 2),
        ("0::/\n", {"cpu_max": "max 100000\n"}, 8),
        ("0::/a/b\n", {"cpu_max": "max 100000\n", "a__cpu_max": "350000 100000\n", "a__b__cpu_max": "max 100000\n"}, 3),
        ("0::/a/b\n", {"a__b__cpu_max": "50000 100000\n"}, 1),  # half a CPU is one thread
        ("0::/docker/of-the-host\n", {"cpu_max": "400000 100000\n"}, 4),  # the group itself is mounted
        ("0::/\n", {"cpu_max": "1600000 100000\n"}, 8),  # more than there are
        ("0::/\n", {"cpu_max": "damaged\n"}, 8),
        ("0::/\n", {}, 8),
        ("4:cpu,cpuacct:/d\n", {"cpu,cpuacct__d__cpu_cfs_quota_us": "300000\n",
                                "cpu,cpuacct__d__cpu_cfs_period_us": "100000\n"}, 3),
        ("4:cpuacct,cpu:/\n3:memory:/\n", {"cpu__cpu_cfs_quota_us": "100000\n",
                                          "cpu__cpu_cfs_period_us": "50000\n"}, 2),
        ("4:cpu:/\n", {"cpu__cpu_cfs_quota_us": "-1\n", "cpu__cpu_cfs_period_us": "100000\n"}, 8),
    ],
)  # fmt: skip
def test_a_quota_bounds_the_threads(tmp_path: Path, groups: str, files: dict[str, str], count: int) -> None:
    assert usable(system(tmp_path, groups, **files)) == count


def test_where_nothing_is_said_all_cpus_count(tmp_path: Path) -> None:
    assert usable(tmp_path) == 8
