"""The core's own exponentials and the like: as exact as they say, and the same bits everywhere."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest

from genie_cpp.backends import _native
from genie_cpp.backends._native import ffi, lib


def run(name: str, x: np.ndarray) -> np.ndarray:
    x = np.ascontiguousarray(x, np.float64)
    y = np.empty_like(x)
    function = getattr(lib, f"GENIE_MATHS_{name.upper()}")
    _native.check(
        lib.genie_maths(function, ffi.from_buffer("double[]", x), x.size, ffi.from_buffer("double[]", y)), name
    )
    return y


def grid(low: float, high: float, count: int = 20001) -> np.ndarray:
    return np.concatenate([np.linspace(low, high, count), np.random.default_rng(1).uniform(low, high, count)])


SMALL = np.array([0.0, -0.0, *(float(f"{sign}1e-{n}") for sign in ("", "-") for n in range(1, 41))])
# name -> (arguments, exact, units in the last place that it may be off)
CASES = {
    "exp": (np.concatenate([grid(-707, 709.7), SMALL]), math.exp, 1),
    "log": (
        np.concatenate(
            [
                grid(0.5, 2),
                np.ldexp(grid(1, 2), np.arange(40002) % 2000 - 1000),
                grid(1 - 1e-6, 1 + 1e-6),
                [5e-324, 1e-310],
            ]
        ),
        math.log,
        1,
    ),
    "cos": (grid(0, math.pi / 2), math.cos, 1),
    "expf": (np.concatenate([grid(-87, 88.7), SMALL]).astype(np.float32), math.exp, 0.501),
    "tanhf": (np.concatenate([grid(-9.5, 9.5), SMALL[np.abs(SMALL) > 1e-37]]).astype(np.float32), math.tanh, 0.501),
    "erff": (np.concatenate([grid(-4.5, 4.5), SMALL[np.abs(SMALL) > 1e-37]]).astype(np.float32), math.erf, 0.501),
}


@pytest.mark.parametrize("name", CASES)
def test_against_python(name: str) -> None:
    x, exact, units = CASES[name]
    want = np.array([exact(float(value)) for value in x])
    spacing = np.spacing(np.abs(want)) if units == 1 else np.spacing(np.abs(want).astype(np.float32)).astype(np.float64)
    off = np.abs(run(name, x) - want) / spacing
    assert off.max() <= units, (float(x[off.argmax()]), float(off.max()))


def test_edges() -> None:
    inf, nan = math.inf, math.nan
    np.testing.assert_array_equal(run("exp", [-inf, -800, 800, inf, nan, 0]), [0, 0, inf, inf, nan, 1])  # type: ignore[arg-type]
    np.testing.assert_array_equal(run("expf", [-inf, -200, 89, inf, nan, 0]), [0, 0, inf, inf, nan, 1])  # type: ignore[arg-type]
    np.testing.assert_array_equal(run("log", [0, -0.0, -1, inf, nan, 1]), [-inf, -inf, nan, inf, nan, 0])  # type: ignore[arg-type]
    np.testing.assert_array_equal(run("tanhf", [-inf, inf, nan, 0]), [-1, 1, nan, 0])  # type: ignore[arg-type]
    np.testing.assert_array_equal(run("erff", [-inf, inf, nan, 0]), [-1, 1, nan, 0])  # type: ignore[arg-type]
    assert 0 < run("exp", np.array([-745.1]))[0] < 1e-322 and 0 < run("expf", np.array([-103.0]))[0] < 1e-44


def test_the_schedule_is_that_of_a_correctly_rounded_cosine() -> None:
    """At cos(pi / 3) = 1 / 2 a last bit decides how many tokens of an even number are filled."""
    for steps in range(1, 65):
        x = math.pi / 2 * np.arange(1, steps + 1) / steps
        ours, exact = run("cos", x), np.array([math.cos(value) for value in x])
        for tokens in (4, 60, 64, 144, 160, 256, 920, 1024):
            np.testing.assert_array_equal(np.floor(tokens * ours), np.floor(tokens * exact))
            np.testing.assert_array_equal(np.ceil(tokens * ours)[:-1], np.ceil(tokens * exact)[:-1])


def test_the_same_bits_everywhere() -> None:
    """What was computed here once. Another compiler, C library or machine must give the same."""
    found = {name: hashlib.sha256(run(name, x).tobytes()).hexdigest()[:16] for name, (x, _, _) in sorted(CASES.items())}
    assert found == {
        "cos": "0a0a16147c8f6a19",
        "erff": "52a7e0009a1f94bd",
        "exp": "db60c11db7f2523d",
        "expf": "80c119a9c1ef9636",
        "log": "03fffd8218185e07",
        "tanhf": "ce081cc802220299",
    }
