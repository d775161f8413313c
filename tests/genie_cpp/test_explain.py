"""How a frame was made, told once more: its tokens, steps, doubt and where it looked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from genie_cpp import Model, Sampler, StateError
from genie_cpp.play.explain import entropy, explain
from genie_cpp.play.session import Prompt, Session

GOLDEN = Path(__file__).parent.parent / "golden" / "genieredux"


def next_frame(folder: Path) -> Path:
    """A world whose logits are for the frame after its input."""
    pytest.importorskip("torch")
    from genie_cpp.convert.writer import convert

    convert([GOLDEN / "tokenizer.pt", GOLDEN / "genieredux.pt"], folder / "world.gguf", "q8_0")
    return folder / "world.gguf"


@pytest.mark.parametrize("prediction", ["same-frame", "next-frame"])
def test_the_frame_shown(prediction: str, tiny_gguf: Callable[[str], Path], tmp_path: Path) -> None:
    model = Model.open(tiny_gguf("q8_0") if prediction == "same-frame" else next_frame(tmp_path), 1, "cpu")
    info = model.info
    assert info.prediction == prediction
    session = Session(model)
    picture = np.random.default_rng(2).integers(0, 256, (info.frame_height, info.frame_width, 3), np.uint8)
    session.reset(Prompt(picture, "p", "cd" * 32), seed=4)
    session.sampler = Sampler(steps=3, temperature=1.0)
    with pytest.raises(StateError, match="it was given"):
        explain(session)
    for frame in range(1, info.context_length + 2):  # the window slides
        session.step(0)
        again = explain(session)
        np.testing.assert_array_equal(again.tokens_P, session.world.tokens)
        assert again.steps == 3 and set(again.filled_P) == {0, 1, 2}
        assert (again.bits_P > 0).all() and (again.bits_P <= np.log2(info.codebook_size) + 1e-4).all()
        assert again.looked_PA is not None
        np.testing.assert_allclose(again.looked_PA.sum(1), 1, atol=1e-5)
        behind = int(prediction == "next-frame")  # the frame itself could not be looked at
        assert (again.looked_PA[:, behind:] > 0).all() and not again.looked_PA[:, :behind].any()
        if frame < info.context_length // 2:
            assert again.looked_PA.shape[1] == frame + 1
        assert again.looked_PA.shape[1] <= info.context_length + behind


def test_entropy() -> None:
    found = entropy(np.array([[0, 0, 0, 0], [80, 0, 0, 0], [5, 5, -99, -99]], np.float32))
    np.testing.assert_allclose(found, [2, 0, 1], atol=1e-6)
