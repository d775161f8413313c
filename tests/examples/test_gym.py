"""The Gymnasium example learns for a few frames on a tiny world. On the bundled world it is run by hand."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.heavy

pytest.importorskip("gymnasium")
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_ppo_steps_and_learns(tmp_path: Path, tiny_gguf) -> None:  # type: ignore[no-untyped-def]
    Image.fromarray(np.random.default_rng(3).integers(0, 256, (16, 16, 3), np.uint8)).save(tmp_path / "p.png")
    words = ["--model", tiny_gguf("q8_0"), "--prompt", "p.png", "--frames", "120", "--envs", "3", "--rollout", "20"]
    done = subprocess.run(
        [sys.executable, ROOT / "examples/gym/ppo.py", *map(str, words), "--episode", "15"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["60", "120"] and "nan" not in lines[-1]
