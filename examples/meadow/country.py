"""The country of Meadow: one map of 32 x 20 tiles, drawn in numpy, whose edges meet.

`paint()` gives it as one picture. Everything stands on tiles of 16 pixels and textures repeat. So the country is made
of only a few hundred different patches of 8 pixels, which the tokenizer must know.
"""

from __future__ import annotations

import numpy as np

TILE = 16
# Grounds:  . lawn   , meadow   a fallen leaves   n snow   i ice   d desert   s sand   ~ water   p path   c crops
#           o paving
# Things:   T tree   t sapling   A autumn tree   P pine   Y palm   C cactus   B bush   R rock   F fence   S signpost
#           r y u flower beds   L lily   b bridge   W well   U pumpkin   M mushroom   V stump   G grave   K lamp   h hay
MAP = """
nnPnnPPnnnPPnnaaAAaaaAaadddYdddd
nPnnnnnnPnnnPnaAaaUaaAaAddsssddC
nnniiiinnnnRnnaaaaaaaaaadds~~sdd
PnniiiiinnnnnPaAAaMaaAAadYs~~sYd
nnnniiinnPPnnnaAaaaaaaAaddsssddd
nRnnnnnnnPnnpppppppppppppppddCdd
PnPnnPnnnnnPp.,.BB.,..K..dpddddR
..n..n.,..,.p.........,...p.dCd.
TTT.,..FFFFFpFFFF..r.y.u.KpKh.h.
T.MTT..FccccpccccF.r.y.u..p.,..B
.VT.,..FccccpccccF.r.y.u..p...B.
TT.TT..FFFFFpFFFFF........p.~~~~
.TMT..,.,...p....ooooooo..p~~L~~
T..TT...,.KopooooooWooooopb~~~~L
.,T..BB.....p....ooooooo..p~L~~~
GG..G.......p..,.......,..p~~~~~
G.G.GB..,sssbssssS..,..t.tp.~~~.
.GG..sss~~~~b~~~ssss.t..t.Kt.t..
.,sss~~~~~~~b~~~~~~sssss.tptt.t.
nnPn~iinnnPPpnnaAaaaaAaaddpYd.dd
"""
# Things larger than a tile: which, and the column and row of the top left tile. All are 2 tiles high.
LANDMARKS = (
    ("igloo", 9, 1), ("snowman", 8, 4), ("oak", 18, 3), ("tent", 28, 5), ("red house", 13, 11), ("blue house", 21, 10),
    ("green house", 17, 6), ("mill", 29, 8), ("stones", 9, 13), ("chapel", 5, 13), ("boat", 29, 14),
    ("lighthouse", 2, 17), ("tower", 22, 14), ("wreck", 15, 17),
)  # fmt: skip

NARROW, HOUSE = ("snowman", "lighthouse", "tower"), ("red house", "blue house", "green house")


def width(what: str) -> int:
    """Of a landmark, in tiles."""
    return 1 if what in NARROW else 3 if what in HOUSE else 2


GROUNDS = {
    ".": ((104, 190, 84), (78, 160, 66)), ",": ((104, 190, 84), (78, 160, 66)), "a": ((206, 160, 84), (176, 104, 44)),
    "n": ((230, 238, 248), (198, 212, 232)), "i": ((168, 214, 236), (214, 238, 250)),
    "d": ((234, 190, 112), (214, 164, 88)), "s": ((240, 222, 164), (218, 194, 130)),
    "~": ((66, 134, 214), (140, 196, 248)), "p": ((196, 168, 124), (168, 138, 98)),
    "c": ((140, 104, 66), (108, 78, 48)), "o": ((176, 174, 178), (146, 144, 150)),
}  # fmt: skip
TRUNK, INK, WHITE, STONE, WOOD = (110, 74, 48), (40, 34, 48), (250, 250, 246), (150, 150, 160), (160, 112, 66)
RED, YELLOW, BLUE, ORANGE = (214, 52, 60), (250, 214, 70), (84, 92, 220), (240, 130, 40)


class Canvas:
    """A picture to paint on; coordinates are pixels from its corner (x to the right, y down), and wrap around."""

    def __init__(self, pixels: np.ndarray, x: int = 0, y: int = 0) -> None:
        self.pixels, self.x, self.y = pixels, x, y

    def at(self, x: int, y: int) -> Canvas:
        return Canvas(self.pixels, self.x + x, self.y + y)

    def _fill(self, xs: np.ndarray, ys: np.ndarray, colour: tuple[int, int, int]) -> None:
        height, width, _ = self.pixels.shape
        self.pixels[(ys + self.y) % height, (xs + self.x) % width] = colour

    def box(self, x: int, y: int, width: int, height: int, colour: tuple[int, int, int]) -> None:
        ys, xs = np.mgrid[y : y + height, x : x + width]
        self._fill(xs, ys, colour)

    def disc(self, x: float, y: float, rx: float, ry: float, colour: tuple[int, int, int]) -> None:
        ys, xs = np.mgrid[int(y - ry) : int(y + ry) + 2, int(x - rx) : int(x + rx) + 2]
        inside = ((xs + 0.5 - x) / rx) ** 2 + ((ys + 0.5 - y) / ry) ** 2 <= 1
        self._fill(xs[inside], ys[inside], colour)

    def roof(self, x: int, y: int, width: int, height: int, colour: tuple[int, int, int], top: int = 2) -> None:
        """A trapezium, `top` pixels wide at its top."""
        for row in range(height):
            part = top + (width - top) * (row + 1) // height
            self.box(x + (width - part) // 2, y + row, part, 1, colour)

    def dots(self, colour: tuple[int, int, int], *places: tuple[int, int], size: int = 1) -> None:
        for x, y in places:
            self.box(x, y, size, size, colour)


def _ground(c: Canvas, kind: str, turn: int) -> None:
    base, other = GROUNDS[kind]
    c.box(0, 0, TILE, TILE, base)
    marks = ((3, 4), (11, 2), (7, 9), (13, 12), (2, 13)) if turn == 0 else ((5, 2), (12, 6), (2, 8), (9, 13), (14, 10))
    if kind == "~":
        for x, y in marks[turn::2]:
            c.box(x - 1, y, 4, 1, other)
    elif kind == "c":
        for y in (3, 11):
            c.box(0, y, TILE, 3, other)
            c.dots((96, 180, 70), *((x, y - 1) for x in (2, 6, 10, 14)), size=2)
    elif kind == "o":
        for y in (0, 8):
            c.box(0, y, TILE, 1, other)
            c.box(3 if y else 11, y, 1, 8, other)
    elif kind == "i":
        for k in range(5):
            c.dots(other, (4 + k, 9 - k), (9 + k, 13 - k))
    else:
        for x, y in marks:
            c.dots(other, (x, y))
            if kind in ".,a":
                c.dots(other, (x + 1, y - 1))
        if kind == ",":
            for (x, y), colour in zip(marks[1::2], (YELLOW, WHITE), strict=False):
                c.dots(colour, (x - 1, y), (x + 1, y), (x, y - 1), (x, y + 1))
                c.dots(ORANGE, (x, y))


def _thing(c: Canvas, kind: str) -> None:
    if kind in "TAt":
        dark, light = {"T": ((36, 112, 62), (66, 150, 76)), "A": ((176, 74, 34), (224, 122, 48)),
                       "t": ((120, 150, 50), (160, 190, 80))}[kind]  # fmt: skip
        size = 5 if kind == "t" else 7.5
        c.box(7, 10, 3, 6, TRUNK)
        c.disc(8, 7, size, size - 0.5, dark)
        c.disc(7, 5.5, size - 3, size - 3.5, light)
    elif kind == "P":
        c.box(7, 12, 2, 4, TRUNK)
        for y, width in ((0, 8), (4, 12), (8, 16)):
            c.roof((16 - width) // 2, y, width, 6, (44, 104, 96))
            c.roof((16 - width // 2) // 2, y, width // 2, 2, WHITE)
    elif kind == "Y":
        c.box(7, 5, 2, 11, WOOD)
        for x, y in ((3, 4), (12, 4), (5, 2), (10, 2), (2, 7), (13, 7)):
            c.disc(x, y, 3, 1.6, (58, 150, 70))
    elif kind == "C":
        for x, y, width, height in ((6, 2, 4, 14), (2, 5, 2, 5), (2, 8, 5, 2), (12, 4, 2, 5), (9, 7, 5, 2)):
            c.box(x, y, width, height, (66, 140, 84))
        c.dots(RED, (7, 1), (8, 1))
    elif kind == "B":
        c.disc(8, 9, 7.5, 6, (44, 124, 70))
        c.dots(RED, (4, 8), (8, 5), (11, 10), (7, 12), size=2)
    elif kind == "R":
        c.disc(8, 9, 7, 6, (112, 112, 122))
        c.disc(7, 7, 4.5, 3.5, STONE)
    elif kind == "F":
        for y in (5, 10):
            c.box(0, y, TILE, 2, WOOD)
        for x in (2, 10):
            c.box(x, 2, 3, 13, (132, 90, 52))
    elif kind in "ryu":
        c.box(1, 1, 14, 14, (112, 80, 54))
        flower = {"r": RED, "y": YELLOW, "u": BLUE}[kind]
        c.dots((60, 140, 60), *((x + 1, y + 2) for y in (2, 6, 10) for x in (2, 6, 10)), size=2)
        c.dots(flower, *((x, y) for y in (2, 6, 10) for x in (2, 6, 10)), size=3)
    elif kind == "L":
        c.disc(8, 9, 5, 3.5, (70, 160, 90))
        c.disc(9, 7, 2, 2, (250, 180, 210))
    elif kind == "b":
        c.box(0, 0, TILE, TILE, WOOD)
        for y in (3, 7, 11, 15):
            c.box(0, y, TILE, 1, TRUNK)
    elif kind == "S":
        c.box(7, 7, 2, 9, TRUNK)
        c.box(2, 2, 12, 6, WOOD)
        c.box(4, 4, 8, 1, INK)
    elif kind == "W":
        c.disc(8, 10, 7, 5.5, (120, 120, 130))
        c.disc(8, 10, 4.5, 3.2, (40, 90, 170))
        c.roof(1, 0, 14, 5, RED)
    elif kind == "U":
        c.disc(8, 10, 7, 5, ORANGE)
        c.box(7, 6, 2, 9, (206, 100, 30))
        c.box(7, 3, 2, 3, (60, 120, 50))
    elif kind == "M":
        c.box(6, 9, 4, 6, WHITE)
        c.disc(8, 8, 6, 4.5, RED)
        c.dots(WHITE, (4, 7), (8, 5), (11, 8), size=2)
    elif kind == "V":
        c.box(3, 7, 10, 7, TRUNK)
        c.disc(8, 7, 5, 3, (204, 166, 112))
        c.disc(8, 7, 2, 1.2, WOOD)
    elif kind == "G":
        c.box(4, 6, 8, 9, STONE)
        c.disc(8, 6, 4, 3.5, STONE)
        c.box(7, 5, 2, 7, (96, 96, 108))
        c.box(5, 7, 6, 2, (96, 96, 108))
    elif kind == "K":
        c.box(7, 5, 2, 11, INK)
        c.disc(8, 4, 4, 3.8, YELLOW)
        c.disc(8, 4, 2, 1.8, WHITE)
    else:  # h
        c.disc(8, 9, 7.5, 6.5, (226, 186, 84))
        c.disc(8, 9, 4, 3.2, (196, 150, 60))


def _house(c: Canvas, roof: tuple[int, int, int], wall: tuple[int, int, int]) -> None:
    c.box(2, 16, 44, 16, wall)
    c.roof(0, 0, 48, 18, roof, 28)
    c.box(0, 17, 48, 1, INK)
    c.box(20, 21, 8, 11, TRUNK)
    for x in (6, 34):
        c.box(x, 21, 8, 6, (255, 240, 160))
        c.box(x + 3, 21, 2, 6, TRUNK)


def _landmark(c: Canvas, what: str) -> None:
    if what in HOUSE:
        roof = {"red house": (196, 60, 56), "blue house": (60, 96, 180), "green house": (50, 130, 96)}[what]
        _house(c, roof, {"red house": (240, 220, 180), "blue house": (232, 232, 240)}.get(what, (220, 190, 140)))
    elif what == "igloo":
        c.roof(1, 8, 30, 22, (176, 200, 232), 14)
        c.roof(3, 10, 26, 19, WHITE, 12)
        for y in (14, 20, 26):
            c.box(4, y, 24, 1, (176, 200, 232))
        c.roof(10, 18, 12, 14, (60, 80, 120), 8)
    elif what == "snowman":
        c.disc(8, 22, 7.5, 8, WHITE)
        c.disc(8, 10, 5.5, 5.5, WHITE)
        c.box(3, 1, 10, 5, INK)
        c.box(3, 13, 10, 2, RED)
        c.dots(INK, (6, 8), (10, 8), (8, 18), (8, 22))
        c.dots(ORANGE, (8, 10), size=2)
    elif what == "oak":
        c.box(13, 22, 6, 10, TRUNK)
        for x, y, r in ((10, 14, 10), (22, 14, 10), (16, 9, 9)):
            c.disc(x, y, r, r, (150, 56, 40))
        c.disc(13, 9, 7, 6, (220, 92, 52))
        c.dots(YELLOW, (6, 14), (20, 18), (25, 12), (14, 4), size=2)
    elif what == "tent":
        c.roof(0, 4, 32, 28, (226, 220, 200))
        c.roof(10, 14, 12, 18, (110, 60, 130))
        c.box(15, 0, 2, 5, RED)
    elif what == "mill":
        c.roof(6, 10, 20, 22, (236, 226, 206), 12)
        c.roof(8, 6, 16, 6, RED)
        for k in range(-12, 13):
            c.box(15 + k, 12 + k, 3, 2, TRUNK)
            c.box(15 + k, 12 - k, 3, 2, TRUNK)
        c.box(13, 26, 6, 6, TRUNK)
    elif what == "stones":
        for x, y in ((2, 6), (13, 1), (24, 6), (4, 20), (22, 20)):
            c.box(x, y, 7, 11, (128, 128, 140))
            c.box(x + 1, y, 4, 9, (168, 168, 178))
    elif what == "chapel":
        c.box(2, 16, 28, 16, (226, 226, 232))
        c.roof(0, 6, 32, 11, (84, 84, 110), 10)
        c.box(15, 0, 2, 7, YELLOW)
        c.box(13, 2, 6, 2, YELLOW)
        c.box(12, 22, 8, 10, TRUNK)
        c.dots((90, 150, 220), (5, 21), (24, 21), size=4)
    elif what == "boat":
        c.roof(2, 20, 28, 9, TRUNK, 34)
        c.box(15, 2, 2, 18, WOOD)
        for row in range(16):
            c.box(17, 3 + row, row * 3 // 4 + 1, 1, WHITE)
    elif what == "lighthouse":
        c.roof(3, 6, 10, 26, WHITE, 7)
        for y in (11, 19, 27):
            c.box(3, y, 10, 4, RED)
        c.box(4, 2, 8, 5, YELLOW)
        c.roof(3, 0, 10, 3, INK)
    elif what == "tower":
        c.box(2, 4, 12, 28, STONE)
        for x in (1, 6, 11):
            c.box(x, 1, 4, 5, (120, 120, 132))
        c.box(6, 10, 4, 5, INK)
        c.box(5, 23, 6, 9, TRUNK)
    else:  # wreck
        c.roof(0, 16, 32, 12, (96, 66, 44), 40)
        for x in (5, 13, 21):
            c.box(x, 4, 2, 14, (96, 66, 44))
        c.box(3, 6, 12, 2, (96, 66, 44))


def _under(rows: list[str], x: int, y: int) -> str:
    """The ground below a thing: the most common natural one around it; fixed for lilies, bridges and the well."""
    kind = rows[y][x]
    if kind in GROUNDS:
        return kind
    if kind in "LbW":
        return "o" if kind == "W" else "~"
    near = [rows[(y + j) % len(rows)][(x + i) % len(rows[0])] for j in range(-1, 2) for i in range(-2, 3)]
    return max(".ands", key=lambda ground: near.count(ground) + (ground == "." and near.count(",")))


def paint() -> tuple[np.ndarray, np.ndarray]:
    """(the country [320, 512, 3] uint8, which tiles are water [20, 32] bool)."""
    rows = MAP.split()
    picture = np.zeros((len(rows) * TILE, len(rows[0]) * TILE, 3), np.uint8)
    canvas, water = Canvas(picture), np.zeros((len(rows), len(rows[0])), bool)
    for y, row in enumerate(rows):
        for x, kind in enumerate(row):
            here, ground = canvas.at(x * TILE, y * TILE), _under(rows, x, y)
            _ground(here, ground, (x + y) % 2)
            water[y, x] = ground == "~" and kind != "b"
            if kind not in GROUNDS:
                _thing(here, kind)
    for what, x, y in LANDMARKS:
        _landmark(canvas.at(x * TILE, y * TILE), what)
    return picture, water
