"""The window of a world: the frames that the next frame depends on, and the states that have seen them.

The policy says what happens when it is full (docs/sampling.md): "half" drops the older half of the frames, "exact"
drops one, and "retokenize" tokenizes the last frames again before each new one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from genie_cpp import prediction
from genie_cpp.model import Ids, Model

Patches = NDArray[np.float32]  # a frame in the form that `Model.patches` returns


class Window:
    """Frames as tokens, each with the action that led to it (-1 for the first). Drops frames when it is full."""

    def __init__(self, model: Model, policy: str) -> None:
        self.model, self.policy = model, policy
        self.ids: list[Ids] = []
        self.actions: list[int] = []
        self.inferred = 0  # how many of the actions, from the first on, the LAM inferred
        self.least = 1  # frames it held when it was last rebuilt: `rewind` cannot go back further
        self.decoder = model.state("tokenizer.decoder")
        self.prediction: prediction.Prediction = prediction.KINDS[model.info.prediction](model.state("dynamics"))

    @property
    def pixels(self) -> list[Patches]:
        """The frames as the decoder produced them, if the policy keeps them."""
        return []

    def begin(
        self, ids: Sequence[Ids], actions: Sequence[int], inferred: int, pixels: Sequence[Patches] = ()
    ) -> Patches:
        """Replace all frames by these. Returns the newest frame's patches."""
        self.ids, self.actions, self.inferred = list(ids), list(actions), inferred
        self.prediction.forget()
        self._replay(len(self.ids) - 1)
        return self._decode(self.ids[-1])

    def make_room(self) -> None:
        """Drop frames if the window is full, so that one more fits."""
        length = self.model.info.context_length
        if len(self.ids) < length:
            return
        keep = length - 1 if self.policy == "exact" else (length + 1) // 2
        self.ids, self.actions = self.ids[length - keep :], [-1, *self.actions[length - keep + 1 :]]
        self._replay(keep)
        self.least = keep + 1  # this window was never used to make a frame, so `rewind` must not return to it

    def add(self, ids: Ids, action: int) -> Patches:
        """Append a new frame; call it after `prediction.end`. Returns its patches."""
        self.ids.append(ids)
        self.actions.append(action)
        return self._decode(ids)

    @property
    def keeps_next(self) -> bool:
        """Whether a frame added now is still in the window, unchanged, when the next frame is made."""
        return len(self.ids) < self.model.info.context_length - 1

    def rewind(self, frames: int) -> Patches | None:
        """Drop the newest frames. Returns the patches of the frame before them; None if that is not possible."""
        length = len(self.ids) - frames
        if frames < 1 or length < self.least:
            return None
        del self.ids[length:], self.actions[length:]
        self.prediction.forget()
        self.prediction.dynamics.truncate(length - self.prediction.behind)
        self.decoder.truncate(length - 1)
        return self._decode(self.ids[-1])

    def copy_from(self, other: Window) -> None:
        """Copy the content of another window with the same policy. The two are independent afterwards."""
        self.ids, self.actions = [ids.copy() for ids in other.ids], list(other.actions)
        self.inferred, self.least = other.inferred, other.least
        dynamics = self.prediction.dynamics
        dynamics.copy_from(other.prediction.dynamics)
        self.prediction = other.prediction.fork(dynamics)
        self.decoder.copy_from(other.decoder)

    def _replay(self, decoded: int) -> None:
        """Run the frames again from time index 0. With causal attention this equals having kept them.

        decoded: how many frames the decoder sees too.
        """
        self.least = len(self.ids)
        dynamics, behind = self.prediction.dynamics, self.prediction.behind
        dynamics.truncate(0)
        self.decoder.truncate(0)
        # If `behind` is 1, a frame enters with the action after it, and the newest frame has not entered yet.
        for ids, action in zip(self.ids, self.actions[behind:], strict=False):
            dynamics.forward(ids, action, output=False)
        for ids in self.ids[:decoded]:
            self.decoder.forward(self.model.codes(ids), output=False)

    def _decode(self, ids: Ids) -> Patches:
        patches = self.decoder.forward(self.model.codes(ids))
        assert patches is not None
        return patches


class Retokenized(Window):
    """Tokenizes the last frames again before each new one: from their pixels as the decoder produced them, neither
    rounded nor clamped, and with time indices from 0."""

    def __init__(self, model: Model, policy: str) -> None:
        super().__init__(model, policy)
        self._encoder = model.state("tokenizer.encoder")
        self._pixels: list[Patches] = []

    @property
    def pixels(self) -> list[Patches]:
        return self._pixels

    @property
    def keeps_next(self) -> bool:
        return False

    def begin(
        self, ids: Sequence[Ids], actions: Sequence[int], inferred: int, pixels: Sequence[Patches] = ()
    ) -> Patches:
        self._pixels = list(pixels)
        return super().begin(ids, actions, inferred)

    def make_room(self) -> None:
        """Keep at most one frame fewer than the window can hold."""
        dropped = max(0, len(self._pixels) - self.model.info.context_length + 1)
        self._pixels = self._pixels[dropped:]
        self.actions = [-1, *self.actions[dropped + 1 :]]
        self.inferred = max(0, self.inferred - dropped)
        if self.inferred and dropped:  # the frames that the LAM sees have shifted, too
            seen = self._pixels[: self.inferred + 1]
            self.actions[1 : self.inferred + 1] = self.model.infer_from_patches(seen).tolist()
        self._encoder.truncate(0)
        self.ids = [self.model.encode_patches(self._encoder, patches) for patches in self._pixels]
        self._replay(len(self.ids))

    def add(self, ids: Ids, action: int) -> Patches:
        patches = super().add(ids, action)
        self._pixels = [*self._pixels, patches]
        return patches

    def rewind(self, frames: int) -> Patches | None:
        return None

    def copy_from(self, other: Window) -> None:
        super().copy_from(other)
        self._pixels = list(other.pixels)


POLICIES: dict[str, type[Window]] = {"half": Window, "exact": Window, "retokenize": Retokenized}


def of(model: Model, policy: str) -> Window:
    """An empty window with this policy."""
    return POLICIES[policy](model, policy)
