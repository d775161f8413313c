"""Walk through a game at random and record the frames:

    python examples/training/collect.py examples/meadow -o data/meadow
    python examples/training/collect.py examples/meadow --film play.mp4 --length 3000

The second line makes a film of one walk, as a screen recorder does: five times as large, three frames a step, lossy.

The first one makes arrays. `train.npz` and `test.npz` have frames [N, L, H, W, 3] uint8, actions [N, L-1] uint8 and,
for a game that is one place: places [N, L] (which picture in `places.npz`) and blocked [N, L-1] bool (a wall was in the
way). `places.npz` has frames [K, H, W, 3], each place without the player; mover [4]: the player's top, left, bottom and
right, in pixels; and landmarks [M, 6] with landmark_names: the place, which landmark is completely visible there, and
its box as in mover. `starts/` has pictures to start from. Training uses only the frames; the rest serves to name latent
actions and to measure.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from rich.progress import track

TEST_SEED = 10_000_000  # walks from here on are never used for training


def film(path: Path, frames_THWC: np.ndarray, scale: int = 5, repeat: int = 3, fps: int = 30) -> None:
    """Write a film with each frame `repeat` times. Needs genie_cpp[video]."""
    import imageio_ffmpeg

    size = frames_THWC.shape[2] * scale, frames_THWC.shape[1] * scale
    writer = imageio_ffmpeg.write_frames(str(path), size, fps=fps, macro_block_size=1)
    writer.send(None)
    for frame in track(frames_THWC, "film"):
        pixels = frame.repeat(scale, 0).repeat(scale, 1).tobytes()
        for _ in range(repeat):
            writer.send(pixels)
    writer.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("game", type=Path, help="a folder with a game.py")
    to = parser.add_mutually_exclusive_group(required=True)
    to.add_argument("-o", "--output", type=Path)
    to.add_argument("--film", type=Path)
    parser.add_argument("--episodes", type=int, default=800)
    parser.add_argument("--test-episodes", type=int, default=24)
    parser.add_argument("--length", type=int, default=64, help="frames per episode")
    parser.add_argument("--test-length", type=int, default=512)
    args = parser.parse_args()
    sys.path.insert(0, str(args.game))
    import game

    if args.film:
        film(args.film, game.episode(0, args.length)["frames"])
        return
    args.output.mkdir(parents=True, exist_ok=True)
    for split, first, count, length in (
        ("train", 0, args.episodes, args.length),
        ("test", TEST_SEED, args.test_episodes, args.test_length),
    ):
        walks = [game.episode(first + i, length) for i in track(range(count), f"{split} episodes")]
        np.savez_compressed(args.output / f"{split}.npz", **{k: np.stack([w[k] for w in walks]) for k in walks[0]})
    names, landmarks = game.landmarks()
    np.savez_compressed(
        args.output / "places.npz",
        frames=game.pictures(),
        mover=np.array(game.MOVER),
        landmarks=landmarks,
        landmark_names=np.array(names),
    )
    (args.output / "starts").mkdir(exist_ok=True)
    for number, (name, picture) in enumerate(game.starts().items()):
        Image.fromarray(picture).save(args.output / "starts" / f"{number + 1:02}-{name}.png", optimize=True)


if __name__ == "__main__":
    main()
