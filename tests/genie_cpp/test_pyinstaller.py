"""A program packed by PyInstaller plays a bundled world; PyInstaller is told nothing but the program's name."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.heavy

PROGRAM = """
import sys
from genie_cpp import World
world = World.load("meadow", threads=1)
world.reset()
print(getattr(sys, "frozen", False), world.step("right").shape, len(world.prompts))
"""


@pytest.mark.slow
def test_a_packed_program_plays(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM, encoding="utf-8")
    command = [sys.executable, "-m", "PyInstaller", "--noconfirm", "--log-level=ERROR", "program.py"]
    packed = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert packed.returncode == 0, packed.stderr
    program = tmp_path / "dist" / "program" / "program"
    # Nothing of this checkout may be importable from there.
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "GENIE_"))}
    ran = subprocess.run([program], cwd=tmp_path / "dist", env=clean, capture_output=True, text=True, timeout=120)
    assert ran.stdout == "True (80, 128, 3) 16\n", ran.stderr
