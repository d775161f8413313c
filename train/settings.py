"""What a run is asked for, and who is told what happens."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

PARTS = ("tokenizer", "lam", "dynamics")


@dataclass(frozen=True)
class Settings:
    """What `genie-train` is asked for; see its --help. None: by the videos, the time and the device."""

    minutes: float = 60.0
    steps: int | None = None  # of each part; instead of `minutes`
    size: str | None = None
    fps: float | None = None
    preset: str | None = None
    config: Path | None = None
    actions: int = 8
    context: int = 8
    names: tuple[str, ...] = ()
    start: Path | None = None
    parts: tuple[str, ...] = ()  # to train; the others are taken from `start`; empty: all
    device: str | None = None
    threads: int | None = None
    batch: int | None = None
    rate: float = 1e-3
    keys: bool = False
    even: bool = False
    mirror: bool = False
    alike: bool = False
    rare: bool = False
    walks: int = 0
    type: str = "q8_0"
    half: bool = False
    seed: int = 0


class Listener(Protocol):
    """Is told what happens. say: a line. watch: one of many pieces of work. losses: of the part in training."""

    def say(self, text: str) -> None: ...
    def watch(self, what: str, done: int, total: int) -> None: ...
    def losses(self, part: str, share: float, seconds: float, values: dict[str, float]) -> None: ...
