"""The peak loops: what they count and refuse. Their speed is measured by the benchmarks."""

from __future__ import annotations

import pytest

from genie_cpp.backends import _native
from genie_cpp.errors import NativeError

F32, F16, Q4_0, Q8_0, BLOCKS = 0, 1, 2, 8, 256
# Operations of one round: sums x lanes x products per lane x 2.
VNNI = {Q8_0: 16 * 16 * 4 * 2, F32: 16 * 16 * 2, BLOCKS: 8 * 12 * 16 * 4 * 2}
AVXVNNI = {Q8_0: 12 * 8 * 4 * 2, F32: 12 * 8 * 2, BLOCKS: 8 * 12 * 8 * 4 * 2}
AVX2 = {Q8_0: 6 * 8 * 4 * 2, F32: 12 * 8 * 2, BLOCKS: 8 * 6 * 8 * 4 * 2}
ROUND = {"avx512bf16": VNNI, "avx512vnni": VNNI, "avxvnni": AVXVNNI, "avx2": AVX2}


@pytest.mark.parametrize("isa", _native.isas())
@pytest.mark.parametrize("threads", [1, 3])
def test_operations_are_those_of_all_threads(isa: str, threads: int) -> None:
    pool = _native.Pool(threads)
    for type, like in ((Q8_0, Q8_0), (Q4_0, Q8_0), (F32, F32), (F16, F32), (BLOCKS, BLOCKS)):
        for rounds in (1, 1000):
            want = 0 if isa == "scalar" else ROUND[isa][like] * rounds * threads
            assert _native.peak_operations(isa, pool, type, rounds) == want


def test_what_is_out_of_range_is_refused() -> None:
    ffi, lib, pool, out = _native.ffi, _native.lib, _native.Pool(1), _native.ffi.new("int64_t *", -77)
    ARGUMENT, ISA = lib.GENIE_ERROR_ARGUMENT, lib.GENIE_ERROR_ISA
    for isa in _native.isas():
        name = isa.encode()
        assert lib.genie_peak(name, ffi.NULL, Q8_0, 1, out) == ARGUMENT
        assert lib.genie_peak(name, pool.handle, Q8_0, 1, ffi.NULL) == ARGUMENT
        for type, rounds in ((Q8_0, 0), (Q8_0, -1), (Q8_0, 2**36 + 1), (3, 1), (-1, 1), (2**31 - 1, 1)):
            assert lib.genie_peak(name, pool.handle, type, rounds, out) == ARGUMENT
    assert lib.genie_peak(b"abacus", pool.handle, Q8_0, 1, out) == ISA
    assert out[0] == -77
    with pytest.raises(NativeError, match="peak"):
        _native.peak_operations(_native.isas()[0], pool, Q8_0, 0)
