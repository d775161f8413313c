"""Which sampler each bundled world should have: settings against truth and against life (`genie-eval --sweep`)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from genie_cpp import Model, World
from genie_cpp.catalog.bundled import bundled
from genie_cpp.evaluate import Play, sweep
from genie_cpp.evaluate.sweep import parse

ROOT = Path(__file__).resolve().parents[1]
GRID = ("steps=1,2,4,8,25", "temperature=0,0.1,0.5,1", "order=confidence,random")


def samplers(work: Path, small: bool = False) -> dict[str, list[dict[str, Any]]]:
    """Rows of `sweep` by the name of the world. Recorded play is collected in folders under `work`."""
    found = {}
    for name in list(bundled())[: 1 if small else None]:
        model, data = Model.open(name), work / f"data-{name}"
        if not (data / "test.npz").exists():
            script = ROOT / "examples" / "training" / "collect.py"
            episodes = ("--test-episodes", "2" if small else "16", "--test-length", "24" if small else "512")
            words = [script, ROOT / "examples" / name, "-o", data, "--episodes", "1", *episodes]
            subprocess.run([sys.executable, *map(str, words)], check=True)
        play, starts = Play.load(data, model.info), list(World(model).prompts)
        grid = parse(("steps=1,2",) if small else GRID)
        size = {"clips": 2, "walks": 1, "mixed": 8} if small else {"clips": 100, "walks": 2, "mixed": 300}
        found[name] = sweep(model, play, starts, grid, **size)
    return found
