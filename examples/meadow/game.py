"""Meadow: a country to walk through, drawn in numpy, small enough to train on a CPU.

128x80 RGB, the walker always in the middle. Five actions: stay, left, right, up, down. What makes it a world that a
small model can hold:

- It is one place (`country.py`), whose edges meet: walking on leads back. What comes into sight is never a guess.
- A step is 8 pixels, the size of a patch of the tokenizer: the picture moves by whole tokens.
- Nothing stops the walker (it wades through water), so an action always has its effect.
- There is no speed, no clock and nothing else alive: whatever the next frame depends on can be seen in this one.
"""

from __future__ import annotations

import numpy as np
from country import LANDMARKS, TILE, paint, width

WIDTH, HEIGHT, STEP = 128, 80, 8
ACTIONS = ("stay", "left", "right", "up", "down")
MOVES = ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1))  # steps
TOP, LEFT = (HEIGHT - TILE) // 2, (WIDTH - TILE) // 2  # the walker's corner in the picture
MOVER = (TOP, LEFT, TOP + TILE, LEFT + TILE)

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
WADING = np.arange(TILE)[:, None] < 11  # the part of the walker that is visible in water
COUNTRY, WATER = paint()
ROWS, COLUMNS = COUNTRY.shape[0] // STEP, COUNTRY.shape[1] // STEP  # places


def view(y: int, x: int) -> np.ndarray:
    """[80, 128, 3] uint8: the view from a place, without the walker."""
    rows = np.arange(y * STEP - TOP, y * STEP - TOP + HEIGHT) % COUNTRY.shape[0]
    columns = np.arange(x * STEP - LEFT, x * STEP - LEFT + WIDTH) % COUNTRY.shape[1]
    return COUNTRY[rows[:, None], columns]


class Meadow:
    """A walker in the country. `step(action)` moves one frame; `frame()` draws 80x128x3 uint8.

    The place (y, x) is that of the walker's top left corner, in steps.
    """

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.y, self.x = int(rng.integers(ROWS)), int(rng.integers(COLUMNS))
        self.facing, self.phase = "down", 0

    def step(self, action: int) -> None:
        if action == 0:
            self.phase = 0
            return
        self.facing, self.phase = ACTIONS[action], 2 if self.phase == 1 else 1
        dx, dy = MOVES[action]
        self.x, self.y = (self.x + dx) % COLUMNS, (self.y + dy) % ROWS

    @property
    def place(self) -> int:
        return self.y * COLUMNS + self.x

    def frame(self) -> np.ndarray:
        image = view(self.y, self.x)
        colour, mask = SPRITES[self.facing, self.phase]
        below = np.arange(self.y // 2, (self.y + 1) // 2 + 1) % WATER.shape[0]
        beside = np.arange(self.x // 2, (self.x + 1) // 2 + 1) % WATER.shape[1]
        if WATER[below[:, None], beside].all():
            mask = mask & WADING
        image[TOP : TOP + TILE, LEFT : LEFT + TILE][mask] = colour[mask]
        return image


def random_actions(rng: np.random.Generator, length: int) -> np.ndarray:
    """Random actions, each held for 1 to 10 frames, mostly few."""
    actions: list[int] = []
    while len(actions) < length:
        held = int(rng.integers(1, int(rng.choice([3, 6, 11]))))
        actions += [int(rng.choice(5, p=[0.12, 0.22, 0.22, 0.22, 0.22]))] * held
    return np.array(actions[:length], np.uint8)


def episode(seed: int, length: int) -> dict[str, np.ndarray]:
    """One walk: frames [length, 80, 128, 3] uint8, actions [length - 1] uint8, places [length]."""
    game, actions = Meadow(seed), random_actions(np.random.default_rng(seed + 1_000_000_007), length - 1)
    frames, places = [game.frame()], [game.place]
    for action in actions:
        game.step(int(action))
        frames.append(game.frame())
        places.append(game.place)
    return {"frames": np.stack(frames), "actions": actions, "places": np.array(places, np.int32)}


def pictures() -> np.ndarray:
    """[places, 80, 128, 3] uint8: every place without the walker."""
    return np.stack([view(y, x) for y in range(ROWS) for x in range(COLUMNS)])


STARTS = {  # name of the view: the tile that the walker stands on
    "village": (19, 14), "snow": (6, 5), "igloo": (10, 4), "autumn": (17, 4), "oasis": (27, 4), "desert": (26, 6),
    "lake": (28, 12), "flowers": (20, 8), "farm": (12, 9), "wood": (3, 12), "chapel": (6, 16), "stones": (10, 15),
    "bridge": (12, 17), "wreck": (16, 18), "lighthouse": (2, 18), "mill": (28, 9),
}  # fmt: skip


def starts() -> dict[str, np.ndarray]:
    """Pictures to start from, by name: [80, 128, 3] uint8."""
    game, pictures = Meadow(0), {}
    for name, (column, row) in STARTS.items():
        game.x, game.y = 2 * column, 2 * row
        pictures[name] = game.frame()
    return pictures


def landmarks() -> tuple[list[str], np.ndarray]:
    """(names, [N, 6]: a place, a landmark that is completely visible there, and its top, left, bottom and right)."""
    rows = []
    for y in range(ROWS):
        for x in range(COLUMNS):
            for k, (what, column, row) in enumerate(LANDMARKS):
                top = (row * TILE - y * STEP + TOP) % COUNTRY.shape[0]
                left = (column * TILE - x * STEP + LEFT) % COUNTRY.shape[1]
                bottom, right = top + 2 * TILE, left + width(what) * TILE
                if bottom <= HEIGHT and right <= WIDTH:
                    rows.append((y * COLUMNS + x, k, top, left, bottom, right))
    return [what for what, _, _ in LANDMARKS], np.array(rows, np.int32)
