"""Play CoinRun at random and keep the frames. Run in an environment of its own (see README.md):

    python examples/coinrun/collect.py -o data/coinrun

Writes `train.npz` and `test.npz` with frames [N, length, 64, 64, 3] uint8 and actions [N, length-1] uint8; the test
levels are never trained on. Actions are procgen's, reduced to six: stay, left, right, jump, jump-left, jump-right.
"""

import argparse
from pathlib import Path

import numpy as np
from procgen import ProcgenGym3Env

# procgen's fifteen actions are nine directions and six keys that CoinRun ignores.
ACTIONS = np.array([4, 1, 7, 5, 2, 8])


def play(envs: int, length: int, start_level: int, levels: int, seed: int, restricted: bool):
    env = ProcgenGym3Env(
        num=envs,
        env_name="coinrun",
        start_level=start_level,
        num_levels=levels,
        distribution_mode="easy" if restricted else "hard",
        use_backgrounds=not restricted,
        restrict_themes=restricted,
        rand_seed=seed,
    )
    rng = np.random.default_rng(seed)
    action, left = np.zeros(envs, int), np.zeros(envs, int)
    frames, actions, firsts = [], [], []
    for _ in range(length):
        _, obs, first = env.observe()
        frames.append(obs["rgb"].copy())
        firsts.append(first.copy())
        new = left == 0
        action[new] = rng.choice(6, size=new.sum(), p=[0.05, 0.1, 0.3, 0.1, 0.1, 0.35])
        left[new] = rng.integers(1, 9, new.sum())
        left -= 1
        actions.append(action.copy())
        env.act(ACTIONS[action])
    # An episode that ended inside the clip would hold a cut to another level.
    whole = ~np.stack(firsts, 1)[:, 1:].any(1)
    return np.stack(frames, 1)[whole], np.stack(actions, 1)[whole, :-1].astype(np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--episodes", type=int, default=3000)
    parser.add_argument("--test-episodes", type=int, default=64)
    parser.add_argument("--length", type=int, default=48, help="frames per clip")
    parser.add_argument("--hard", action="store_true", help="the paper's setting: hard mode, backgrounds, all themes")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    for split, wanted, start in (("train", args.episodes, 0), ("test", args.test_episodes, 100_000)):
        frames, actions, count, seed = [], [], 0, start
        while count < wanted:
            f, a = play(64, args.length, start, 10_000, seed, not args.hard)
            frames.append(f)
            actions.append(a)
            count, seed = count + len(f), seed + 1
            print(f"{split}: {min(count, wanted)}/{wanted}", flush=True)
        np.savez_compressed(
            args.output / f"{split}.npz",
            frames=np.concatenate(frames)[:wanted],
            actions=np.concatenate(actions)[:wanted],
        )


if __name__ == "__main__":
    main()
