"""How a run begins: its folder with run.json, config.json and the frames appears whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from genie_cpp.convert.reference.config import GenieConfig
from genie_cpp.errors import ImageError, OutputError
from genie_cpp.leftovers import folder_beside
from genie_cpp.train import dataset, propose, videos
from genie_cpp.train.dataset import Dataset
from genie_cpp.train.errors import TrainError
from genie_cpp.train.settings import PARTS, Listener, Settings
from genie_cpp.words import quoted

VERSION = 1
# A run depends on these; with other values it is another one.
SHAPING = (
    "size", "fps", "preset", "config", "actions", "context", "keys", "start", "parts", "even", "mirror", "seed"
)  # fmt: skip


def begin(paths: Sequence[Path], folder: Path, settings: Settings, tell: Listener) -> dict[str, Any]:
    """What run.json says. Begins the run if `folder` is none yet.

    Raises TrainError for another run, for settings that do not fit and for videos that teach nothing; ImageError for a
    video that was named and cannot be read; ConfigError; OutputError; OSError.
    """
    if unknown := [part for part in settings.parts if part not in PARTS]:
        raise TrainError(f"there is no part {quoted(unknown[0])}", f"the parts are {', '.join(PARTS)}")
    if 0 < len(settings.parts) < len(PARTS) and settings.start is None:
        raise TrainError("--part needs --start, which the other parts are taken from", "a native checkpoint")
    found = videos.find(paths)
    asked = {k: None if (v := getattr(settings, k)) is None else str(v) for k in SHAPING}
    sources = [[video.path.name, video.bytes] for video in found]
    if (folder / "run.json").exists():
        return _same(folder, asked, sources)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OutputError(f"{quoted(str(folder))} is not empty and no run", "choose another -o")
    seen = _seen(found, tell)
    config = _config([about for _, about in seen], folder.name, settings)
    facts = {
        "version": VERSION, "asked": asked, "videos": sources, "finished": [], "minutes": {}, "figures": {},
    }  # fmt: skip
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = folder_beside(folder)
    try:
        made = work / "run"
        made.mkdir()
        dataset.write(
            made / "data", [video for video, _ in seen], config.frame_width, config.frame_height,
            settings.fps or videos.MOST_RATE, config.context_length, tell.say, tell.watch,
        )  # fmt: skip
        _check_actions(made / "data", config, settings)
        config.save(made / "config.json")
        (made / "run.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")
        if folder.exists():
            folder.rmdir()
        os.replace(made, folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return facts


def _same(folder: Path, asked: dict[str, str | None], sources: list[list[Any]]) -> dict[str, Any]:
    try:
        facts: dict[str, Any] = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        version, before = facts["version"], facts["asked"]
    except (ValueError, KeyError, TypeError):
        raise TrainError(f"run.json in {quoted(str(folder))} is damaged", "choose another -o") from None
    if version != VERSION:
        raise TrainError(f"{quoted(str(folder))} is a run of another version", "choose another -o")
    other = [key for key in SHAPING if before.get(key) != asked[key]]
    if other or facts["videos"] != sources:
        what = f"other values of --{', --'.join(other)}" if other else "other videos"
        raise TrainError(
            f"{quoted(str(folder))} holds another run, with {what}",
            "choose another -o, or give the same; --minutes, --threads and --device may change",
        )
    return facts


def _seen(found: Iterable[videos.Video], tell: Listener) -> list[tuple[videos.Video, videos.Facts]]:
    """The videos that can be read, with their size and rate."""
    seen = []
    for video in found:
        try:
            seen.append((video, videos.facts(video)))
        except ImageError as error:
            if video.named:
                raise
            tell.say(f"left out {video.path.name}: {error}")
    if not seen:
        raise TrainError("none of the videos can be read", "the lines above say why")
    return seen


def _config(seen: Sequence[videos.Facts], name: str, s: Settings) -> GenieConfig:
    if s.config is not None:
        return GenieConfig.load(s.config)
    width, height = propose.parsed_size(s.size) if s.size else propose.frame_size(seen)
    return propose.config(width, height, s.preset, s.minutes, s.actions, s.context, name)


def _check_actions(data: Path, config: GenieConfig, s: Settings) -> None:
    """--names and --keys need true actions."""
    actions = Dataset(data, config.context_length).actions
    for option, wanted in (("--names", s.names), ("--keys", s.keys)):
        if wanted and actions is None:
            raise TrainError(f"{option} needs videos whose actions are known", ".npz files with actions have them")
    if actions is None:
        return
    count = int(actions[actions != dataset.UNKNOWN].max()) + 1
    if s.names and len(s.names) != count:
        raise TrainError(f"the videos have {count} actions, --names has {len(s.names)}")
    if s.keys and count > config.action_count:
        raise TrainError(f"the videos have {count} actions, the model {config.action_count}", f"--actions {count}")
