"""Builds the C programs of this folder."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from shared import shared

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def build_c(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """(name, target, *options of cmake) -> the program. A folder for each name."""

    def build(name: str, target: str, *options: str) -> Path:
        with shared(tmp_path_factory, f"c-{name}") as folder:
            configure = ["cmake", "-S", ".", "-B", folder, "-DGENIE_TESTS=ON", "-DGENIE_AVXVNNI_TWIN=avx2",
                         f"-DPython3_EXECUTABLE={sys.executable}", *options]  # fmt: skip
            for command in (configure, ["cmake", "--build", folder, "--target", target, "-j", "2"]):
                done = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True)
                assert done.returncode == 0, done.stdout + done.stderr
        (program,) = (found for suffix in ("", ".exe") if (found := folder / f"{target}{suffix}").is_file())
        return program

    return build
