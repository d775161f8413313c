"""Matrix products: every ISA against the scalar kernels, numpy in double precision, and ggml itself."""

from __future__ import annotations

import functools
import importlib.util
import itertools
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cffi
import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType, quants
from numpy.typing import NDArray

from genie_cpp.backends import _native

Array = NDArray[Any]
F32, F16, Q4_0, Q8_0 = 0, 1, 2, 8
TYPES = {"f32": F32, "f16": F16, "q4_0": Q4_0, "q8_0": Q8_0}
BLOCK = {Q4_0: np.dtype([("d", "<f2"), ("q", "u1", 16)]), Q8_0: np.dtype([("d", "<f2"), ("q", "i1", 32)])}
OK, ARGUMENT, ISA = 0, 1, 4

FLOAT_COLUMNS = [*range(1, 34), 63, 64, 65, 127, 128, 129, 255, 256, 257, 1023]
QUANTIZED_COLUMNS = [32, 64, 96, 128, 512, 1024, 1056, 2080]  # 1024 is what Q4_0 unpacks at once
ROWS = [1, 5, 15, 16, 17, 31, 32, 33, 48, 96, 100]
COUNTS = [1, 2, 3, 4, 5, 6, 7, 13, 64, 67, 100]  # 96 rows of x share one unpacking


@pytest.fixture(scope="module")
def pools() -> dict[int, _native.Pool]:
    return {threads: _native.Pool(threads) for threads in (1, 2, 3)}


@pytest.fixture(scope="module")
def pool(pools: dict[int, _native.Pool]) -> _native.Pool:
    return pools[1]


def columns_of(type: int) -> list[int]:
    return QUANTIZED_COLUMNS if type in BLOCK else FLOAT_COLUMNS


def call(
    isa: str | None,
    pool: _native.Pool,
    type: int,
    rows: int,
    columns: int,
    w: Array,
    x: Array,
    changes: dict[str, Any] | None = None,
) -> tuple[int, Array]:
    """(status, y); `changes` replaces arguments by name."""
    ffi = _native.ffi
    y = np.full(len(x) * rows + 16, -77, np.float32)  # the last 16 must stay as they are
    args: dict[str, Any] = {
        "isa": ffi.NULL if isa is None else isa.encode(),
        "pool": pool.handle,
        "type": type,
        "rows": rows,
        "columns": columns,
        "w": ffi.from_buffer("char[]", w),
        "bytes": w.nbytes,
        "x": ffi.from_buffer("float[]", x),
        "m": len(x),
        "repeats": 1,
        "y": ffi.from_buffer("float[]", y),
    }
    status = _native.lib.genie_matmul(*(args | (changes or {})).values())
    assert (y[len(x) * rows :] == -77).all()
    return status, y[: len(x) * rows].reshape(len(x), rows)


def product(isa: str, pool: _native.Pool, type: int, rows: int, columns: int, w: Array, x: Array) -> Array:
    status, y = call(isa, pool, type, rows, columns, w, x)
    assert status == OK
    return y


def random_weights(rng: np.random.Generator, type: int, rows: int, columns: int) -> Array:
    """In file format: normal values in float types, every bit pattern of the integers in quantized ones."""
    if type not in BLOCK:
        return rng.standard_normal((rows, columns)).astype(np.float32 if type == F32 else np.float16)
    w = np.empty((rows, columns // 32), BLOCK[type])
    w["d"] = rng.uniform(-0.01, 0.01, w.shape)
    w["q"] = rng.integers(0, 256, w["q"].shape).astype(np.uint8).view(w["q"].dtype)
    return w


def decoded(type: int, w: Array) -> Array:
    """The weights as float64 [rows, columns]."""
    if type not in BLOCK:
        return w.astype(np.float64)
    q = w["q"] if type == Q8_0 else np.concatenate([w["q"] & 15, w["q"] >> 4], axis=-1).astype(np.int8) - 8
    values: Array = w["d"].astype(np.float64)[..., None] * q
    return values.reshape(len(w), -1)


def read_by(type: int, x: Array) -> Array:
    """x as a product reads it, in float64. Quantized types: int8 with a scale per row; rows of more than 1024 columns
    have one per 768."""
    if type not in BLOCK:
        return x.astype(np.float64)
    read = np.empty(x.shape)
    step = x.shape[1] if x.shape[1] <= 1024 else 768
    for k in range(0, x.shape[1], step):
        span = x[:, k : k + step]
        top = np.abs(span).max(axis=1, keepdims=True)
        inverse = np.divide(np.float32(127), top, out=np.zeros_like(top), where=top > 0)
        read[:, k : k + step] = np.rint(span * inverse).astype(np.float64) * (top / np.float32(127))
    return read


def assert_close(y: Array, want: Array, x: Array, w: Array) -> None:
    """Within 1e-6 of the norm, or of a typical product's norm if that is larger, because few values may cancel."""
    typical = np.linalg.norm(x) * np.linalg.norm(w) / np.sqrt(x.shape[1])
    assert np.linalg.norm(y - want) <= 1e-6 * max(np.linalg.norm(want), typical)


def sizes(type: int) -> list[tuple[int, int, int]]:
    """(rows, columns, m): all lengths with varying rows and counts, and all rows with all counts at one length."""
    long = columns_of(type)
    some = [
        (ROWS[(i + j) % len(ROWS)], k, COUNTS[(3 * i + j) % len(COUNTS)]) for i, k in enumerate(long) for j in (0, 4, 8)
    ]
    return some + [(n, 64, m) for n, m in itertools.product(ROWS, COUNTS)]


@pytest.mark.parametrize("type", TYPES.values(), ids=TYPES)
def test_every_isa_agrees_with_scalar_and_with_double_precision(type: int, pool: _native.Pool) -> None:
    rng = np.random.default_rng(1)
    for rows, columns, m in sizes(type):
        w = random_weights(rng, type, rows, columns)
        x = rng.standard_normal((m, columns)).astype(np.float32)
        x_64, w_64 = read_by(type, x), decoded(type, w)
        want = x_64 @ w_64.T
        scalar = product("scalar", pool, type, rows, columns, w, x)
        assert_close(scalar, want, x_64, w_64)
        for isa in _native.isas():
            y = product(isa, pool, type, rows, columns, w, x)
            assert_close(y, want, x_64, w_64)
            assert_close(y, scalar, x_64, w_64)


@pytest.mark.parametrize("type", [Q4_0, Q8_0], ids=["q4_0", "q8_0"])
@pytest.mark.parametrize("isa", _native.isas())
def test_integer_sums_are_exact(isa: str, type: int, pool: _native.Pool) -> None:
    """With scales of 1 and whole numbers as activations nothing is rounded, so results are equal."""
    rng = np.random.default_rng(2)
    rows, columns, m = 37, 512, 11
    w = random_weights(rng, type, rows, columns)
    w["d"] = 1
    w["q"][0], w["q"][1] = (-128, 127) if type == Q8_0 else (0x00, 0xFF)
    x = rng.integers(-127, 128, (m, columns)).astype(np.float32)
    x[:, 7] = 127  # so that every row's scale is 1
    x[0], x[1] = 127, -127
    y = product(isa, pool, type, rows, columns, w, x)
    assert (y == x.astype(np.int64) @ decoded(type, w).astype(np.int64).T).all()


@pytest.mark.parametrize("type", TYPES.values(), ids=TYPES)
def test_vector_isas_agree_bit_for_bit(type: int, pool: _native.Pool) -> None:
    vector = [isa for isa in _native.isas() if isa != "scalar"]
    if len(vector) < 2:
        pytest.skip("this CPU has one vector ISA")
    rng = np.random.default_rng(3)
    w, x = random_weights(rng, type, 50, 1056), rng.standard_normal((29, 1056)).astype(np.float32)
    first, *others = (product(isa, pool, type, 50, 1056, w, x).tobytes() for isa in vector)
    assert all(other == first for other in others)


@pytest.mark.parametrize("isa", _native.isas())
@pytest.mark.parametrize("type", TYPES.values(), ids=TYPES)
def test_thread_count_does_not_change_a_bit(type: int, isa: str, pools: dict[int, _native.Pool]) -> None:
    rng = np.random.default_rng(4)
    for rows, columns, m in [(5, 64, 67), (33, 1056, 100), (100, 96, 64), (512, 64, 7), (48, 32, 1)]:
        w, x = random_weights(rng, type, rows, columns), rng.standard_normal((m, columns)).astype(np.float32)
        one, two, three = (product(isa, pools[n], type, rows, columns, w, x).tobytes() for n in (1, 2, 3))
        assert one == two == three


@pytest.mark.parametrize("isa", _native.isas())
@pytest.mark.parametrize("type", TYPES.values(), ids=TYPES)
def test_a_row_does_not_depend_on_its_neighbours(type: int, isa: str, pool: _native.Pool) -> None:
    rng = np.random.default_rng(5)
    w, x = random_weights(rng, type, 40, 1056), rng.standard_normal((103, 1056)).astype(np.float32)
    together = product(isa, pool, type, 40, 1056, w, x)
    for row in (0, 5, 95, 96, 102):
        assert product(isa, pool, type, 40, 1056, w, x[row : row + 1]).tobytes() == together[row].tobytes()


@pytest.mark.parametrize("isa", _native.isas())
@pytest.mark.parametrize("type", TYPES.values(), ids=TYPES)
def test_zeros(type: int, isa: str, pool: _native.Pool) -> None:
    rng = np.random.default_rng(6)
    w, x = random_weights(rng, type, 20, 96), rng.standard_normal((9, 96)).astype(np.float32)
    w[3] = np.zeros((), w.dtype)
    if type in BLOCK:
        w[5, 1]["d"] = 0
    x[4] = 0
    y = product(isa, pool, type, 20, 96, w, x)
    assert (y[4] == 0).all() and (y[:, 3] == 0).all()
    x_64, w_64 = read_by(type, x), decoded(type, w)
    assert_close(y, x_64 @ w_64.T, x_64, w_64)


@pytest.mark.parametrize("isa", _native.isas())
def test_odd_rows_of_activations(isa: str, pool: _native.Pool) -> None:
    """Rows too small to scale count as zero; a NaN shows in its result; neither affects other rows."""
    rng = np.random.default_rng(7)
    w, x = random_weights(rng, Q8_0, 20, 64), rng.standard_normal((5, 64)).astype(np.float32)
    before = product(isa, pool, Q8_0, 20, 64, w, x)
    x[1], x[3, 40] = 1e-38, np.nan
    after = product(isa, pool, Q8_0, 20, 64, w, x)
    assert (after[1] == 0).all() and np.isnan(after[3]).all()
    assert (after[[0, 2, 4]] == before[[0, 2, 4]]).all()


@pytest.mark.parametrize("isa", _native.isas())
def test_every_half_is_read_exactly(isa: str, pool: _native.Pool) -> None:
    every = np.arange(65536, dtype=np.uint16).view(np.float16)
    halves = every[np.isfinite(every)].reshape(-1, 1)
    y = product(isa, pool, F16, len(halves), 1, halves, np.ones((1, 1), np.float32))
    assert (y[0] == halves[:, 0].astype(np.float32)).all()


def test_weights_may_lie_anywhere(pool: _native.Pool) -> None:
    rng = np.random.default_rng(8)
    for type in TYPES.values():
        w, x = random_weights(rng, type, 33, 64), rng.standard_normal((3, 64)).astype(np.float32)
        room = np.empty(w.nbytes + 1, np.uint8)
        room[1:] = np.frombuffer(w.tobytes(), np.uint8)
        for isa in _native.isas():
            assert (product(isa, pool, type, 33, 64, room[1:], x) == product(isa, pool, type, 33, 64, w, x)).all()


def test_a_pool_may_be_shared_by_callers(pools: dict[int, _native.Pool]) -> None:
    rng = np.random.default_rng(9)
    w, x = random_weights(rng, Q8_0, 100, 128), rng.standard_normal((40, 128)).astype(np.float32)
    isa = _native.isas()[0]
    want = product(isa, pools[1], Q8_0, 100, 128, w, x).tobytes()
    with ThreadPoolExecutor(4) as callers:
        got = callers.map(lambda n: product(isa, pools[n % 3 + 1], Q8_0, 100, 128, w, x).tobytes(), range(200))
        assert all(y == want for y in got)


def test_bad_arguments_are_refused(pool: _native.Pool) -> None:
    w, x = random_weights(np.random.default_rng(0), Q8_0, 4, 64), np.zeros((2, 64), np.float32)
    null = _native.ffi.NULL
    assert call(None, pool, Q8_0, 4, 64, w, x)[0] == OK
    assert call("sse9", pool, Q8_0, 4, 64, w, x)[0] == ISA
    bad: list[dict[str, Any]] = [
        *({name: null} for name in ("pool", "w", "x", "y")),
        *({"type": type} for type in (-1, 3, 7, 12, 2**31 - 1)),
        *({"rows": rows} for rows in (-1, 0, 3, 5, 2**24 + 1, 2**31 - 1)),
        *({"columns": columns} for columns in (-32, 0, 32, 63, 65, 96, 2**24 + 32, 2**31 - 1)),
        *({"m": m} for m in (-1, 0, 2**24 + 1, 2**31 - 1)),
        *({"bytes": size} for size in (0, w.nbytes - 1, w.nbytes + 1, 2**64 - 1)),
    ]
    for change in bad:
        assert call(None, pool, Q8_0, 4, 64, w, x, change)[0] == ARGUMENT, change


@pytest.mark.parametrize("threads", [-1, 0, 1025, 2**31 - 1])
def test_bad_thread_counts_are_refused(threads: int) -> None:
    handle = _native.ffi.new("genie_pool **")
    assert _native.lib.genie_pool_create(threads, handle) == ARGUMENT
    assert _native.lib.genie_pool_create(1, _native.ffi.NULL) == ARGUMENT
    _native.lib.genie_pool_free(_native.ffi.NULL)


GGML = """
struct ggml_init_params { size_t mem_size; void *mem_buffer; bool no_alloc; };
void *ggml_init(struct ggml_init_params);
void ggml_free(void *);
void *ggml_new_tensor_2d(void *, int, int64_t, int64_t);
void *ggml_get_data(void *);
void *ggml_mul_mat(void *, void *, void *);
void *ggml_new_graph(void *);
void ggml_build_forward_expand(void *, void *);
int ggml_graph_compute_with_ctx(void *, void *, int);
void ggml_cpu_init(void);
"""


@functools.cache
def ggml() -> tuple[cffi.FFI, Any, Any]:
    """ggml's base and CPU libraries, from the wheel libggml-python; cached: loading the base one twice aborts."""
    spec = importlib.util.find_spec("libggml")
    if spec is None or spec.origin is None:
        pytest.skip("libggml-python is not installed")
    ffi = cffi.FFI()
    ffi.cdef(GGML)
    folder = Path(spec.origin).parent / "lib64"
    flags = ffi.RTLD_NOW | ffi.RTLD_GLOBAL
    base, cpu = (ffi.dlopen(str(folder / f"libggml-{name}.so"), flags) for name in ("base", "cpu"))
    cpu.ggml_cpu_init()
    return ffi, base, cpu


def ggml_product(type: int, w: Array, x: Array) -> Array:
    """The same product by ggml's CPU backend."""
    ffi, base, cpu = ggml()
    (m, columns), rows = x.shape, len(w)
    context = base.ggml_init({"mem_size": 64 << 20, "mem_buffer": ffi.NULL, "no_alloc": False})
    try:
        w_tensor = base.ggml_new_tensor_2d(context, type, columns, rows)
        x_tensor = base.ggml_new_tensor_2d(context, F32, columns, m)
        ffi.memmove(base.ggml_get_data(w_tensor), w.tobytes(), w.nbytes)
        ffi.memmove(base.ggml_get_data(x_tensor), x.tobytes(), x.nbytes)
        y_tensor = base.ggml_mul_mat(context, w_tensor, x_tensor)
        graph = base.ggml_new_graph(context)
        base.ggml_build_forward_expand(graph, y_tensor)
        assert cpu.ggml_graph_compute_with_ctx(context, graph, 1) == 0
        y: Array = np.frombuffer(ffi.buffer(base.ggml_get_data(y_tensor), m * rows * 4), np.float32).copy()
        return y.reshape(m, rows)
    finally:
        base.ggml_free(context)


@pytest.mark.parametrize("type", [Q4_0, Q8_0], ids=["q4_0", "q8_0"])
def test_against_ggml(type: int, pool: _native.Pool) -> None:
    """
    ggml rounds activations per block of 32, this core per row, so the results differ by both roundings. For normal
    values a block's largest is about 2.2 and a row's about 3.2 standard deviations: 0.5 % and 0.75 % rounding error.
    """
    rng = np.random.default_rng(10)
    w_RC, x = (rng.standard_normal(shape).astype(np.float32) for shape in ((96, 512), (33, 512)))
    w = quants.quantize(w_RC, GGMLQuantizationType(type))
    exact = x.astype(np.float64) @ quants.dequantize(w, GGMLQuantizationType(type)).astype(np.float64).T
    theirs = ggml_product(type, w, x)
    norm = np.linalg.norm(exact)
    assert np.linalg.norm(theirs - exact) < 0.008 * norm
    for isa in _native.isas():
        ours = product(isa, pool, type, 96, 512, w, x)
        assert np.linalg.norm(ours - exact) < 0.010 * norm
        assert np.linalg.norm(ours - theirs) < 0.013 * norm


def test_ggml_numbers() -> None:
    assert [GGMLQuantizationType[name.upper()] for name in TYPES] == list(TYPES.values())
    assert gguf.GGML_QUANT_SIZES[GGMLQuantizationType.Q8_0] == (32, BLOCK[Q8_0].itemsize)
    assert gguf.GGML_QUANT_SIZES[GGMLQuantizationType.Q4_0] == (32, BLOCK[Q4_0].itemsize)
