"""Model files damaged in structure and in bytes give a GGUFError, a ModelError, or a world that plays."""

from __future__ import annotations

import copy
import random
import struct
from collections.abc import Callable
from pathlib import Path

import mutate
import numpy as np
from draft import ARRAY, BOOL, CODES, F32, F64, STRING, U8, U32, U64, Draft, Pair, strings, text
from fuzz_worlds import random_model

from genie_cpp import Model, World
from genie_cpp.errors import GGUFError, ModelError, NativeError


def bent(draft: Draft, rng: random.Random) -> Draft:
    draft = copy.deepcopy(draft)
    for _ in range(rng.choice((1, 1, 2, 3))):
        if rng.random() < 0.6:
            pair = rng.choice(draft.pairs)
            _bend_pair(draft, pair, rng)
        else:
            _bend_tensor(draft, rng)
    if rng.random() < 0.05:
        draft.version = mutate.number(rng, 2**32 - 1)
    if rng.random() < 0.05:
        draft.tensor_count = mutate.number(rng, 2**64 - 1)
    if rng.random() < 0.05:
        draft.pair_count = mutate.number(rng, 2**64 - 1)
    return draft


def _bend_pair(draft: Draft, pair: Pair, rng: random.Random) -> None:
    kind = rng.randrange(8)
    if kind < 3 and pair.code == U32:
        pair.payload = struct.pack("<I", mutate.number(rng, 2**32 - 1))
    elif kind < 3 and pair.code == F32:
        pair.payload = struct.pack("<f", rng.choice((0.0, -1.0, 1e-30, 1e30, float("nan"), float("inf"), rng.random())))
    elif kind < 3 and pair.code == STRING:
        pair.payload = text(
            rng.choice(("", "fsq", "vit", "conv", "half", "exact", "layernorm", "none", "\x1b[2J", "é" * 300))
        )
    elif kind < 3 and pair.code == ARRAY:
        pair.payload = strings(*rng.choices(("spatial", "temporal", "ffn", "peg", "x", ""), k=rng.randrange(9)))
    elif kind == 3:
        pair.code = rng.choice((*(code for code, _ in CODES.values()), U8, U64, F64, ARRAY, STRING, BOOL, 99))
    elif kind == 4:
        draft.pairs.remove(pair)
    elif kind == 5:
        draft.pairs.append(copy.deepcopy(pair))
    elif kind == 6:
        pair.key = mutate.data(pair.key, rng)
    else:
        pair.payload = mutate.data(pair.payload, rng)


def _bend_tensor(draft: Draft, rng: random.Random) -> None:
    tensor = rng.choice(draft.tensors)
    kind = rng.randrange(8)
    if kind == 0:
        tensor.dims[rng.randrange(len(tensor.dims))] = mutate.number(rng, 2**64 - 1)
    elif kind == 1:
        tensor.code = rng.choice((0, 1, 2, 3, 8, 12, 30, 2**31, 2**32 - 1))
    elif kind == 2:
        tensor.offset = mutate.number(rng, 2**64 - 1)
    elif kind == 3:
        tensor.name = mutate.data(tensor.name, rng)
    elif kind == 4:
        draft.tensors.remove(tensor)
    elif kind == 5:
        draft.tensors.append(copy.deepcopy(tensor))
    elif kind == 6:
        tensor.data = mutate.data(tensor.data, rng)
    else:
        rng.shuffle(tensor.dims)


def prepare(folder: Path) -> Callable[[int], None]:
    bases = [random_model(random.Random(seed), folder / f"base{seed}") for seed in range(12)]
    drafts, raws = [Draft.of(path) for path in bases], [path.read_bytes() for path in bases]
    path = folder / "bent.gguf"

    def one(seed: int) -> None:
        rng = random.Random(seed)
        which = rng.randrange(len(bases))
        raw = bent(drafts[which], rng).raw() if rng.random() < 0.7 else mutate.data(raws[which], rng)
        path.write_bytes(raw)
        try:
            world = World(Model.open(path, 1, "cpu"))
        except (GGUFError, ModelError, NativeError) as error:
            assert "\n" not in str(error) and "\x1b" not in str(error), repr(str(error))
            assert len(str(error)) < 1000, len(str(error))
            return
        hp = world.model.info
        if hp.frame_width * hp.frame_height <= 1 << 16:
            world.reset(np.zeros((hp.frame_height, hp.frame_width, 3), np.uint8))
            for _ in range(2):
                frame = world.step(0)
            assert frame.shape == (hp.frame_height, hp.frame_width, 3)

    return one
