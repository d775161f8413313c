"""Maze: corridors in first person, drawn by ray casting in numpy, small enough to train on a CPU.

96x64 RGB. Five actions: stay, forward, back, turn left, turn right. What makes it a world that a small model can hold:

- It is one place, and every wall has its own colours and pictures: each view shows where the player is.
- Columns of the picture are equally far apart in angle, not on a flat screen. A turn is 15 degrees, 16 pixels, two
  patches of the tokenizer: a turn moves the picture by whole tokens.
- The player stands only on the middle lines of corridors, at thirds of a cell, and slides along walls met at a slant.
- There is no speed, no clock and nothing else alive: the next frame follows from this one and the action.
"""

from __future__ import annotations

import numpy as np

WIDTH, HEIGHT = 96, 64
TURNS, STEPS = 24, 3  # headings; steps per cell
VIEW = np.pi / 2  # radians across the picture
MOVER = (0, 0, 0, 0)  # the player is not visible
ACTIONS = ("stay", "forward", "back", "turn-left", "turn-right")
# Letters are blocks of a colour, dots are floor.
MAP = """
aaaabbbbb
a...b...b
a.a.b.c.b
a.a...c.d
g.ggc.c.d
g...c...d
gge.cfd.d
h.......d
hhhheeedd
""".split()
COLOURS = {
    "a": (196, 72, 60), "b": (66, 110, 200), "c": (226, 190, 80), "d": (76, 160, 92), "e": (160, 90, 190),
    "f": (240, 240, 236), "g": (226, 130, 60), "h": (70, 180, 190),
}  # fmt: skip
SKY, HORIZON, NEAR, FAR = (96, 150, 220), (190, 216, 240), (150, 140, 120), (96, 90, 84)
MOUNTAIN, SNOW, SUN = (110, 124, 160), (240, 244, 250), (255, 240, 170)
TALL = 0.64  # of a wall, in cells
# The picture on the wall that a floor cell (column, row) has on a side: E, S, W, N.
PICTURES = {
    (1, 1, "N"): "door", (3, 1, "E"): "sun", (1, 5, "W"): "window", (3, 5, "E"): "stripes", (1, 7, "W"): "door",
    (5, 1, "W"): "moon", (7, 1, "N"): "sun", (7, 1, "E"): "stripes", (7, 5, "E"): "window", (7, 7, "S"): "moon",
    (5, 3, "N"): "window", (1, 3, "W"): "moon", (7, 3, "E"): "door", (5, 5, "S"): "sun",
    (3, 7, "S"): "stripes", (5, 7, "S"): "window", (1, 7, "S"): "sun", (2, 1, "N"): "stripes", (6, 1, "N"): "door",
    (1, 2, "W"): "sun", (7, 7, "E"): "sun", (6, 5, "S"): "moon", (2, 5, "S"): "door", (4, 3, "N"): "sun",
    (4, 3, "S"): "stripes", (5, 7, "N"): "door",
}  # fmt: skip
ART = {  # 8 x 8; dots show the wall
    "door": ("........ ..kkkk.. .kkkkkk. .kkkkkk. .kkkkyk. .kkkkkk. .kkkkkk. .kkkkkk."),
    "sun": ("........ ...yy... .y.yy.y. ..yyyy.. .yyyyyy. ..yyyy.. .y....y. ........"),
    "moon": ("........ ..www... .ww..... .ww..... .ww..... .ww...w. ..wwww.. ........"),
    "window": ("........ .wwwwww. .wbbwbbw .wbbwbbw .wwwwwww .wbbwbbw .wbbwbbw .wwwwww."),
    "stripes": ("rr..rr.. rr..rr.. rr..rr.. rr..rr.. rr..rr.. rr..rr.. rr..rr.. rr..rr.."),
}
INK = {"k": (52, 36, 34), "y": (255, 226, 110), "w": (250, 248, 240), "b": (110, 190, 250), "r": (250, 150, 150)}
SIDES = {"E": (1, 0), "S": (0, 1), "W": (-1, 0), "N": (0, -1)}


def _open(x: int, y: int) -> bool:
    return MAP[y][x] == "."


def stands(x: int, y: int) -> bool:
    """Whether the player can be at this place (in steps), which must be on the middle line of a corridor."""
    dx, dy = x % STEPS - STEPS // 2, y % STEPS - STEPS // 2
    column, row = x // STEPS, y // STEPS
    if (dx and dy) or not _open(column, row):
        return False
    return _open(column + int(np.sign(dx)), row + int(np.sign(dy)))


PLACES = [(x, y) for y in range(len(MAP) * STEPS) for x in range(len(MAP[0]) * STEPS) if stands(x, y)]


def _wall(column: int, row: int, side: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Colours [N, 3] of the wall beyond a floor cell's side, at u from its left, v from its top, each in 0...1."""
    dx, dy = SIDES[side]
    base = np.array(COLOURS[MAP[row + dy][column + dx]], float)
    colour = np.repeat(base[None] * (0.8 if dy else 1.0), len(u), 0)
    picture = PICTURES.get((column, row, side))
    if picture in ART:
        art = ART[picture].split()
        for k, (a, b) in enumerate(zip(u, v, strict=True)):
            x, y = int((a - 0.2) / 0.6 * 8), int((b - 0.15) / 0.7 * 8)
            if 0.2 <= a < 0.8 and 0.15 <= b < 0.85 and art[y][x] != ".":
                colour[k] = INK[art[y][x]]
    colour[(v < 0.08) | (v > 0.92)] *= 0.7
    colour[(u < 0.04) | (u > 0.96)] *= 0.6
    return colour


def _backdrop(columns: int) -> np.ndarray:
    """[64, columns, 3]: sky with a sun in the east and mountains all around, above; the floor below."""
    row = (np.arange(HEIGHT) + 0.5)[:, None, None]
    half = HEIGHT / 2
    sky = np.array(SKY) + (np.array(HORIZON) - SKY) * row / half
    floor = np.array(FAR) + (np.array(NEAR) - FAR) * (row / half - 1)
    picture = np.repeat(np.where(row < half, sky, floor), columns, 1)
    turn = np.arange(columns) / columns * 2 * np.pi
    top = 22 - 4 * np.sin(3 * turn) - 3 * np.sin(7 * turn + 1) - 2 * np.cos(2 * turn)
    mountain = (row[..., 0] > top) & (row[..., 0] < half)
    picture[mountain] = MOUNTAIN
    picture[mountain & (row[..., 0] < top + 2)] = SNOW
    column = (np.arange(columns) + 40) % columns
    picture[(column - 40) ** 2 + (row[..., 0] - 8) ** 2 < 25] = SUN
    return picture


COLUMNS = TURNS * 16  # of a panorama
PICTURED = list(PICTURES)


def panorama(x: int, y: int) -> tuple[np.ndarray, np.ndarray]:
    """([64, 384, 3] uint8: the full view from a place, clockwise from the east; [384, 3]: for each column, the index of
    the picture there or -1, its distance from the left of its wall, and the wall's height in pixels)."""
    columns, seen_there = COLUMNS, np.full((COLUMNS, 3), -1.0)
    picture = _backdrop(columns)
    here = np.array([x + 0.5, y + 0.5]) / STEPS
    for k in range(columns):
        angle = (k + 0.5) / columns * 2 * np.pi
        direction = np.array([np.cos(angle), np.sin(angle)])
        cell, sign = here.astype(int), np.where(direction > 0, 1, -1)
        along = ((cell + (sign > 0)) - here) / direction  # to the next border in x, in y
        while True:  # cell by cell along the ray
            axis = int(along[1] < along[0])
            ahead = cell.copy()
            ahead[axis] += sign[axis]
            if not _open(*ahead):
                break
            cell = ahead
            along[axis] += abs(1 / direction[axis])
        distance = along[axis]
        hit = (here + distance * direction)[1 - axis] % 1
        side = ("E" if sign[0] > 0 else "W") if axis == 0 else ("S" if sign[1] > 0 else "N")
        u = 1 - hit if side in "SW" else hit
        tall = TALL * WIDTH / VIEW / distance
        v = (np.arange(HEIGHT) + 0.5 - HEIGHT / 2) / tall + 0.5
        seen = (v >= 0) & (v < 1)
        shade = max(0.5, 1 - 0.08 * distance)
        picture[seen, k] = _wall(int(cell[0]), int(cell[1]), side, np.full(seen.sum(), u), v[seen]) * shade
        key = (int(cell[0]), int(cell[1]), side)
        seen_there[k] = (PICTURED.index(key) if key in PICTURES else -1), u, tall
    return picture.round().astype(np.uint8), seen_there


_SEEN = {place: panorama(*place) for place in PLACES}
PANORAMAS = {place: picture for place, (picture, _) in _SEEN.items()}


class Maze:
    """A player in the maze. `step(action)` moves one frame and returns whether a wall was in the way."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.x, self.y = PLACES[rng.integers(len(PLACES))]
        self.heading = int(rng.integers(TURNS))

    def step(self, action: int) -> bool:
        if action in (3, 4):
            self.heading = (self.heading + (1 if action == 4 else -1)) % TURNS
        elif action in (1, 2):
            angle, sign = self.heading / TURNS * 2 * np.pi, 1 if action == 1 else -1
            lean = sign * np.array([np.cos(angle), np.sin(angle)])
            main = int(abs(lean[1]) > abs(lean[0]) + 1e-9)
            for axis in (main, 1 - main):  # straight on, otherwise along the wall
                move = [0, 0]
                move[axis] = int(np.sign(lean[axis]))
                if abs(lean[axis]) > 0.4 and stands(self.x + move[0], self.y + move[1]):
                    self.x, self.y = self.x + move[0], self.y + move[1]
                    return False
            return True
        return False

    def frame(self) -> np.ndarray:
        left = self.heading * 16 - WIDTH // 2
        columns = np.arange(left, left + WIDTH) % COLUMNS
        return PANORAMAS[self.x, self.y][:, columns]

    @property
    def place(self) -> int:
        return PLACES.index((self.x, self.y)) * TURNS + self.heading


def episode(seed: int, length: int) -> dict[str, np.ndarray]:
    """One walk: frames [length, 64, 96, 3] uint8, actions and blocked (a wall) [length - 1], places [length].

    Actions are random and held for 1 to 9 frames. At a wall the player mostly chooses another action.
    """
    game, rng = Maze(seed), np.random.default_rng(seed + 1_000_000_007)
    frames, actions, places, blocked = [game.frame()], [], [game.place], []
    action, left = 0, 0
    while len(frames) < length:
        if left == 0:
            action, left = int(rng.choice(5, p=[0.08, 0.36, 0.14, 0.21, 0.21])), int(rng.integers(1, 10))
        blocked.append(game.step(action))
        left = 0 if blocked[-1] and rng.random() < 0.6 else left - 1
        frames.append(game.frame())
        actions.append(action)
        places.append(game.place)
    return {
        "frames": np.stack(frames),
        "actions": np.array(actions, np.uint8),
        "places": np.array(places, np.int32),
        "blocked": np.array(blocked),
    }


def pictures() -> np.ndarray:
    """[places, 64, 96, 3] uint8: what is seen from every place in every direction."""
    turned = []
    for all_around in PANORAMAS.values():
        wide = np.concatenate([all_around[:, -WIDTH // 2 :], all_around, all_around[:, : WIDTH // 2]], 1)
        turned += [wide[:, 16 * k : 16 * k + WIDTH] for k in range(TURNS)]
    return np.stack(turned)


STARTS = {  # name of the view: cell and heading (0 is east, 6 south) of the player
    "long-corridor": (1, 1, 6), "red-corner": (1, 1, 0), "moon": (3, 2, 6), "crossing": (4, 3, 0), "blue": (5, 1, 0),
    "blue-yellow": (7, 1, 7), "window": (5, 3, 17), "green": (7, 3, 6), "stripes": (7, 5, 12), "purple": (5, 7, 12),
    "south-west": (1, 7, 20), "orange": (1, 5, 0), "door": (2, 5, 9), "snow-peaks": (3, 7, 15), "yellow": (5, 5, 20),
}  # fmt: skip


def starts() -> dict[str, np.ndarray]:
    """Pictures to start from, by name: [64, 96, 3] uint8."""
    game, pictures = Maze(0), {}
    for name, (column, row, heading) in STARTS.items():
        game.x, game.y, game.heading = column * STEPS + 1, row * STEPS + 1, heading
        pictures[name] = game.frame()
    return pictures


def landmarks() -> tuple[list[str], np.ndarray]:
    """(names, [N, 6]: a place, a picture that is completely visible there, and its top, left, bottom and right)."""
    rows = []
    for number, place in enumerate(PLACES):
        there = _SEEN[place][1]
        for heading in range(TURNS):
            which, u, tall = there[np.arange(heading * 16 - WIDTH // 2, heading * 16 + WIDTH // 2) % COLUMNS].T
            for k in set(which[which >= 0].astype(int)):
                at = np.flatnonzero((which == k) & (u > 0.15) & (u < 0.85))
                if len(at) >= 6 and u[at].min() < 0.25 and u[at].max() > 0.75:
                    half = int(min(HEIGHT / 2, tall[at].max() / 2))
                    box = HEIGHT // 2 - half, at[0], HEIGHT // 2 + half, at[-1] + 1
                    rows.append((number * TURNS + heading, k, *box))
    return [f"{PICTURES[key]} at {key}" for key in PICTURED], np.array(rows, np.int32)
