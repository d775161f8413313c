"""Imports and includes run one way, no code that a step can reach allocates, and every failure has a reason.

The checks walk folders, not lists of files. A breach planted in a copy shows that each check works.
"""

from __future__ import annotations

import ast
import re
import shutil
from collections.abc import Container, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CORE = "ggml_kernels/src"


def modules(path: Path, name: str, package: bool) -> list[str]:
    """Every module that a file may import, absolute; for `from a import b` both a and a.b."""
    parent = name.split(".") if package else name.split(".")[:-1]
    found: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(parent[: len(parent) - node.level + 1]) if node.level else ""
            base = ".".join(part for part in (base, node.module) if part)
            found += [base, *(f"{base}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("import_module", "__import__", "importorskip"):
                found.append(str(node.args[0].value))
    return found


def inside(module: str, *packages: str) -> bool:
    return any(module == package or module.startswith(package + ".") for package in packages)


# From the lowest floor up: a module may import from lower floors and, without circles, from its own. An entry is a file
# or a folder, named from genie_cpp on. `test_every_module_has_a_place` fails for a module that has no floor.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("errors", "words", "version"),
    ("actions", "sampler", "tokens", "leftovers", "file"),
    ("spec",),
    ("backends", "media"),
    ("frames",),
    ("catalog",),
    ("model",),
    ("prediction", "window", "saved_world", "world"),
    ("play", "evaluate", "bench"),
    ("gym", "pyinstaller", "web"),
    ("convert",),
    ("train",),
    ("server.common",),
    ("server.page", "server.api"),
    ("server",),
    ("cli",),
)
# Heavy or system libraries, and the only rooms that may import them.
ONLY_IN = {
    "cffi": ("backends._native",),
    "_cffi_backend": ("backends._native",),
    "torch": ("convert", "train"),
    "safetensors": ("convert",),
    "mlx": ("backends.metal",),
    "gymnasium": ("gym",),
    "typer": ("cli",),
    "rich": ("cli",),
    **dict.fromkeys(("fastapi", "starlette", "uvicorn", "websockets", "prometheus_client"), ("server",)),
}


def floor(name: str) -> int | None:
    """The floor of a module named from genie_cpp on; None for the package itself and for modules without a floor."""
    found = [
        (len(room), index) for index, rooms in enumerate(FLOORS) for room in rooms if inside(name, room)
    ]  # fmt: skip
    return max(found)[1] if found else None


def package_files(root: Path) -> dict[str, tuple[Path, bool]]:
    """Module name from genie_cpp on ("" for the package) -> (its file, is it a package)."""
    found = {}
    for room in ("genie_cpp", "convert", "cli", "server", "train"):
        for path in sorted((root / room).rglob("*.py")):
            parts = path.relative_to(root / room).with_suffix("").parts
            is_package = parts[-1] == "__init__"
            words = [*([] if room == "genie_cpp" else [room]), *(parts[:-1] if is_package else parts)]
            found[".".join(words)] = path, is_package
    return found


def python_breaches(root: Path) -> list[str]:
    """Imports that Python files of the package must not have."""
    breaches = []
    for name, (path, is_package) in package_files(root).items():
        full = f"genie_cpp.{name}" if name else "genie_cpp"
        text = path.read_text(encoding="utf-8")
        where = path.relative_to(root)
        if re.search(r"^\s*from \.", text, re.MULTILINE):
            breaches.append(f"{where} has a relative import")
        here = floor(name)
        for module in modules(path, full, is_package):
            top = module.partition(".")[0]
            if top in ONLY_IN and not inside(name, *ONLY_IN[top]):
                breaches.append(f"{where} imports {module}")
            if top in ("tests", "examples", "convert", "cli", "server", "train"):
                breaches.append(f"{where} imports {module}")
            target = module.removeprefix("genie_cpp.")
            if top != "genie_cpp" or target == module or here is None:
                continue
            there = floor(target)
            if there is not None and (there > here or (there == here and apart(name, target))):
                breaches.append(f"{where} imports {module}, which stands no lower")
            if target.startswith("backends._native") and name.split(".")[0] in ("convert", "server", "cli", "train"):
                breaches.append(f"{where} imports {module}")
            if name.split(".")[0] == "server" and inside(target, "convert", "train"):
                breaches.append(f"{where} imports {module}")
    return breaches


def apart(one: str, other: str) -> bool:
    """Whether two modules of one floor must not import each other: the page and the API."""
    rooms = ("server.page", "server.api")
    return any(inside(one, a) and inside(other, b) for a in rooms for b in rooms if a != b)


def circles(root: Path) -> list[str]:
    """Modules that import each other, directly or not, at import time."""
    files = package_files(root)
    graph = {}
    for name, (path, _) in files.items():
        wanted = {module.removeprefix("genie_cpp.") for module in top_level(path, files)}
        graph[name] = wanted & set(files) - {name, ""}
    del graph[""]
    found = []
    for start in graph:
        reached, todo = set[str](), list(graph[start])
        while todo:
            if (name := todo.pop()) not in reached:
                reached.add(name)
                todo += graph.get(name, ())
        if start in reached:
            found.append(start)
    return found


def top_level(path: Path, known: Container[str]) -> list[str]:
    """What a file imports at import time, without the imports inside functions."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    late = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef))
        for node in ast.walk(function)
    }
    found: list[str] = []
    for node in ast.walk(tree):
        if id(node) in late:
            continue
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found += names
            if not all(name.removeprefix("genie_cpp.") in known for name in names):
                found.append(node.module)  # else it is the folder alone that they are in
    return found


def c_breaches(root: Path) -> list[str]:
    """Includes that files of the C core must not have."""
    source, public = root / CORE, ("genie.h", "genie_bench.h")
    may = {"base": ("base",), "kernels": ("base", "kernels"), "stack": ("base", "kernels", "stack")}
    may["conv"] = ("base", "kernels", "conv")
    may["api.c"] = ("base", "kernels")
    breaches = []
    for path in sorted((root / "ggml_kernels").rglob("*.[ch]")):
        room = path.relative_to(source).parts[0] if path.is_relative_to(source) else ""
        what = str(path.relative_to(root))
        if room and room not in may:
            breaches.append(f"{what} is in no room: say in this test what it may include")
        for mark, target in re.findall(r'^\s*#\s*include\s*([<"])([^>"]+)', path.read_text(encoding="utf-8"), re.M):
            if re.search(r"(?i)(^|/)(python|numpy|ggml|gguf)", target):
                breaches.append(f"{what} includes {target}")
            if mark == "<" or target == "genie.h":
                continue
            # Code that runs a world does not need the functions for tests and benchmarks.
            if target in public:
                if room and not path.stem.endswith("_api") and path.stem != "peak":
                    breaches.append(f"{what} includes {target}")
                continue
            real = (path.parent / target).resolve()
            if not real.is_file() or not real.is_relative_to(root / "ggml_kernels"):
                breaches.append(f"{what} includes {target}, which is not in the core")
            elif room in may and real.relative_to(source).parts[0] not in may[room]:
                breaches.append(f"{what} includes {target}")
    return breaches


ALLOCATES = re.compile(r"\b(genie_alloc\w*|genie_arena_take|malloc|calloc|realloc|alloca|strdup|qsort)\s*\(")
# Functions that make or seal something may allocate. All others may be part of a step.
MAKES = {
    "base": ("genie_pool_create", "genie_alloc", "genie_alloc_zeroed", "genie_arena_take", "grow"),
    "kernels": ("genie_matrix_create", "genie_matmul", "genie_attention"),
    "stack": ("genie_stack_create", "genie_stack_set", "set_experts", "expand_bias", "genie_state_create"),
    "conv": ("genie_conv_create", "genie_conv_set", "genie_conv_state_create"),
}


FUNCTION = re.compile(
    r"^(?!#|typedef|struct|enum)\w[^;{}=]*?\b(\w+)\([^;{}]*\)\s*\{(?:([^\n]*)\}$|(.*?)^\})", re.MULTILINE | re.DOTALL
)


def functions(text: str) -> Iterator[tuple[str, str]]:
    """(name, body) of every function of a C file in our format: on one line, or up to a brace in column 1."""
    for found in FUNCTION.finditer(text):
        yield found[1], found[2] or found[3] or ""


def allocations(root: Path) -> list[str]:
    """Calls that allocate, in functions that a step may reach."""
    found = []
    for path in sorted((root / CORE).rglob("*.[ch]")):
        text = re.sub(r"/\*.*?\*/", "", path.read_text(encoding="utf-8"), flags=re.S)
        makes = MAKES.get(path.relative_to(root / CORE).parts[0], ())
        where, inside_functions = path.relative_to(root), 0
        for name, body in functions(text):
            inside_functions += len(ALLOCATES.findall(body))
            if ALLOCATES.search(body) and name not in makes:
                found.append(f"{where}: {name} allocates")
        # One-line functions and macros are found too.
        if len([c for c in ALLOCATES.finditer(text) if not declared(text, c.start())]) > inside_functions:
            found.append(f"{where}: something outside the functions that were found allocates")
    return found


def declared(text: str, at: int) -> bool:
    """Whether a name followed by a parenthesis begins a function or declares it."""
    line = text[text.rfind("\n", 0, at) + 1 : at]
    return re.fullmatch(r"(?:static |inline |const )*\w+ \*?", line) is not None


def test_python_imports_run_one_way() -> None:
    assert python_breaches(ROOT) == []


def test_c_includes_run_one_way() -> None:
    assert c_breaches(ROOT) == []


def test_modules_import_in_no_circle() -> None:
    assert circles(ROOT) == []


def test_every_module_has_a_place() -> None:
    files = package_files(ROOT)
    assert [name for name in files if name and floor(name) is None] == []
    rooms = {room for rooms in FLOORS for room in rooms}
    assert [room for room in rooms if not any(inside(name, room) for name in files)] == []


def test_the_walk_finds_the_rooms() -> None:
    for room in ("base", "kernels", "stack"):
        assert list((ROOT / CORE / room).rglob("*.c")), room


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("genie_cpp/world.py", "from genie_cpp import convert"),
        ("genie_cpp/world.py", "from . import model"),
        ("genie_cpp/world.py", "from genie_cpp.cli.main import main"),
        ("genie_cpp/world.py", "def f():\n    import torch.nn"),
        ("genie_cpp/world.py", "import importlib\nimportlib.import_module('torch')"),
        ("genie_cpp/model.py", "from cffi import FFI"),
        ("genie_cpp/backends/_native.py", "from genie_cpp import convert"),
        ("genie_cpp/frames.py", "import rich"),
        ("genie_cpp/world.py", "from genie_cpp.server.page import app"),
        ("genie_cpp/world.py", "import gymnasium"),
        ("genie_cpp/backends/choose.py", "import mlx.core as mx"),
        ("genie_cpp/file/gguf_file.py", "from genie_cpp.spec import hparams"),
        ("genie_cpp/frames.py", "from genie_cpp.world import World"),
        ("genie_cpp/media/output.py", "from genie_cpp.play.recipe import KEY"),
        ("genie_cpp/catalog/hub.py", "from genie_cpp.model import Model"),
        ("server/common/limits.py", "from genie_cpp.server.page import app"),
        ("server/api/routes.py", "from genie_cpp.server.page.player import Player"),
        ("convert/writer.py", "from genie_cpp.cli import info"),
        ("convert/writer.py", "from genie_cpp.server.page.app import create_app"),
        ("server/page/app.py", "from genie_cpp.cli import play"),
        ("server/page/app.py", "from genie_cpp.convert import writer"),
        ("server/page/app.py", "from genie_cpp.backends import _native"),
        ("cli/play.py", "import uvicorn"),
        ("convert/families/some.py", "from genie_cpp.backends import _native"),
        ("convert/writer.py", "from genie_cpp import cli"),
        ("cli/info.py", "import torch"),
        ("cli/info.py", "from genie_cpp.backends._native import lib"),
    ],
)
def test_a_python_breach_is_found(tmp_path: Path, file: str, line: str) -> None:
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text(line + "\n")
    assert python_breaches(tmp_path)


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("genie_cpp/backends/_native.py", "import cffi"),
        ("genie_cpp/model.py", "from genie_cpp.backends import _native"),
        (
            "convert/families/some.py",
            "import torch\nfrom genie_cpp.errors import GenieError\nfrom genie_cpp.convert.native import load",
        ),
        ("server/page/app.py", "import fastapi\nfrom genie_cpp.play.session import Session"),
        ("genie_cpp/gym.py", "import gymnasium"),
        ("genie_cpp/backends/metal/stack.py", "import mlx.core as mx"),
        ("cli/play.py", "from genie_cpp.server.run import serve"),
        ("cli/convert.py", "from genie_cpp.convert.writer import convert\nfrom genie_cpp.cli.main import app"),
    ],
)
def test_a_proper_import_is_let_be(tmp_path: Path, file: str, line: str) -> None:
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text(line + "\n")
    assert python_breaches(tmp_path) == []


@pytest.mark.parametrize(
    ("file", "include"),
    [
        ("base/a.c", '"../kernels/kernels.h"'),
        ("base/a.c", '"../stack/stack.h"'),
        ("kernels/norm/a.c", '"../../stack/stack.h"'),
        ("stack/a.c", "<Python.h>"),
        ("stack/a.c", "<ggml.h>"),
        ("stack/a.c", '"../../../outside.h"'),
        ("stack/a.c", '"missing.h"'),
    ],
)
def test_a_c_breach_is_found(tmp_path: Path, file: str, include: str) -> None:
    for header in ("base/base.h", "kernels/kernels.h", "stack/stack.h", "../../outside.h"):
        (tmp_path / CORE / header).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / CORE / header).write_text('#include "genie.h"\n#include <stdint.h>\n')
    assert c_breaches(tmp_path) == []
    path = tmp_path / CORE / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#include {include}\n")
    assert c_breaches(tmp_path)


def test_a_step_does_not_allocate() -> None:
    """Weights and windows are allocated when they are made. Code that runs in a step has no call that may allocate."""
    assert allocations(ROOT) == []


@pytest.mark.parametrize("folder", ["stack", "conv", "kernels/attention", "kernels/matmul", "base", "."])
def test_an_allocation_in_a_step_is_found(folder: str, tmp_path: Path) -> None:
    """An allocation is planted in a copy of every folder, at the beginning of a function that must not allocate."""
    shutil.copytree(ROOT / CORE, tmp_path / CORE)
    makes = {name for names in MAKES.values() for name in names}
    for path in sorted((tmp_path / CORE / folder).glob("*.[ch]")):
        text = path.read_text(encoding="utf-8")
        names = [name for name, _ in functions(text) if name not in makes]
        if not names:
            continue
        planted = re.sub(rf"(\b{names[-1]}\([^;{{}}]*\)\s*\{{)", r"\1\n    void *room = malloc(9);", text, count=1)
        assert planted != text
        path.write_text(planted, encoding="utf-8")
        assert allocations(tmp_path), path
        path.write_text(text, encoding="utf-8")


def test_every_failure_says_why() -> None:
    """No function returns an error status without giving `genie_fail` the reason."""
    for path in sorted((ROOT / CORE).rglob("*.[ch]")):
        assert not re.search(r"return GENIE_ERROR_", path.read_text(encoding="utf-8")), path
