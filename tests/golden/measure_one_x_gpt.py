"""The figures of docs/families.md for 1xgpt: what each type costs, seconds per frame beside the upstream's code.

    python tests/golden/measure_one_x_gpt.py costs FOLDER
    python tests/golden/measure_one_x_gpt.py speed UPSTREAM [--size 35m] [--threads 1] [--rounds 3]

FOLDER is one that make_one_x_gpt.py wrote. `speed` makes a random checkpoint of the size with the upstream's classes
and times, in turn: one frame of two steps after eight, and one picture decoded; the upstream as its generate.py does
it, in float32 and, for the pictures, in bfloat16 as its visualize.py has it; torch with as many threads. Limit both
alike with taskset.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import make_one_x_gpt as make
import numpy as np
import torch

from genie_cpp import Model, World
from genie_cpp.convert.writer import convert

TYPES = ("f32", "f16", "q8_0", "q4_0")
PROMPT = 8


def log_softmax(x: np.ndarray) -> np.ndarray:
    x = x.astype(np.float64)
    x -= x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def costs(folder: Path) -> None:
    """Against the upstream's own logits, tokens and pictures, for both kinds of checkpoint."""
    with np.load(folder / "expected.npz") as data, tempfile.TemporaryDirectory() as made:
        want = dict(data)
        for kind in make.KINDS:
            for type in TYPES:
                path = Path(made) / "w.gguf"
                convert([folder / kind, folder / "magvit2.ckpt"], path, type, overwrite=True)
                model = Model.open(path)
                state = model.state("dynamics")
                for ids in want[f"{kind}_prompt"]:
                    state.forward(ids.astype(np.int32), output=False)
                got = [state.forward(ids.astype(np.int32), commit=False) for ids in want[f"{kind}_step_ids"]]
                K = model.info.factor_count
                shape = (*want[f"{kind}_step_ids"].shape, K, model.info.vocabulary // K)
                ours, theirs = (log_softmax(np.reshape(x, shape)) for x in (got, want[f"{kind}_step_logits"]))
                divergence = (np.exp(theirs) * (theirs - ours)).sum((-1, -2)).mean()
                first = (theirs.argmax(-1) == ours.argmax(-1)).all(-1).mean()
                bits = 2 ** np.arange(model.info.tokenizer_latent_length)
                again, tokens = model.tokenize(want["video"]), want["tokens"]
                flipped = ((again[..., None] & bits > 0) != (tokens[..., None] & bits > 0)).mean()
                exact = (want["decoded"].clip(-1, 1) + 1) / 2 * 255
                error = np.mean((model.detokenize(tokens).astype(float) - exact) ** 2) / 255**2
                print(
                    f"{kind}, {type}: {path.stat().st_size / 2**20:.2f} MiB, KL {divergence:.2g}, same first choice "
                    f"{first:.2%}, same token {(again == tokens).mean():.2%} ({flipped:.2%} of bits change), "
                    f"PSNR of decoded frames {-10 * np.log10(max(error, 1e-10)):.1f} dB",
                    flush=True,
                )


def speed(upstream: Path, size: str, threads: int, rounds: int) -> None:
    make.import_upstream(upstream)
    from genie.config import GenieConfig  # type: ignore[import-not-found]
    from genie.st_mask_git import STMaskGIT  # type: ignore[import-not-found]

    torch.set_num_threads(threads)
    torch.manual_seed(1)
    runs: dict[str, Callable[[], object]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tokenizer = make.make_tokenizer(make.SIZES[size]["tokenizer"], folder / "magvit2.ckpt", False)
        config = GenieConfig(**make.SIZES[size]["dynamics"], num_factored_vocabs=2, qk_norm=False)
        dynamics = STMaskGIT(config)
        dynamics.init_weights()
        make.randomise(dynamics, True)
        dynamics.save_pretrained(folder / "model", config=vars(config))
        dynamics.eval()
        ids = np.random.default_rng(0).integers(0, config.image_vocab_size, (PROMPT, config.S))
        for type in ("q4_0", "q8_0", "f32"):
            convert([folder / "model", folder / "magvit2.ckpt"], folder / f"{type}.gguf", type)
            world = World(Model.open(folder / f"{type}.gguf", threads))
            print(f"{type}: {world.model.path.stat().st_size / 2**20:.1f} MiB, {world.model.info.parameter_count():,}")
            world.reset_tokens(ids)
            decoder, codes = world.model.state("tokenizer.decoder"), world.model.codes(ids[0].astype(np.int32))
            picture = world.frame
            encoder = world.model.state("tokenizer.encoder")
            runs[f"ours, {type}, a frame with its picture"] = lambda world=world: world.step()
            runs[f"ours, {type}, a picture decoded"] = lambda d=decoder, c=codes: d.forward(c)
            runs[f"ours, {type}, a picture encoded"] = lambda m=world.model, e=encoder, p=picture: m.encode_frame(e, p)
        side = dynamics.h
        x = torch.full((1, config.T, side, side), dynamics.mask_token_id)
        x[0, :PROMPT] = torch.from_numpy(ids).reshape(PROMPT, side, side)
        z = (torch.randint(2, (1, 18, side, side)) * 2 - 1).float()
        half = copy.deepcopy(tokenizer.decoder).bfloat16()

        @torch.no_grad()
        def decoded(net: torch.nn.Module, z: torch.Tensor) -> object:
            return net(z)

        runs["upstream, tokens of a frame"] = lambda: dynamics.maskgit_generate(x.clone(), PROMPT, maskgit_steps=2)
        runs["upstream, a picture decoded in float32"] = lambda: decoded(tokenizer.decoder, z)
        runs["upstream, a picture decoded in bfloat16"] = lambda: decoded(half, z.bfloat16())
        wall, processor = dict.fromkeys(runs, float("inf")), dict.fromkeys(runs, float("inf"))
        for _ in range(rounds):
            for what, run in runs.items():
                started, spent = time.perf_counter(), time.process_time()
                run()
                processor[what] = min(processor[what], time.process_time() - spent)
                wall[what] = min(wall[what], time.perf_counter() - started)
        for what, seconds in wall.items():
            print(f"{what}: {seconds:.3f} s, {processor[what]:.3f} s of processor time, {threads} threads")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("costs", "speed"))
    parser.add_argument("folder", type=Path, help="FOLDER, or UPSTREAM for speed")
    parser.add_argument("--size", choices=make.SIZES, default="35m")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    if args.what == "costs":
        costs(args.folder)
    else:
        speed(args.folder, args.size, args.threads, args.rounds)


if __name__ == "__main__":
    main()
