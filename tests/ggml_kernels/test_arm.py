"""The ARM kernels, cross-compiled and run under qemu: what detection finds on three CPUs, each set against scalar."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from genie_cpp import _native

TOOLS = ("cmake", "aarch64-linux-gnu-gcc", "qemu-aarch64")
LIBRARIES = "/usr/aarch64-linux-gnu"
CPUS = {
    "cortex-a53": ["neon", "scalar"],
    "neoverse-n1": ["dotprod", "neon", "scalar"],
    "max": ["i8mm", "dotprod", "neon", "scalar"],
}
missing = [tool for tool in TOOLS if shutil.which(tool) is None]
emulated = pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


@pytest.fixture(scope="module")
def differential(build_c) -> Path:  # type: ignore[no-untyped-def]
    path: Path = build_c("arm", "genie_differential", "--toolchain", "cmake/aarch64-linux-gnu.cmake")
    return path


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=600)


@emulated
@pytest.mark.parametrize(("cpu", "isas"), CPUS.items(), ids=CPUS)
def test_every_arm_isa_agrees_with_scalar(cpu: str, isas: list[str], differential: Path) -> None:
    done = run("qemu-aarch64", "-L", LIBRARIES, "-cpu", cpu, differential, *isas)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split("\n")[:-1] == [f"{isa} agrees" for isa in isas]


@emulated
def test_a_wrong_detection_is_noticed(differential: Path) -> None:
    done = run("qemu-aarch64", "-L", LIBRARIES, "-cpu", "cortex-a53", differential, "dotprod", "neon", "scalar")
    assert done.returncode == 1 and "instruction set 0 is neon" in done.stderr


@pytest.mark.skipif(shutil.which("cmake") is None, reason="not installed: cmake")
def test_the_program_agrees_with_python_here(build_c) -> None:  # type: ignore[no-untyped-def]
    done = run(build_c("here", "genie_differential"), *_native.isas())
    assert (done.returncode, done.stderr) == (0, "")
