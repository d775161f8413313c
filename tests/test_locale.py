"""Text files are UTF-8 in every locale: the commands run where Python's default encoding is different."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.heavy

LOCALES = [("zh_CN", "GBK"), ("ja_JP", "EUC-JP")]
OTHERS = [("zh_CN", "GB18030"), ("ko_KR", "EUC-KR"), ("zh_TW", "BIG5")]

# Every package reads and writes its text: the interface at import, a checkpoint's config, a recipe, a report.
SMOKE = """
import pathlib, sys, warnings
warnings.filterwarnings("error", category=EncodingWarning, module=r"(genie_cpp|__main__)")
import genie_cpp
from genie_cpp.cli import main
def run(*words):
    sys.argv = ["genie-cpp", *words]
    try:
        main.main()
    except SystemExit as leave:
        assert not leave.code, words
run("run", "-m", "w.gguf", "-p", "p.png", "-n", "2", "-o", "out.gif", "-t", "1")
run("run", "-m", "w.gguf", "-p", "p.png", "-n", "2", "-o", "out/", "-t", "1")
run("info", "out.gif")
run("info", "w.gguf")
run("eval", "-m", "w.gguf", "--start", "p.png", "--held", "3", "--mixed", "3", "--seeds", "1", "-t", "1")
run("bench", "-m", "w.gguf", "-t", "1", "-r", "1")
import genie_cpp.server.page.app, genie_cpp.server.api.app
if pathlib.Path("checkpoint").exists():  # one locale says enough of torch, which takes its time
    run("convert", "checkpoint", "-o", "again.gguf", "-t", "q8_0")
    from genie_cpp.convert.reference import checkpoint
    checkpoint.load(pathlib.Path("checkpoint")).config.save(pathlib.Path("again.json"))
"""


@pytest.fixture
def place(tmp_path: Path, tiny_gguf: Callable[[str], Path]) -> Path:
    shutil.copy(tiny_gguf("q8_0"), tmp_path / "w.gguf")
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(tmp_path / "p.png")
    return tmp_path


@pytest.mark.parametrize(
    ("language", "encoding"), LOCALES + [pytest.param(*each, marks=pytest.mark.slow) for each in OTHERS]
)
def test_the_commands_run_in_other_encodings(place: Path, tiny_checkpoint: Path, language: str, encoding: str) -> None:
    if (language, encoding) == LOCALES[0]:
        shutil.copytree(tiny_checkpoint, place / "checkpoint")
    made = place / f"{language}.{encoding}"
    localedef = shutil.which("localedef")
    if localedef is None or not Path("/usr/share/i18n/locales").is_dir():
        pytest.skip("localedef and its sources are not installed")
    subprocess.run([localedef, "-i", language, "-f", encoding, str(made)], capture_output=True, check=False)
    environment = {**os.environ, "LOCPATH": str(place), "LC_ALL": f"{language}.{encoding}", "PYTHONUTF8": "0"}
    asked = "import locale; print(locale.getpreferredencoding(False))"
    told = subprocess.run([sys.executable, "-c", asked], env=environment, capture_output=True, text=True, check=True)
    assert told.stdout.strip().lower().replace("_", "-") not in ("utf-8", "ascii", "ansi-x3.4-1968")
    done = subprocess.run(
        [sys.executable, "-X", "warn_default_encoding", "-c", SMOKE], cwd=place, env=environment, capture_output=True,
        check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode(errors="replace")
