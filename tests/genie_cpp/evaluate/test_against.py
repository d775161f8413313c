"""One file against another of the same world."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from genie_cpp.convert.writer import convert
from genie_cpp.errors import ModelError
from genie_cpp.evaluate import against
from genie_cpp.model import Model


@pytest.fixture
def clips() -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (3, 4, 16, 16, 3), np.uint8)


def test_a_file_loses_nothing_against_itself(tiny: Model, clips: np.ndarray) -> None:
    found = against(tiny, tiny, clips)
    assert (found["kl"], found["rms_delta_p"], found["same_top"], found["encoder"]) == (0, 0, 1, 1)
    assert found["decoder_db"] == 100 and found["clips"] == 3


def test_four_bits_lose_more_than_eight(tiny: Model, tiny_checkpoint: Path, clips: np.ndarray, tmp_path: Path) -> None:
    lost = {}
    for type in ("q8_0", "q4_0"):
        convert(tiny_checkpoint, tmp_path / f"{type}.gguf", type)
        lost[type] = against(Model.open(tmp_path / f"{type}.gguf"), tiny, clips)
    assert 0 < lost["q8_0"]["kl"] < lost["q4_0"]["kl"]
    assert 0 < lost["q8_0"]["rms_delta_p"] < lost["q4_0"]["rms_delta_p"]
    assert lost["q4_0"]["decoder_db"] <= lost["q8_0"]["decoder_db"] < 100


def test_another_world_is_refused(tiny: Model, named: Model, clips: np.ndarray) -> None:
    found = against(named, tiny, clips)  # names do not count as a difference
    assert found["kl"] == 0
    other = Model.open()
    with pytest.raises(ModelError, match="not one world: frame_width is 128 in one and 16 in the other"):
        against(other, tiny, clips)
