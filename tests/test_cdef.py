"""The headers and the declarations that cffi reads agree."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import cffi
import pytest

from genie_cpp.backends import _native

INCLUDE = Path(__file__).resolve().parents[1] / "ggml_kernels" / "include"
HEADERS = [(INCLUDE / name).read_text(encoding="utf-8") for name in ("genie.h", "genie_bench.h")]
CDEF = "\n".join(text.split("/* CFFI BEGIN */")[1].split("/* CFFI END */")[0].strip() + "\n" for text in HEADERS)
PLAIN = re.sub(r"/\*.*?\*/", "", CDEF, flags=re.S)  # without comments
CONSTANTS = {name: int(value) for name, value in re.findall(r"\b(GENIE_[A-Z0-9_]+) = (\d+)", PLAIN)}

cc = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
needs_compiler = pytest.mark.skipif(cc is None, reason="no C compiler")


def numbers(prefix: str) -> dict[str, int]:
    return {name.removeprefix(prefix): value for name, value in CONSTANTS.items() if name.startswith(prefix)}


def test_the_built_core_is_of_this_header(tmp_path: Path) -> None:
    made = tmp_path / "genie_cdef.py"
    headers = [INCLUDE / "genie.h", INCLUDE / "genie_bench.h"]
    subprocess.run([sys.executable, INCLUDE.parent / "make_cdef.py", *headers, made], check=True)
    assert _native.declarations().read_bytes() == made.read_bytes(), "the core is stale: make build"


def test_abi_number() -> None:
    (number,) = re.findall(r"#define GENIE_ABI_VERSION (\d+)", PLAIN)
    assert int(number) == _native.ABI_VERSION == _native.lib.genie_abi_version()


def test_every_enum_of_kinds_ends_in_its_count() -> None:
    for name in set(re.findall(r"GENIE_([A-Z_0-9]+)_COUNT =", PLAIN)):
        body = next(
            part for part in re.findall(r"typedef enum \{(.*?)\}", PLAIN, re.S) if f"GENIE_{name}_COUNT" in part
        )
        values = [int(number) for number in re.findall(r"= (\d+)", body)]
        assert values == list(range(len(values))), name


def test_types_are_those_of_the_reader() -> None:
    from genie_cpp.file.gguf_file import TensorType

    assert numbers("GENIE_TYPE_") == {kind.name: int(kind) for kind in TensorType}


def test_sampler_fields_are_in_the_order_they_are_filled() -> None:
    s = _native.sampler_struct(7, 0.5, "random", 0.25, 0.75, "exponential")
    assert (s.steps, s.temperature, s.noise, s.threshold) == (7, 0.5, 0.25, 0.75)
    assert (s.order, s.schedule) == (CONSTANTS["GENIE_ORDER_RANDOM"], CONSTANTS["GENIE_SCHEDULE_EXPONENTIAL"])


@needs_compiler
def test_the_compiler_sees_the_layouts_that_cffi_sees(tmp_path: Path) -> None:
    ffi = _native.ffi
    lines = ['#include "genie_bench.h"', "#include <stddef.h>"]
    structs = re.findall(r"typedef struct(?: \w+)? \{[^{}]*\} (\w+);", PLAIN)
    assert {"genie_stack_params", "genie_sampler", "genie_conv_params", "genie_conv_layer"} <= set(structs)
    for name in structs:
        lines.append(f'_Static_assert(sizeof({name}) == {ffi.sizeof(name)}, "{name}");')
        for field, what in ffi.typeof(name).fields or ():
            lines.append(f'_Static_assert(offsetof({name}, {field}) == {what.offset}, "{name}.{field}");')
    for name in CONSTANTS:
        lines.append(f'_Static_assert({name} == {getattr(_native.lib, name)}, "{name}");')
    source = tmp_path / "layout.c"
    source.write_text("\n".join(lines) + "\n")
    assert cc is not None
    done = subprocess.run(
        [cc, "-std=c11", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", f"-I{INCLUDE}", str(source)],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@needs_compiler
def test_api_mode_agrees(tmp_path: Path) -> None:
    """In API mode the C compiler checks every declaration, and loading the module checks every constant and layout."""
    python = Path(sysconfig.get_paths()["include"])
    if not (python / "Python.h").exists():
        pytest.skip("Python.h is not installed")
    ffi = cffi.FFI()
    ffi.cdef(CDEF)
    ffi.set_source("_genie_api", '#include "genie_bench.h"')
    source, module = tmp_path / "_genie_api.c", tmp_path / "_genie_api.so"
    ffi.emit_c_code(str(source))
    library = _native.library()
    assert cc is not None
    command = [cc, "-shared", "-fPIC", "-Werror", f"-I{INCLUDE}", f"-I{python}", str(source), "-o", str(module)]
    done = subprocess.run(
        [*command, str(library), f"-Wl,-rpath,{library.parent}"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    spec = importlib.util.spec_from_file_location("_genie_api", module)
    assert spec is not None and spec.loader is not None
    api = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(api)
    assert api.lib.genie_abi_version() == api.lib.GENIE_ABI_VERSION == _native.ABI_VERSION
    for name in ("genie_stack_params", "genie_sampler"):
        assert api.ffi.sizeof(name) == _native.ffi.sizeof(name)
    for name, value in CONSTANTS.items():
        assert getattr(api.lib, name) == value
    functions = re.findall(r"\b(genie_\w+)\(", PLAIN)
    assert functions and all(hasattr(api.lib, name) for name in functions)
