"""AVX-VNNI, which few machines have: the encoding of what ships, and a twin's results (CMake: GENIE_AVXVNNI_TWIN)."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from genie_cpp import World
from genie_cpp.backends import _native

ROOT = Path(__file__).resolve().parents[2]
CC = os.environ.get("CC", "gcc")
FLAGS = ["-O3", "-std=c11", "-mavx2", "-mfma", "-mf16c", "-mavxvnni", "-ffp-contract=fast", "-fno-math-errno", "-fPIC"]


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="x86 alone has it")
@pytest.mark.skipif(not (shutil.which(CC) and shutil.which("objdump")), reason="no compiler, or no objdump")
@pytest.mark.parametrize("file", ["matmul/matmul_avxvnni.c", "peak/peak_avxvnni.c"])
def test_what_ships_needs_no_avx512(file: str, tmp_path: Path) -> None:
    core = ROOT / "ggml_kernels"
    made = tmp_path / "kernels.o"
    subprocess.run([CC, *FLAGS, f"-I{core / 'include'}", "-c", core / "src" / "kernels" / file, "-o", made], check=True)
    text = subprocess.run(["objdump", "-d", made], capture_output=True, text=True, check=True).stdout
    products = re.findall(r"\t([0-9a-f ]+)\t(?:\{vex\} )?vpdpbusd", text)
    assert len(products) >= 12 and all(code.startswith("c4 ") for code in products)  # VEX; EVEX begins with 62
    assert not re.search(r"%zmm|%[xy]mm(1[6-9]|[23]\d)|%k[0-7]", text)


@pytest.mark.skipif("avxvnni" not in _native.isas(), reason="neither AVX-VNNI nor a twin of it runs here")
@pytest.mark.parametrize("name", ["meadow", "maze"])
def test_its_frames_are_those_of_avx2(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = {}
    for isa in ("avx2", "avxvnni"):
        monkeypatch.setenv("GENIE_ISA", isa)
        world = World.load(name, threads=2)
        frames[isa] = [world.reset(seed=3), *(world.step(k % 5) for k in range(10))]
    assert np.array_equal(frames["avx2"], frames["avxvnni"])
