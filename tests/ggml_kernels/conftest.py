"""Builds the C programs of this folder."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def build_c(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """(name, target, *options of cmake) -> the program. A folder for each name, which the workers of a run share."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def build(name: str, target: str, *options: str) -> Path:
        folder, lock = base / f"c-{name}", base / f"c-{name}.lock"
        configure = ["cmake", "-S", ".", "-B", folder, "-DGENIE_TESTS=ON", "-DGENIE_AVXVNNI_TWIN=avx2",
                     f"-DPython3_EXECUTABLE={sys.executable}", *options]  # fmt: skip
        while True:
            try:
                lock.mkdir()
                break
            except FileExistsError:  # another worker builds there
                time.sleep(0.1)
        try:
            for command in (configure, ["cmake", "--build", folder, "--target", target, "-j", "2"]):
                done = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True)
                assert done.returncode == 0, done.stdout + done.stderr
        finally:
            lock.rmdir()
        (program,) = (found for suffix in ("", ".exe") if (found := folder / f"{target}{suffix}").is_file())
        return program

    return build
