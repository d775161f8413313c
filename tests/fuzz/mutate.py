"""Bytes, numbers and JSON changed at random."""

from __future__ import annotations

import copy
import random
from typing import Any

WHOLE = (0, 1, 2, 3, 7, 8, 31, 32, 33, 64, 127, 128, 255, 256, 1023, 1024, 4096, 65535, 65536, 2**20, 2**24, 2**31 - 1,
         2**31, 2**32 - 1, 2**32, 2**62, 2**63 - 1, 2**63, 2**64 - 1)  # fmt: skip
ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 2**31, 2**63, 10**400, 0.5, -0.0, 1e308, "", "x", "\x00", "\ud800", "9" * 5000, [], {},
    [[]], {"": None}, [None] * 100,
)  # fmt: skip


def number(rng: random.Random, most: int) -> int:
    """A number in 0…most, mostly an edge case."""
    return rng.choice([n for n in WHOLE if n <= most]) if rng.random() < 0.8 else rng.randint(0, most)


def data(raw: bytes, rng: random.Random) -> bytes:
    """The bytes, with some changed, removed, inserted, repeated or cut off."""
    out = bytearray(raw)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        if not out:
            break
        kind, at = rng.random(), rng.randrange(len(out))
        if rng.random() < 0.4:
            at = min(at, rng.randrange(200))  # here are lengths and counts
        length = rng.choice((1, 2, 4, 8, 50))
        if kind < 0.45:
            out[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        elif kind < 0.6:
            out[at : at + length] = number(rng, 256**length - 1 if length <= 8 else 255).to_bytes(
                max(length, 1), "little"
            )[:length]
        elif kind < 0.75:
            del out[at : at + length]
        elif kind < 0.85:
            out[at:at] = rng.randbytes(length)
        elif kind < 0.95:
            out[at:at] = out[max(0, at - length) : at] * rng.choice((1, 3, 40))
        else:
            del out[at:]
    return bytes(out)


def tree(value: Any, rng: random.Random) -> Any:
    """A copy of a JSON value with something in it changed, dropped, doubled or put elsewhere."""
    value = copy.deepcopy(value)
    for _ in range(rng.choice((1, 1, 2, 3))):
        places = list(_places(value))
        if not places:
            return copy.deepcopy(rng.choice(ODD))
        holder, key = rng.choice(places)
        kind = rng.random()
        if kind < 0.5:
            holder[key] = copy.deepcopy(rng.choice(ODD))  # a copy, because what is inserted may be changed later
        elif kind < 0.7:
            other, at = rng.choice(places)
            holder[key] = copy.deepcopy(other[at])
        elif kind < 0.85 or not isinstance(holder, list):
            del holder[key]
        else:
            holder[key:key] = [copy.deepcopy(holder[key])] * rng.choice((1, 2, 50))
        if isinstance(holder[key] if _has(holder, key) else None, int) and rng.random() < 0.5:
            holder[key] = rng.choice((-1, 1)) * number(rng, 2**64)
    return value


def _has(holder: Any, key: Any) -> bool:
    return key in holder if isinstance(holder, dict) else 0 <= key < len(holder)


def _places(value: Any, depth: int = 0) -> Any:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(items):
        yield value, key
        if depth < 6:
            yield from _places(inner, depth + 1)
