"""genie-info: shows what a GGUF contains, or how a picture was made."""

from __future__ import annotations

import dataclasses
import json
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from genie_cpp.backends import memory
from genie_cpp.catalog import names
from genie_cpp.catalog.bundled import bundled, locate
from genie_cpp.errors import GGUFError
from genie_cpp.file.gguf_file import MAGIC, GGUFFile
from genie_cpp.model import current_isa, default_threads
from genie_cpp.play.session_file import MAGIC as SESSION_MAGIC
from genie_cpp.play.session_file import SessionFile
from genie_cpp.spec.gguf_keys import CARD, KEYS, STACKS
from genie_cpp.spec.hparams import HParams, validate
from genie_cpp.words import printable, quoted, size


def info(
    file: Annotated[
        Path, typer.Argument(help="A Genie GGUF, a world's name, a saved session, or what genie-run made.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    tensors: Annotated[bool, typer.Option("--tensors", help="List every tensor.")] = False,
) -> None:
    """Show what a model or a session holds, after checking all of it; or the command that makes a picture again."""
    if not file.exists() and (str(file) in bundled() or names.parse(str(file)) is not None):
        file = locate(str(file))[0]
    if _is_gguf(file):
        facts = describe(file, tensors)
        if as_json:
            _print(json.dumps(facts, indent=1))
        else:
            _show(facts)
        return
    if _is_session(file):
        _print_facts(_session_facts(file), as_json)
        return
    from genie_cpp.play import recipe

    found = recipe.read(file)
    played = recipe.read_played(file) if found is None else None
    if played is not None:
        facts = {
            "file": str(file), "recorded by": f"genie-play {played.version}", "model": played.model,
            "model's SHA-256": played.model_sha256, "actions": played.actions, "frames/s": played.fps,
            "command": "none: the sampler changed on the way, or it begins in the middle",
        }  # fmt: skip
        _print_facts(facts, as_json)
        return
    if found is None:
        raise GGUFError(
            f"{quoted(str(file))} is neither a GGUF file nor a picture that genie-run or genie-play made",
            "pictures lose their recipe when another program saves them again",
        )
    command = found.command(str(file) + ("/" if file.is_dir() else ""))
    if found.backend == "cpu" and found.isa != current_isa():  # rounding differs between instruction sets
        command = f"GENIE_ISA={found.isa} {command}"
    _print(json.dumps({"file": str(file), "command": command}, indent=1) if as_json else printable(command))


def _print_facts(facts: dict[str, Any], as_json: bool) -> None:
    _print(json.dumps(facts, indent=1) if as_json else "\n".join(f"{k}: {printable(str(v))}" for k, v in facts.items()))


def describe(path: Path, tensors: bool = False) -> dict[str, Any]:
    """The facts of a GGUF as data ready for JSON; sizes in bytes. Raises GGUFError, ModelError."""
    with GGUFFile.open(path) as file:
        hp = validate(file)
        types: dict[str, dict[str, int]] = {}
        parameters = 0
        for tensor in file.tensors.values():
            row = types.setdefault(tensor.type.name, {"tensors": 0, "bytes": 0})
            row["tensors"] += 1
            row["bytes"] += tensor.n_bytes
        parameters = hp.parameter_count()
        needs = memory.need(hp, file.tensors, default_threads())
        facts: dict[str, Any] = {
            "file": str(path),
            "file_bytes": file.size,
            "card": {key: file.metadata[key] for key in CARD if key in file.metadata},
            "hyper_parameters": _rows(hp),
            "tokens_per_frame": {stack: hp.token_count(stack) for stack in hp.stacks},
            "parameters": parameters,
            "types": types,
            "memory": {**dataclasses.asdict(needs), "total": needs.total},
        }
        if tensors:
            facts["tensors"] = [
                {"name": t.name, "type": t.type.name, "shape": list(t.shape), "offset": t.offset, "bytes": t.n_bytes}
                for t in file.tensors.values()
            ]
        return facts


def _rows(hp: HParams) -> dict[str, Any]:
    """The hyper-parameters by key, in the order of docs/gguf.md."""
    rows: dict[str, Any] = {}
    for key in KEYS:
        if key.field and "<stack>" not in key.name and (hp.has_lam or not key.name.startswith("genie.lam.")):
            value = getattr(hp, key.field)
            rows[key.name] = list(value) if isinstance(value, tuple) else value
    for stack, params in hp.stacks.items():
        for key in KEYS:
            if "<stack>" in key.name:
                value = getattr(params, key.field)
                rows[key.name.replace("<stack>", stack)] = list(value) if isinstance(value, tuple) else value
    return rows


def _is_gguf(path: Path) -> bool:
    """Whether to read it as a GGUF. Also True for a file that cannot be opened, because the reader's error is clear."""
    if path.is_dir():
        return False
    if not path.is_file():
        return True
    try:
        with path.open("rb") as handle:
            return handle.read(4) == MAGIC
    except OSError:
        return True


def _is_session(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as handle:
        return handle.read(len(SESSION_MAGIC)) == SESSION_MAGIC


def _session_facts(path: Path) -> dict[str, Any]:
    """Raises StateError."""
    found = SessionFile.load(path)
    return {
        "model": found.model_name,
        "model_sha256": found.model_sha256,
        "isa": found.isa,
        "frames": len(found.frames),
        "shown": found.depth(found.shown),
        "bookmarks": [found.depth(mark) for mark in found.bookmarks],
        "command": shlex.join(["genie-run", "--from", str(path), "--bookmark", str(len(found.bookmarks))]),
    }


def _print(text: str) -> None:
    """Write data to stdout, never wrapped or coloured."""
    sys.stdout.write(text + "\n")


def _show(facts: dict[str, Any]) -> None:
    # On a pipe, rich would wrap at 80 columns. A width larger than every line keeps one fact per line.
    console = Console(markup=False, highlight=False, emoji=False, width=None if sys.stdout.isatty() else 4096)
    hyper = facts["hyper_parameters"]
    _section(console, "card", {key.removeprefix("general."): value for key, value in facts["card"].items()})
    model = {key.removeprefix("genie."): value for key, value in hyper.items() if not _of_stack(key)}
    _section(console, "model", {name: value for name, value in model.items() if value is not None})
    stacks = Table(box=None, pad_edge=False, header_style="bold")
    stacks.add_column("stack")
    present = facts["tokens_per_frame"]
    for stack in present:
        stacks.add_column(stack)
    for key in (key.name.removeprefix("genie.<stack>.") for key in KEYS if "<stack>" in key.name):
        values = [hyper[f"genie.{stack}.{key}"] for stack in present]
        if values.count(None) < len(values):  # skip keys that no stack has
            stacks.add_row(key, *(Text("" if value is None else _word(value)) for value in values))
    stacks.add_row("tokens per frame", *(str(count) for count in present.values()))
    console.print(stacks)
    console.print()
    types = {kind: f"{row['tensors']} tensors, {size(row['bytes'])}" for kind, row in sorted(facts["types"].items())}
    _section(
        console,
        "weights",
        {"parameters": f"{facts['parameters']:,}", "file": f"{size(facts['file_bytes'])}", **types},
    )
    needs = {what: size(count) for what, count in facts["memory"].items() if count}
    _section(console, "memory for one world", needs)
    if "tensors" in facts:
        listing = Table(box=None, pad_edge=False, header_style="bold")
        for title in ("tensor", "type", "shape", "bytes"):
            listing.add_column(title, justify="right" if title == "bytes" else "left", overflow="fold")
        for row in facts["tensors"]:
            listing.add_row(
                Text(printable(row["name"])), row["type"], " x ".join(map(str, row["shape"])), f"{row['bytes']:,}"
            )
        console.print(listing)


def _of_stack(key: str) -> bool:
    """Whether a key belongs to a stack. Other keys may start like a stack's name (genie.tokenizer.kind)."""
    return any(key == name.name.replace("<stack>", s) for name in KEYS if "<stack>" in name.name for s in STACKS)


def _section(console: Console, title: str, rows: dict[str, Any]) -> None:
    if not rows:
        return
    view = Table(box=None, pad_edge=False, show_header=False)
    view.add_column(overflow="fold")
    view.add_column(overflow="fold")
    for name, value in rows.items():
        view.add_row(Text(printable(name)), Text(_word(value)))
    console.print(Text(title, style="bold"))
    console.print(view)
    console.print()


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return ", ".join(printable(str(item)) for item in value)
    return printable(str(value))
