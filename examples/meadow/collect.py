"""Play Meadow at random and keep the frames: python examples/meadow/collect.py -o data/meadow"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from game import episode
from rich.progress import track

TEST_SEED = 10_000_000  # levels from here on are never trained on


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--episodes", type=int, default=2500)
    parser.add_argument("--test-episodes", type=int, default=64)
    parser.add_argument("--length", type=int, default=64, help="frames per episode")
    parser.add_argument("--test-length", type=int, default=128)
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    for split, first, count, length in (
        ("train", 0, args.episodes, args.length),
        ("test", TEST_SEED, args.test_episodes, args.test_length),
    ):
        pairs = [episode(first + i, length) for i in track(range(count), f"{split} episodes")]
        np.savez_compressed(
            args.output / f"{split}.npz",
            frames=np.stack([f for f, _ in pairs]),
            actions=np.stack([a for _, a in pairs]),
        )


if __name__ == "__main__":
    main()
