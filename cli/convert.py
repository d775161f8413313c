"""genie-convert: converts a checkpoint to a GGUF."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from genie_cpp.catalog import fetched, names
from genie_cpp.cli.options import Offline
from genie_cpp.errors import CheckpointError
from genie_cpp.words import printable, size

if TYPE_CHECKING:
    from genie_cpp.convert.writer import Report


def convert(
    checkpoint: Annotated[
        list[Path],
        typer.Argument(
            help="Folder with config.json and model.safetensors, or a .pt beside its config.json; "
            "or the files of another family (docs/families.md): tokenizer.pth actions.pth dynamics.pth; "
            "or a published world: tinyworlds:sonic, hf:OWNER/REPO."
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The GGUF to write.")],
    type: Annotated[str | None, typer.Option("--type", "-t", help="f32, f16, q8_0 or q4_0. [q8_0]")] = None,
    family: Annotated[str | None, typer.Option(help="The checkpoint's family, where it is not recognised.")] = None,
    context_length: Annotated[
        int | None, typer.Option(help="Frames in the window, where the family leaves it open.", min=2, max=1024)
    ] = None,
    frame_size: Annotated[
        int | None, typer.Option(help="Pixels a side of a frame, where the family leaves it open.", min=1, max=16384)
    ] = None,
    heads: Annotated[
        int | None, typer.Option(help="Heads of attention, where the family leaves it open.", min=1, max=512)
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Replace the output if it exists.")] = False,
    offline: Offline = False,
) -> None:
    """Convert a checkpoint to a Genie GGUF. Needs genie_cpp[convert]."""
    try:
        from genie_cpp.convert.writer import convert as run
    except ImportError as error:
        raise CheckpointError(
            f"converting needs {error.name or 'a package'}, which is not installed", "pip install 'genie_cpp[convert]'"
        ) from None
    console = Console(stderr=True, markup=False, highlight=False)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("reading", total=None)

        def progress(done: int, total: int, name: str) -> None:
            bar.update(task, completed=done, total=total, description=name)

        paths: list[Path] = []
        for path in checkpoint:
            world = None if path.exists() else names.parse(str(path))
            paths += [path] if world is None else fetched.inputs(world, console.print)
            if world is not None:
                type, family = type or world.type, family or world.family
        kind = (type or names.DEFAULT_TYPE).lower()
        report = run(paths, output, kind, yes, progress, family, context_length, frame_size, heads)
    console.print(f"recognised {report.recognised}", soft_wrap=True)
    for line in report.assumed:
        console.print(f"assumed {line}", soft_wrap=True)
    console.print(table(report))
    console.print(closing_line(report), soft_wrap=True)


def table(report: Report) -> Table:
    """Tensors by kind: types, bytes before and after, relative error."""
    view = Table(box=None, pad_edge=False, header_style="bold")
    view.add_column("tensors", no_wrap=True)
    for title in ("count", "types", "fp32", report.type, "mean err", "worst err"):
        view.add_column(title, justify="left" if title == "types" else "right", no_wrap=True)
    for row in report.classes:
        types = ", ".join(f"{count} {kind}" for kind, count in sorted(row.types.items()))
        errors = [f"{100 * error:.3f} %" if error else "0" for error in (row.mean_error, row.worst_error)]
        view.add_row(row.name, str(row.count), types, size(row.bytes_before), size(row.bytes_after), *errors)
    return view


def closing_line(report: Report) -> str:
    """The output, its size, and how much smaller it is than fp32."""
    ratio = report.bytes_before / max(report.bytes_after, 1)
    name = printable(str(report.output))
    return f"{name}: {report.parameters:,} parameters, {size(report.file_bytes)}, {ratio:.2f} times smaller than fp32"
