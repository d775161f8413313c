"""Hopper: a one-screen platform game drawn in numpy, small enough to train on a CPU.

96x64 RGB, 12x8 tiles, a fixed camera. Six actions: the product of {stay, left, right} and {fall, jump}. Two
choices
make its next frame follow from this frame and the action, so that a small model learns it to the last pixel:

- Everything moves by whole tiles, one a frame, and a tile is a patch of the tokenizer. Holding *jump* rises, letting go
  falls; there is no speed that a single picture would not show.
- The sprite looks where it was told to go and spreads its arms when told to jump, also where a wall is in the way: a
  latent action can then be read off the new frame alone, and means *left*, not *moved to the left*.
"""

from __future__ import annotations

import numpy as np

WIDTH, HEIGHT, TILE = 96, 64, 8
COLUMNS, ROWS = WIDTH // TILE, HEIGHT // TILE
ACTIONS = ("stay", "left", "right", "jump", "jump-left", "jump-right")
AIR, GROUND, BRICK, COIN = range(4)

# sky, far hills, grass, earth, brick, brick joint
THEMES = np.array(
    [
        [(124, 196, 255), (148, 214, 236), (88, 184, 72), (150, 96, 56), (200, 112, 64), (120, 60, 40)],
        [(255, 188, 140), (240, 150, 130), (150, 150, 60), (120, 70, 60), (170, 90, 110), (90, 44, 70)],
        [(28, 32, 72), (44, 50, 104), (60, 140, 130), (60, 60, 96), (110, 110, 160), (60, 60, 100)],
        [(64, 44, 52), (84, 58, 64), (140, 130, 140), (96, 84, 92), (190, 150, 90), (110, 80, 50)],
    ],
    dtype=np.uint8,
)
COIN_COLOUR, COIN_SHINE = (255, 216, 48), (255, 248, 190)

# . clear, r cap, s skin, e eye, b coat, l leg, f flame. The heads look ahead, left and right; the bodies walk and jump.
HEADS = (
    ("..rrrr..", ".rrrrrr.", ".sesses.", ".ssssss."),
    ("..rrrr..", "rrrrrrr.", ".esssrr.", ".sssssr."),
    ("..rrrr..", ".rrrrrrr", ".rrssse.", ".rsssss."),
)
BODIES = (
    (".bbbbbb.", ".bbbbbb.", "..l..l..", "..l..l.."),
    ("bbbbbbbb", "b.bbbb.b", "..llll..", "..f..f.."),
)
SPRITE_COLOURS = {
    "r": (224, 40, 48),
    "s": (255, 214, 170),
    "e": (20, 20, 24),
    "b": (250, 250, 250),
    "l": (40, 48, 120),
    "f": (255, 150, 30),
}


def _sprite(rows: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    colour = np.array([[SPRITE_COLOURS.get(c, (0, 0, 0)) for c in row] for row in rows], np.uint8)
    return colour, np.array([[c != "." for c in row] for row in rows])


# One for each action.
SPRITES = [_sprite(HEADS[action % 3] + BODIES[action // 3]) for action in range(len(ACTIONS))]


class Hopper:
    """One level. `step(action)` moves one frame; `frame()` draws 64x96x3 uint8."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.theme = THEMES[rng.integers(len(THEMES))]
        self.tiles = self._level(rng)
        self.column = int(rng.integers(COLUMNS))
        self.row = int(np.argmax(self._solid()[:, self.column]) - 1)
        self.action = 0
        # Heights of the hills in tiles.
        self.hills = np.clip(3 + np.cumsum(rng.integers(-1, 2, COLUMNS)), 2, 5)

    @staticmethod
    def _level(rng: np.random.Generator) -> np.ndarray:
        tiles = np.full((ROWS, COLUMNS), AIR)
        height = int(rng.integers(1, 4))
        for x in range(COLUMNS):  # ground of 1-3 tiles that steps by one
            if rng.random() < 0.35:
                height = int(np.clip(height + rng.choice([-1, 1]), 1, 3))
            tiles[ROWS - height :, x] = GROUND
        for _ in range(int(rng.integers(2, 5))):  # floating ledges of 2-4 bricks, two tiles above something solid
            x, length = int(rng.integers(0, COLUMNS - 2)), int(rng.integers(2, 5))
            top = int(np.argmax((tiles != AIR)[:, x : x + length].any(1)))
            y = top - 3
            if y >= 1:
                tiles[y, x : x + length] = BRICK
        for _ in range(int(rng.integers(3, 8))):
            y, x = int(rng.integers(0, ROWS - 1)), int(rng.integers(0, COLUMNS))
            if tiles[y, x] == AIR:
                tiles[y, x] = COIN
        return tiles

    def _solid(self) -> np.ndarray:
        return (self.tiles == GROUND) | (self.tiles == BRICK)

    def _free(self, row: int, column: int) -> bool:
        inside = 0 <= row < ROWS and 0 <= column < COLUMNS
        return inside and self.tiles[row, column] in (AIR, COIN)

    def step(self, action: int) -> None:
        self.action = action
        dx, dy = (0, -1, 1)[action % 3], -1 if action >= 3 else 1
        if self._free(self.row, self.column + dx):
            self.column += dx
        if self._free(self.row + dy, self.column):
            self.row += dy
        self.tiles[self.row, self.column] = AIR  # takes the coin

    def frame(self) -> np.ndarray:
        sky, hill, grass, earth, brick, joint = self.theme
        image = np.empty((HEIGHT, WIDTH, 3), np.uint8)
        image[:] = sky
        for column, height in enumerate(self.hills):
            image[HEIGHT - TILE * height :, TILE * column : TILE * (column + 1)] = hill
        for r in range(ROWS):
            for c in range(COLUMNS):
                tile, block = self.tiles[r, c], image[r * TILE : r * TILE + TILE, c * TILE : c * TILE + TILE]
                if tile == GROUND:
                    block[:] = earth
                    if r == 0 or self.tiles[r - 1, c] != GROUND:
                        block[:3] = grass
                elif tile == BRICK:
                    block[:] = brick
                    block[3], block[7], block[:3, 3], block[4:7, 7] = joint, joint, joint, joint
                elif tile == COIN:
                    block[2:6, 2:6], block[1, 3:5], block[6, 3:5], block[2:5, 3] = (
                        COIN_COLOUR,
                        COIN_COLOUR,
                        COIN_COLOUR,
                        COIN_SHINE,
                    )
        colour, mask = SPRITES[self.action]
        x, y = self.column * TILE, self.row * TILE
        image[y : y + TILE, x : x + TILE][mask] = colour[mask]
        return image


def random_actions(rng: np.random.Generator, length: int) -> np.ndarray:
    """Random actions, each held for a while: 1-2 frames in half of the episodes, 2-8 in the others."""
    low, high = (1, 3) if rng.random() < 0.5 else (2, 9)
    actions: list[int] = []
    while len(actions) < length:
        actions += [int(rng.choice(6, p=[0.1, 0.2, 0.2, 0.1, 0.2, 0.2]))] * int(rng.integers(low, high))
    return np.array(actions[:length], np.uint8)


def episode(seed: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """(frames [length, 64, 96, 3] uint8, actions [length - 1] uint8)."""
    game, actions = Hopper(seed), random_actions(np.random.default_rng(seed + 1_000_000_007), length - 1)
    frames = [game.frame()]
    for action in actions:
        game.step(int(action))
        frames.append(game.frame())
    return np.stack(frames), actions
