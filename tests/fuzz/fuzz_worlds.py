"""Random models and random calls: no crash, and the same bytes for any number of threads on every instruction set."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np

from genie_cpp import Model, Sampler, World
from genie_cpp.backends._native import isas
from genie_cpp.cli import synthetic
from genie_cpp.errors import ModelError
from genie_cpp.spec.hparams import HParams
from genie_cpp.spec.stack_spec import STACK_KEYS, SUBLAYERS, StackParams

# Fields that follow from the stack's role or from another field.
NOT_HERE = ("sublayers", "unnormed", "norm_position", "kv_input", "input_norm", "first_frame")


def _stack(rng: random.Random, kinds: list[str], dynamics: bool, windowed: bool) -> StackParams:
    """Values come from the description, so that new ones are tried too."""
    words = {key.field: rng.choice(key.choices) for key in STACK_KEYS if key.choices and key.field not in NOT_HERE}
    experts, post = rng.choice((None, None, None, 2, 3)), rng.random() < 0.3
    return StackParams(
        **words,  # type: ignore[arg-type]
        block_count=rng.randint(1, 2),
        embedding_length=rng.choice((8, 17, 32, 48)),
        feed_forward_length=rng.choice((8, 19, 32, 64)),
        head_count=rng.choice((1, 2, 3)),
        key_length=rng.choice((4, 8, 16, 24, 32)),
        qk_norm=rng.random() < 0.5,
        norm_epsilon=rng.choice((1e-5, 1e-6)),
        bias=rng.random() < 0.5,
        sublayers=tuple(kinds),
        unnormed=tuple(kind for kind in ("spatial", "temporal", "spacetime", "ffn") if rng.random() < 0.1),
        norm_position="post" if post else "pre",
        kv_input="norm" if post else rng.choice(("norm", "residual")),
        input_norm="none" if dynamics else rng.choice(("none", "dual")),
        first_frame="none" if dynamics or not windowed else rng.choice(("none", "none", "input")),
        expert_count=experts,
        expert_used_count=None if experts is None else rng.randint(1, experts),
    )


def random_params(rng: random.Random) -> HParams:
    """Hyper-parameters of a small model, out of all that docs/gguf.md allows. Raises ModelError for impossible ones."""
    kind = rng.choice(("vit", "st-vivit", "c-vivit"))
    mixing = {"vit": [], "st-vivit": ["temporal"], "c-vivit": ["spacetime"]}[kind]
    optional = [name for name in SUBLAYERS if name not in ("temporal", "spacetime")]

    def kinds(more: list[str]) -> list[str]:
        chosen = rng.sample(optional, rng.randint(1, 4)) + more
        rng.shuffle(chosen)
        return chosen

    patch = rng.choice((2, 4))
    side = patch * rng.randint(2, 4), patch * rng.randint(2, 4)
    lam = rng.random() < 0.6
    actions = rng.randint(1, 9) if lam or rng.random() < 0.8 else 0
    stacks = {
        "tokenizer.encoder": _stack(rng, kinds(mixing), False, bool(mixing)),
        "tokenizer.decoder": _stack(rng, kinds(mixing), False, bool(mixing)),
        **({"lam.encoder": _stack(rng, kinds(["temporal"]), False, True)} if lam else {}),
        "dynamics": _stack(rng, kinds(["temporal"]), True, True),
    }
    fsq = rng.random() < 0.3
    length = rng.choice((2, 3, 4)) if fsq else rng.choice((3, 8, 32))
    codes = rng.choice((2, 3)) ** length if fsq else rng.choice((2, 7, 33, 64))
    hp = HParams(
        side[0], side[1], rng.randint(2, 6), actions, rng.choice(("half", "exact", "retokenize")), kind, patch, codes,
        length, patch if lam else 0, rng.choice((2, 6)) if lam else 0, lam and rng.random() < 0.5, rng.randint(1, 5),
        rng.choice((0.0, 0.5, 1.0)), rng.choice(("confidence", "random", "largest-probability")),
        rng.choice((0.0, 1.0)), stacks, tokenizer_quantizer="fsq" if fsq else "codebook",
        sampler_schedule=rng.choice(("cosine", "exponential", "cosine-ceil")),
        prediction=rng.choice(("same-frame", "same-frame", "next-frame")),
        action_conditioning=rng.choice(("add", "film")) if actions else "add",
    )  # fmt: skip
    hp.check()
    return hp


def random_model(rng: random.Random, folder: Path) -> Path:
    """A file of random weights."""
    folder.mkdir(exist_ok=True)
    while True:
        try:
            return synthetic.write(random_params(rng), "random", rng.choice(("f32", "f16", "q8_0", "q4_0")), folder)
        except ModelError:
            continue


def _played(path: Path, threads: int, seed: int) -> list[bytes]:
    """The results of a random sequence of calls, which is determined by the seed."""
    rng = random.Random(seed)
    model = Model.open(path, threads, "cpu")
    hp = model.info
    pixels = np.random.default_rng(seed).integers(0, 256, (4, hp.frame_height, hp.frame_width, 3), np.uint8)
    world, said = World(model, window=rng.choice((None, "half", "exact"))), []
    said.append(world.reset(pixels[0], seed).tobytes())
    saved = world.save()
    for _ in range(rng.randint(3, 14)):
        call = rng.randrange(8)
        if call < 4:
            said.append(world.step(rng.randrange(hp.choices)).tobytes())
        elif call == 4:
            world = world.fork()
        elif call == 5:
            saved, back = world.save(), saved
            if rng.random() < 0.5:
                world.restore(back)
        elif call == 6:
            world.sampler = Sampler(
                rng.randint(1, 6), rng.choice((0.0, 0.7)), rng.choice(("confidence", "random")), rng.choice((0.0, 2.0)),
                rng.choice((0.0, 0.5)),
            )  # fmt: skip
        else:
            count = rng.randint(1, 3)
            actions = [rng.randrange(hp.choices) for _ in range(count - 1)]
            said.append(world.reset(pixels[:count], seed, None if hp.has_lam else actions).tobytes())
        said.append(world.save())
    return said


def prepare(folder: Path) -> Callable[[int], None]:
    def one(seed: int) -> None:
        rng = random.Random(seed)
        path = random_model(rng, folder)
        os.environ["GENIE_ISA"] = rng.choice(isas())
        alone = _played(path, 1, seed)
        threads = rng.choice((2, 3, 8))
        assert _played(path, threads, seed) == alone, f"{threads} threads give other bytes than one"

    return one
