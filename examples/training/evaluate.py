"""Measure a world on episodes it was never trained on, as it plays (through the C core):

    python examples/training/evaluate.py -m world.gguf --data data/meadow --table docs/world.md --strip docs/actions.png

Prints reconstruction PSNR, the sampled next frame against copying the last one, the paper's controllability
(delta-4 PSNR, section 4 of arXiv 2402.15391), latent x true actions, and how 100 frames of play hold together.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from PIL import Image
from rich.progress import track

from genie_cpp import Model, World


def psnr(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Per frame, dB, of uint8 [..., H, W, 3]; identical frames 100 dB."""
    mse = ((a.astype(np.float32) - b.astype(np.float32)) ** 2).mean((-3, -2, -1)) / 255**2
    return -10 * np.log10(np.maximum(mse, 1e-10))


def overall(a: np.ndarray, b: np.ndarray) -> float:
    """PSNR of the mean squared error over all pixels given."""
    return float(-10 * np.log10(((a.astype(np.float32) - b.astype(np.float32)) ** 2).mean() / 255**2))


def one_step(world: World, clips: np.ndarray, context: int) -> dict[str, float]:
    """Sample frame `context` after the true frames before it, with the action the LAM infers."""
    real, sampled = [], []
    for clip in track(clips, "next frame"):
        actions = world.model.infer_actions(clip[: context + 1])
        world.reset(clip[:context], seed=len(real), actions=actions[:-1].tolist())
        sampled.append(world.step(int(actions[-1])))
        real.append(clip[context])
    last, next_, guess = clips[:, context - 1], np.stack(real), np.stack(sampled)
    moving = (last != next_).any((1, 2, 3))
    return {
        "moving_pairs": int(moving.sum()),
        "copy_db": overall(last[moving], next_[moving]),
        "sampled_db": overall(guess[moving], next_[moving]),
        "copy_mean_db": float(psnr(last[moving], next_[moving]).mean()),
        "sampled_mean_db": float(psnr(guess[moving], next_[moving]).mean()),
    }


def controllability(world: World, clips: np.ndarray, t: int = 4) -> dict[str, float]:
    """delta_t PSNR = PSNR(x_t, with inferred actions) - PSNR(x_t, with random actions), from one prompt frame."""
    rng = np.random.default_rng(0)
    inferred, random = [], []
    for index, clip in enumerate(track(clips, "controllability")):
        actions = world.model.infer_actions(clip[: t + 1])
        world.reset(clip[0], seed=index)
        inferred.append(psnr(world.rollout(actions.tolist())[-1], clip[t]))
        world.reset(clip[0], seed=index)
        random.append(psnr(world.rollout(rng.integers(world.model.info.action_count, size=t).tolist())[-1], clip[t]))
    return {
        "delta4_psnr": float(np.mean(inferred) - np.mean(random)),
        "inferred_db": float(np.mean(inferred)),
        "random_db": float(np.mean(random)),
    }


def action_table(model: Model, clips: np.ndarray, true_actions: np.ndarray) -> np.ndarray:
    """Counts [latent, true action]."""
    table = np.zeros((model.info.action_count, int(true_actions.max()) + 1), int)
    for clip, actions in zip(track(clips, "actions"), true_actions, strict=True):
        np.add.at(table, (model.infer_actions(clip), actions), 1)
    return table


def strip(world: World, prompt: np.ndarray, frames: int = 8) -> np.ndarray:
    """One row per latent action: the prompt, then the same action held."""
    rows = []
    for action in range(world.model.info.action_count):
        first = world.reset(prompt, seed=1)
        rows.append(np.concatenate([first, *world.rollout([action] * frames)], 1))
    return np.concatenate(rows)


def endurance(world: World, prompts: np.ndarray, frames: int = 100) -> dict[str, float]:
    """Play random held actions; the tokenizer's own round trip of what is seen shows whether it is still a picture."""
    rng = np.random.default_rng(1)
    early, late = [], []
    for index, prompt in enumerate(track(prompts, "endurance")):
        world.reset(prompt, seed=index)
        held = np.repeat(rng.integers(world.model.info.action_count, size=frames // 4), 4)
        video = world.rollout(held.tolist())
        for keep, part in ((early, video[:8]), (late, video[-8:])):
            keep.append(psnr(part, world.model.detokenize(world.model.tokenize(part))).mean())
    return {"round_trip_first_8_db": float(np.mean(early)), "round_trip_last_8_db": float(np.mean(late))}


def long_play(world: World, episodes: np.ndarray, frames: int = 100) -> dict[str, float]:
    """From one prompt frame and the actions the LAM infers, `frames` frames against what really happened."""
    db = []
    for index, video in enumerate(track(episodes[:, : frames + 1], "long play")):
        world.reset(video[0], seed=index)
        db.append(psnr(world.rollout(world.model.infer_actions(video).tolist()), video[1:]))
    return {
        f"long_play_frames_{a + 1}_to_{a + 10}_db": float(np.mean(np.stack(db)[:, a : a + 10])) for a in (0, 40, 90)
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--model", type=Path, help="default: the bundled world")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--clips", type=int, default=200)
    parser.add_argument("--strip", type=Path, help="write a picture with a row of frames per latent action")
    parser.add_argument("--prompt", type=int, default=0, help="test episode for --strip")
    parser.add_argument("--table", type=Path, help="write the figures as markdown")
    parser.add_argument("--names", default="", help="true actions' names, comma-separated")
    args = parser.parse_args()
    model = Model.open(args.model)
    world = World(model)
    T = model.info.context_length
    with np.load(args.data / "test.npz") as data:
        frames, actions = data["frames"], data["actions"]
    starts = np.random.default_rng(0).integers(0, frames.shape[1] - T, args.clips)
    which = np.arange(args.clips) % len(frames)
    clips = np.stack([frames[e, s : s + T] for e, s in zip(which, starts, strict=True)])
    true = np.stack([actions[e, s : s + T - 1] for e, s in zip(which, starts, strict=True)])
    rebuilt = np.stack([model.detokenize(model.tokenize(clip)) for clip in track(clips, "reconstruction")])
    result: dict[str, float] = {
        "reconstruction_db": overall(rebuilt, clips),
        "reconstruction_mean_db": float(psnr(rebuilt, clips).mean()),
        **one_step(world, clips, T // 2),
        **controllability(world, clips),
        **endurance(world, clips[:8, 0]),
    }
    if frames.shape[1] > 100:
        result |= long_play(world, frames[:16])
    result = {k: round(v, 2) for k, v in result.items()}
    table = action_table(model, clips, true)
    names = args.names.split(",") if args.names else [str(i) for i in range(table.shape[1])]
    lines = ["| figure | value |", "|---|---:|", *(f"| {k} | {v} |" for k, v in result.items()), ""]
    lines += ["| latent | " + " | ".join(names) + " |", "|---|" + "---:|" * len(names)]
    lines += [f"| {i} | " + " | ".join(str(n) for n in row) + " |" for i, row in enumerate(table)]
    print(json.dumps(result), *lines, sep="\n")
    if args.table:
        args.table.write_text("\n".join(lines) + "\n")
    if args.strip:
        Image.fromarray(strip(world, frames[args.prompt, 0])).quantize(256).save(args.strip)


if __name__ == "__main__":
    main()
