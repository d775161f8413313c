"""Philox4x32-10 (Salmon et al., SC'11) and the uniform numbers of docs/sampling.md, in numpy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_M0, _M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_W0, _W1 = 0x9E3779B9, 0xBB67AE85
_LOW = np.uint64(0xFFFFFFFF)


def philox(seed: int, counter: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """counter [n, 4] uint32, 64-bit seed -> [n, 4] uint32."""
    c0, c1, c2, c3 = (counter[:, i].astype(np.uint64) for i in range(4))
    k0, k1 = seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF
    for _ in range(10):
        p0, p1 = c0 * _M0, c2 * _M1
        c0, c1, c2, c3 = (
            (p1 >> np.uint64(32)) ^ c1 ^ np.uint64(k0),
            p1 & _LOW,
            (p0 >> np.uint64(32)) ^ c3 ^ np.uint64(k1),
            p0 & _LOW,
        )
        k0, k1 = (k0 + _W0) & 0xFFFFFFFF, (k1 + _W1) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3], 1).astype(np.uint32)


def uniform(seed: int, position_P: NDArray[np.int64], step: int, frame: int, draw: int) -> NDArray[np.float64]:
    """Numbers in (0, 1), one per position."""
    counter = np.zeros((len(position_P), 4), np.uint32)
    counter[:, 0] = position_P
    counter[:, 1:] = step, frame & 0xFFFFFFFF, draw
    return (philox(seed, counter)[:, 0].astype(np.float64) + 0.5) * 2.0**-32
