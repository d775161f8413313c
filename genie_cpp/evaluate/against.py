"""How much another file of the same world loses, in the columns known from llama-perplexity."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from genie_cpp.errors import ModelError
from genie_cpp.evaluate.measures import Watch, mean_error, psnr, unwatched
from genie_cpp.model import Model
from genie_cpp.spec.hparams import HParams

_SHAPES = (
    "frame_width", "frame_height", "context_length", "action_count", "codebook_size", "tokenizer_patch_size",
    "prediction", "factor_count", "vocabulary",
)  # fmt: skip


def against(
    model: Model,
    exact: Model,
    clips: NDArray[np.uint8],
    *,
    into: dict[str, Any] | None = None,
    watch: Watch = unwatched,
) -> dict[str, Any]:
    """Compare the predictions of `model` and `exact` on clips uint8 [N, T, H, W, 3], T at most the context length.

    Each frame after the first is predicted fully masked, given the true frames before it. kl: nats, mean over tokens.
    Also the mean and root mean square of the change in the true token's probability, and the share of tokens with the
    same likeliest code. encoder: share of equal tokens. decoder_db: PSNR between the frames decoded from the same
    tokens. `*_error` are standard errors over clips. Raises ModelError if the two worlds differ in shape.
    """
    for name in _SHAPES:
        a, b = getattr(model.info, name), getattr(exact.info, name)
        if a != b:
            raise ModelError(
                f"the two files are not one world: {name} is {a} in one and {b} in the other",
                "compare a file with another type of the same checkpoint",
            )
    rows: list[dict[str, float]] = []
    found: dict[str, Any] = {} if into is None else into
    for clip in watch(clips, "against", len(clips)):
        rows.append(_clip(model, exact, clip))
        for name in rows[0]:
            found[name], found[f"{name}_error"] = mean_error([row[name] for row in rows])
        found["clips"] = len(rows)
    return found


def _clip(model: Model, exact: Model, clip: NDArray[np.uint8]) -> dict[str, float]:
    hp: HParams = exact.info
    ids = exact.tokenize(clip)
    if hp.action_count == 0:
        led = [-1] * len(clip)
    elif hp.has_lam:
        led = [-1, *exact.infer_actions(clip).tolist()]
    else:
        led = [-1] + [0] * (len(clip) - 1)
    masked = np.full(exact.token_count, hp.codebook_size, np.int32)
    states = [m.state("dynamics") for m in (model, exact)]
    ahead = hp.prediction == "next-frame"
    kl, same = list[float](), list[float]()
    change: list[NDArray[np.float64]] = []
    for t, now in enumerate(ids):
        if t and not ahead:
            got, want = (_log_softmax(s.forward(masked, led[t], commit=False), hp) for s in states)
            _compare(got, want, _digits(now, hp), kl, change, same)
        if not ahead:
            for state in states:
                state.forward(now, led[t], output=False)
        elif t + 1 < len(ids):
            got, want = (_log_softmax(s.forward(now, led[t + 1]), hp) for s in states)
            _compare(got, want, _digits(ids[t + 1], hp), kl, change, same)
    delta = np.concatenate(change)
    return {
        "kl": float(np.mean(kl)),
        "mean_delta_p": float(delta.mean()),
        "rms_delta_p": float(np.sqrt((delta**2).mean())),
        "same_top": float(np.mean(same)),
        "encoder": float((model.tokenize(clip) == ids).mean()),
        "decoder_db": float(psnr(model.detokenize(ids), exact.detokenize(ids)).mean()),
    }


def _compare(
    got: NDArray[np.float64],
    want: NDArray[np.float64],
    true: NDArray[np.integer[Any]],
    kl: list[float],
    change: list[NDArray[np.float64]],
    same: list[float],
) -> None:
    kl.append(float((np.exp(want) * (want - got)).sum(-1).mean()))
    at = np.arange(len(true))
    change.append(np.exp(got[at, true]) - np.exp(want[at, true]))
    same.append(float((got.argmax(-1) == want.argmax(-1)).mean()))


def _log_softmax(logits: NDArray[np.float32] | None, hp: HParams) -> NDArray[np.float64]:
    """[P, vocabulary] -> log probabilities [P * factors, codes of a factor]."""
    assert logits is not None
    x = logits.astype(np.float64).reshape(-1, hp.vocabulary // hp.factor_count)
    x = x - x.max(-1, keepdims=True)
    log: NDArray[np.float64] = x - np.log(np.exp(x).sum(-1, keepdims=True))
    return log


def _digits(ids_P: NDArray[np.integer[Any]], hp: HParams) -> NDArray[np.integer[Any]]:
    """Token ids -> their digits, the least significant first, [P * factors]."""
    size = hp.vocabulary // hp.factor_count
    return np.stack([ids_P // size**k % size for k in range(hp.factor_count)], -1).reshape(-1)
