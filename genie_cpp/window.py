"""The window of a world: the frames that the next one is made from, and the states that have seen them.

What a full window does is its policy (docs/sampling.md): "half" drops the older half of the frames, "exact" drops one,
and "retokenize" makes tokens of the last frames again, before each new one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from genie_cpp import prediction
from genie_cpp.model import Ids, Model

Patches = NDArray[np.float32]  # a frame as `Model.patches` gives it


class Window:
    """Frames as tokens, with the action that led to each (-1 to the first). Drops frames when it is full."""

    def __init__(self, model: Model, policy: str) -> None:
        self.model, self.policy = model, policy
        self.ids: list[Ids] = []
        self.actions: list[int] = []
        self.inferred = 0  # of the actions, how many the LAM inferred, from the first on
        self.least = 1  # frames that it held when it was last filled anew: `rewind` goes no further
        self.decoder = model.state("tokenizer.decoder")
        self.prediction: prediction.Prediction = prediction.KINDS[model.info.prediction](model.state("dynamics"))

    @property
    def pixels(self) -> list[Patches]:
        """The frames as the decoder gave them, where the policy keeps them."""
        return []

    def begin(
        self, ids: Sequence[Ids], actions: Sequence[int], inferred: int, pixels: Sequence[Patches] = ()
    ) -> Patches:
        """Hold these frames and no others. Returns the newest one's patches."""
        self.ids, self.actions, self.inferred = list(ids), list(actions), inferred
        self.prediction.forget()
        self._replay(len(self.ids) - 1)
        return self._decode(self.ids[-1])

    def make_room(self) -> None:
        """For one more frame, where there is none."""
        length = self.model.info.context_length
        if len(self.ids) < length:
            return
        keep = length - 1 if self.policy == "exact" else (length + 1) // 2
        self.ids, self.actions = self.ids[length - keep :], [-1, *self.actions[length - keep + 1 :]]
        self._replay(keep)
        self.least = keep + 1  # no frame was made from a window of just these

    def add(self, ids: Ids, action: int) -> Patches:
        """A new frame, after `prediction.end`. Returns its patches."""
        self.ids.append(ids)
        self.actions.append(action)
        return self._decode(ids)

    @property
    def keeps_next(self) -> bool:
        """Whether a frame added now is still there, as it is, when the frame after it is made."""
        return len(self.ids) < self.model.info.context_length - 1

    def rewind(self, frames: int) -> Patches | None:
        """Drop the newest frames again. Returns the patches of the one before them; None where that cannot be done."""
        length = len(self.ids) - frames
        if frames < 1 or length < self.least:
            return None
        del self.ids[length:], self.actions[length:]
        self.prediction.forget()
        self.prediction.dynamics.truncate(length - self.prediction.behind)
        self.decoder.truncate(length - 1)
        return self._decode(self.ids[-1])

    def copy_from(self, other: Window) -> None:
        """Hold the same as another window of the same policy, and go on independently of it."""
        self.ids, self.actions = [ids.copy() for ids in other.ids], list(other.actions)
        self.inferred, self.least = other.inferred, other.least
        dynamics = self.prediction.dynamics
        dynamics.copy_from(other.prediction.dynamics)
        self.prediction = other.prediction.fork(dynamics)
        self.decoder.copy_from(other.decoder)

    def _replay(self, decoded: int) -> None:
        """Run the frames again from time index 0; causal attention makes this the same as having kept them.

        decoded: how many the decoder sees too.
        """
        self.least = len(self.ids)
        dynamics, behind = self.prediction.dynamics, self.prediction.behind
        dynamics.truncate(0)
        self.decoder.truncate(0)
        # One that is behind sees a frame with the action after it, and the newest one not yet.
        for ids, action in zip(self.ids, self.actions[behind:], strict=False):
            dynamics.forward(ids, action, output=False)
        for ids in self.ids[:decoded]:
            self.decoder.forward(self.model.codes(ids), output=False)

    def _decode(self, ids: Ids) -> Patches:
        patches = self.decoder.forward(self.model.codes(ids))
        assert patches is not None
        return patches


class Retokenized(Window):
    """The last frames become tokens again before each new one: from their pixels as they left the decoder, neither
    rounded nor clamped, and with times that start at 0."""

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
        """One frame fewer than the window holds stay."""
        dropped = max(0, len(self._pixels) - self.model.info.context_length + 1)
        self._pixels = self._pixels[dropped:]
        self.actions = [-1, *self.actions[dropped + 1 :]]
        self.inferred = max(0, self.inferred - dropped)
        if self.inferred and dropped:  # what the LAM sees has moved as well
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
    """An empty window of a policy."""
    return POLICIES[policy](model, policy)
