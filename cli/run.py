"""`genie-run`: plays a world from a picture and writes its frames to a file."""

from __future__ import annotations

import itertools
import json
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from genie_cpp.actions import format_actions, read_actions
from genie_cpp.catalog.bundled import START, find_start, start_name
from genie_cpp.cli import options
from genie_cpp.cli.options import Backend, env
from genie_cpp.errors import ActionError, GenieError, ImageError, SamplerError
from genie_cpp.frames import Frame, describe_fit, fit, iter_frames, load_image, sha256
from genie_cpp.media.output import check_output, check_size, write
from genie_cpp.model import Model
from genie_cpp.play.recipe import MAX_PROMPT, Recipe
from genie_cpp.play.session import MAX_BOOKMARKS, Session
from genie_cpp.play.session_file import Replay, SessionFile
from genie_cpp.sampler import AUTO_THRESHOLD, Sampler
from genie_cpp.spec.hparams import HParams
from genie_cpp.tokens import are_tokens, data_file, load_tokens
from genie_cpp.version import __version__
from genie_cpp.words import printable, quoted
from genie_cpp.world import World


def run(
    prompt_frame: Annotated[
        Path | None,
        typer.Option(
            "--prompt-frame",
            "-p",
            envvar=env("PROMPT_FRAME"),
            help="The picture to start from; - for one that is piped in. [the world's first]",
        ),
    ] = None,
    prompt_frames: Annotated[
        int,
        typer.Option(
            envvar=env("PROMPT_FRAMES"),
            min=1,
            max=MAX_PROMPT,
            help="Frames to start from. For more than 1, --prompt-frame is an animation, a film or frames of tokens "
            "(a folder with metadata.json and video.bin, or a .npy).",
        ),
    ] = 1,
    prompt_stride: Annotated[
        int,
        typer.Option(envvar=env("PROMPT_STRIDE"), min=1, max=MAX_PROMPT, help="Use every N-th frame of the prompt."),
    ] = 1,
    session: Annotated[
        Path | None, typer.Option("--from", help="Or a session that genie-play saved (.genie), to go on from.")
    ] = None,
    bookmark: Annotated[
        int, typer.Option(min=0, max=MAX_BOOKMARKS, help="With --from: the number of a bookmark; 0: where it was left.")
    ] = 0,
    model: options.Model = None,
    actions: Annotated[
        str | None,
        typer.Option(envvar=env("ACTIONS"), help="0,3*8,1 (3*8: action 3 eight times), a file, or random. [random]"),
    ] = None,
    actions_from: Annotated[
        Path | None,
        typer.Option(
            envvar=env("ACTIONS_FROM"),
            help="Take the actions from a film or an animation, by the latent action model.",
        ),
    ] = None,
    n: Annotated[
        int | None,
        typer.Option(
            "-n",
            "--frames",
            envvar=env("FRAMES"),
            min=1,
            max=1_000_000,
            help="Frames to generate: cuts or repeats the actions. [as many as actions; 32 if random]",
        ),
    ] = None,
    output: Annotated[
        str, typer.Option("--output", "-o", envvar=env("OUTPUT"), help="out.gif, .webp, .png, .mp4, or a folder/.")
    ] = "out.gif",
    seed: Annotated[
        int | None,
        typer.Option("--seed", "-s", envvar=env("SEED"), min=0, max=2**64 - 1, help="[0, or the session's]"),
    ] = None,
    steps: Annotated[
        str | None,
        typer.Option(
            envvar=env("STEPS"),
            help=f"MaskGIT passes per frame, or auto: up to the model's, --threshold {AUTO_THRESHOLD}. [the model's]",
        ),
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(envvar=env("TEMPERATURE"), help="0 takes the likeliest token. [the model's]")
    ] = None,
    order: Annotated[
        str | None, typer.Option(envvar=env("ORDER"), help="confidence, random or largest-probability. [the model's]")
    ] = None,
    noise: Annotated[
        float | None, typer.Option(envvar=env("NOISE"), help="Gumbel noise on the confidence. [the model's]")
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(envvar=env("THRESHOLD"), help="Fill tokens of at least this probability at once. [0: off]"),
    ] = None,
    window: Annotated[
        str | None,
        typer.Option(envvar=env("WINDOW"), help="What a full window does: half, exact or retokenize. [the model's]"),
    ] = None,
    how: options.Fit = "crop",
    threads: options.Threads = None,
    backend: Backend = "auto",
    force: options.Force = False,
    offline: options.Offline = False,
    fps: Annotated[int, typer.Option(envvar=env("FPS"), min=1, max=100, help="Frames per second of the output.")] = 10,
    scale: Annotated[int, typer.Option(envvar=env("SCALE"), min=1, max=64, help="Enlarge the output.")] = 4,
    as_json: Annotated[
        bool, typer.Option("--json", envvar=env("JSON"), help="Print one JSON object instead of the output's path.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--yes", "-y", envvar=env("YES"), help="Overwrite the output.")] = False,
) -> None:
    """Play a world from a picture, or on from a session, and write what was seen."""
    console = Console(stderr=True, highlight=False, markup=False)
    path, folder = Path(output), output.endswith(("/", "\\"))
    folder = folder or (path.is_dir() and path.suffix == "")
    check_output(path, overwrite, folder)
    _agree(prompt_frame, prompt_frames, prompt_stride, session, actions, actions_from, seed)
    opened = Model.open(model, threads, backend, force)
    past = None if session is None else _replayed(session, bookmark, opened, console)
    if past and window not in (None, past.world.window):
        raise GenieError(f"--from goes on with the session's window, {past.world.window}", "leave --window out")
    seed = past.world.seed if past else seed or 0
    default = opened.sampler if past is None else past.sampler
    sampler = _sampler(default, steps, temperature, order, noise, threshold)
    world = World(opened, sampler, past.world.window if past else window)
    hp = opened.info
    check_size(path, hp.frame_width * scale, hp.frame_height * scale, folder)
    named, source = _source(session or prompt_frame, opened)
    source_hash = sha256(data_file(source) if past is None and are_tokens(source) else source)
    begin = _beginning(world, opened, past, source, prompt_frames, prompt_stride, how, seed)
    if actions_from is not None:
        actions = _inferred(actions_from, opened, how, n)
    plan = read_actions("random" if actions is None else actions, hp.choices, n, seed, hp.action_names)
    console.print(
        f"{printable(opened.name)} {opened.type}, {opened.backend}: {opened.device}, seed {seed}", soft_wrap=True
    )
    if begin.sentence:
        console.print(begin.sentence, soft_wrap=True)
    frames = [begin.start()]
    world.sampler = sampler  # otherwise a restored world would use the session's sampler
    seconds, interrupted = _play(world, plan, frames, console)
    made = len(frames) - 1
    if interrupted:
        console.print(f"interrupted: keeping the {made} frames made so far")
    recipe = Recipe(
        version=__version__, model=opened.reference, model_sha256=opened.sha256, prompt=named,
        prompt_sha256=source_hash, fit=how, seed=seed, actions=format_actions(plan[:made]), steps=sampler.steps,
        temperature=float(sampler.temperature), order=sampler.order, noise=float(sampler.noise),
        threshold=float(sampler.threshold), window=world.window, isa=opened.isa, fps=fps, scale=scale,
        bookmark=-1 if session is None else bookmark, prompt_frames=prompt_frames, prompt_stride=prompt_stride,
        backend=opened.backend,
    )  # fmt: skip
    write(path, frames, recipe, overwrite, folder)
    rate = made / seconds if seconds > 0 else 0.0
    console.print(f"{made} frames in {seconds:.2f} s, {rate:.1f} frames/s")
    print(json.dumps(_report(output, made, seconds, world, recipe)) if as_json else output)
    if interrupted:
        raise typer.Exit(130)


def _agree(
    prompt_frame: Path | None,
    prompt_frames: int,
    prompt_stride: int,
    session: Path | None,
    actions: str | None,
    actions_from: Path | None,
    seed: int | None,
) -> None:
    """Raises an error if two options contradict each other."""
    if actions is not None and actions_from is not None:
        raise ActionError("--actions and --actions-from exclude each other", "leave one out")
    if prompt_frame is not None and session is not None:
        raise typer.BadParameter("a run starts from a picture or goes on from a session: --prompt-frame, or --from")
    if session is not None and seed is not None:
        raise GenieError("--from goes on with the session's seed", "leave --seed out")
    if session is not None and (prompt_frames, prompt_stride) != (1, 1):
        raise GenieError("--from goes on from a session's frames", "leave --prompt-frames and --prompt-stride out")


def _sampler(
    default: Sampler,
    steps: str | None,
    temperature: float | None,
    order: str | None,
    noise: float | None,
    threshold: float | None,
) -> Sampler:
    """The default sampler with the given options applied. Raises SamplerError."""
    auto = steps == "auto"
    if threshold is None:
        threshold = AUTO_THRESHOLD if auto else default.threshold
    return Sampler(
        default.steps if steps is None or auto else _steps(steps),
        default.temperature if temperature is None else temperature,
        default.order if order is None else order,
        default.noise if noise is None else noise,
        threshold,
    )


def _source(given: Path | None, model: Model) -> tuple[str, Path]:
    """(the name in the recipe, the file) of what a run starts from; None: the world's first picture."""
    if given is None:
        if not model.starts:
            raise GenieError("this world has no pictures of its own to start from", "give one with --prompt-frame")
        given = Path(start_name(model.starts[0]))
    named = str(given)
    return named, find_start(model.path, named) if named.startswith(START) else given


@dataclass(frozen=True)
class _Beginning:
    """What a run starts from, read and fitted. sentence: what fitting does to it. start: returns the first frame."""

    sentence: str
    start: Callable[[], Frame]


def _beginning(
    world: World, model: Model, past: Session | None, source: Path, count: int, stride: int, how: str, seed: int
) -> _Beginning:
    if past is not None:
        state = past.world.save()
        return _Beginning("", lambda: world.restore(state))
    if are_tokens(source):
        ids = load_tokens(source, model.token_count, count, stride)
        return _Beginning("", lambda: world.reset_tokens(ids, seed))
    sentence, video = _fitted(source, count, stride, model.info, how)
    return _Beginning(sentence, lambda: world.reset(np.stack(video) if len(video) > 1 else video[0], seed))


def _inferred(film: Path, model: Model, how: str, n: int | None) -> str:
    """The latent actions between the frames of a video, in the format of --actions. n: at most this many."""
    hp = model.info
    shown = (fit(frame, hp.frame_width, hp.frame_height, how) for frame in iter_frames(film))
    seen = list(itertools.islice(shown, None if n is None else n + 1))
    if len(seen) < 2:
        raise ActionError(f"{film} has one frame; actions lie between frames", "give a film")
    return format_actions(model.infer_actions(np.stack(seen)).tolist())


def _play(world: World, plan: list[int], frames: list[Frame], console: Console) -> tuple[float, bool]:
    """Append a frame for each action. Returns the seconds needed, and whether Ctrl-C interrupted it."""
    started = time.perf_counter()
    try:
        with _progress(console) as progress:
            bar = progress.add_task("", total=len(plan))
            for index, action in enumerate(plan):
                frames.append(world.step(action))
                rate = (index + 1) / (time.perf_counter() - started)
                progress.update(bar, advance=1, description=f"{rate:.1f} frames/s")
    except KeyboardInterrupt:
        return time.perf_counter() - started, True
    return time.perf_counter() - started, False


def _report(output: str, made: int, seconds: float, world: World, recipe: Recipe) -> dict[str, Any]:
    """The output of --json."""
    return {
        "output": output,
        "frames": made,
        "seed": recipe.seed,
        "seconds": round(seconds, 4),
        "frames_per_second": round(made / seconds if seconds > 0 else 0.0, 2),
        "timings": {k: round(v, 4) for k, v in world.timings.items()},
        "recipe": json.loads(recipe.to_json())["genie_cpp"],
    }


def _fitted(path: Path, count: int, stride: int, hp: HParams, how: str) -> tuple[str, list[Frame]]:
    """(what fitting does, the picture or the first frames of an animation). Each frame is fitted as it is read, because
    a small file can hold large frames."""
    frames = iter([load_image(path)] if count == 1 else iter_frames(path))
    sentence, found = "", list[Frame]()
    for index, frame in enumerate(itertools.islice(frames, (count - 1) * stride + 1)):
        if index == 0:
            sentence = describe_fit(frame, hp.frame_width, hp.frame_height, how)
        if index % stride == 0:
            found.append(fit(frame, hp.frame_width, hp.frame_height, how))
    if len(found) < count:
        raise ImageError(
            f"{path} has too few frames for {count} that are {stride} apart", "ask for fewer with --prompt-frames"
        )
    return sentence, found


def _replayed(path: Path, bookmark: int, model: Model, console: Console) -> Session:
    """Replay the session up to the bookmark. Raises StateError."""
    file = SessionFile.load(path)
    replay = Replay(file, model, to=file.at(bookmark))
    with _progress(console) as progress:
        bar = progress.add_task("replaying", total=replay.total)
        for done in replay.steps():
            progress.update(bar, completed=done)
    if replay.drifted:
        console.print(
            f"{replay.drifted} of {replay.total} frames differ from the session's, played on {file.isa!r} and not on "
            f"{model.isa!r}", soft_wrap=True,
        )  # fmt: skip
    return replay.session


def _steps(text: str) -> int:
    # Python would refuse to convert thousands of digits, with its own error.
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise SamplerError(f"--steps must be a whole number in 1…1024 or auto, not {quoted(text)}", "try --steps 8")
    return int(text)


def _progress(console: Console) -> Progress:
    columns = TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    return Progress(*columns, console=console, disable=not sys.stderr.isatty(), transient=True)
