"""genie-cpp web: what it writes, refuses and leaves alone."""

from __future__ import annotations

import json
import shutil
import subprocess
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest

from genie_cpp.web.export import CORES, PAGE, SITE

BIN = Path(sysconfig.get_path("scripts"))
ROOT = Path(__file__).parents[2]
WASI = Path("/usr/lib/wasm32-wasi/libc.a")


def web(*words: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [str(BIN / "genie-cpp"), "web", *map(str, words)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120)


@pytest.fixture
def place(tmp_path: Path, tiny_gguf: Callable[[str], Path]) -> Path:
    shutil.copy(tiny_gguf("q8_0"), tmp_path / "w.gguf")
    return tmp_path


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_folder_and_a_file(place: Path) -> None:
    done = web("w.gguf", "-o", "site", "--title", "A <place>", cwd=place)
    assert (done.returncode, done.stdout) == (0, "site\n") and "the page asks for one" in done.stderr
    assert names(place / "site") == {*PAGE, *CORES, "plan.json", "weights.bin"}
    assert "<title>A &lt;place&gt;</title>" in (place / "site" / "index.html").read_text()
    plan = json.loads((place / "site" / "plan.json").read_text())
    assert plan["title"] == "A <place>" and plan["card"]["license"] == "MIT" and "lam.encoder" not in plan["stacks"]
    told = json.loads(web("w.gguf", "-o", "w.html", "--single-file", "--json", cwd=place).stdout)
    assert told == {"output": "w.html", "bytes": (place / "w.html").stat().st_size, "starts": 0}
    assert names(place) == {"w.gguf", "site", "w.html"}


def test_a_bundled_world_is_small(place: Path) -> None:
    done = web("maze", "-o", "maze", cwd=place)
    assert done.returncode == 0 and "http.server -d maze" in done.stderr
    plan = json.loads((place / "maze" / "plan.json").read_text())
    assert len(plan["starts"]) >= 12 and plan["keys"]["ArrowUp"] == plan["action_names"].index("forward")
    page = sum((place / "maze" / name).stat().st_size for name in (*PAGE, CORES[1]))
    assert page <= 300_000 and all((SITE / core).stat().st_size <= 200_000 for core in CORES)


def test_what_is_there_is_kept(place: Path) -> None:
    assert web("w.gguf", "-o", "site", cwd=place).returncode == 0
    done = web("w.gguf", "-o", "site", cwd=place)
    assert done.returncode == 1 and done.stderr.startswith("error: 'site' exists\nhint: give -y")
    assert web("w.gguf", "-o", "site", "-y", cwd=place).returncode == 0
    (place / "mine").mkdir()
    (place / "mine" / "thesis.txt").write_text("mine")
    done = web("w.gguf", "-o", "mine", "-y", cwd=place)
    assert done.returncode == 1 and "not of such a page" in done.stderr
    assert names(place / "mine") == {"thesis.txt"}


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("none.gguf",), "none.gguf: No such file"),
        (("w.gguf", "-o", "none/site"), "the folder 'none' does not exist"),
        (("w.gguf", "-o", "w.gguf"), "is a file"),
        (("w.gguf", "-o", "folder", "--single-file"), "is a folder"),
        (("w.gguf", "--start", "none.png"), "none.png"),
        (("w.gguf", "--start", "w.gguf"), "w.gguf"),
        (("broken.gguf",), "broken.gguf"),
    ],
)
def test_faults(words: tuple[str, ...], why: str, place: Path) -> None:
    (place / "folder").mkdir()
    (place / "broken.gguf").write_bytes((place / "w.gguf").read_bytes()[:-500])
    before = names(place)
    done = web(*words, cwd=place)
    lines = done.stderr.splitlines()
    assert done.returncode == 1 and lines[0].startswith("error: ") and why in lines[0], done.stderr
    assert len(lines) <= 2 and names(place) == before


def test_the_core_is_the_one_of_the_sources(tmp_path: Path) -> None:
    if not (shutil.which("clang-19") and shutil.which("wasm-ld-19") and WASI.exists()):
        pytest.skip("clang-19, lld-19 and wasi-libc make it: see make wasm")
    subprocess.run(["make", "-s", "wasm", f"WASM={tmp_path}"], cwd=ROOT, check=True, timeout=300)
    for core in CORES:
        assert (tmp_path / core).read_bytes() == (SITE / core).read_bytes(), "make wasm"
