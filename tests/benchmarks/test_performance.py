"""`make bench-smoke` writes the same page as `make bench`, and a verdict states what was measured."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from genie_cpp.backends import _native

pytestmark = pytest.mark.heavy

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
HEADINGS = [
    "Targets", "What stands in the way", "Matrix products", "Attention, one thread",
    "One MaskGIT step with a full window", "Whole models",
    "A whole frame against PyTorch, two threads", "Two threads against one", "Sliding the window",
    "Memory and load time", "How a step grows", "Samplers",
]  # fmt: skip
needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def smoke(work: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "ignore", BENCHMARKS / "performance.py", "--work", work, "-o", work / "page.md"]
    return subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=300)


@needs_linux
@pytest.mark.slow
def test_the_page_has_all_sections_and_finite_figures(tmp_path: Path) -> None:
    kept = [{"kind": "half", "frames": 3, "seconds": 0.5, "sliding": 0.085, "again": 2, "step": 0.04}]
    (tmp_path / "window.json").write_text(json.dumps(kept))
    done = smoke(tmp_path, "--smoke", "--resume")
    assert done.returncode == 0, done.stderr
    measured = re.findall(r"^(\w+) …", done.stdout, re.M)
    assert sorted([*measured, "window"]) == sorted(path.stem for path in tmp_path.glob("*.json"))
    page = (tmp_path / "page.md").read_text()
    assert re.findall(r"^## (.*)", page, re.M) == HEADINGS
    assert not re.search(r"\b(nan|inf)\b", page)
    targets = page.split("## Targets")[1].split("## What stands")[0]
    verdicts = re.findall(r"\| ([^|]*) \|$", targets, re.M)[2:]
    assert len(verdicts) == 23 - (_native.isas()[0] == "avx2")  # it is not compared with itself
    assert all(re.fullmatch(r"met|\*\*missed by [\d.e+]+ %\*\*|not measured", verdict) for verdict in verdicts), (
        verdicts
    )
    peers = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO", "libggml": "ggml"}
    for module, name in peers.items():
        assert (find_spec(module) is None) == (f"Not there, so left out: {name}." in page)
        assert (find_spec(module) is None) == (f": {name}" not in page.split("## Matrix products")[1])
    assert "| half | 3 | 500 | 85 | 17 % | 2 | 42.5 | 40 |" in page and "0.17; most: half" in targets


@pytest.mark.skipif(find_spec("openvino") is not None, reason="all peers are there")
def test_a_missing_peer_is_an_error_outside_smoke(tmp_path: Path) -> None:
    done = smoke(tmp_path)
    assert done.returncode == 1 and "OpenVINO" in done.stderr and not (tmp_path / "page.md").exists()


def test_verdicts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from targets import at_least, at_most, steps

    assert at_least("speed", 2.0, {"a": 2.5, "b": 2.0}).text() == "met"
    missed = at_least("speed", 2.0, {"a": 2.5, "b": 1.5})
    assert missed.text() == "**missed by 25 %**" and missed.measured == "1.50…2.50 times; least: b"
    assert at_least("share", 0.84, {"a": 0.7}, "%").measured == "70 %; least: a"
    assert at_most("time", 1.25, {"a": 1.0, "b": 1.25}).text() == "met"
    assert at_most("time", 1.25, {"a": 1.0, "b": 1.5}).text() == "**missed by 20 %**"
    assert at_least("speed", 2.0, {}).text() == "not measured"
    times = {"genie_cpp Q8_0": 1.0, "PyTorch fp32": 0.5, "PyTorch int8, dynamic": 1.2, "OpenVINO int8": 1.4}
    parts, rivals = steps({"step": [{"model": "m", "threads": 1, "times": times, "products": 0.9}]})
    assert parts.text() == "met" and "PyTorch int8" in rivals.measured and rivals.missed == pytest.approx(1 - 1.2 / 1.3)
