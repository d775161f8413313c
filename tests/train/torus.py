"""A game so small that a world of it is learned in seconds: a window that moves over a map whose edges meet."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE, TILE, TILES = 16, 4, 6
MOVES = ((0, 0), (0, -1), (0, 1), (-1, 0), (1, 0))  # stay, left, right, up, down
NAMES = "stay,left,right,up,down"


def world(seed: int = 0) -> NDArray[np.uint8]:
    """The map, twice in each direction, so that a window never meets its edge."""
    tiles = np.random.default_rng(seed).integers(0, 256, (TILES, TILES, 3), np.uint8)
    return np.tile(np.repeat(np.repeat(tiles, TILE, 0), TILE, 1), (2, 2, 1))


def walk(seed: int, length: int, hold: int = 1) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """(frames [length, SIDE, SIDE, 3], actions [length-1])."""
    rng, shown = np.random.default_rng(seed), world()
    y, x = rng.integers(TILES, size=2)
    frames, actions = [], []
    for step in range(length):
        frames.append(shown[y * TILE : y * TILE + SIDE, x * TILE : x * TILE + SIDE])
        if step % hold == 0:
            action = int(rng.integers(len(MOVES)))
        actions.append(action)
        y, x = (y + MOVES[action][0]) % TILES, (x + MOVES[action][1]) % TILES
    return np.stack(frames), np.array(actions[:-1], np.uint8)


def save(path: Path, episodes: int = 6, length: int = 60, labelled: bool = True) -> Path:
    """A .npz as games are recorded."""
    walks = [walk(seed, length) for seed in range(episodes)]
    arrays = {"frames": np.stack([frames for frames, _ in walks])}
    if labelled:
        arrays["actions"] = np.stack([actions for _, actions in walks])
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return path


def config(path: Path) -> Path:
    """A model for it, as small as its world."""
    stack = {"block_count": 1, "embedding_length": 48, "head_count": 2, "key_length": 24, "feed_forward_length": 96}
    near = {**stack, "sublayers": ["ffn"]}
    about = {
        "format": "genie", "frame_width": SIDE, "frame_height": SIDE, "context_length": 4, "action_count": 8,
        "tokenizer": {"kind": "vit", "patch_size": 4, "codebook_size": 64, "latent_length": 16, "encoder": near,
                      "decoder": near},
        "lam": {"patch_size": 4, "latent_length": 6, "difference": True,
                "encoder": {**stack, "sublayers": ["spatial", "ffn"]}},
        "dynamics": {"stack": {**stack, "block_count": 2, "qk_norm": True}},
    }  # fmt: skip
    path.write_text(json.dumps(about), encoding="utf-8")
    return path


def gif(path: Path, frames: NDArray[np.uint8], scale: int = 1) -> Path:
    pictures = [Image.fromarray(np.repeat(np.repeat(frame, scale, 0), scale, 1)) for frame in frames]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=100, loop=0)
    return path
