"""Hopper: a one-screen platform game drawn in numpy, small enough to train on a CPU.

64x64 RGB, 8x8-pixel tiles, a fixed camera. Six actions: the product of {stay, left, right} and {no jump, jump}.
Everything moves by whole tiles, one per frame. The sprite shows whether it stands, rises or falls.
"""

from __future__ import annotations

import numpy as np

SIZE, TILE = 64, 8
ACTIONS = ("stay", "left", "right", "jump", "jump-left", "jump-right")
RISE = 3  # a jump rises up to so many tiles
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

# . clear, r cap, s skin, e eye, b coat, l leg. The sprite looks at the player and never sideways: a sprite that showed
# its direction would let a latent action mean "on as before" instead of "left".
SPRITES = {
    "stand": ["..rrrr..", ".rrrrrr.", ".sesses.", ".ssssss.", ".bbbbbb.", ".bbbbbb.", "..l..l..", "..l..l.."],
    "rise": ["b.rrrr.b", "brrrrrrb", "bsessesb", ".ssssss.", ".bbbbbb.", "..bbbb..", "..llll..", "...ll..."],
    "fall": ["..rrrr..", ".rrrrrr.", ".sesses.", "bssssssb", "bbbbbbbb", ".bbbbbb.", ".ll..ll.", "l......l"],
}
SPRITE_COLOURS = {"r": (224, 40, 48), "s": (255, 214, 170), "e": (20, 20, 24), "b": (250, 250, 250), "l": (40, 48, 120)}


def _sprite(rows: list[str]) -> tuple[np.ndarray, np.ndarray]:
    colour = np.array([[SPRITE_COLOURS.get(c, (0, 0, 0)) for c in row] for row in rows], np.uint8)
    return colour, np.array([[c != "." for c in row] for row in rows])


class Hopper:
    """One level. `step(action)` moves one frame; `frame()` draws 64x64x3 uint8."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.theme = THEMES[rng.integers(len(THEMES))]
        self.tiles = self._level(rng)
        column = int(rng.integers(8))
        self.x = column * TILE
        self.y = int(np.argmax(self._solid()[:, column]) - 1) * TILE
        self.rise, self.rising = 0, False
        self.sprites = {name: _sprite(rows) for name, rows in SPRITES.items()}
        self.hills = rng.integers(18, 34, 5)

    @staticmethod
    def _level(rng: np.random.Generator) -> np.ndarray:
        tiles = np.full((8, 8), AIR)
        height = int(rng.integers(1, 4))
        for x in range(8):  # ground of 1-3 tiles that steps by one
            if rng.random() < 0.35:
                height = int(np.clip(height + rng.choice([-1, 1]), 1, 3))
            tiles[8 - height :, x] = GROUND
        for _ in range(int(rng.integers(1, 4))):  # floating ledges of 2-3 bricks, two tiles above something solid
            x, length = int(rng.integers(0, 6)), int(rng.integers(2, 4))
            top = int(np.argmax((tiles != AIR)[:, x : x + length].any(1)))
            y = top - 3
            if y >= 2:
                tiles[y, x : x + length] = BRICK
        for _ in range(int(rng.integers(2, 6))):
            y, x = int(rng.integers(1, 7)), int(rng.integers(0, 8))
            if tiles[y, x] == AIR:
                tiles[y, x] = COIN
        return tiles

    def _solid(self) -> np.ndarray:
        return (self.tiles == GROUND) | (self.tiles == BRICK)

    def _blocked(self, x: int, y: int) -> bool:
        if x < 0 or x > SIZE - TILE:
            return True
        solid = self._solid()
        rows, columns = (
            range(max(y, 0) // TILE, (y + TILE - 1) // TILE + 1),
            range(x // TILE, (x + TILE - 1) // TILE + 1),
        )
        return any(r < 8 and solid[r, c] for r in rows for c in columns)

    def _grounded(self) -> bool:
        return self._blocked(self.x, self.y + 1)

    def step(self, action: int) -> None:
        side, jump = action % 3, action >= 3
        dx = (0, -TILE, TILE)[side]
        if dx and not self._blocked(self.x + dx, self.y):
            self.x += dx
        if self._grounded():
            self.rise = RISE if jump else 0
        elif not jump:  # letting go cuts the jump
            self.rise = 0
        self.rising = self.rise > 0 and self.y >= TILE and not self._blocked(self.x, self.y - TILE)
        if self.rising:
            self.y -= TILE
            self.rise -= 1
        else:
            self.rise = 0
            if not self._grounded():
                self.y += TILE
        for r in {self.y // TILE, (self.y + TILE - 1) // TILE}:
            for c in {self.x // TILE, (self.x + TILE - 1) // TILE}:
                if r < 8 and self.tiles[r, c] == COIN:
                    self.tiles[r, c] = AIR

    def frame(self) -> np.ndarray:
        sky, hill, grass, earth, brick, joint = self.theme
        image = np.empty((SIZE, SIZE, 3), np.uint8)
        image[:] = sky
        xs = np.arange(SIZE)
        ridge = np.interp(xs, np.linspace(0, SIZE - 1, 5), self.hills)
        image[np.arange(SIZE)[:, None] >= SIZE - ridge[None]] = hill
        for r in range(8):
            for c in range(8):
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
        if self._grounded():
            name = "stand"
        else:
            name = "rise" if self.rising else "fall"
        colour, mask = self.sprites[name]
        image[self.y : self.y + TILE, self.x : self.x + TILE][mask] = colour[mask]
        return image


def random_actions(rng: np.random.Generator, length: int) -> np.ndarray:
    """Random actions, each held for a while: 1-2 frames in half of the episodes, 2-8 in the others.

    Long holds explore the level. Short ones make the next move unforeseeable, so that the latent action model must say
    *left* or *right* and cannot get by with *as before*.
    """
    low, high = (1, 3) if rng.random() < 0.5 else (2, 9)
    actions: list[int] = []
    while len(actions) < length:
        actions += [int(rng.choice(6, p=[0.08, 0.2, 0.2, 0.12, 0.2, 0.2]))] * int(rng.integers(low, high))
    return np.array(actions[:length], np.uint8)


def episode(seed: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """(frames [length, 64, 64, 3] uint8, actions [length - 1] uint8)."""
    game, actions = Hopper(seed), random_actions(np.random.default_rng(seed + 1_000_000_007), length - 1)
    frames = [game.frame()]
    for action in actions:
        game.step(int(action))
        frames.append(game.frame())
    return np.stack(frames), actions
