"""`genie-eval`: how good a world is in long play, against recorded play, and against another file of it."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from genie_cpp.cli import options
from genie_cpp.cli.options import env
from genie_cpp.errors import GenieError
from genie_cpp.evaluate import Life, Play, against, life, sweep, truth
from genie_cpp.evaluate import sheet as sheets
from genie_cpp.evaluate.report import Report
from genie_cpp.evaluate.report import limits as bars
from genie_cpp.evaluate.sweep import parse
from genie_cpp.frames import Frame, fit, load_image
from genie_cpp.model import Model
from genie_cpp.words import quoted
from genie_cpp.world import World

FORMATS = ("md", "json")


def evaluate(
    more: Annotated[list[str] | None, typer.Argument(metavar="[KEY=A,B …]", help="More settings for --sweep.")] = None,
    model: options.Model = None,
    lives: Annotated[
        bool, typer.Option("--life", help="Play for long: held actions, mixed walks, staying, returns.")
    ] = False,
    data: Annotated[
        Path | None,
        typer.Option(envvar=env("DATA"), help="Recorded play (test.npz, places.npz): measure against what happened."),
    ] = None,
    exact: Annotated[
        str | None, typer.Option("--against", help="Compare with another file of the same world, such as f32.gguf.")
    ] = None,
    grid: Annotated[
        list[str] | None,
        typer.Option("--sweep", help="With --data, samplers to try: --sweep steps=1,8,25 temperature=0,1 order=random"),
    ] = None,
    start: Annotated[
        list[Path] | None, typer.Option("--start", help="Pictures to start from, again for more. [the world's own]")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, max=1000, help="Seeds of held actions and mixed walks.")] = 5,
    held: Annotated[int, typer.Option(min=0, max=100_000, help="Frames that each action is held for.")] = 500,
    mixed: Annotated[int, typer.Option(min=0, max=1_000_000, help="Frames of a mixed walk.")] = 2000,
    still: Annotated[int, typer.Option(min=0, max=100_000, help="Frames of staying.")] = 200,
    returns: Annotated[int, typer.Option(min=0, max=1000, help="Starts that walks out and back are tried from.")] = 20,
    clips: Annotated[int, typer.Option(min=2, max=100_000, help="Clips of recorded play.")] = 200,
    walks: Annotated[int, typer.Option(min=0, max=10_000, help="Recorded episodes that are played after.")] = 16,
    sheet: Annotated[
        Path | None, typer.Option("--sheet", help="Write contact sheets and a plot of entropy to this folder.")
    ] = None,
    speed: Annotated[bool, typer.Option("--speed", help="Also frames per second, which other work disturbs.")] = False,
    bar: Annotated[
        list[str] | None, typer.Option("--bar", help="A bar of this world, such as reconstruction=28; again for more.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Fail (exit code 1) where a bar is not met.")] = False,
    output: Annotated[str, typer.Option("--output", "-o", help="md or json, on stdout.")] = "md",
    threads: options.Threads = None,
    backend: options.Backend = "auto",
    force: options.Force = False,
    offline: options.Offline = False,
) -> None:
    """Measure a world. Without --data, --against or --sweep it is --life."""
    if output not in FORMATS:
        raise GenieError(f"-o is md or json, not {quoted(output)}", "the report goes to stdout; redirect it to a file")
    if more and not grid:
        raise GenieError(f"{quoted(more[0])} is an argument too many", "settings to try come after --sweep")
    grid = [*(grid or []), *(more or [])]
    if grid and data is None:
        raise GenieError("--sweep judges samplers against recorded play", "give it with --data")
    asked, limits = parse(grid), bars(bar or [])
    opened = Model.open(model, threads, backend, force)
    play = None if data is None else Play.load(data, opened.info)
    other = None if exact is None else Model.open(exact, threads, backend, force)
    lives = lives or not (play or other)
    starts = _starts(opened, start or [], play) if lives or asked else []
    s = opened.sampler
    settings = f"{s.steps} steps, temperature {float(np.float32(s.temperature)):.6g}, {s.order}"
    report = Report(
        {"name": opened.name, "type": opened.type, "sha256": opened.sha256, "sampler": settings}, limits=limits
    )
    interrupted = False
    try:
        with _Watch() as watch:
            if lives:
                report.life = Life()
                every = max(1, mixed // 200) if sheet else 0
                life(
                    opened, starts, play=play, seeds=seeds, held=held, mixed=mixed, still=still, returns=returns,
                    sheet_every=every, into=report.life, watch=watch,
                )  # fmt: skip
            if play and not asked:
                truth(opened, play, clips=clips, walks=walks, into=report.truth, watch=watch)
            if play and asked:
                sweep(opened, play, starts, asked, clips=clips, into=report.sweep, watch=watch)
            if other:
                recorded = _recorded(opened, play, starts or _starts(opened, start or [], play), clips)
                against(opened, other, recorded, into=report.against, watch=watch)
            if speed:
                report.frames_per_second = _speed(opened, starts or _starts(opened, start or [], play))
    except KeyboardInterrupt:
        interrupted = True
        print("interrupted: this is what was measured so far", file=sys.stderr)
    sys.stdout.write(json.dumps(report.facts(), indent=1) + "\n" if output == "json" else report.markdown())
    if sheet is not None and report.life is not None:
        for path in sheets.write(report.life, sheet):
            print(path, file=sys.stderr)
    if interrupted:
        raise typer.Exit(130)
    if strict and (not report.bars() or not all(met for _, _, _, met in report.bars())):
        raise typer.Exit(1)


def _speed(model: Model, starts: list[Frame], frames: int = 200) -> float:
    """Frames per second of play, after a warm-up of one full window."""
    world = World(model)
    world.reset(starts[0])
    actions = [i // 5 % model.info.choices for i in range(frames)]
    world.rollout(actions[: model.info.context_length])
    started = time.perf_counter()
    world.rollout(actions)
    return frames / (time.perf_counter() - started)


def _starts(model: Model, given: list[Path], play: Play | None) -> list[Frame]:
    """The given pictures, else the world's own, else the first frames of recorded play."""
    hp = model.info
    if given:
        return [fit(load_image(path), hp.frame_width, hp.frame_height) for path in given]
    own = list(World(model).prompts)
    if not own and play is None:
        raise GenieError("this world has no pictures of its own to start from", "give some with --start")
    return own or list(play.frames[:, 0] if play else ())


def _recorded(model: Model, play: Play | None, starts: list[Frame], clips: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Clips on which two files are compared: recorded play, else frames that the world generates from its pictures."""
    length = model.info.context_length
    if play:
        return play.clips(clips, length)[0]
    world, videos = World(model), []
    for seed in range(clips):
        first = world.reset(starts[seed % len(starts)], seed=seed)
        actions = np.random.default_rng(seed).integers(model.info.choices, size=length - 1)
        videos.append(np.concatenate([first[None], world.rollout(actions.tolist())]))
    return np.stack(videos)


class _Watch:
    """A progress bar on stderr, if that is a terminal."""

    def __enter__(self) -> _Watch:
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        console = Console(stderr=True, highlight=False, markup=False)
        self._progress = Progress(*columns, console=console, disable=not sys.stderr.isatty(), transient=True)
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def __call__(self, items: Iterable[Any], label: str, total: int) -> Iterator[Any]:
        bar = self._progress.add_task(label, total=total)
        try:
            for item in items:
                yield item
                self._progress.advance(bar)
        finally:
            self._progress.remove_task(bar)
