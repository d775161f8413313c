"""Meadow: a world to walk through, drawn in numpy, small enough to train on a CPU.

128x80 RGB, tiles of 16 pixels, the walker always in the middle. Five actions: stay, left, right, up, down. Three
choices make the next frame follow from this frame and the action wherever nothing new comes into sight:

- A step is half a tile, 8 pixels, which is a patch of the tokenizer: the picture moves by whole tokens.
- Nothing stops the walker (it wades through water), so that an action always does what it says.
- There is no speed, no clock and nothing else alive: whatever the next frame depends on can be seen in this one.
"""

from __future__ import annotations

import numpy as np

WIDTH, HEIGHT, TILE, STEP = 128, 80, 16, 8
ACTIONS = ("stay", "left", "right", "up", "down")
MOVES = ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1))  # half tiles
GRASS, FLOWER, SAND, WATER, TREE = range(5)
MAP = 96  # tiles a side

# grass, blade, petal, sand, grain, water, foam, leaf, leaf in the light, trunk
PALETTES = np.array(
    [
        [(104, 190, 84), (78, 160, 66), (250, 224, 90), (232, 212, 150), (206, 182, 118), (72, 136, 220),
         (150, 200, 250), (36, 112, 62), (66, 150, 76), (110, 74, 48)],
        [(206, 176, 84), (176, 142, 62), (224, 90, 110), (222, 196, 150), (190, 160, 116), (66, 116, 160),
         (130, 176, 206), (176, 74, 34), (220, 118, 46), (92, 60, 44)],
        [(226, 236, 246), (196, 212, 230), (120, 170, 220), (200, 204, 214), (168, 174, 190), (92, 150, 190),
         (206, 232, 244), (44, 92, 92), (214, 232, 236), (84, 66, 60)],
    ],
    dtype=np.uint8,
)  # fmt: skip

# 16 rows of 16 digits, each an index into a palette; . is grass.
TILES = (
    """
    ................ ..1............. .1..........1... ...........1....
    ......1......... .....1.......... ..............1. .............1..
    ................ ...1............ ..1......1...... ........1.......
    ................ .............1.. .....1......1... ....1...........
    """,
    """
    ................ ..2............. .232........2... ..2........232..
    ..1.........2... ............1... ......2......... .....232........
    ......2.......2. ......1......232 .2............2. 232...........1.
    .2......2....... .1.....232...... ........2....... ........1.......
    """,
    """
    3333333333333333 3343333333333333 3333333333343333 3333333333333333
    3333334333333333 3333333333333343 3333333333333333 3433333333333333
    3333333334333333 3333333333333333 3333433333333333 3333333333333433
    3333333333333333 3333333433333333 3343333333333333 3333333333334333
    """,
    """
    5555555555555555 5555555555555555 5566655555555555 5655565555555555
    5555555555666555 5555555556555655 5555555555555555 5555555555555555
    5555666555555555 5556555655555555 5555555555555555 5555555555566655
    5555555555655565 5555555555555555 5566655555555555 5655565555555555
    """,
    """
    .....777777..... ...7788877777... ..778888877777.. .77888887777777.
    .78888877777777. 7788877777777777 7778777788777777 7777777888877777
    7777777788777777 7777777777777777 .77777777777777. ..777777777777..
    ....77799777.... ......9999...... ......9999...... ....11999911....
    """,
)

# The walker's colours: h hat, s skin, e eye, c coat, k belt, l leg.
COLOURS = {"h": (214, 40, 57), "s": (255, 214, 170), "e": (24, 20, 28), "c": (58, 62, 150), "k": (250, 210, 70),
           "l": (44, 34, 40)}  # fmt: skip
HEADS = {
    "down": ("...hhhhhhhhhh...", "..hhhhhhhhhhhh..", ".hhhhhhhhhhhhhh.", "..ssssssssssss..", "..sseesssseess..",
             "..sseesssseess..", "..ssssssssssss..", "...ssssssssss..."),
    "up": ("...hhhhhhhhhh...", "..hhhhhhhhhhhh..", ".hhhhhhhhhhhhhh.", ".hhhhhhhhhhhhhh.", "..hhhhhhhhhhhh..",
           "..hhhhhhhhhhhh..", "..shhhhhhhhhhs..", "...ssssssssss..."),
    "left": ("...hhhhhhhhhh...", "..hhhhhhhhhhhh..", "hhhhhhhhhhhhhh..", "..sssssssshhhh..", "..sesssssshhhh..",
             "..sessssssshhh..", "..ssssssssssh...", "...ssssssssss..."),
}  # fmt: skip
# Standing, and the two halves of a stride. No two look alike: the latent action model sees differences of frames.
COATS = {
    "down": (
        ("..cccccccccccc..", ".cccccccccccccc.", ".cckkkkkkkkkkcc.", ".sccccccccccccs.", "...cccccccccc..."),
        ("..cccccccccccc..", ".cccccccccccccs.", ".cckkkkkkkkkkcc.", ".ccccccccccccc..", ".s.cccccccccc..."),
        ("..cccccccccccc..", ".scccccccccccc..", ".cckkkkkkkkkkcc.", "..ccccccccccccc.", "...cccccccccc.s."),
    ),
    "up": (
        ("..cccccccccccc..", ".ccckkkkkkkkccc.", ".ccckkkkkkkkccc.", ".sccccccccccccs.", "...cccccccccc..."),
        ("..cccccccccccc..", ".ccckkkkcccccccs", ".ccckkkkccccccc.", ".scccccccccccc..", "...cccccccccc..."),
        ("..cccccccccccc..", "sccccccckkkkccc.", ".ccccccckkkkccc.", "..ccccccccccccs.", "...cccccccccc..."),
    ),
    "left": (
        ("...cccccccccc...", "...cccccccccc...", "...kkkkkkkkkk...", "...cccsscccccc..", "...cccccccccc..."),
        ("...cccccccccc...", "..ccccccccccc...", "ssckkkkkkkkkk...", "...cccccccccc...", "...cccccccccc..."),
        ("...cccccccccc...", "...ccccccccccc..", "...kkkkkkkkkkcss", "...cccccccccc...", "...cccccccccc..."),
    ),
}
FEET = {
    "down": (
        ("...llll..llll...", "...llll..llll...", "...llll..llll..."),
        ("...llll..llll...", "...llll..llll...", "...llll........."),
        ("...llll..llll...", "...llll..llll...", ".........llll..."),
    ),
    "up": (
        ("...llll..llll...", "...llll..llll...", "...llll..llll..."),
        ("...llll..llll...", ".........llll...", ".........llll..."),
        ("...llll..llll...", "...llll.........", "...llll........."),
    ),
    "left": (
        (".....lllll......", ".....lllll......", "....llllll......"),
        ("...lllllllll....", "..llll...llll...", ".llll.....lll..."),
        (".....llllll.....", "....llll.lll....", "....lll...lll..."),
    ),
}


def _sprites() -> dict[tuple[str, int], tuple[np.ndarray, np.ndarray]]:
    sprites = {}
    for facing, head in HEADS.items():
        for phase, (coat, feet) in enumerate(zip(COATS[facing], FEET[facing], strict=True)):
            rows = head + coat + feet
            colour = np.array([[COLOURS.get(c, (0, 0, 0)) for c in row] for row in rows], np.uint8)
            mask = np.array([[c != "." for c in row] for row in rows])
            sprites[facing, phase] = colour, mask
            if facing == "left":
                sprites["right", phase] = colour[:, ::-1], mask[:, ::-1]
    return sprites


SPRITES = _sprites()
WADING = np.arange(TILE)[:, None] < 11  # what is to be seen of it in the water
# [kind, 16, 16], indices into a palette
PIXELS = np.array([[[0 if c == "." else int(c) for c in row] for row in tile.split()] for tile in TILES])


def _hills(rng: np.random.Generator, period: int) -> np.ndarray:
    """[MAP, MAP] smooth noise in [0, 1], a hill or so every `period` tiles."""
    lattice = rng.random((MAP // period + 2, MAP // period + 2))
    at = np.arange(MAP) / period
    low, share = at.astype(int), at % 1
    share = share * share * (3 - 2 * share)
    rows = lattice[low] * (1 - share)[:, None] + lattice[low + 1] * share[:, None]
    return rows[:, low] * (1 - share) + rows[:, low + 1] * share


class Meadow:
    """One country. `step(action)` moves one frame; `frame()` draws 80x128x3 uint8."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.palette = PALETTES[rng.integers(len(PALETTES))]
        height, wood, luck = _hills(rng, 6), _hills(rng, 4), rng.random((MAP, MAP))
        tiles = np.full((MAP, MAP), GRASS)
        tiles[luck < 0.12] = FLOWER
        tiles[(wood > 0.62) & (luck > 0.25)] = TREE
        tiles[height < 0.36] = SAND
        tiles[height < 0.29] = WATER
        self.water = tiles == WATER
        # Half tiles, the top left corner of the walker.
        self.y, self.x = (int(v) for v in rng.integers(2 * MAP // 3, 4 * MAP // 3, 2))
        self.facing, self.phase = "down", 0
        self.country = PIXELS[tiles].transpose(0, 2, 1, 3).reshape(MAP * TILE, MAP * TILE)

    def step(self, action: int) -> None:
        if action == 0:
            self.phase = 0
            return
        self.facing, self.phase = ACTIONS[action], 2 if self.phase == 1 else 1
        dx, dy = MOVES[action]
        self.x, self.y = self.x + dx, self.y + dy

    def frame(self) -> np.ndarray:
        top, left = (HEIGHT - TILE) // 2, (WIDTH - TILE) // 2
        y, x = self.y * STEP - top, self.x * STEP - left
        image = self.palette[self.country[y : y + HEIGHT, x : x + WIDTH]]
        colour, mask = SPRITES[self.facing, self.phase]
        if self.water[self.y // 2 : (self.y + 1) // 2 + 1, self.x // 2 : (self.x + 1) // 2 + 1].all():
            mask = mask & WADING
        image[top : top + TILE, left : left + TILE][mask] = colour[mask]
        return image


def random_actions(rng: np.random.Generator, length: int) -> np.ndarray:
    """Random actions, each held for 1 to 6 frames."""
    actions: list[int] = []
    while len(actions) < length:
        actions += [int(rng.choice(5, p=[0.12, 0.22, 0.22, 0.22, 0.22]))] * int(rng.integers(1, 7))
    return np.array(actions[:length], np.uint8)


def episode(seed: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """(frames [length, 80, 128, 3] uint8, actions [length - 1] uint8)."""
    game, actions = Meadow(seed), random_actions(np.random.default_rng(seed + 1_000_000_007), length - 1)
    frames = [game.frame()]
    for action in actions:
        game.step(int(action))
        frames.append(game.frame())
    return np.stack(frames), actions
