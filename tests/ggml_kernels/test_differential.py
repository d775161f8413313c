"""
The kernels compared with scalar ones in a C program: on this machine; cross-compiled for ARM and run under qemu (also
checks what detection finds on three CPUs); cross-compiled for Windows and run by Wine; with musl, whose threads have
small stacks; and with Clang, as on a Mac.

Does not need tests/conftest.py, so it can run where wheels are made: pytest --confcutdir=tests/ggml_kernels
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from genie_cpp.backends import _native

pytestmark = pytest.mark.heavy

TOOLS = ("cmake", "aarch64-linux-gnu-gcc", "qemu-aarch64")
LIBRARIES = "/usr/aarch64-linux-gnu"
CPUS = {
    "cortex-a53": ["neon", "scalar"],
    "neoverse-n1": ["dotprod", "neon", "scalar"],
    "max": ["i8mm", "dotprod", "neon", "scalar"],
}
WINDOWS_TOOLS = ("cmake", "x86_64-w64-mingw32-gcc", "wine")
WINDOWS_LIBRARIES = {"kernel32.dll", "msvcrt.dll"}


def needs(*tools: str) -> pytest.MarkDecorator:
    missing = [tool for tool in tools if shutil.which(tool) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


emulated = needs(*TOOLS)


@pytest.fixture(scope="module")
def differential(build_c) -> Path:  # type: ignore[no-untyped-def]
    path: Path = build_c("arm", "genie_differential", "--toolchain", "cmake/aarch64-linux-gnu.cmake")
    return path


def run(*command: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    words = list(map(str, command))
    return subprocess.run(words, env=os.environ | variables, capture_output=True, text=True, timeout=600)


@emulated
@pytest.mark.slow
# "max" has all of them; the others show that older CPUs get by without the newer instructions.
@pytest.mark.parametrize(("cpu", "isas"), CPUS.items(), ids=list(CPUS))
def test_every_arm_isa_agrees_with_scalar(cpu: str, isas: list[str], differential: Path) -> None:
    done = run("qemu-aarch64", "-L", LIBRARIES, "-cpu", cpu, differential, *isas)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split("\n")[:-1] == [f"{isa} agrees" for isa in isas]


@emulated
@pytest.mark.slow
def test_a_wrong_detection_is_noticed(differential: Path) -> None:
    done = run("qemu-aarch64", "-L", LIBRARIES, "-cpu", "cortex-a53", differential, "dotprod", "neon", "scalar")
    assert done.returncode == 1 and "instruction set 0 is neon" in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="Clang there makes programs for Visual Studio's libraries")
@pytest.mark.parametrize(
    "compiler",
    [
        pytest.param("musl-gcc", marks=[needs("cmake", "musl-gcc"), pytest.mark.slow]),
        pytest.param("clang", marks=[needs("cmake", "clang"), pytest.mark.slow]),
    ],
)
def test_another_compiler(compiler: str, build_c) -> None:  # type: ignore[no-untyped-def]
    options = (f"-DCMAKE_C_COMPILER={compiler}", "-DGENIE_WERROR=ON")
    done = run(build_c(compiler, "genie_differential", *options), *_native.isas())
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:-1] == [f"{isa} agrees" for isa in _native.isas()]


@pytest.mark.slow
@needs(*WINDOWS_TOOLS)
@pytest.mark.skipif(sys.platform != "linux", reason="Wine gives programs this CPU's instruction sets on Linux")
def test_windows_kernels_agree_with_scalar(build_c, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    program: Path = build_c(
        "windows", "genie_differential", "--toolchain", "cmake/x86_64-w64-mingw32.cmake", "-DGENIE_WERROR=ON"
    )
    listing = run("x86_64-w64-mingw32-objdump", "-p", program.with_name("genie.dll")).stdout
    needed = {line.split(":")[1].strip().lower() for line in listing.splitlines() if "DLL Name:" in line}
    assert needed == WINDOWS_LIBRARIES, "the wheel carries no other library"
    done = run("wine", program, *_native.isas(), WINEPREFIX=str(tmp_path / "wine"), WINEDEBUG="-all")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == " ".join(f"{isa} agrees" for isa in _native.isas()).split()


@needs("cmake")
@pytest.mark.slow
def test_the_program_agrees_with_python_here(build_c) -> None:  # type: ignore[no-untyped-def]
    done = run(build_c("here", "genie_differential"), *_native.isas())
    assert (done.returncode, done.stderr) == (0, "")
