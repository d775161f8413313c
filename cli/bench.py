"""genie-bench: how fast models play on this machine, one row per combination."""

from __future__ import annotations

import csv
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from genie_cpp.backends.choose import resolve
from genie_cpp.bench import Bench, Result, environment, environment_line, mean_sd
from genie_cpp.catalog.bundled import locate
from genie_cpp.cli import synthetic
from genie_cpp.cli.options import Backend, Force, Offline
from genie_cpp.errors import BenchError
from genie_cpp.file.gguf_file import GGUFFile
from genie_cpp.model import default_threads
from genie_cpp.sampler import Sampler
from genie_cpp.words import in_cell, printable, quoted, size

# Each measured column: (its name in csv and json, title and decimals in md, its samples).
MEASURED: tuple[tuple[str, str, int, Callable[[Result], list[float]]], ...] = (
    ("step_ms", "ms/step", 2, lambda r: [s.step for s in r.samples]),
    ("tokens_ms", "tokens ms", 2, lambda r: [s.tokens for s in r.samples]),
    ("dynamics_ms", "dynamics ms", 2, lambda r: [s.dynamics for s in r.samples]),
    ("decode_ms", "decode ms", 2, lambda r: [s.decode for s in r.samples]),
    ("frame_ms", "ms/frame", 2, lambda r: [s.frame for s in r.samples]),
    ("frames_per_second", "frames/s", 2, lambda r: r.frames_per_second),
    ("share_of_peak", "% of peak", 1, lambda r: r.share),
)


def bench(
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Genie GGUFs: a.gguf,b.gguf. [the bundled world]")
    ] = None,
    threads: Annotated[str | None, typer.Option("--threads", "-t", help="Such as 1,2. [all CPUs]")] = None,
    steps: Annotated[
        str | None, typer.Option(help="MaskGIT passes per frame, such as 8,25. [each model's own]")
    ] = None,
    repetitions: Annotated[int, typer.Option("--repetitions", "-r", help="Of each row, after one warm-up.")] = 5,
    output: Annotated[str, typer.Option("--output", "-o", help="md, csv or json.")] = "md",
    random: Annotated[
        str | None,
        typer.Option(
            "--synthetic", help=f"Random weights of the paper's sizes instead of files: {', '.join(synthetic.SIZES)}."
        ),
    ] = None,
    backend: Backend = "auto",
    type: Annotated[str | None, typer.Option(help="With --synthetic: f32, f16, q8_0, q4_0. [q8_0]")] = None,
    force: Force = False,
    offline: Offline = False,
) -> None:
    """Measure every combination of models, threads and steps.

    A frame is timed where the window is full, without sliding it. tokens: the tokenizer's encoder on one prompt frame,
    which is not part of ms/frame; dynamics: all steps and the pass that commits the frame. % of peak: multiply-adds of
    a step's matrix products over its whole time, against the same arithmetic (int8, or float32 for F32 and F16) from
    registers on as many threads.
    """
    if output not in FORMATS:
        raise BenchError(f"unknown output {quoted(output)}", f"choose among {', '.join(FORMATS)}")
    thread_counts = _numbers(threads, "-t", 1024) if threads is not None else [default_threads()]
    step_counts: list[int | None] = [None]
    if steps is not None:
        step_counts = [Sampler(count).steps for count in _numbers(steps, "--steps", 1024)]
    if resolve(backend) == "metal" and threads is not None:
        raise BenchError("--threads are of the cpu backend", "leave it out, or say --backend cpu")
    measured = Bench(repetitions)
    sources = _sources(model, random, type)
    console = Console(stderr=True, highlight=False, markup=False)
    columns = TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    try:
        with Progress(*columns, console=console, transient=True, disable=not sys.stderr.isatty()) as progress:
            frames = len(sources) * len(thread_counts) * len(step_counts) * (1 + repetitions)
            bar = progress.add_task("frames", total=frames)
            for source in sources:
                with source as path:
                    for count in thread_counts:
                        measured.run(path, count, step_counts, lambda: progress.advance(bar), backend, force)
    except KeyboardInterrupt:
        console.print("interrupted")
        raise typer.Exit(130) from None
    finally:  # also on Ctrl-C and on an error: print what was measured so far
        rows = [result for result in measured.results if result.samples]
        if rows:
            FORMATS[output](rows, environment())


def _numbers(text: str, flag: str, most: int) -> list[int]:
    numbers = []
    for word in map(str.strip, text.split(",")):
        # Python would refuse to convert thousands of digits, with its own error.
        if not (word.isascii() and word.isdigit() and 1 <= int(word[:9]) <= most):
            raise BenchError(f"{flag} takes whole numbers in 1…{most}, not {quoted(word)}", f"such as {flag} 1,2")
        numbers.append(int(word))
    return numbers


def _sources(model: str | None, random: str | None, type: str | None) -> list[AbstractContextManager[Path]]:
    """The models to measure, each as a context manager that provides a file. Checks names and headers at once."""
    if random is None:
        if type is not None:
            raise BenchError("--type needs --synthetic; a file's types are fixed", "leave --type out")
        # A name with a comma means one file if such a file exists.
        names = [] if model is None else [model] if Path(model).is_file() else model.split(",")
        paths = [locate(name or None)[0] for name in names] or [locate(None)[0]]
        for path in paths:
            GGUFFile.open(path).close()
        return [nullcontext(path) for path in paths]
    if model is not None:
        raise BenchError("--model and --synthetic exclude each other", "leave one out")
    wanted = [(name, kind) for name in random.lower().split(",") for kind in (type or "q8_0").lower().split(",")]
    for name, kind in wanted:
        synthetic.check(name, kind)
    return [_built(name, kind) for name, kind in wanted]


@contextmanager
def _built(name: str, kind: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="genie-bench-") as folder:
        yield synthetic.build(name, kind, Path(folder))


def _facts(result: Result) -> dict[str, Any]:
    """The values that are not measured, by their names in csv and json."""
    return {
        "model": result.model,
        "size": result.size,
        "parameters": result.parameters,
        "type": result.type,
        "backend": result.backend,
        "isa": result.isa,
        "threads": result.threads,
        "steps": result.steps,
        "window": result.window,
        "repetitions": len(result.samples),
    }


def _json(rows: list[Result], where: dict[str, str | int]) -> None:
    results = []
    for row in rows:
        facts = {**_facts(row), "operations_per_step": row.operations, "peak_operations_per_second": row.peaks}
        for name, _, _, samples in MEASURED:
            facts[name] = None
            if values := samples(row):
                mean, sd = mean_sd(values)
                facts[name] = {"mean": mean, "sd": sd, "samples": values}
        results.append(facts)
    print(json.dumps({"environment": where, "results": results}, indent=1))


def _csv(rows: list[Result], where: dict[str, str | int]) -> None:
    lines = []
    for row in rows:
        facts: dict[str, Any] = {**_facts(row), "model": printable(row.model)}
        for name, _, _, samples in MEASURED:
            values = samples(row)
            facts[name], facts[f"{name}_sd"] = (f"{value:.6g}" for value in mean_sd(values)) if values else ("", "")
        for kind in ("int8", "float"):
            facts[f"peak_{kind}"] = f"{row.peaks[kind]:.6g}" if row.peaks.get(kind) else ""
        lines.append(facts | {name: value for name, value in where.items() if name != "isa"})
    writer = csv.DictWriter(sys.stdout, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)


def _md(rows: list[Result], where: dict[str, str | int]) -> None:
    about = ["model", "size", "params", "type", "backend", "ISA", "threads", "steps", "r"]
    titles = [*about, *(column[1] for column in MEASURED)]
    table = [titles, [":--" if title in ("model", "type", "backend", "ISA") else "--:" for title in titles]]
    for row in rows:
        name = in_cell(row.model)
        about = [name, size(row.size), f"{row.parameters / 1e6:.1f} M", row.type, row.backend, row.isa]
        cells = [*about, str(row.threads or ""), str(row.steps), str(len(row.samples))]
        for column, _, digits, samples in MEASURED:
            scale = 100 if column == "share_of_peak" else 1
            values = [scale * value for value in samples(row)]
            cells.append(" ± ".join(f"{value:.{digits}f}" for value in mean_sd(values)) if values else "")
        table.append(cells)
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for line in table:
        cells = [
            cell.ljust(width) if table[1][i].startswith(":") else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        print(f"| {' | '.join(cells)} |")
    print(f"\n{printable(environment_line(where))}")


FORMATS = {"md": _md, "csv": _csv, "json": _json}
