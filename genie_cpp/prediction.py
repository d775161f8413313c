"""How a dynamics model makes a frame: its logits are for the frame that went in, or for the one after it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from genie_cpp.backends.interface import State

Ids = NDArray[np.int32]
Logits = NDArray[np.float32]


class Prediction(Protocol):
    """One world's; `dynamics` is its window of the dynamics model. In order: begin, step for each MaskGIT step, end."""

    dynamics: State
    behind: int  # frames that the dynamics has seen fewer than the window holds

    def begin(self, newest: Ids, action: int) -> None: ...
    def step(self, sampler: Any, step: int, seed: int, frame: int, action: int, ids: Ids) -> None: ...
    def end(self, ids: Ids, action: int, keep: bool) -> None: ...
    def logits(self, ids: Sequence[Ids], actions: Sequence[int]) -> Logits | None: ...
    def forget(self) -> None: ...
    def fork(self, dynamics: State) -> Prediction: ...


class SameFrame:
    """Logits are for the frame that went in: each step runs the frame again, as far as it is known."""

    behind = 0

    def __init__(self, dynamics: State) -> None:
        self.dynamics = dynamics
        self._entered: Ids | None = None  # the newest frame as its last step found it
        self._logits: Logits | None = None

    def begin(self, newest: Ids, action: int) -> None:
        self._logits = None

    def step(self, sampler: Any, step: int, seed: int, frame: int, action: int, ids: Ids) -> None:
        """Fill in some of `ids`, in place."""
        self._entered = ids.copy()
        self.dynamics.maskgit_step(sampler, step, seed, frame, action, ids, None)

    def end(self, ids: Ids, action: int, keep: bool) -> None:
        """The finished frame joins the dynamics' window, where that is kept."""
        if keep:
            self.dynamics.forward(ids, action, output=False)

    def logits(self, ids: Sequence[Ids], actions: Sequence[int]) -> Logits | None:
        """Of the newest frame's last step, which runs again for it; None where no frame was made."""
        if self._logits is None and self._entered is not None:
            committed = len(self.dynamics) == len(ids)
            self.dynamics.truncate(len(ids) - 1)
            self._logits = self.dynamics.forward(self._entered, actions[-1], commit=False)
            if committed:
                self.dynamics.forward(ids[-1], actions[-1], output=False)
        return self._logits

    def forget(self) -> None:
        """No frame was made since the window last began."""
        self._entered = self._logits = None

    def fork(self, dynamics: State) -> SameFrame:
        other = copy.copy(self)
        other.dynamics = dynamics
        return other


class NextFrame:
    """Logits are for the frame after the one that went in, with the action between: all steps sample from the same."""

    behind = 1

    def __init__(self, dynamics: State) -> None:
        self.dynamics = dynamics
        self._logits: Logits | None = None

    def begin(self, newest: Ids, action: int) -> None:
        """The newest frame joins the dynamics' window with the action after it."""
        self._logits = self.dynamics.forward(newest, action)

    def step(self, sampler: Any, step: int, seed: int, frame: int, action: int, ids: Ids) -> None:
        """Fill in some of `ids`, in place."""
        assert self._logits is not None
        self.dynamics.maskgit_fill(sampler, step, seed, frame, self._logits, ids)

    def end(self, ids: Ids, action: int, keep: bool) -> None:
        """The finished frame waits for the action after it."""

    def logits(self, ids: Sequence[Ids], actions: Sequence[int]) -> Logits | None:
        """Those that the newest frame was sampled from; None where no frame was made."""
        return self._logits

    def forget(self) -> None:
        """No frame was made since the window last began."""
        self._logits = None

    def fork(self, dynamics: State) -> NextFrame:
        other = copy.copy(self)
        other.dynamics = dynamics
        return other


KINDS: dict[str, type[SameFrame] | type[NextFrame]] = {"same-frame": SameFrame, "next-frame": NextFrame}
