"""The figures of docs/families.md: what each type costs, and frames per second beside the upstream.

    python tests/golden/measure_genieredux.py FOLDER [UPSTREAM] [--model guided] [--threads 1] [--frames 4] [--rounds 2]

FOLDER is one that make_genieredux.py wrote; UPSTREAM, a checkout of GenieRedux (needs einops, beartype), is timed in
turn with ours: its interactive generation one frame at a time from one picture, its tokenizer, a pass of its dynamics
per frame and its decoder at the end, torch with as many threads. Limit both alike with taskset.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from make_genieredux import ACTIONS, SIZES, upstream

from genie_cpp import Model, World
from genie_cpp.convert.writer import convert


def log_softmax(x: np.ndarray) -> np.ndarray:
    x = x.astype(np.float64)
    x -= x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def logits(model: Model, want: dict[str, np.ndarray]) -> np.ndarray:
    """[T-1, P, V] of the frames after each, under the upstream's tokens."""
    state = model.state("dynamics")
    pairs = zip(want["tokens"][:-1], want["forced_actions"], strict=True)
    return np.stack([state.forward(frame.astype(np.int32), int(action)) for frame, action in pairs])


def costs(models: dict[str, Model], want: dict[str, np.ndarray]) -> None:
    reference = log_softmax(want["logits"])
    tokens = want["tokens"][: len(want["decoded"])]
    for name, model in models.items():
        got = log_softmax(logits(model, want))
        divergence = (np.exp(reference) * (reference - got)).sum(-1).mean()
        first = (reference.argmax(-1) == got.argmax(-1)).mean()
        again = (model.tokenize(want["video"]) == want["tokens"]).mean()
        error = np.mean((model.detokenize(tokens) / 255 - want["decoded"].clip(0, 1)) ** 2)
        print(
            f"{name}: {model.path.stat().st_size / 2**20:.2f} MiB, KL {divergence:.2g}, same first choice {first:.2%}, "
            f"same token of a patch {again:.2%}, PSNR of decoded frames {-10 * np.log10(max(error, 1e-10)):.1f} dB",
            flush=True,
        )


def ours(model: Model, picture: np.ndarray, count: int) -> Callable[[], None]:
    world = World(model)

    def run() -> None:
        world.reset(picture)
        for index in range(count):
            world.step(index % ACTIONS)

    return run


def theirs(path: Path, folder: Path, name: str, want: dict[str, np.ndarray], count: int) -> Callable[[], None]:
    models = upstream(path)
    size = next(size for size in SIZES.values() if size["codes"] == want["logits"].shape[-1])
    guided = name == "guided"
    tokenizer = models.Tokenizer(**size["common"], **size["codec"], codebook_size=size["codes"])
    tokenizer.load_state_dict(torch.load(folder / "tokenizer.pt", weights_only=True)["model"])
    maskgit = models.MaskGit(
        **size["common"],
        **size["dynamics"],
        is_guided=guided,
        action_dim=ACTIONS,
        num_tokens=size["codes"],
        max_seq_len=size["max_seq_len"][name],
    )
    dynamics = models.Dynamics(maskgit=maskgit, inference_steps=1)
    if guided:
        world = models.GenieReduxGuided(tokenizer, dynamics)
    else:
        lam = models.LatentActionModel(**size["common"], **size["codec"], codebook_size=ACTIONS)
        world = models.GenieRedux(tokenizer, lam, dynamics)
    world.load_state_dict(torch.load(folder / f"{name}.pt", weights_only=True)["model"])
    world.eval()
    prompt = (torch.from_numpy(want["video"][:1]).float() / 255).permute(3, 0, 1, 2)[None]

    @torch.no_grad()
    def run() -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            world.generate_interactive_video(
                prime_frames=prompt, actions=torch.arange(count)[None] % ACTIONS, num_frames=count, dream_length=1
            )

    return run


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("upstream", type=Path, nargs="?")
    parser.add_argument("--model", choices=("guided", "genieredux"), default="guided")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--frames", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--only-speed", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with np.load(args.folder / "expected.npz") as data, tempfile.TemporaryDirectory() as folder:
        want = {key.removeprefix(f"{args.model}_"): value for key, value in data.items()}
        models = {}
        for name in ("f32", "f16", "q8_0", "q4_0"):
            parts = [args.folder / "tokenizer.pt", args.folder / f"{args.model}.pt"]
            convert(parts, Path(folder) / f"{name}.gguf", name)
            models[name] = Model.open(Path(folder) / f"{name}.gguf", args.threads)
        if not args.only_speed:
            costs(models, want)
        runs = {f"ours, {name}": ours(models[name], want["video"][0], args.frames) for name in ("q8_0", "q4_0", "f32")}
        if args.upstream:
            runs["upstream"] = theirs(args.upstream, args.folder, args.model, want, args.frames)
        best, processor = dict.fromkeys(runs, float("inf")), dict.fromkeys(runs, float("inf"))
        for _ in range(args.rounds):
            for name, run in runs.items():
                wall, spent = time.perf_counter(), time.process_time()
                run()
                best[name] = min(best[name], (time.perf_counter() - wall) / args.frames)
                processor[name] = min(processor[name], (time.process_time() - spent) / args.frames)
        for name, seconds in best.items():
            print(
                f"{name}: {1 / seconds:.2f} frames/s, {1e3 * seconds:.0f} ms a frame ({1e3 * processor[name]:.0f} ms "
                f"of processor time), {args.frames} frames from one picture, {args.threads} threads, "
                f"best of {args.rounds}"
            )


if __name__ == "__main__":
    main()
