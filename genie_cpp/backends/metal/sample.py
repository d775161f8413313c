"""MaskGIT's steps 2 to 5 (docs/sampling.md) on the device, in float32. Random numbers come from the C core."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import mlx.core as mx
import numpy as np

from genie_cpp.backends import _native
from genie_cpp.backends.metal.forms import refused

_CONFIDENCE, _RANDOM, _LARGEST = (
    _native.number("ORDER", name) for name in ("confidence", "random", "largest-probability")
)
_WORST = np.uint64(2**64 - 1)


class Form(NamedTuple):
    """Decides the operations of a step. The numbers in them are passed as arrays, so that few variants are compiled."""

    order: int
    greedy: bool
    unit: bool  # a temperature of 1, or of 0, where confidences are computed at 1
    noisy: bool
    threshold: bool
    last: bool  # everything masked is filled
    factors: int  # K digits of an id


def form(s: Any, step: int, factors: int) -> Form:
    """The form of step `step` of a genie_sampler. Raises ModelError for a sampler that is not implemented here."""
    if s.order not in ORDERS or s.schedule not in SCHEDULES:
        raise refused(f"the sampler's order {s.order} with schedule {s.schedule}")
    last = step == s.steps - 1
    noisy = s.order != _RANDOM and s.noise > 0 and not last
    return Form(s.order, s.temperature == 0, s.temperature in (0, 1), noisy, s.threshold > 0, last, factors)


def numbers(s: Any, step: int, seed: int, frame: int, tokens: int, factors: int) -> dict[str, Any]:
    """The inputs of a step besides logits and ids: uniform numbers, noise, and how many tokens it fills."""
    f = form(s, step, factors)
    given: dict[str, Any] = {"inverse": np.float32(1 / (np.float32(s.temperature) or 1))}
    if not f.greedy:
        # Rounded to float32, the largest number would be 1 and always draw the last code, so limit it to just below 1.
        draws = [_uniform(seed, step, frame, k + 1 if k else 0, tokens) for k in range(factors)]
        u = np.stack(draws, -1).astype(np.float32)  # [P, K]
        given["u"] = np.minimum(u, np.nextafter(np.float32(1), np.float32(0)))
    if f.order == _RANDOM:
        given["rank"] = ~_native.philox(seed, step, frame, 1, tokens)[:, 0]
    elif f.noisy:
        scale = float(s.noise) * (1 - (step + 1) / s.steps)
        given["noise"] = (scale * -np.log(-np.log(_uniform(seed, step, frame, 1, tokens)))).astype(np.float32)
    if f.threshold:
        given["least_log_p"] = np.float32(math.log(s.threshold))
    left, least = SCHEDULES[s.schedule](tokens, step, s.steps)
    given["left"], given["least"] = np.int32(left), np.int32(least)
    return {name: mx.array(value) for name, value in given.items()}


def _cosine(tokens: int, step: int, steps: int) -> tuple[int, int]:
    return math.floor(tokens * math.cos(math.pi / 2 * (step + 1) / steps)), 0


def _cosine_ceil(tokens: int, step: int, steps: int) -> tuple[int, int]:
    return math.ceil(tokens * math.cos(math.pi / 2 * (step + 1) / steps)), 0


def _exponential(tokens: int, step: int, steps: int) -> tuple[int, int]:
    return tokens - math.ceil(tokens * math.expm1(5 * step / steps) / math.expm1(5)), max(tokens // 16, 1)


# (most tokens that stay masked after a step, fewest tokens that it fills).
SCHEDULES = {
    _native.number("SCHEDULE", "cosine"): _cosine,
    _native.number("SCHEDULE", "exponential"): _exponential,
    _native.number("SCHEDULE", "cosine-ceil"): _cosine_ceil,
}
ORDERS = (_CONFIDENCE, _RANDOM, _LARGEST)


def _uniform(seed: int, step: int, frame: int, draw: int, tokens: int) -> Any:
    return (_native.philox(seed, step, frame, draw, tokens)[:, 0] + 0.5) * 2.0**-32


def fill(logits_PO: Any, ids_P: Any, given: dict[str, Any], f: Form) -> Any:
    """One refinement: ids with fewer masks. Each digit of an id has V logits; the mask is V^K."""
    P, V = logits_PO.shape[0], logits_PO.shape[1] // f.factors
    logits_PKV = logits_PO.reshape(P, f.factors, V)
    masked = ids_P == V**f.factors
    top, best = logits_PKV.max(-1, keepdims=True), mx.argmax(logits_PKV, -1)
    below, first = logits_PKV - top, mx.arange(V) == best[..., None]

    def log_sum(scaled_PKV: Any) -> Any:
        """log of a sum of exp whose term at `best` is exp(0) = 1. The rest is rounded as in 1 + rest in double."""
        rest = mx.where(first, 0.0, mx.exp(scaled_PKV)).sum(-1)
        return mx.log1p(mx.where(rest < 2.0**-28, mx.round(rest * 2.0**52) * 2.0**-52, rest))

    at_temperature = below if f.unit else below * given["inverse"]
    digits = best
    if not f.greedy:
        running = mx.cumsum(mx.exp(at_temperature), -1)
        digits = mx.minimum((running <= given["u"][..., None] * running[..., -1:]).sum(-1), V - 1)
    chosen = (digits.astype(ids_P.dtype) * mx.array([V**k for k in range(f.factors)], ids_P.dtype)).sum(-1)
    log_p = None
    if f.threshold or (f.order == _CONFIDENCE and not f.last):
        log_p = (mx.take_along_axis(below, digits[..., None], -1)[..., 0] - log_sum(below)).sum(-1)
    if f.threshold:
        sure = masked & (log_p >= given["least_log_p"])
        ids_P, masked = mx.where(sure, chosen, ids_P), masked & ~sure
    if f.last:
        return mx.where(masked, chosen, ids_P)
    if f.order == _RANDOM:
        rank = given["rank"]
    else:
        quality = -log_sum(at_temperature).sum(-1) if f.order == _LARGEST else log_p
        rank = descending(quality + given["noise"] if f.noisy else quality)
    # One integer per token, smaller is better: quality, then position. So the result does not depend on tie order.
    place = rank.astype(mx.uint64) * (1 << 32) + mx.arange(P).astype(mx.uint64)
    place = mx.where(masked, place, mx.array(np.array(_WORST)))
    n = masked.astype(mx.int32).sum()
    count = mx.minimum(mx.maximum(n - given["left"], given["least"]), n)
    bar = mx.sort(place)[mx.maximum(count - 1, 0)]
    return mx.where(masked & (count > 0) & (place <= bar), chosen, ids_P)


def descending(quality: Any) -> Any:
    """float32 -> uint32 in reversed order; NaN comes last."""
    bits = mx.where(mx.isnan(quality), -mx.inf, mx.where(quality == 0, 0.0, quality)).view(mx.uint32)  # -0 as 0
    return mx.where(bits >> 31 == 1, bits, ~bits & 0x7FFFFFFF)
