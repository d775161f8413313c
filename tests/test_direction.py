"""Imports and includes run one way: cli -> convert, server -> genie_cpp -> _native -> C; in C to kernels -> base."""

from __future__ import annotations

import ast
import re
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


def python_breaches(root: Path) -> list[str]:
    """What no Python file of the package may do."""
    breaches = []
    for room in ("genie_cpp", "convert", "cli", "server"):
        package = room if room == "genie_cpp" else f"genie_cpp.{room}"
        for path in sorted((root / room).rglob("*.py")):
            parts = path.relative_to(root / room).with_suffix("").parts
            is_package = parts[-1] == "__init__"
            name = ".".join([package, *(parts[:-1] if is_package else parts)])
            for module in modules(path, name, is_package):
                forbidden = (
                    (inside(module, "cffi", "_cffi_backend") and name != "genie_cpp.backends._native")
                    or (inside(module, "torch", "safetensors") and room != "convert")
                    or (inside(module, "genie_cpp.cli", "cli", "typer", "rich") and room != "cli")
                    or (inside(module, "genie_cpp.convert", "convert") and room not in ("convert", "cli"))
                    or (inside(module, "genie_cpp.server", "server") and room not in ("server", "cli"))
                    or (
                        inside(module, "fastapi", "starlette", "uvicorn", "websockets", "prometheus_client")
                        and room != "server"
                    )
                    or (inside(module, "mlx") and not inside(name, "genie_cpp.backends.metal"))
                    or (inside(module, "gymnasium") and name != "genie_cpp.gym")
                    or (inside(module, "genie_cpp.backends._native") and room != "genie_cpp")
                    or inside(module, "tests", "examples")
                )
                if forbidden:
                    breaches.append(f"{path.relative_to(root)} imports {module}")
    return breaches


def c_breaches(root: Path) -> list[str]:
    """What no file of the C core may include."""
    source = root / CORE
    may = {"base": ("base",), "kernels": ("base", "kernels"), "stack": ("base", "kernels", "stack")}
    may["conv"] = ("base", "kernels", "conv")
    breaches = []
    for path in sorted((root / "ggml_kernels").rglob("*.[ch]")):
        room = path.relative_to(source).parts[0] if path.is_relative_to(source) else ""
        for mark, target in re.findall(r'^\s*#\s*include\s*([<"])([^>"]+)', path.read_text(encoding="utf-8"), re.M):
            what = f"{path.relative_to(root)} includes {target}"
            if re.search(r"(?i)(^|/)(python|numpy|ggml|gguf)", target):
                breaches.append(what)
            if mark == "<" or target == "genie.h":
                continue
            real = (path.parent / target).resolve()
            if not real.is_file() or not real.is_relative_to(root / "ggml_kernels"):
                breaches.append(f"{what}, which is not in the core")
            elif room in may and real.relative_to(source).parts[0] not in may[room]:
                breaches.append(what)
    return breaches


def test_python_imports_run_one_way() -> None:
    assert python_breaches(ROOT) == []


def test_c_includes_run_one_way() -> None:
    assert c_breaches(ROOT) == []


def test_the_walk_finds_the_rooms() -> None:
    for room in ("genie_cpp", "convert", "cli", "server"):
        assert list((ROOT / room).rglob("*.py")), room
    for room in ("base", "kernels", "stack"):
        assert list((ROOT / CORE / room).rglob("*.c")), room


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("genie_cpp/world.py", "from . import convert"),
        ("genie_cpp/world.py", "from .cli.main import main"),
        ("genie_cpp/world.py", "def f():\n    import torch.nn"),
        ("genie_cpp/world.py", "import importlib\nimportlib.import_module('torch')"),
        ("genie_cpp/model.py", "from cffi import FFI"),
        ("genie_cpp/_native.py", "from genie_cpp import convert"),
        ("genie_cpp/frames.py", "import rich"),
        ("genie_cpp/world.py", "from .server import app"),
        ("genie_cpp/world.py", "import gymnasium"),
        ("genie_cpp/backend.py", "import mlx.core as mx"),
        ("convert/writer.py", "from ..cli import info"),
        ("convert/writer.py", "from ..server.app import create_app"),
        ("server/app.py", "from ..cli import play"),
        ("server/app.py", "from ..convert import writer"),
        ("server/app.py", "from .. import _native"),
        ("cli/play.py", "import uvicorn"),
        ("convert/families/some.py", "from ... import _native"),
        ("convert/__init__.py", "from .. import cli"),
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
        ("genie_cpp/_native.py", "import cffi"),
        ("genie_cpp/model.py", "from . import _native"),
        ("convert/families/some.py", "import torch\nfrom ...errors import GenieError\nfrom ..native import load"),
        ("server/app.py", "import fastapi\nfrom ..session import Session"),
        ("genie_cpp/gym.py", "import gymnasium"),
        ("genie_cpp/metal/stack.py", "import mlx.core as mx"),
        ("cli/play.py", "from genie_cpp.server.run import serve"),
        ("cli/convert.py", "from genie_cpp.convert.writer import convert\nfrom .main import app"),
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
    """Weights and windows are allocated when they are made; what runs in a step has no call that could allocate."""
    source = ROOT / "ggml_kernels" / "src"
    makes = {"matmul.c", "matmul_api.c"}  # genie_matrix_create and the test entry genie_matmul
    runs = [source / "stack" / "forward.c", source / "stack" / "sample.c", *(source / "kernels").rglob("*.[ch]")]
    for path in runs:
        if path.name not in makes:
            assert not re.search(r"\b(genie_alloc|malloc|calloc|realloc|alloca|qsort)\b", path.read_text()), path
    matmul = (source / "kernels" / "matmul" / "matmul.c").read_text()
    run = matmul[matmul.index("void genie_matrix_run") :]
    assert "genie_alloc" not in run[: run.index("\n}\n")]
