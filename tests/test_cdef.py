"""The header, what cffi reads of it and the numbers in _native.py say the same."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sysconfig
from pathlib import Path

import cffi
import pytest

from genie_cpp import _native, conv

INCLUDE = Path(__file__).resolve().parents[1] / "ggml_kernels" / "include"
HEADER = (INCLUDE / "genie.h").read_text(encoding="utf-8")
CDEF = HEADER.split("/* CFFI BEGIN */")[1].split("/* CFFI END */")[0]
PLAIN = re.sub(r"/\*.*?\*/", "", CDEF, flags=re.S)  # without comments
CONSTANTS = {name: int(value) for name, value in re.findall(r"\b(GENIE_[A-Z0-9_]+) = (\d+)", PLAIN)}

cc = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
needs_compiler = pytest.mark.skipif(cc is None, reason="no C compiler")


def numbers(prefix: str) -> dict[str, int]:
    return {name.removeprefix(prefix): value for name, value in CONSTANTS.items() if name.startswith(prefix)}


def test_the_built_core_is_of_this_header() -> None:
    assert _native._find("genie_cdef.h").read_text().strip() == CDEF.strip(), "the core is stale: make build"


def test_abi_number() -> None:
    (number,) = re.findall(r"#define GENIE_ABI_VERSION (\d+)", PLAIN)
    assert int(number) == _native.ABI_VERSION == _native.lib.genie_abi_version()


def test_kinds() -> None:
    sublayers = numbers("GENIE_SUBLAYER_")
    assert sublayers == {name.upper(): number for name, number in _native.SUBLAYERS.items()}
    assert sublayers == {name: getattr(_native, name) for name in sublayers}
    assert numbers("GENIE_FFN_") == {name.upper(): number for name, number in _native.FFNS.items()}
    norms = {"RMS": _native.NORMS["rmsnorm"], "LAYER": _native.NORMS["layernorm"], "NONE": _native.NORMS["none"]}
    assert numbers("GENIE_NORM_") == norms
    assert numbers("GENIE_CONDITIONING_") == {name.upper(): number for name, number in _native.CONDITIONINGS.items()}
    assert numbers("GENIE_POSITION_") == {name.upper(): number for name, number in _native.POSITIONS.items()}
    assert numbers("GENIE_FIRST_") == {name.upper(): number for name, number in _native.FIRST_FRAMES.items()}
    assert set(_native.NORMS) == {"rmsnorm", "layernorm", "none"}
    (text,) = re.findall(r"int32_t order;\s*/\* (.*?) \*/", CDEF)
    assert text == ", ".join(f"{number} {name}" for name, number in _native.ORDERS.items())


def test_slots() -> None:
    slots = numbers("GENIE_SLOT_")
    count = slots.pop("COUNT")
    named = {}
    for name, number in (_native.STACK_SLOTS | _native.SUBLAYER_SLOTS).items():
        part, kind = name.rsplit(".", 1)
        named[part.upper() + ("_BIAS" if kind == "bias" else "")] = number
    assert named == slots
    assert sorted(slots.values()) == list(range(count))
    assert sorted(_native.SUBLAYER_SLOTS.values()) == list(range(slots["OUTPUT_BIAS"] + 1, slots["POS"]))


def test_convolutions() -> None:
    slots, kinds = numbers("GENIE_CONV_SLOT_"), numbers("GENIE_CONV_")
    count = slots.pop("COUNT")
    assert sorted(slots.values()) == list(range(count)) == sorted(_native.CONV_SLOTS.values())
    names = {
        "conv.weight": "WEIGHT", "conv.bias": "BIAS", "norm.weight": "NORM", "norm.bias": "NORM_BIAS",
        "conv2.weight": "WEIGHT_2", "norm2.weight": "NORM_2", "norm2.bias": "NORM_2_BIAS",
        "shortcut.weight": "SHORTCUT",
    }  # fmt: skip
    assert {names[name]: slot for name, slot in _native.CONV_SLOTS.items()} == slots
    words = {"conv3": "3X3", "conv1": "1X1", "down": "DOWN", "up": "UP", "res": "RESIDUAL", "norm": "NORM"}
    wanted = {words[word]: kind for word, kind in conv.KINDS.items()}
    assert wanted == {name: kind for name, kind in kinds.items() if not name.startswith("SLOT_")}


def test_types_are_those_of_the_reader() -> None:
    from genie_cpp.gguf_file import TensorType

    assert numbers("GENIE_TYPE_") == {kind.name: int(kind) for kind in TensorType}


def test_sampler_fields_are_in_the_order_they_are_filled() -> None:
    s = _native.sampler_struct(7, 0.5, "random", 0.25, 0.75, "exponential")
    assert (s.steps, s.order, s.temperature, s.noise, s.threshold) == (7, _native.ORDERS["random"], 0.5, 0.25, 0.75)
    assert s.schedule == _native.SCHEDULES["exponential"]


@needs_compiler
def test_the_compiler_sees_the_layouts_that_cffi_sees(tmp_path: Path) -> None:
    ffi = _native.ffi
    lines = ['#include "genie.h"', "#include <stddef.h>"]
    structs = [name for name in ffi.list_types()[0] if ffi.typeof(name).kind == "struct" and ffi.typeof(name).fields]
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
    """In API mode the C compiler checks every declaration, and the module every constant and layout on loading."""
    python = Path(sysconfig.get_paths()["include"])
    if not (python / "Python.h").exists():
        pytest.skip("Python.h is not installed")
    ffi = cffi.FFI()
    ffi.cdef(_native._find("genie_cdef.h").read_text())
    ffi.set_source("_genie_api", '#include "genie.h"')
    source, module = tmp_path / "_genie_api.c", tmp_path / "_genie_api.so"
    ffi.emit_c_code(str(source))
    library = next(path for path in _native._find("genie_cdef.h").parent.glob("*genie*.*") if path.suffix != ".h")
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
