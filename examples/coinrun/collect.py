"""Play CoinRun at random and keep the frames. Needs its own Python environment (see README.md):

    python examples/coinrun/collect.py -o data/coinrun

Writes `train.npz` and `test.npz` with frames [N, length, 64, 64, 3] uint8 and actions [N, length-1] uint8. The levels
of `test` are never used for training. Actions are procgen's, reduced to six: stay, left, right, jump, jump-left,
jump-right.
"""

import argparse
import os
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from procgen import ProcgenGym3Env

# procgen has fifteen actions: nine directions, and six keys that CoinRun ignores.
ACTIONS = np.array([4, 1, 7, 5, 2, 8])
# The odds of each action. DRIFT: as the bundled world was made. RUN: to get ahead in the level. ROAM: left as often as
# right.
DRIFT = [0.05, 0.1, 0.3, 0.1, 0.1, 0.35]
RUN = [0.02, 0.03, 0.35, 0.05, 0.0, 0.55]
ROAM = [0.05, 0.22, 0.23, 0.1, 0.19, 0.21]


def play(task: tuple[int, int, int, int, int, bool, bool]) -> tuple[np.ndarray, np.ndarray]:
    envs, length, start_level, levels, seed, restricted, roam = task
    env = ProcgenGym3Env(
        num=envs,
        env_name="coinrun",
        start_level=start_level,
        num_levels=levels,
        distribution_mode="easy" if restricted else "hard",
        use_backgrounds=not restricted,
        restrict_themes=restricted,
        rand_seed=seed,
        num_threads=0,
    )
    rng = np.random.default_rng(seed)
    action, left = np.zeros(envs, int), np.zeros(envs, int)
    frames, actions, firsts = [], [], []
    # A level begins at its left wall, where "left" has no effect. So roaming plays first run right, unrecorded.
    unseen = int(rng.integers(160)) if roam else 0
    odds = ROAM if roam else DRIFT
    for step in range(unseen + length):
        new = left == 0
        action[new] = rng.choice(6, size=new.sum(), p=RUN if step < unseen else odds)
        left[new] = rng.integers(1, 9, new.sum())
        left -= 1
        if step < unseen:
            env.act(ACTIONS[action])
            continue
        _, obs, first = env.observe()
        frames.append(obs["rgb"].copy())
        firsts.append(first.copy())
        actions.append(action.copy())
        env.act(ACTIONS[action])
    # Drop clips in which an episode ends: they contain a cut to another level.
    whole = ~np.stack(firsts, 1)[:, 1:].any(1)
    return np.stack(frames, 1)[whole], np.stack(actions, 1)[whole, :-1].astype(np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--episodes", type=int, default=3000)
    parser.add_argument("--test-episodes", type=int, default=64)
    parser.add_argument("--length", type=int, default=48, help="frames per clip")
    parser.add_argument("--hard", action="store_true", help="the paper's setting: hard mode, backgrounds, all themes")
    parser.add_argument("--roam", action="store_true", help="show left as often as right")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    for split, wanted, start in (("train", args.episodes, 0), ("test", args.test_episodes, 100_000)):
        frames = np.empty((wanted, args.length, 64, 64, 3), np.uint8)
        actions = np.empty((wanted, args.length - 1), np.uint8)
        tasks = [
            (64, args.length, start, 10_000, seed, not args.hard, args.roam) for seed in range(start, start + wanted)
        ]
        done = 0
        with get_context("spawn").Pool(args.jobs) as pool:  # leaving the block stops plays that are not needed
            for f, a in pool.imap(play, tasks):
                n = min(len(f), wanted - done)
                frames[done : done + n], actions[done : done + n] = f[:n], a[:n]
                done += n
                print(f"{split}: {done}/{wanted}", end="\r", flush=True)
                if done == wanted:
                    break
        np.savez(args.output / f"{split}.npz", frames=frames, actions=actions)


if __name__ == "__main__":
    main()
