"""How a frame of a session was made: its tokens, when each was filled in, and how sure the model was."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from genie_cpp.errors import StateError
from genie_cpp.model import Ids
from genie_cpp.play.session import Session
from genie_cpp.world import World


@dataclass(frozen=True)
class Explanation:
    """steps: MaskGIT steps that the frame took. tokens_P: its tokens. filled_P: the step, from 0, that filled each in.
    bits_P: entropy, in bits, of the probabilities that each was drawn from, at temperature 1. looked_PA: the share of
    each token's attention over time that went to the frame this many frames ago, when it was filled in, mean over
    heads and layers; column 0 is the frame itself. None if the backend does not tell."""

    steps: int
    tokens_P: Ids
    filled_P: Ids
    bits_P: NDArray[np.float32]
    looked_PA: NDArray[np.float32] | None


def explain(session: Session) -> Explanation:
    """Makes the frame shown once more and watches. Raises StateError if the frame was not made by the model, or if the
    frame before it is not kept."""
    node = session.node
    before = session.nodes.get(node.parent) if node.parent is not None else None
    if before is None:
        raise StateError("this frame was not made by the model: it was given", "go on by one frame")
    model = session.model
    world = World(model, node.sampler, session.world.window)
    world.restore(zlib.decompress(before.state))
    world.sampler = node.sampler
    unknown, factors = model.info.codebook_size, model.info.factor_count
    filled_P = np.full(model.token_count, -1, np.int32)
    bits_P = np.zeros(model.token_count, np.float32)
    looked_PA: NDArray[np.float32] | None = None
    steps = 0

    def watch(
        step: int, known_P: Ids, now_P: Ids, logits_PO: NDArray[np.float32], now_PA: NDArray[np.float32] | None
    ) -> None:
        nonlocal steps, looked_PA
        steps = step + 1
        new = (known_P == unknown) & (now_P != unknown)
        filled_P[new] = step
        bits_P[new] = entropy(logits_PO[new].reshape(int(new.sum()), factors, -1)).sum(-1)
        if now_PA is not None:
            looked_PA = np.zeros_like(now_PA) if looked_PA is None else looked_PA
            looked_PA[new] = now_PA[new]

    world.step(node.action if model.info.action_count else 0, watch)
    return Explanation(steps, world.tokens, filled_P, bits_P, looked_PA)


def entropy(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Of the softmax over the last axis, in bits."""
    x = logits.astype(np.float64)
    x -= x.max(-1, keepdims=True)
    p = np.exp(x)
    total = p.sum(-1, keepdims=True)
    return ((np.log(total[..., 0]) - (p * x).sum(-1) / total[..., 0]) / np.log(2)).astype(np.float32)
