"""Measures of frames and tokens, on cases that can be checked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from genie_cpp.evaluate import measures


def test_psnr_of_known_errors() -> None:
    a = np.zeros((2, 4, 4, 3), np.uint8)
    b = a.copy()
    b[1] = 51  # a fifth of the range everywhere: 10 log10(25)
    assert measures.psnr(a, b) == pytest.approx([100, 13.979], abs=1e-3)
    mask = np.zeros((4, 4), bool)
    mask[0, 0] = True
    b[1, 1:] = 0
    b[1, 0, 1:] = 0
    assert measures.psnr(a, b, mask)[1] == pytest.approx(13.979, abs=1e-3)
    assert measures.overall(a, a) == 100


def test_entropy_of_known_distributions() -> None:
    assert measures.entropy(np.zeros(100, int)) == 0
    assert measures.entropy(np.arange(256)) == pytest.approx(8)
    assert measures.entropy(np.array([0, 0, 1, 2])) == pytest.approx(1.5)


@pytest.mark.parametrize("p", [1, 2, 7, 20])
def test_period(p: int) -> None:
    ids = np.random.default_rng(p).integers(1000, size=(p, 5))
    assert measures.period(np.tile(ids, (60 // p + 1, 1))) == p
    broken = np.tile(ids, (60 // p + 1, 1))
    broken[30, 2] += 1
    assert measures.period(broken) == 0
    assert measures.period(np.arange(60)[:, None]) == 0


def test_distinct_and_changed() -> None:
    ids = np.array([[1, 2], [1, 2], [1, 3], [4, 3]])
    assert measures.distinct(ids) == 0.75
    assert measures.changed(ids) == pytest.approx(2 / 6)


def test_strays_are_pairs_never_seen_in_that_direction() -> None:
    nobody = np.zeros(6, bool)
    seen = measures.Neighbours(8, 3, nobody)
    seen.add(np.array([[0, 1, 2, 3, 4, 5]]))  # 0 1 2 / 3 4 5
    assert seen.strays(np.array([[0, 1, 2, 3, 4, 5]])) == 0
    # 1 0 2 / 4 3 5: beside each other all four pairs are new; one above the other none is.
    assert seen.strays(np.array([[1, 0, 2, 4, 3, 5]])) == pytest.approx(4 / 7)
    mover = np.array([True, False, False, False, False, False])
    apart = measures.Neighbours(8, 3, mover)
    apart.add(np.array([[0, 1, 2, 3, 4, 5]]))
    assert apart.strays(np.array([[7, 1, 2, 3, 4, 5]])) == 0  # pairs with the mover do not count


def test_the_nearest_place_is_found_outside_the_mover() -> None:
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (5, 8, 8, 3), np.uint8)
    mask = measures.pixels_of((0, 0, 4, 4), 8, 8)
    frames = pictures[[3, 1]].copy()
    frames[:, :4, :4] = 0  # the mover hides it
    nearest = measures.Nearest(pictures, mask)
    assert nearest.holds(frames, np.array([3, 1])).tolist() == [True, True]
    assert nearest.holds(frames, np.array([3, 2])).tolist() == [True, False]
    twins = measures.Nearest(np.concatenate([pictures, pictures[:1]]), mask)
    assert twins.holds(pictures[:1], np.array([5])).tolist() == [True]  # as near as the nearest


def test_tokens_of_a_mover_are_all_that_its_box_touches() -> None:
    grid = measures.tokens_of((7, 8, 9, 16), 4, 4, 8).reshape(4, 4)
    assert np.argwhere(grid).tolist() == [[0, 1], [1, 1]]
    assert not measures.tokens_of((0, 0, 0, 0), 4, 4, 8).any()
