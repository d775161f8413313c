"""Is a world still alive after long play? It is played with each action held, mixed actions, none, and out and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genie_cpp.evaluate import measures
from genie_cpp.evaluate.data import Play
from genie_cpp.evaluate.measures import Neighbours, Watch, mean_error, psnr, unwatched
from genie_cpp.model import Frame, Ids, Model
from genie_cpp.sampler import Sampler
from genie_cpp.world import World

STRETCH = 200  # frames per value of the tokens' entropy
SETTLED = 50  # frames to skip after the start of a held action
OPPOSITES = {"left": "right", "up": "down", "forward": "back", "turn-left": "turn-right"}
OPPOSITES |= {b: a for a, b in OPPOSITES.items()}
STILL = ("stay",)
_UNKNOWN = ("unused", "mixed")
_LONGEST_TURN = 48


@dataclass
class Held:
    """The result of one held action, from one start with one seed."""

    action: int
    name: str
    seed: int
    distinct: float  # different backgrounds / all backgrounds, after the first SETTLED frames
    changed: float  # share of the background's tokens that change per frame
    period: int  # of the last STRETCH backgrounds; 0: none up to measures.LONGEST_PERIOD
    strays: float | None  # share of neighbouring token pairs never seen in real play
    round_trip_db: float  # PSNR of the last frames against themselves, encoded and decoded again


@dataclass
class Mixed:
    """The result of a walk with many different actions."""

    seed: int
    distinct: float
    changed: float
    entropy: list[float]  # bits per token, one value per STRETCH frames
    strays: float | None
    round_trip_db: float


@dataclass
class Return:
    """Is the start seen again after an action k times and its opposite k times, or after a full turn?"""

    name: str
    steps: int
    db: float
    error: float
    starts: int


@dataclass
class Life:
    """What `life` measured. `real_entropy`: of real play, in bits per token, mean over stretches; None without data."""

    held: list[Held] = field(default_factory=list)
    mixed: list[Mixed] = field(default_factory=list)
    still: list[float] = field(default_factory=list)  # per start: share of background tokens unchanged on the spot
    returns: list[Return] = field(default_factory=list)
    real_entropy: float | None = None
    sheets: dict[str, list[Frame]] = field(default_factory=dict, repr=False)

    def facts(self) -> dict[str, Any]:
        """JSON-ready."""
        rows = dataclasses.asdict(dataclasses.replace(self, sheets={}))
        del rows["sheets"]
        return rows


class _Player:
    """Plays one model from start pictures and measures the result. The moving figure (mover) is left out."""

    def __init__(self, model: Model, sampler: Sampler | None, starts: Sequence[Frame], play: Play | None) -> None:
        hp, self.model, self.starts = model.info, model, list(starts)
        self.world = World(model, sampler)
        patch = hp.tokenizer_patch_size
        rows, columns = hp.frame_height // patch, hp.frame_width // patch
        mover = play.mover if play else (0, 0, 0, 0)
        self.mover_P = measures.tokens_of(mover, rows, columns, patch)
        self.pixels = measures.pixels_of(mover, hp.frame_height, hp.frame_width)
        self.real: Neighbours | None = None
        if play:
            self.real = Neighbours(hp.codebook_size, columns, self.mover_P)

    def begin(self, seed: int) -> Frame:
        return self.world.reset(self.starts[seed % len(self.starts)], seed=seed)

    def walk(self, actions: Sequence[int], watch: Watch, label: str) -> tuple[Ids, list[Frame]]:
        """(tokens [T, P], frames), without the start frame."""
        ids, frames = [], []
        for action in watch(actions, label, len(actions)):
            frames.append(self.world.step(int(action)))
            ids.append(self.world.tokens)
        return np.stack(ids), frames

    def background(self, ids_TP: Ids) -> Ids:
        return ids_TP[:, ~self.mover_P]

    def strays(self, ids_TP: Ids) -> float | None:
        return None if self.real is None else self.real.strays(ids_TP)

    def round_trip(self, frames: Sequence[Frame]) -> float:
        """Mean PSNR between frames and their reconstruction. Far below real frames: the frames are broken."""
        video = np.stack(frames[-8:])
        return float(psnr(video, self.model.detokenize(self.model.tokenize(video))).mean())


def mixed_actions(choices: Sequence[int], n: int, seed: int) -> list[int]:
    """n actions out of `choices`, each held for 3 to 14 frames."""
    rng, actions = np.random.default_rng(seed), list[int]()
    while len(actions) < n:
        actions += [int(rng.choice(list(choices)))] * int(rng.integers(3, 15))
    return actions[:n]


def life(
    model: Model,
    starts: Sequence[Frame],
    *,
    play: Play | None = None,
    sampler: Sampler | None = None,
    seeds: int = 5,
    held: int = 500,
    mixed: int = 2000,
    still: int = 200,
    returns: int = 20,
    sheet_every: int = 0,
    into: Life | None = None,
    watch: Watch = unwatched,
) -> Life:
    """Play and measure. starts: uint8 [H, W, 3] in the world's size; seed s uses start s modulo their number.

    play: recorded play, the source of real token pairs and of the mover's position. held, mixed, still: frames to play.
    returns: number of starts. sheet_every: keep every n-th frame for contact sheets. into: filled during the run, so
    that an interruption loses nothing. Deterministic. Raises what `World` raises.
    """
    found = Life() if into is None else into
    player = _Player(model, sampler, starts, play)
    if play:
        found.real_entropy = _learn(player, play, watch)
    choices = [a for a in range(model.info.choices) if _name(model, a) not in _UNKNOWN]
    moving = [a for a in choices if _name(model, a) not in STILL]
    for seed in range(seeds):
        for action in moving if held else ():
            name = _name(model, action)
            player.begin(seed)
            ids, frames = player.walk([action] * held, watch, f"{name} held, seed {seed}")
            settled = player.background(ids)[min(SETTLED, held // 2) :]
            found.held.append(
                Held(
                    action, name, seed, measures.distinct(settled), measures.changed(player.background(ids)),
                    measures.period(player.background(ids)[-STRETCH:]), player.strays(ids), player.round_trip(frames),
                )
            )  # fmt: skip
            if sheet_every and seed == 0:
                found.sheets[f"{action} {name}"] = frames[::sheet_every]
        if mixed:
            player.begin(seed)
            ids, frames = player.walk(mixed_actions(choices, mixed, seed), watch, f"mixed, seed {seed}")
            seen = player.background(ids)
            stretches = [seen[i : i + STRETCH] for i in range(0, len(seen) - min(STRETCH, mixed) + 1, STRETCH)]
            found.mixed.append(
                Mixed(
                    seed, measures.distinct(seen), measures.changed(seen), [measures.entropy(s) for s in stretches],
                    player.strays(ids), player.round_trip(frames),
                )
            )  # fmt: skip
            if sheet_every:
                found.sheets[f"mixed {seed}"] = frames[::sheet_every]
        for action in (a for a in choices if still and _name(model, a) in STILL):
            player.begin(seed)
            first = player.world.tokens
            ids, frames = player.walk([action] * still, watch, f"stay, seed {seed}")
            found.still.append(1 - measures.changed(player.background(np.concatenate([first[None], ids]))))
            if sheet_every and seed == 0:
                found.sheets[f"{action} stay"] = frames[::sheet_every]
    if returns:
        found.returns += _returns(player, returns, watch)
    return found


def _learn(player: _Player, play: Play, watch: Watch) -> float:
    """Tokenize real play and remember its neighbouring token pairs. Returns its mean entropy per stretch."""
    assert player.real is not None
    stretches = []
    for video in watch(play.frames, "real play", len(play.frames)):
        ids = player.model.tokenize(video)
        player.real.add(ids)
        seen = player.background(ids)
        stretches += [
            measures.entropy(seen[i : i + STRETCH]) for i in range(0, max(1, len(seen) - STRETCH + 1), STRETCH)
        ]
    if play.pictures is not None:
        parts = np.array_split(play.pictures, max(1, len(play.pictures) // 64))
        for part in watch(parts, "real places", len(parts)):
            player.real.add(player.model.tokenize(part))
    return float(np.mean(stretches))


def _name(model: Model, action: int) -> str:
    names = model.info.action_names
    return names[action] if names else str(action)


def _returns(player: _Player, starts: int, watch: Watch) -> list[Return]:
    """1, 3, 5 and 7 steps out and back for each action whose opposite has a name, and full turns."""
    model, found = player.model, []
    names = [_name(model, a) for a in range(model.info.choices)]
    first = {name: names.index(name) for name in names}
    for name, action in first.items():
        if name not in OPPOSITES or OPPOSITES[name] not in first:
            continue
        back = first[OPPOSITES[name]]
        for k in watch((1, 3, 5, 7), f"return, {name}", 4):
            found.append(
                _summary(f"{name} and back", k, [_out_and_back(player, s, action, back, k) for s in range(starts)])
            )
        if name.startswith("turn-"):
            turns = np.array([_turn(player, s, action) for s in watch(range(starts), f"full {name}", starts)])
            full = int(turns.mean(0)[3:].argmax()) + 3  # number of steps that best brings the start back
            found.append(_summary(f"full {name}", full + 1, turns[:, full].tolist()))
    return found


def _summary(name: str, steps: int, values: list[float]) -> Return:
    mean, error = mean_error(values)
    return Return(name, steps, mean, error, len(values))


def _out_and_back(player: _Player, seed: int, action: int, back: int, k: int) -> float:
    start, world = player.begin(seed), player.world
    moved, before = 0, player.background(world.tokens[None])
    for _ in range(k):
        world.step(action)
        now = player.background(world.tokens[None])
        if measures.changed(np.concatenate([before, now])) < 0.02:  # a wall blocked the step, so it does not count
            break
        moved, before = moved + 1, now
    frame = world.frame
    for _ in range(moved):
        frame = world.step(back)
    return float(psnr(frame, start, player.pixels))


def _turn(player: _Player, seed: int, action: int) -> NDArray[np.float64]:
    """PSNR against the start after 1…_LONGEST_TURN turning steps."""
    start = player.begin(seed)
    return psnr(player.world.rollout([action] * _LONGEST_TURN), np.repeat(start[None], _LONGEST_TURN, 0), player.pixels)
