"""Converts a checkpoint to a GGUF. It is written under a temporary name, checked by the strict reader, then renamed."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from genie_cpp.convert.families import load
from genie_cpp.convert.families.part import Told
from genie_cpp.convert.native import Checkpoint
from genie_cpp.convert.quantize import TYPES, choose_type, encode, relative_error, usual_type
from genie_cpp.errors import CheckpointError, OutputError
from genie_cpp.file.blocks import decode
from genie_cpp.file.gguf_file import DEFAULT_ALIGNMENT, GGUFFile, TensorType
from genie_cpp.leftovers import file_beside
from genie_cpp.spec.gguf_keys import ARCHITECTURE
from genie_cpp.spec.hparams import tensor_bytes, validate
from genie_cpp.words import quoted

CLASSES = ("attention", "ffn", "convolutions", "input/output", "embeddings", "norms & biases", "codebooks")

# Called as progress(tensors done, of how many, name of the next).
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class ClassReport:
    """Tensors of one kind: how many, their types, bytes as fp32 and in the file, relative L2 errors."""

    name: str
    count: int
    types: dict[str, int]
    bytes_before: int
    bytes_after: int
    worst_error: float
    mean_error: float


@dataclass(frozen=True)
class Report:
    """What a conversion did. `bytes_after` counts the weights only, `file_bytes` the whole file.

    recognised: the family of checkpoints and its parts. assumed: what the files did not say.
    """

    output: Path
    type: str
    parameters: int
    bytes_before: int
    bytes_after: int
    file_bytes: int
    classes: list[ClassReport]
    recognised: str
    assumed: tuple[str, ...]


@dataclass(frozen=True)
class _Written:
    kind: TensorType
    before: int
    after: int
    error: float


def convert(
    checkpoint: Path | Sequence[Path],
    output: Path,
    type: str = "q8_0",
    overwrite: bool = False,
    progress: Progress | None = None,
    family: str | None = None,
    context_length: int | None = None,
    frame_size: int | None = None,
    heads: int | None = None,
) -> Report:
    """Convert a checkpoint: a file, a folder, or several files that make up one world. type: f32, f16, q8_0 or q4_0.

    family: one of `families.NAMES`; recognised by default. For families whose files leave them open (docs/families.md):
    context_length, frames in the window; frame_size, pixels a side; heads, of attention.

    Writes the whole output or nothing. Raises CheckpointError for the checkpoint, OutputError for the output.
    """
    if type not in TYPES:
        raise CheckpointError(f"unknown type {quoted(type)}", f"choose among {', '.join(TYPES)}")
    _check_output(output, overwrite)
    source = load(
        [checkpoint] if isinstance(checkpoint, Path) else checkpoint, family, Told(context_length, frame_size, heads)
    )
    if output.exists() and any(os.path.samefile(output, path) for path in source.files):
        raise OutputError(f"{quoted(str(output))} is the checkpoint itself", "name another output")
    temporary = file_beside(output)
    try:
        written = _write(source, temporary, TYPES[type], progress or (lambda done, total, name: None))
        # The output must be readable, so the strict reader checks every byte of it first.
        with GGUFFile.open(temporary) as file:
            validate(file)
        file_bytes = temporary.stat().st_size
        _check_output(output, overwrite)
        os.replace(temporary, output)
    except OSError as error:
        raise OutputError(
            f"cannot write {quoted(str(output))}: {error.strerror or error}",
            "check the folder and the space left on it",
        ) from None
    finally:  # also on Ctrl-C
        temporary.unlink(missing_ok=True)
    _sync_folder(output.parent)
    return _report(output, type, written, source, file_bytes)


def _check_output(output: Path, overwrite: bool) -> None:
    if output.is_dir():
        raise OutputError(f"{quoted(str(output))} is a folder", "name a file, such as world.gguf")
    if not output.parent.is_dir():
        raise OutputError(f"the folder {quoted(str(output.parent))} does not exist", "make it first")
    if output.exists() and not overwrite:
        raise OutputError(f"{quoted(str(output))} exists", "give -y to replace it")
    if output.exists() and not output.is_file():
        raise OutputError(f"{quoted(str(output))} is not a regular file", "name another output")


def _write(source: Checkpoint, path: Path, wanted: TensorType, progress: Progress) -> dict[str, _Written]:
    """Read each tensor once, encode it, append it.

    A GGUF starts with every tensor's type, and a type depends on the values: what would overflow keeps more bits. So
    the file first gets a header with the usual types. It is as long as the right one, which replaces it at the end.
    """
    usual = {name: usual_type(name, shape[0], matrix, wanted) for name, (shape, matrix) in source.tensors.items()}
    written: dict[str, _Written] = {}
    _write_header(path, source, wanted, usual)
    with path.open("r+b") as file:
        file.seek(0, os.SEEK_END)
        for done, (name, (shape, matrix)) in enumerate(source.tensors.items()):
            progress(done, len(source.tensors), name)
            values = source.read(name)
            kind = choose_type(name, matrix, wanted, values)
            raw = encode(values, kind)
            file.write(bytes(-file.tell() % DEFAULT_ALIGNMENT))
            file.write(raw.data)
            error = relative_error(values, decode(raw, kind, shape[::-1]))
            written[name] = _Written(kind, 4 * values.size, raw.size, error)
        file.write(bytes(-file.tell() % DEFAULT_ALIGNMENT))
        chosen = {name: row.kind for name, row in written.items()}
        if chosen != usual:
            again = file_beside(path)
            try:
                _write_header(again, source, wanted, chosen)
                file.seek(0)
                file.write(again.read_bytes())
            finally:
                again.unlink(missing_ok=True)
        file.flush()
        os.fsync(file.fileno())
    progress(len(source.tensors), len(source.tensors), "")
    return written


def _write_header(path: Path, source: Checkpoint, wanted: TensorType, kinds: dict[str, TensorType]) -> None:
    # `gguf` opens by name. Creating the file here first fails if somebody else has put one there.
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    writer = gguf.GGUFWriter(path, ARCHITECTURE)
    try:
        shapes = {name: shape for name, (shape, _) in source.tensors.items()}
        write_header(writer, source.hparams.to_metadata(wanted, source.card), shapes, kinds)
    finally:
        writer.close()


def write_header(
    writer: Any, metadata: dict[str, Any], shapes: dict[str, tuple[int, ...]], kinds: dict[str, TensorType]
) -> None:
    """Write everything of a GGUF before the tensors' bytes, which must follow in the order of `shapes`."""
    add = {"uint32": writer.add_uint32, "float32": writer.add_float32, "bool": writer.add_bool}
    for key, (kind, value) in metadata.items():
        if key != "general.architecture":  # the writer has already added it
            add.get(kind, writer.add_array if kind.startswith("array") else writer.add_string)(key, value)
    for name, shape in shapes.items():
        type, size = gguf.GGMLQuantizationType(int(kinds[name])), tensor_bytes(shape, kinds[name])
        writer.add_tensor_info(name, shape[::-1], np.dtype(np.float32), size, type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()


def _sync_folder(folder: Path) -> None:
    """Make the rename survive a power cut, if the system can."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        pass
    finally:
        os.close(handle)


def tensor_class(name: str) -> str:
    """The one of CLASSES that a GGUF tensor belongs to."""
    if "codebook" in name:
        return "codebooks"
    if name.endswith(".bias") or "norm." in name or ".norm2." in name:
        return "norms & biases"
    if ".layer." in name:
        return "convolutions"
    if "_embd." in name or ".pos_" in name or ".pos." in name or ".peg" in name:
        return "embeddings"
    if name.endswith((".input.weight", ".output.weight", "_first.weight")) or name.startswith("lam.head."):
        return "input/output"
    return "ffn" if ".ffn" in name else "attention"


def _report(output: Path, type: str, written: dict[str, _Written], source: Checkpoint, file_bytes: int) -> Report:
    classes = []
    for name in CLASSES:
        rows = [row for tensor, row in written.items() if tensor_class(tensor) == name]
        types: dict[str, int] = {}
        for row in rows:
            types[row.kind.name] = types.get(row.kind.name, 0) + 1
        errors = [row.error for row in rows] or [0.0]
        before, after = sum(row.before for row in rows), sum(row.after for row in rows)
        classes.append(ClassReport(name, len(rows), types, before, after, max(errors), sum(errors) / len(errors)))
    return Report(
        output,
        type,
        source.hparams.parameter_count(),
        sum(row.bytes_before for row in classes),
        sum(row.bytes_after for row in classes),
        file_bytes,
        classes,
        source.recognised,
        source.assumed,
    )
