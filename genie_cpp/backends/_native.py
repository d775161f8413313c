"""The C core through cffi (ABI mode). No other file uses cffi; the rest of the package sees numpy arrays.

Calls release the GIL. Handles are freed when their last reference goes.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import sys
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genie_cpp.errors import NativeError
from genie_cpp.spec import conv_layers
from genie_cpp.spec.stack_spec import StackSpec, enumerator, slot_of

ABI_VERSION = 11

Float = NDArray[np.float32]
Int = NDArray[np.int32]


def _find(name: str) -> Path:
    import genie_cpp

    # An editable install keeps the library in another folder than the sources. In a checkout whose package is also
    # installed, Python finds the checkout's sources first; they have no library, so the installed one is used.
    for folder in (*map(Path, genie_cpp.__path__), *(Path(entry, "genie_cpp") for entry in sys.path)):
        if (path := folder / name).exists():
            return path
    raise NativeError(f"the compiled library {name} is not beside the package", "pip install . builds it")


def library() -> Path:
    """Path of the compiled core. Raises NativeError if it is missing."""
    return _find({"darwin": "libgenie.dylib", "win32": "genie.dll"}.get(sys.platform, "libgenie.so"))


def declarations() -> Path:
    """Path of the core's declarations, as cffi compiled them for Python. Raises NativeError if it is missing."""
    return _find("genie_cdef.py")


def _load() -> tuple[Any, Any]:
    spec = importlib.util.spec_from_file_location("genie_cdef", declarations())
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    ffi = module.ffi
    lib = ffi.dlopen(str(library()))
    if (found := lib.genie_abi_version()) != ABI_VERSION:
        raise NativeError(f"the compiled library has ABI {found}, this package needs {ABI_VERSION}", "reinstall")
    # Never unload it: at exit Python may drop `lib` before a world that is part of a reference cycle, and the functions
    # that free the world would be gone.
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(lib))
    return ffi, lib


ffi, lib = _load()


def number(enum: str, word: str) -> int:
    """The number of an enumerator of genie.h: number("FFN", "gelu_tanh") is GENIE_FFN_GELU_TANH."""
    return int(getattr(lib, enumerator(enum, word)))


def _numbers(fields: Mapping[str, int | float | str]) -> dict[str, Any]:
    """Fields of a struct, with each enumerator's name replaced by its number."""
    return {name: getattr(lib, value) if isinstance(value, str) else value for name, value in fields.items()}


def check(status: int, what: str) -> None:
    """Raise NativeError with the core's error message if `status` is not GENIE_OK."""
    if status != lib.GENIE_OK:
        raise NativeError(f"{what}: {ffi.string(lib.genie_last_error()).decode()}")


def isas() -> list[str]:
    """Instruction sets that this CPU can run, best first."""
    names: list[str] = []
    while (name := lib.genie_isa_name(len(names))) != ffi.NULL:
        names.append(ffi.string(name).decode())
    return names


def wanted_isa() -> str:
    """The ISA in GENIE_ISA, or the best one. Raises NativeError if this CPU cannot run it."""
    name = os.environ.get("GENIE_ISA") or isas()[0]
    if name not in isas():
        raise NativeError(f"GENIE_ISA={name!r} does not run here", f"this CPU runs {', '.join(isas())}")
    return name


def _in(array: NDArray[Any] | None, kind: str) -> Any:
    if array is None:
        return ffi.NULL
    assert array.flags.c_contiguous
    return ffi.from_buffer(f"{kind}[]", array)


def _out(array: NDArray[Any] | None, kind: str) -> Any:
    return ffi.NULL if array is None else ffi.from_buffer(f"{kind}[]", array, require_writable=True)


class Pool:
    """Threads that work together on one call. Calls from several Python threads wait for each other.

    A forked child has none of its parent's threads. It starts its own when they are first needed.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._handle: Any = self._started()
        _pools.add(self)

    @property
    def handle(self) -> Any:
        """Raises NativeError in a forked child if threads cannot be started."""
        if self._handle is None:
            self._handle = self._started()
        return self._handle

    def _started(self) -> Any:
        out = ffi.new("genie_pool **")
        check(lib.genie_pool_create(self.threads, out), f"starting {self.threads} threads")
        return ffi.gc(out[0], lib.genie_pool_free)

    def _forget(self) -> None:
        if self._handle is not None:
            ffi.gc(self._handle, None)  # freeing it would wait for threads that do not exist in this process
            self._handle = None


_pools: weakref.WeakSet[Pool] = weakref.WeakSet()


def _after_fork() -> None:
    for pool in list(_pools):
        pool._forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def matrix_need(isa: str, type: int, rows: int, columns: int) -> int:
    """Bytes of a packed matrix; 0 if this type is not packed."""
    return int(lib.genie_matrix_need(isa.encode(), type, rows, columns))


def stack_need(stack: Any) -> tuple[int, int]:
    """(bytes that sealing a `Stack` will add, most bytes of its state), before any weight is set."""
    out = ffi.new("size_t[2]")
    check(lib.genie_stack_need(stack.handle, out, out + 1), "planning a stack")
    return int(out[0]), int(out[1])


def conv_need(conv: Any, threads: int) -> int:
    """The most bytes that the state of a `Conv` takes, before any weight is set."""
    out = ffi.new("size_t *")
    check(lib.genie_conv_need(conv.handle, threads, out), "planning a network")
    return int(out[0])


def _params(spec: StackSpec) -> Any:
    sublayers = [_numbers(one.in_c()) for one in spec.sublayers]
    fields = {**_numbers(spec.in_c()), "sublayer_count": len(sublayers), "sublayers": sublayers}
    return ffi.new("genie_stack_params *", fields)


def params_bytes(spec: StackSpec) -> bytes:
    """`genie_stack_params` as it lies in memory: 32-bit numbers only, so the same on every little-endian machine."""
    return bytes(ffi.buffer(_params(spec)))


def place(sublayers: Sequence[str], name: str) -> tuple[int, int, int]:
    """(block, sublayer, slot) of a stack's tensor, as `genie_stack_set` takes them. -1: of the stack itself."""
    block, sublayer, part = -1, -1, name
    if name.startswith("blk."):
        _, index, kind, part = name.split(".", 3)
        block, sublayer = int(index), list(sublayers).index(kind)
    return block, sublayer, getattr(lib, slot_of(part), lib.GENIE_SLOT_COUNT)  # one that the core refuses


class Stack:
    """One ST-transformer. Create it with its parameters, call `set` for each tensor, then `seal`."""

    def __init__(self, isa: str, pool: Pool, spec: StackSpec) -> None:
        out = ffi.new("genie_stack **")
        check(lib.genie_stack_create(isa.encode(), _params(spec), out), "creating a stack")
        self.handle, self.pool = ffi.gc(out[0], lib.genie_stack_free), pool
        self._sublayers = [one.name for one in spec.sublayers]
        # Without a head a stack outputs its embeddings.
        self.token_count, self.input_length = spec.token_count, spec.input_length
        self.context_length = spec.context_length
        self.output_length = spec.output_length or spec.params.embedding_length

    def set(self, name: str, type: int, rows: int, columns: int, data: NDArray[Any]) -> None:
        """Copy one tensor from its raw bytes. name: as in the GGUF, without the stack: "blk.0.ffn.up.weight"."""
        block, sublayer, slot = place(self._sublayers, name)
        raw = np.ascontiguousarray(data).view(np.uint8).reshape(-1)
        status = lib.genie_stack_set(
            self.handle, self.pool.handle, block, sublayer, slot, type, rows, columns, _in(raw, "char"), raw.nbytes
        )
        check(status, f"loading {name}")

    def seal(self) -> None:
        check(lib.genie_stack_seal(self.handle), "checking a stack's weights")

    def state(self) -> State:
        """An empty window."""
        return State(self)

    @property
    def n_bytes(self) -> int:
        return int(lib.genie_stack_bytes(self.handle))


class State:
    """A window of past frames for one stack. Not thread-safe."""

    def __init__(self, stack: Stack) -> None:
        out = ffi.new("genie_state **")
        check(lib.genie_state_create(stack.handle, out), "making room for a window")
        self.handle, self.stack = ffi.gc(out[0], lib.genie_state_free, lib.genie_state_bytes(out[0])), stack

    def __len__(self) -> int:
        return int(lib.genie_state_length(self.handle))

    @property
    def n_bytes(self) -> int:
        return int(lib.genie_state_bytes(self.handle))

    def truncate(self, length: int) -> None:
        check(lib.genie_state_truncate(self.handle, length), "shortening a window")

    def copy_from(self, other: State) -> None:
        check(lib.genie_state_copy(self.handle, other.handle), "copying a window")

    def watch(self, looked_PT: Float | None) -> bool:
        """From now on each pass that has an output writes where its tokens looked: float32 [P, context_length], see
        `genie_state_watch`. None ends it. Returns True: this backend can."""
        p = self.stack
        if looked_PT is not None and (
            looked_PT.shape != (p.token_count, p.context_length) or looked_PT.dtype != np.float32
        ):
            raise NativeError("what is looked at is float32 [tokens, context_length]")
        check(lib.genie_state_watch(self.handle, _out(looked_PT, "float")), "watching a window")
        self._looked_PT = looked_PT  # the core writes into it
        return True

    def forward(self, x: Int | Float, action: int = -1, commit: bool = True, output: bool = True) -> Float | None:
        """Run one frame: ids int32 [P] or features float32 [P, N] -> float32 [P, O], or None without `output`."""
        stack = self.stack
        shape = (stack.token_count, stack.input_length) if stack.input_length else (stack.token_count,)
        if x.shape != shape:
            raise NativeError(f"a frame of shape {x.shape} was given where {shape} is needed")
        ids = None if stack.input_length else np.ascontiguousarray(x, np.int32)
        features = np.ascontiguousarray(x, np.float32) if stack.input_length else None
        y = np.empty((stack.token_count, stack.output_length), np.float32) if output else None
        status = lib.genie_stack_forward(
            stack.handle, self.handle, stack.pool.handle, _in(ids, "int32_t"), _in(features, "float"), action,
            int(commit), _out(y, "float"),
        )  # fmt: skip
        check(status, "running a frame")
        return y

    def maskgit_step(
        self, sampler: Any, step: int, seed: int, frame: int, action: int, ids_P: Int, logits_PO: Float | None
    ) -> None:
        """One refinement of `ids_P`, in place. Writes the logits to `logits_PO` if it is given."""
        if ids_P.shape != (self.stack.token_count,) or ids_P.dtype != np.int32:
            raise NativeError("ids must be int32, one per token")
        status = lib.genie_maskgit_step(
            self.stack.handle, self.handle, self.stack.pool.handle, sampler, step, seed, frame & 0xFFFFFFFF, action,
            _out(ids_P, "int32_t"), _out(logits_PO, "float"),
        )  # fmt: skip
        check(status, "a MaskGIT step")

    def maskgit_fill(self, sampler: Any, step: int, seed: int, frame: int, logits_PO: Float, ids_P: Int) -> None:
        """One refinement of `ids_P`, in place, from given logits and without a forward pass."""
        shape = (self.stack.token_count, self.stack.output_length)
        if ids_P.shape != shape[:1] or ids_P.dtype != np.int32 or logits_PO.shape != shape:
            raise NativeError("ids must be int32, one per token, and logits a row of each")
        status = lib.genie_maskgit_fill(
            self.stack.handle, self.handle, self.stack.pool.handle, sampler, step, seed, frame & 0xFFFFFFFF,
            _in(np.ascontiguousarray(logits_PO, np.float32), "float"), _out(ids_P, "int32_t"),
        )  # fmt: skip
        check(status, "a MaskGIT step")


class Conv:
    """A convolutional network for one picture [height, width, channels]. layers: (layer word of the file, channels)."""

    def __init__(
        self, isa: str, pool: Pool, shape: tuple[int, int, int], layers: Sequence[tuple[str, int]], groups: int,
        epsilon: float,
    ) -> None:  # fmt: skip
        params = ffi.new("genie_conv_params *", (*shape, groups, epsilon))
        out = ffi.new("genie_conv **")
        kinds = [(number("CONV", conv_layers.KINDS[word]), channels) for word, channels in layers]
        status = lib.genie_conv_create(isa.encode(), params, ffi.new("genie_conv_layer[]", kinds), len(kinds), out)
        check(status, "creating a convolutional network")
        self.handle, self.pool, self.shape = ffi.gc(out[0], lib.genie_conv_free), pool, shape
        scale = sum({"down": -1, "up": 1}.get(word, 0) for word, _ in layers)
        height, width = (side << scale if scale > 0 else side >> -scale for side in shape[:2])
        self.output_shape = (height, width, layers[-1][1])

    def set(self, layer: int, name: str, type: int, rows: int, columns: int, data: NDArray[Any]) -> None:
        """Copy one tensor from its raw bytes. name: within the layer, e.g. "conv.weight"."""
        raw = np.ascontiguousarray(data).view(np.uint8).reshape(-1)
        status = lib.genie_conv_set(
            self.handle,
            self.pool.handle,
            layer,
            number("CONV_SLOT", conv_layers.SLOTS[name]),
            type,
            rows,
            columns,
            _in(raw, "char"),
            raw.nbytes,
        )
        check(status, f"loading layer.{layer}.{name}")

    def seal(self) -> None:
        check(lib.genie_conv_seal(self.handle), "checking a network's weights")

    @property
    def n_bytes(self) -> int:
        return int(lib.genie_conv_bytes(self.handle))

    def state(self) -> ConvState:
        return ConvState(self)


class ConvState:
    """Scratch memory of one network. Not thread-safe."""

    def __init__(self, conv: Conv) -> None:
        out = ffi.new("genie_conv_state **")
        check(lib.genie_conv_state_create(conv.handle, conv.pool.threads, out), "making room for pictures")
        size = lib.genie_conv_state_bytes(out[0])
        self.handle, self.conv, self.n_bytes = ffi.gc(out[0], lib.genie_conv_state_free, size), conv, int(size)

    def run(self, x_HWC: Float) -> Float:
        """float32 of the network's input shape -> of its output shape."""
        if x_HWC.shape != self.conv.shape:
            raise NativeError(f"a picture of shape {x_HWC.shape} was given where {self.conv.shape} is needed")
        y = np.empty(self.conv.output_shape, np.float32)
        x = np.ascontiguousarray(x_HWC, np.float32)
        status = lib.genie_conv_run(
            self.conv.handle, self.handle, self.conv.pool.handle, _in(x, "float"), _out(y, "float")
        )
        check(status, "running a convolutional network")
        return y


def sampler_struct(
    steps: int, temperature: float, order: str, noise: float, threshold: float = 0.0, schedule: str = "cosine"
) -> Any:
    return ffi.new(
        "genie_sampler *", (steps, number("ORDER", order), temperature, noise, threshold, number("SCHEDULE", schedule))
    )


def vq_nearest(codebook_VL: Float, z_ML: Float, isa: str) -> Int:
    """Index of the nearest code for each row."""
    z_ML = np.ascontiguousarray(z_ML, np.float32)
    ids = np.empty(len(z_ML), np.int32)
    codes, length = codebook_VL.shape
    status = lib.genie_vq_nearest(
        isa.encode(), _in(codebook_VL, "float"), codes, length, _in(z_ML, "float"), len(z_ML), _out(ids, "int32_t")
    )
    check(status, "searching the codebook")
    return ids


def fsq_nearest(bins: int, z_ML: Float) -> Int:
    """The FSQ index of each row: digits of `bins` values, the least significant first."""
    z_ML = np.ascontiguousarray(z_ML, np.float32)
    ids = np.empty(len(z_ML), np.int32)
    status = lib.genie_fsq_nearest(bins, z_ML.shape[1], _in(z_ML, "float"), len(z_ML), _out(ids, "int32_t"))
    check(status, "quantizing")
    return ids


def vq_lookup(codebook_VL: Float, ids_M: Int) -> Float:
    """The code of each id, float32 [M, L]."""
    ids_M = np.ascontiguousarray(ids_M, np.int32)
    z = np.empty((len(ids_M), codebook_VL.shape[1]), np.float32)
    codes, length = codebook_VL.shape
    status = lib.genie_vq_lookup(
        _in(codebook_VL, "float"), codes, length, _in(ids_M, "int32_t"), len(ids_M), _out(z, "float")
    )
    check(status, "looking up codes")
    return z


def philox(seed: int, c1: int, c2: int, c3: int, blocks: int) -> NDArray[np.uint32]:
    """Philox4x32-10 of the counters (i, c1, c2, c3), i = 0…blocks-1: uint32 [blocks, 4]."""
    out = np.empty((blocks, 4), np.uint32)
    lib.genie_philox(seed, c1, c2, c3, blocks, _out(out, "uint32_t"))
    return out


def peak_operations(isa: str, pool: Pool, type: int, rounds: int) -> int:
    """Run a matrix product's instructions for this weight type on registers only. Returns operations of all threads."""
    out = ffi.new("int64_t *")
    check(lib.genie_peak(isa.encode(), pool.handle, type, rounds, out), "measuring the peak")
    return int(out[0])
