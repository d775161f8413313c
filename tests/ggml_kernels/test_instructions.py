"""
How many instructions one MaskGIT step takes, counted by callgrind, so that a slow-down shows without a clock. After a
change that is meant to alter the count, run `make instructions` to record it again.

Callgrind does not support AVX-512, so AVX2 and scalar stand for the shared code. Counts hold for the compiler they
name.
"""

from __future__ import annotations

import json
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.heavy

RECORD = Path(__file__).with_name("instructions.json")
CASES = [(isa, type) for isa in ("avx2", "scalar") for type in ("f32", "q4_0", "q8_0")]
MARKED = [pytest.param(*case, marks=[pytest.mark.slow] if case[1] == "f32" else []) for case in CASES]
NUMBERS = {"f32": 0, "q4_0": 2, "q8_0": 8}
TOLERANCE = 0.03


def compiler() -> str:
    version = subprocess.run(["cc", "-dumpversion"], capture_output=True, text=True, check=True).stdout
    gcc = (
        "gcc" if "Free Software" in subprocess.run(["cc", "--version"], capture_output=True, text=True).stdout else "cc"
    )
    return f"{platform.machine()} {gcc} {version.split('.')[0].strip()}"


def instructions(program: Path, isa: str, type: str, folder: Path) -> int:
    """Instructions of one step, from runs with three steps and with one."""
    counts = []
    for steps in (3, 1):
        command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={folder / 'callgrind.out'}"]
        done = subprocess.run(
            [*command, str(program), isa, str(NUMBERS[type]), str(steps)], capture_output=True, text=True, timeout=600
        )
        found = re.search(r"Collected : (\d+)", done.stderr)
        assert done.returncode == 0 and found, done.stderr
        counts.append(int(found[1]))
    return (counts[0] - counts[1]) // 2


@pytest.mark.skipif(shutil.which("valgrind") is None, reason="not installed: valgrind")
@pytest.mark.parametrize(("isa", "type"), MARKED)
def test_a_step_takes_no_more_instructions_than_recorded(isa: str, type: str, build_c, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    record = json.loads(RECORD.read_text())
    if compiler() != record["compiler"]:
        pytest.skip(f"recorded with {record['compiler']}, this is {compiler()}")
    found = instructions(build_c("here", "genie_step"), isa, type, tmp_path)
    recorded = record["instructions"][f"{isa} {type}"]
    assert found <= recorded * (1 + TOLERANCE), "slower: is that meant?"
    assert found >= recorded * (1 - TOLERANCE), "faster: record it, so that it is kept"


if __name__ == "__main__":
    program, folder = Path(sys.argv[1]), Path(sys.argv[2])
    counts = {f"{isa} {type}": instructions(program, isa, type, folder) for isa, type in CASES}
    RECORD.write_text(json.dumps({"compiler": compiler(), "instructions": counts}, indent=1) + "\n")
