"""How much memory a model and one world on it need, computed before any is allocated; and how much is free."""

from __future__ import annotations

import ctypes
import math
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from genie_cpp.backends import _native, assembly, cgroups
from genie_cpp.backends.choose import Cpu
from genie_cpp.errors import NativeError
from genie_cpp.file.gguf_file import TensorInfo
from genie_cpp.spec.gguf_keys import CONVS
from genie_cpp.spec.hparams import HParams, expected_tensors
from genie_cpp.words import quoted, size

_RESERVE = 32 << 20  # for frames, logits and Python itself


@dataclass(frozen=True)
class Need:
    """Bytes. weights: packed for the instruction set, and what is kept beside them. biases: a relative position bias,
    expanded to every pair of tokens. loading: the largest tensor as stored in the file, while it is packed. world: the
    windows and scratch memory of one world."""

    weights: int
    biases: int
    loading: int
    world: int

    @property
    def total(self) -> int:
        return self.weights + self.biases + self.loading + self.world


def need(hp: HParams, tensors: Mapping[str, TensorInfo], threads: int) -> Need:
    """Memory to open a model and play one world on it, for the C core; for Metal it is an estimate.

    Raises NativeError if the number is too large to compute.
    """
    runs = Cpu(1)
    stacks = [_native.stack_need(assembly.stack(runs, hp, name)) for name in hp.stacks]
    halves = CONVS if hp.tokenizer_kind == "conv" else ()
    networks = [_native.conv_need(assembly.network(runs, hp, half), threads) for half in halves]
    matrices = {name: matrix for name, (_, matrix) in expected_tensors(hp).items()}
    return Need(
        weights=sum(_held(hp, tensor, matrices.get(name, False), runs.isa) for name, tensor in tensors.items()),
        biases=sum(sealed for sealed, _ in stacks),
        loading=max((tensor.n_bytes for tensor in tensors.values()), default=0),
        world=sum(state for _, state in stacks) + sum(networks),
    )


def _held(hp: HParams, tensor: TensorInfo, matrix: bool, isa: str) -> int:
    """Bytes of one tensor after loading."""
    name, floats = tensor.name, 4 * math.prod(tensor.shape)
    part = name.partition(".")[0] if name.startswith("dynamics") else ".".join(name.split(".")[:2])
    if name == "lam.head.up.weight" and hp.lam_head == "joined":
        return tensor.n_bytes
    matrix = matrix or name.endswith(".router.weight")  # it is kept as floats, but multiplied like a matrix
    if not matrix or name == "dynamics.token_embd.weight" or (part not in hp.stacks and part not in _NETWORKS):
        return floats
    # A tensor of experts holds several matrices, one after the other.
    columns, rows = tensor.shape[:2]
    experts = math.prod(tensor.shape[2:])
    return experts * _native.matrix_need(isa, int(tensor.type), rows, columns) or floats


_NETWORKS = tuple(f"tokenizer.{half}" for half in CONVS)


def check(wanted: Need, path: str) -> None:
    """Raises NativeError if more memory is wanted than is free."""
    free = available()
    if free is not None and wanted.total + _RESERVE > free:
        raise NativeError(
            f"{quoted(path)} needs {size(wanted.total)} of memory, of which {size(max(free - _RESERVE, 0))} are free",
            "close other programs, or go on all the same with --force (Model.open(force=True))",
        )


def available(root: Path = Path("/")) -> int | None:
    """Bytes that this process may take without displacing others; None if unknown.

    Linux: the system's available memory, within the limits of the process's control groups. Windows: free memory. macOS
    frees memory on demand, so all of it counts. root: where proc and sys/fs/cgroup are.
    """
    if sys.platform == "win32":
        return _free_on_windows()
    found = []
    if match := re.search(r"^MemAvailable:\s+(\d{1,15}) kB$", cgroups.text(root / "proc/meminfo"), re.MULTILINE):
        found.append(1024 * int(match[1]))
    for group, version in cgroups.groups("memory", root):
        names = ("memory.max", "memory.current") if version == 2 else ("memory.limit_in_bytes", "memory.usage_in_bytes")
        limit, used = (cgroups.number(group / name) for name in names)
        if limit is not None and used is not None:
            # The page cache can be reclaimed.
            stat = cgroups.text(group / "memory.stat")
            cached = re.search(r"^(?:total_)?inactive_file (\d{1,19})$", stat, re.MULTILINE)
            found.append(max(0, limit - used + min(used, int(cached[1]) if cached else 0)))
    if not found and hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return min(found, default=None)


def _free_on_windows() -> int | None:
    class Status(ctypes.Structure):
        _fields_ = (("length", ctypes.c_uint32), ("load", ctypes.c_uint32), ("total", ctypes.c_uint64),
                    ("free", ctypes.c_uint64), ("rest", ctypes.c_uint64 * 5))  # fmt: skip

    status = Status()
    status.length = ctypes.sizeof(Status)
    kernel = ctypes.windll.kernel32  # type: ignore[attr-defined, unused-ignore]
    return status.free if kernel.GlobalMemoryStatusEx(ctypes.byref(status)) else None
