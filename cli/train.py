"""genie-train: makes a world of videos."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from genie_cpp.cli.options import env
from genie_cpp.errors import GenieError
from genie_cpp.words import printable, quoted


def train(
    videos: Annotated[
        list[Path],
        typer.Argument(
            help="Films (mp4, webm, mov, mkv, gif), folders of pictures, .npz files with frames [N, L, H, W, 3], "
            "or folders of these."
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", envvar=env("OUTPUT"), help="The run's folder. If it is there, go on.")
    ],
    minutes: Annotated[
        float, typer.Option(min=0.05, max=100_000, help="Time to train; the learning rate follows it.")
    ] = 60,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Train each part so many steps, instead of --minutes.")
    ] = None,
    size: Annotated[str | None, typer.Option(help="Of a frame, such as 128x80. [by the videos]")] = None,
    fps: Annotated[
        float | None, typer.Option(min=0.1, max=240, help="Frames a second to take of films. [10, of films with more]")
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="tiny, small or paper-appendix-f. [tiny below 30 minutes, else small]")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="A config.json instead of a preset.")] = None,
    actions: Annotated[int, typer.Option(min=2, max=256, help="Latent actions to find.")] = 8,
    context: Annotated[int, typer.Option(min=2, max=64, help="Frames that the model remembers.")] = 8,
    names: Annotated[
        str | None, typer.Option(help="Where true actions are known: what they are called, stay,left,right.")
    ] = None,
    start: Annotated[
        Path | None, typer.Option(help="A native checkpoint to begin from instead of from nothing.")
    ] = None,
    part: Annotated[
        list[str] | None, typer.Option(help="Train this part only, again for more: tokenizer, lam, dynamics. [all]")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="A PyTorch device, such as cpu or cuda. [cuda where it is present]")
    ] = None,
    threads: Annotated[int | None, typer.Option("--threads", "-t", envvar=env("THREADS"), min=1, max=1024)] = None,
    batch: Annotated[int | None, typer.Option(min=1, max=4096, help="Clips at a time. [by part and device]")] = None,
    rate: Annotated[float, typer.Option(min=1e-6, max=1, help="Learning rate.")] = 1e-3,
    keys: Annotated[bool, typer.Option("--keys", help="Tell the latent action model the true actions.")] = False,
    even: Annotated[bool, typer.Option("--even", help="Slow changes teach actions as much as fast ones.")] = False,
    mirror: Annotated[bool, typer.Option("--mirror", help="Half of the clips teach actions mirrored.")] = False,
    alike: Annotated[
        bool, typer.Option("--alike", help="Latent actions that move the picture alike stand for each other.")
    ] = False,
    rare: Annotated[bool, typer.Option("--rare", help="Codes seldom seen, as of landmarks, weigh more.")] = False,
    walks: Annotated[int, typer.Option(min=0, max=10_000, help="Learn from so many of its own walks at a time.")] = 0,
    type: Annotated[str, typer.Option(help="Of world.gguf: f32, f16, q8_0 or q4_0.")] = "q8_0",
    half: Annotated[bool, typer.Option("--half", help="Store the checkpoint in fp16.")] = False,
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1)] = 0,
) -> None:
    """Learn a world from videos: tokenizer, latent actions, dynamics, then a GGUF that plays. Needs genie_cpp[train].

    The same command goes on after Ctrl-C; a higher --minutes trains further. report.html shows how far it is.
    """
    try:
        from genie_cpp.convert.reference.config import ConfigError
        from genie_cpp.train.run import train as run
        from genie_cpp.train.settings import Settings
    except ImportError as error:
        raise GenieError(
            f"training needs {error.name or 'a package'}, which is not installed", "pip install 'genie_cpp[train]'"
        ) from None
    given = Settings(
        minutes, steps, size, fps, preset, config, actions, context, tuple(names.split(",")) if names else (),
        start, tuple(part or ()), device, threads, batch, rate, keys, even, mirror, alike, rare, walks,
        type, half, seed,
    )  # fmt: skip
    tell = _Listener()
    try:
        with tell:
            found = run(videos, output, given, tell)
    except ConfigError as error:
        raise GenieError(
            str(error), "convert/reference/config.py describes it, and examples/meadow/config.json is one"
        ) from None
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        raise
    world = output / "world.gguf"
    print(f"reconstruction: {found['reconstruction_db']:.1f} dB", file=sys.stderr)
    if "sampled_db" in found:
        print(f"next frame over copying: {found['sampled_db'] - found['copy_db']:+.1f} dB", file=sys.stderr)
    print(f"play it: genie-play -m {quoted(str(world))}", file=sys.stderr)
    print(printable(str(world)))


class _Listener:
    """A progress bar on stderr, or where that is no terminal a line now and then."""

    def __enter__(self) -> _Listener:
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        self._console = Console(stderr=True, highlight=False, markup=False)
        self._live = sys.stderr.isatty()
        self._progress = Progress(*columns, console=self._console, disable=not self._live, transient=True)
        self._progress.start()
        self._task: Any = None
        self._what, self._printed = "", -1.0
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def say(self, text: str) -> None:
        self._console.print(printable(text), soft_wrap=True)

    def watch(self, what: str, done: int, total: int) -> None:
        self._show(what, what, done, total)

    def losses(self, part: str, share: float, seconds: float, values: dict[str, float]) -> None:
        shown = " ".join(f"{key} {value:.4g}" for key, value in values.items())
        self._show(part, f"{part}: {shown}", share, 1)
        if not self._live and (seconds - self._printed > 60 or share >= 1 or seconds < self._printed):
            self._printed = seconds
            self.say(f"{part}, {100 * min(share, 1):.0f} % after {seconds / 60:.1f} minutes: {shown}")

    def _show(self, what: str, text: str, done: float, total: float) -> None:
        if what != self._what:
            if self._task is not None:
                self._progress.remove_task(self._task)
            self._task, self._what = self._progress.add_task(text, total=total), what
        self._progress.update(self._task, description=text, completed=done, total=total)
