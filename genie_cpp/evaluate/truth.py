"""How close a world is to the game it was trained on, measured on held-out episodes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genie_cpp.evaluate import measures
from genie_cpp.evaluate.data import Play
from genie_cpp.evaluate.measures import Nearest, Watch, mean_error, overall, psnr, unwatched
from genie_cpp.model import Model
from genie_cpp.sampler import Sampler
from genie_cpp.world import World

FULL_WALK = 500  # actions per walk that is compared with the map; only its last fifth of frames counts
LANDMARK_DB = 16.0  # PSNR of a landmark's box from which the landmark counts as met
POSE_DB = 12.0  # the same for the moving figure


def truth(
    model: Model,
    play: Play,
    *,
    sampler: Sampler | None = None,
    clips: int = 200,
    walks: int = 16,
    into: dict[str, Any] | None = None,
    watch: Watch = unwatched,
) -> dict[str, Any]:
    """Measure reconstruction, next frame, controllability, actions, long play, and for a place how it keeps to its map.

    Returns figures ready for JSON, in dB unless named otherwise; `*_error` are standard errors over clips. walks: 0
    leaves long play out. into: filled during the run. Deterministic. Raises what `World` raises.
    """
    found: dict[str, Any] = {} if into is None else into
    T = model.info.context_length
    world = World(model, sampler)
    frames, actions, blocked = play.clips(clips, T)
    rebuilt = np.stack([model.detokenize(model.tokenize(clip)) for clip in watch(frames, "reconstruction", clips)])
    found["reconstruction_db"] = overall(rebuilt, frames)
    found |= one_step(world, frames, T // 2, watch)
    if model.info.has_lam:
        found |= controllability(world, frames, min(4, T - 1), watch)
        meant = None
        if actions is not None:
            table = action_table(model, frames, actions, blocked, play.action_count, watch)
            found["actions"] = table.tolist()
            found["actions_found"] = [float(v) for v in found_share(table)]
            meant = meaning(table)
        if walks:
            found |= _long_play(world, play, meant, walks, watch)
        if walks and meant is not None and play.places is not None:
            found |= place(world, play, meant, walks, watch)
    return found


def one_step(
    world: World, clips: NDArray[np.uint8], context: int, watch: Watch = unwatched, label: str = "next frame"
) -> dict[str, float]:
    """Sample frame `context` after the true frames before it, with the action that the LAM infers. Clips in which this
    frame equals the one before it are left out."""
    sampled = []
    for index, clip in enumerate(watch(clips, label, len(clips))):
        actions = _inferred(world.model, clip[: context + 1])
        world.reset(clip[:context], seed=index, actions=actions[:-1])
        sampled.append(world.step(actions[-1]))
    last, real, guess = clips[:, context - 1], clips[:, context], np.stack(sampled)
    moving = (last != real).any((1, 2, 3))
    if not moving.any():
        return {"moving_pairs": 0}
    gain = psnr(guess[moving], real[moving]) - psnr(last[moving], real[moving])
    mean, error = mean_error(psnr(guess[moving], real[moving]))
    return {
        "moving_pairs": int(moving.sum()),
        "copy_db": overall(last[moving], real[moving]),
        "sampled_db": overall(guess[moving], real[moving]),
        "sampled_mean_db": mean,
        "sampled_error": error,
        "over_copy_mean_db": float(gain.mean()),
    }


def controllability(world: World, clips: NDArray[np.uint8], t: int = 4, watch: Watch = unwatched) -> dict[str, float]:
    """delta_t PSNR = PSNR(x_t, with inferred actions) - PSNR(x_t, with random actions), from one prompt frame
    (section 4 of arXiv 2402.15391)."""
    rng = np.random.default_rng(0)
    inferred, random = [], []
    for index, clip in enumerate(watch(clips, "controllability", len(clips))):
        world.reset(clip[0], seed=index)
        inferred.append(psnr(world.rollout(_inferred(world.model, clip[: t + 1]))[-1], clip[t]))
        world.reset(clip[0], seed=index)
        random.append(psnr(world.rollout(rng.integers(world.model.info.choices, size=t).tolist())[-1], clip[t]))
    gain, error = mean_error(np.array(inferred) - np.array(random))
    return {
        f"delta{t}_psnr": gain,
        f"delta{t}_error": error,
        "inferred_db": float(np.mean(inferred)),
        "random_db": float(np.mean(random)),
    }


def _inferred(model: Model, video: NDArray[np.uint8]) -> list[int]:
    return model.infer_actions(video).tolist() if model.info.has_lam else [0] * (len(video) - 1)


def action_table(
    model: Model,
    clips: NDArray[np.uint8],
    actions: NDArray[np.integer[Any]],
    blocked: NDArray[np.bool_],
    count: int,
    watch: Watch = unwatched,
) -> NDArray[np.int64]:
    """Counts [latent, true action 0…count-1]. Steps blocked by a wall show no action and do not count."""
    table = np.zeros((model.info.action_count, count), np.int64)
    for clip, true, wall in zip(watch(clips, "actions", len(clips)), actions, blocked, strict=True):
        np.add.at(table, (model.infer_actions(clip)[~wall], true[~wall]), 1)
    return table


def meaning(table: NDArray[np.int64]) -> NDArray[np.int64]:
    """[true action] -> its latent: of the latents frequent for it, the one that most exclusively means it."""
    share = table / np.maximum(table.sum(1, keepdims=True), 1)
    often = table >= 0.2 * table.max(0)
    return np.where(often & (table > 0), share + 1e-9 * table, -1.0).argmax(0)


def found_share(table: NDArray[np.int64]) -> NDArray[np.float64]:
    """For each true action that occurs: the share of its latent's cases that are this action."""
    best, seen = meaning(table), table.sum(0) > 0
    share = table[best, np.arange(table.shape[1])] / np.maximum(table[best].sum(1), 1)
    return share[seen]


def _walks(play: Play, count: int, length: int) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """(seed, true frames [length + 1, ...]) for the first episodes."""
    for episode in range(min(count, len(play.frames))):
        yield episode, play.frames[episode, : length + 1]


def _long_play(world: World, play: Play, meant: NDArray[np.int64] | None, walks: int, watch: Watch) -> dict[str, float]:
    """Play up to 100 frames from one true frame, with the latents of the true actions, or where these are not known
    with those that the LAM infers: PSNR to the recording."""
    length = min(100, play.frames.shape[1] - 1)
    db = []
    for seed, video in watch(_walks(play, walks, length), "long play", walks):
        if meant is None or play.actions is None:
            latents = _inferred(world.model, video)
        else:
            latents = meant[play.actions[seed, :length]].tolist()
        world.reset(video[0], seed=seed)
        db.append(psnr(world.rollout(latents), video[1:]))
    curve = np.stack(db).mean(0)
    return {
        f"long_play_{a + 1}_to_{min(a + 10, length)}_db": float(curve[a : a + 10].mean())
        for a in (0, 40, 90)
        if a < length
    }


def place(world: World, play: Play, meant: NDArray[np.int64], walks: int, watch: Watch = unwatched) -> dict[str, Any]:
    """Compare a world that is a place with its map, on mixed walks with true actions. Measured on the last fifth of the
    frames: the share whose nearest picture of all places is the true one, the PSNR outside the mover, and the landmarks
    met. Measured on all frames: the share of steps that did what the action says from where the world was
    (`steps_right`)."""
    assert play.places is not None and play.pictures is not None and play.actions is not None
    length = min(FULL_WALK, play.frames.shape[1] - 1)
    first = length * 4 // 5
    height, width = play.frames.shape[2:4]
    pixels = measures.pixels_of(play.mover, height, width)
    nearest = Nearest(play.pictures, pixels)
    looks = Poses(play) if play.mover[2] > play.mover[0] else None
    leads = _leads(play)
    right, db, met, poses, steps = [], [], [], list[bool](), list[bool]()
    by_landmark: dict[int, list[bool]] = {}
    for seed, video in watch(_walks(play, walks, length), f"{length} frames on the map", walks):
        actions = play.actions[seed, :length]
        world.reset(video[0], seed=seed)
        whole = world.rollout(meant[actions].tolist())
        steps += _steps(whole, int(play.places[seed, 0]), actions, leads, nearest)
        played = whole[first:]
        places = play.places[seed, first + 1 : length + 1]
        true = play.pictures[places]
        right.append(nearest.holds(played, places))
        db.append(psnr(played, true, pixels))
        for frame, picture, at in zip(played, true, places, strict=True):
            boxes = play.landmarks[play.landmarks[:, 0] == at]
            for landmark, value in zip(boxes[:, 1], measures.boxes_db(frame, picture, boxes[:, 2:]), strict=True):
                by_landmark.setdefault(int(landmark), []).append(bool(value >= LANDMARK_DB))
                met.append(bool(value >= LANDMARK_DB))
        if looks is not None:
            wanted = ways(play.places[seed, : length + 1], actions)[first:]
            poses += [looks.way(f, p) == way for f, p, way in zip(played, true, wanted, strict=True) if way >= 0]
    share, error = mean_error([r.mean() for r in right])
    found: dict[str, Any] = {
        "place_frames": f"{first + 1}-{length}",
        "place_right": share,
        "place_right_error": error,
        "place_db": float(np.mean(np.concatenate(db))),
        "steps_right": float(np.mean(steps)) if steps else 1.0,
        "landmarks_met": float(np.mean(met)) if met else 1.0,
        "landmarks_missed": [play.landmark_names[k] for k, hits in sorted(by_landmark.items()) if np.mean(hits) < 0.5],
        "landmarks_seen": len(by_landmark),
    }
    if poses:
        found["mover_right"] = float(np.mean(poses))
    return found


def _leads(play: Play) -> dict[int, dict[int, int]]:
    """For each place in the recording: action -> the place that it led to."""
    assert play.places is not None and play.actions is not None
    found: dict[int, dict[int, int]] = {}
    for places, actions in zip(play.places.tolist(), play.actions.tolist(), strict=True):
        for before, action, after in zip(places[:-1], actions, places[1:], strict=True):
            found.setdefault(before, {})[action] = after
    return found


def _steps(
    frames: NDArray[np.uint8], at: int, actions: NDArray[np.uint8], leads: dict[int, dict[int, int]], nearest: Nearest
) -> list[bool]:
    """Whether each action had its effect, from wherever the world was: among the last place and its neighbours, the
    nearest to the frame must be the place that the action leads to."""
    found = []
    for frame, action in zip(frames, actions.tolist(), strict=True):
        around = leads.get(at, {})
        if action not in around:
            break  # the recording has no such step
        beside = np.array(sorted({at, *around.values()}))
        now = nearest.among(frame, beside)
        if len(beside) > 1:
            found.append(now == around[action])
        at = now
    return found


class Poses:
    """What the mover looks like in true frames: which pixels differ from the place without the mover, and in which
    direction the mover last went."""

    def __init__(self, play: Play) -> None:
        assert play.places is not None and play.pictures is not None and play.actions is not None
        top, left, bottom, right = self.box = play.mover
        self.looks: dict[bytes, tuple[NDArray[np.bool_], NDArray[np.uint8], int]] = {}
        counts: dict[bytes, int] = {}
        for frames, places, actions in zip(play.frames, play.places, play.actions, strict=True):
            boxes = frames[1:, top:bottom, left:right]
            masks = (boxes != play.pictures[places[1:], top:bottom, left:right]).any(-1)
            for box, mask, way in zip(boxes, masks, ways(places, actions), strict=True):
                if way < 0:
                    continue
                key = bytes([way]) + mask.tobytes()
                counts[key] = counts.get(key, 0) + 1
                self.looks.setdefault(key, (mask, box, way))
        # A mover's pixel with the ground's colour produces a separate look, so only the frequent looks are kept.
        total = sum(counts.values())
        self.looks = {key: look for key, look in self.looks.items() if counts[key] >= 0.005 * total}

    def way(self, frame: NDArray[np.uint8], ground: NDArray[np.uint8]) -> int:
        """The direction the mover faces; -1 if no known look fits. ground: the place without the mover."""
        top, left, bottom, right = self.box
        mine, below = frame[top:bottom, left:right], ground[top:bottom, left:right]
        errors = [
            (float(psnr(mine, np.where(mask[..., None], box, below))), way) for mask, box, way in self.looks.values()
        ]
        db, way = max(errors, default=(0.0, -1))
        return way if db >= POSE_DB else -1


def ways(places: NDArray[np.integer[Any]], actions: NDArray[np.integer[Any]]) -> list[int]:
    """For each action: the last one that led to another place; -1 before the first such action."""
    last, found = -1, []
    for before, after, action in zip(places[:-1], places[1:], actions, strict=True):
        last = int(action) if before != after else last
        found.append(last)
    return found
