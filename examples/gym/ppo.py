"""PPO on a world model, in one file after CleanRL's: an agent that learns which latent actions make the picture move.

pip install 'genie_cpp[gym]' torch
python examples/gym/ppo.py --frames 1000

A world model has no score, so the wrapper below makes one: how much the frame changed. Replace it with your own goal.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import nn
from torch.distributions import Categorical

import genie_cpp.gym  # noqa: F401 (registers genie_cpp/World-v0)

GAMMA, LAMBDA, CLIP, ENTROPY, EPOCHS, MINIBATCHES = 0.99, 0.95, 0.2, 0.01, 4, 4


class Motion(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Reward: the mean change of a pixel since the last frame, 0…1, times ten."""

    def reset(self, **more: Any) -> Any:
        self.before, info = self.env.reset(**more)
        return self.before, info

    def step(self, action: Any) -> Any:
        frame, _, terminated, truncated, info = self.env.step(action)
        reward = 10 * float(np.abs(frame.astype(np.int16) - self.before).mean()) / 255
        self.before = frame
        return frame, reward, terminated, truncated, info


class Agent(nn.Module):
    """uint8 [N, H, W, 3] -> a distribution over actions, and a value."""

    def __init__(self, shape: tuple[int, ...], actions: int) -> None:
        super().__init__()
        body = nn.Sequential(
            nn.Conv2d(3, 16, 4, 4), nn.ReLU(), nn.Conv2d(16, 32, 2, 2), nn.ReLU(), nn.Flatten(),
        )  # fmt: skip
        width = body(torch.zeros(1, 3, *shape[:2])).shape[1]
        self.body = nn.Sequential(body, nn.Linear(width, 128), nn.ReLU())
        self.actor, self.critic = nn.Linear(128, actions), nn.Linear(128, 1)
        nn.init.orthogonal_(self.actor.weight, 0.01)

    def forward(self, frames: torch.Tensor) -> tuple[Categorical, torch.Tensor]:
        hidden = self.body(frames.permute(0, 3, 1, 2).float() / 255)
        return Categorical(logits=self.actor(hidden)), self.critic(hidden).squeeze(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a Genie GGUF; the bundled world if none is given")
    parser.add_argument("--prompt", help="a picture; the one beside the model if none is given")
    parser.add_argument("--frames", type=int, default=1000)
    parser.add_argument("--envs", type=int, default=4)
    parser.add_argument("--rollout", type=int, default=25, help="frames of each environment between updates")
    parser.add_argument("--episode", type=int, default=50)
    parser.add_argument("--steps", type=int, help="MaskGIT steps; fewer are faster")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    torch.manual_seed(given.seed)
    envs = gymnasium.make_vec(
        "genie_cpp/World-v0", num_envs=given.envs, vectorization_mode="sync", wrappers=[Motion],
        vector_kwargs={"autoreset_mode": gymnasium.vector.AutoresetMode.SAME_STEP},
        model=given.model, prompt=given.prompt, steps=given.steps, max_episode_steps=given.episode,
    )  # fmt: skip
    envs = gymnasium.wrappers.vector.RecordEpisodeStatistics(envs)
    agent = Agent(envs.single_observation_space.shape, int(envs.single_action_space.n))
    optimizer = torch.optim.Adam(agent.parameters(), lr=5e-4, eps=1e-5)
    N, T = given.envs, given.rollout
    frame, started, seen, returns = envs.reset(seed=given.seed)[0], time.perf_counter(), 0, []
    world_seconds = 0.0
    while seen < given.frames:
        frames, actions, logprobs, rewards, dones, values = [], [], [], [], [], []
        for _ in range(T):
            with torch.no_grad():
                policy, value = agent(torch.from_numpy(frame))
                action = policy.sample()
            frames.append(torch.from_numpy(frame))
            actions.append(action)
            logprobs.append(policy.log_prob(action))
            values.append(value)
            began = time.perf_counter()
            frame, reward, terminated, truncated, info = envs.step(action.numpy())
            world_seconds += time.perf_counter() - began
            rewards.append(torch.from_numpy(reward).float())
            dones.append(torch.from_numpy(terminated | truncated).float())
            if "final_info" in info:
                episode = info["final_info"].get("episode", info.get("episode"))
                returns += [float(r) for r, done in zip(episode["r"], terminated | truncated, strict=True) if done]
        seen += N * T
        with torch.no_grad():
            following = agent(torch.from_numpy(frame))[1]
        advantages, last = [torch.zeros(N)] * T, torch.zeros(N)
        for t in reversed(range(T)):  # generalised advantage estimation
            going_on = 1 - dones[t]
            last = rewards[t] + GAMMA * following * going_on - values[t] + GAMMA * LAMBDA * going_on * last
            advantages[t], following = last, values[t]
        batch = [torch.cat(part) for part in (frames, actions, logprobs, advantages, values)]
        for _ in range(EPOCHS):
            for rows in torch.randperm(N * T).chunk(MINIBATCHES):
                x, a, old, advantage, value = (part[rows] for part in batch)
                policy, estimate = agent(x)
                ratio = (policy.log_prob(a) - old).exp()
                target = advantage + value
                advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
                gain = torch.min(ratio * advantage, ratio.clamp(1 - CLIP, 1 + CLIP) * advantage).mean()
                loss = 0.5 * (estimate - target).pow(2).mean() - gain - ENTROPY * policy.entropy().mean()
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(agent.parameters(), 0.5)
                optimizer.step()
        seconds = time.perf_counter() - started
        print(
            f"{seen:6} frames {seconds:6.1f} s {seen / seconds:5.1f} frames/s, worlds {world_seconds / seconds:4.0%}, "
            f"reward {torch.stack(rewards).mean():.3f}, episode {np.mean(returns[-8:]) if returns else np.nan:.2f}",
            flush=True,
        )
    envs.close()


if __name__ == "__main__":
    main()
