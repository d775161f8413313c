"""How a dynamics model makes a frame: its logits are for its input frame, or for the frame after it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from genie_cpp.backends.interface import Float, State

Ids = NDArray[np.int32]
Logits = NDArray[np.float32]


class Prediction(Protocol):
    """Belongs to one world; `dynamics` is its dynamics window. Per frame: `begin`, `step` per MaskGIT step, `end`."""

    dynamics: State
    behind: int  # how many frames fewer than the world's window the dynamics has seen

    def begin(self, newest: Ids, action: int) -> None: ...
    def step(
        self, sampler: Any, step: int, seed: int, frame: int, action: int, ids: Ids, logits: Logits | None = None
    ) -> None: ...
    def ages(self, looked_PT: Float) -> Float: ...
    def end(self, ids: Ids, action: int, keep: bool) -> None: ...
    def logits(self, ids: Sequence[Ids], actions: Sequence[int]) -> Logits | None: ...
    def forget(self) -> None: ...
    def fork(self, dynamics: State) -> Prediction: ...


class SameFrame:
    """Logits are for the input frame: each step runs the frame again, with the tokens known so far."""

    behind = 0

    def __init__(self, dynamics: State) -> None:
        self.dynamics = dynamics
        self._entered: Ids | None = None  # the newest frame, as its last step received it
        self._logits: Logits | None = None

    def begin(self, newest: Ids, action: int) -> None:
        self._logits = None

    def step(
        self, sampler: Any, step: int, seed: int, frame: int, action: int, ids: Ids, logits: Logits | None = None
    ) -> None:
        """Fill in some of `ids`, in place. logits: gets what they were sampled from."""
        self._entered = ids.copy()
        self.dynamics.maskgit_step(sampler, step, seed, frame, action, ids, logits)

    def ages(self, looked_PT: Float) -> Float:
        """What `State.watch` wrote in a step, by how many frames ago: [P, frames], 0 is the frame in the making."""
        return looked_PT[:, len(self.dynamics) :: -1].copy()

    def end(self, ids: Ids, action: int, keep: bool) -> None:
        """Add the finished frame to the dynamics' window, if `keep`."""
        if keep:
            self.dynamics.forward(ids, action, output=False)

    def logits(self, ids: Sequence[Ids], actions: Sequence[int]) -> Logits | None:
        """Logits of the newest frame's last step, which is run again for this. None if no frame was made."""
        if self._logits is None and self._entered is not None:
            committed = len(self.dynamics) == len(ids)
            self.dynamics.truncate(len(ids) - 1)
            self._logits = self.dynamics.forward(self._entered, actions[-1], commit=False)
            if committed:
                self.dynamics.forward(ids[-1], actions[-1], output=False)
        return self._logits

    def forget(self) -> None:
        """Called when the window begins anew: no frame has been made since."""
        self._entered = self._logits = None

    def fork(self, dynamics: State) -> SameFrame:
        other = copy.copy(self)
        other.dynamics = dynamics
        return other


class NextFrame:
    """Logits are for the frame after the input, given the action between them. All steps use the same logits."""

    behind = 1

    def __init__(self, dynamics: State) -> None:
        self.dynamics = dynamics
        self._logits: Logits | None = None

    def begin(self, newest: Ids, action: int) -> None:
        """Add the newest frame to the dynamics' window, with the action that follows it."""
        self._logits = self.dynamics.forward(newest, action)

    def step(
        self, sampler: Any, step: int, seed: int, frame: int, action: int, ids: Ids, logits: Logits | None = None
    ) -> None:
        """Fill in some of `ids`, in place. logits: gets what they were sampled from."""
        assert self._logits is not None
        if logits is not None:
            logits[:] = self._logits
        self.dynamics.maskgit_fill(sampler, step, seed, frame, self._logits, ids)

    def ages(self, looked_PT: Float) -> Float:
        """What `State.watch` wrote in `begin`, by how many frames ago: [P, frames]. The frame in the making, 0, was not
        there to be looked at."""
        seen_PA = looked_PT[:, len(self.dynamics) - 1 :: -1]
        return np.concatenate([np.zeros_like(seen_PA[:, :1]), seen_PA], axis=1)

    def end(self, ids: Ids, action: int, keep: bool) -> None:
        """Nothing to do: the frame enters the window in `begin`, once the action after it is known."""

    def logits(self, ids: Sequence[Ids], actions: Sequence[int]) -> Logits | None:
        """The logits that the newest frame was sampled from. None if no frame was made."""
        return self._logits

    def forget(self) -> None:
        """Called when the window begins anew: no frame has been made since."""
        self._logits = None

    def fork(self, dynamics: State) -> NextFrame:
        other = copy.copy(self)
        other.dynamics = dynamics
        return other


KINDS: dict[str, type[SameFrame] | type[NextFrame]] = {"same-frame": SameFrame, "next-frame": NextFrame}
