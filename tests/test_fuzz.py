"""`make fuzz` for a few cases, from the same seeds: each fuzzer ends well, and one that finds a fault reports it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.heavy

FUZZ = Path(__file__).parent / "fuzz" / "fuzz.py"
COUNTS = {"gguf": 150, "states": 1000, "sessions": 1000, "pictures": 1500, "worlds": 50, "http": 12, "openapi": 80}


def fuzz(*words: object, script: Path = FUZZ, temp: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [str(word) for word in (sys.executable, script, *words)]
    env = os.environ | ({"TMPDIR": str(temp)} if temp else {})
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=env)


@pytest.mark.parametrize("name", COUNTS)
def test_random_input(name: str, tmp_path: Path) -> None:
    ran = fuzz("--only", name, "--count", COUNTS[name], "--seconds", 250, "--seed", 1, temp=tmp_path)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert int(ran.stdout.split()[1]) == COUNTS[name], ran.stdout
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            assert str(tmp_path).encode() not in process.read_bytes(), "a server was left behind"


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("raise ValueError('a fault')", "ValueError: a fault"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "exit code -11"),
    ],
)
def test_a_fault_is_found_and_its_seed_said(fault: str, said: str, tmp_path: Path) -> None:
    """Also a fault that ends the process."""
    (tmp_path / "fuzz.py").write_text(FUZZ.read_text(encoding="utf-8"), encoding="utf-8")
    code = f"def prepare(folder):\n    def one(seed):\n        if seed == 42:\n            {fault}\n    return one\n"
    (tmp_path / "fuzz_states.py").write_text(code, encoding="utf-8")
    ran = fuzz("--only", "states", "--seconds", 30, "--seed", 7, script=tmp_path / "fuzz.py")
    assert ran.returncode == 1
    assert said in ran.stderr and "--only states --seed 42 --count 1" in ran.stderr
    assert "35 cases" in ran.stdout
