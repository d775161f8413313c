"""Prompts that are already tokens: a folder with metadata.json and video.bin, as in 1xgpt's data and as its
generate.py writes, or a .npy of integers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genie_cpp.errors import ImageError
from genie_cpp.words import quoted

DTYPES = ("uint8", "uint16", "uint32", "uint64", "int16", "int32", "int64")
_METADATA_LIMIT = 1 << 20
_VIDEO, _METADATA = "video.bin", "metadata.json"


def are_tokens(path: Path) -> bool:
    """Whether a prompt holds tokens instead of pictures: a .npy, or a folder with metadata.json."""
    return path.suffix == ".npy" or (path / _METADATA).is_file()


def data_file(path: Path) -> Path:
    """The file that holds the numbers."""
    return path / _VIDEO if path.is_dir() else path


def load_tokens(path: Path, tokens: int, count: int, stride: int = 1) -> NDArray[np.int64]:
    """Read the first `count` frames, `stride` apart, of `tokens` tokens each: ids [count, tokens].

    Nothing else is read. metadata.json has num_images, the side s (or h and w) in tokens, and token_dtype (default
    uint32). A .npy is [frames, tokens] or [frames, rows, columns]. Raises ImageError.
    """
    where = quoted(str(path))
    try:
        frames = _folder(path, tokens) if path.is_dir() else _npy(path, tokens)
        wanted = frames[: (count - 1) * stride + 1 : stride]
        if len(wanted) < count:
            raise ImageError(
                f"{where} has {len(frames)} frames, too few for {count} that are {stride} apart",
                "ask for fewer with --prompt-frames",
            )
        ids = np.asarray(wanted)
    except OSError as error:
        raise ImageError(f"{where} cannot be read: {error.strerror or error}") from None
    except (ValueError, KeyError, TypeError, EOFError, RecursionError) as error:
        detail = (str(error).splitlines() or [type(error).__name__])[0]
        raise ImageError(f"{where} holds no frames of tokens: {quoted(detail, 200)[1:-1]}") from None
    if ids.size and (ids.min() < 0 or ids.max() >= 1 << 31):
        raise ImageError(f"{where} has tokens in {ids.min()}…{ids.max()}", "they count from 0")
    return ids.astype(np.int64)


def _folder(path: Path, tokens: int) -> NDArray[Any]:
    with (path / _METADATA).open("rb") as file:
        text = file.read(_METADATA_LIMIT + 1)
    if len(text) > _METADATA_LIMIT:
        raise ValueError(f"{_METADATA} is larger than {_METADATA_LIMIT} bytes")
    data = json.loads(text)
    if not isinstance(data, dict):
        raise ValueError(f"{_METADATA} is not a JSON object")
    height, width, frames = data.get("h", data.get("s")), data.get("w", data.get("s")), data.get("num_images")
    for name, value in (("s", height), ("s", width), ("num_images", frames)):
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value < 1 << 40:
            raise ValueError(f"{name} in {_METADATA} must be a whole number >= 1, not {str(value)[:40]}")
    kind = data.get("token_dtype", "uint32")
    if kind not in DTYPES:
        raise ValueError(f"token_dtype must be one of {', '.join(DTYPES)}, not {str(kind)[:40]}")
    assert isinstance(height, int) and isinstance(width, int) and isinstance(frames, int)
    if height * width != tokens:
        raise ValueError(f"frames of {height}x{width} tokens, where the model has {tokens}")
    size, wanted = (path / _VIDEO).stat().st_size, frames * tokens * np.dtype(kind).itemsize
    if size != wanted:
        raise ValueError(f"{_VIDEO} has {size} bytes, where {frames} frames of {kind} have {wanted}")
    return np.memmap(path / _VIDEO, np.dtype(kind).newbyteorder("<"), "r", shape=(frames, tokens))


def _npy(path: Path, tokens: int) -> NDArray[Any]:
    data = np.load(path, mmap_mode="r", allow_pickle=False)
    if not isinstance(data, np.ndarray) or data.dtype.kind not in "iu" or data.ndim not in (2, 3) or not data.size:
        raise ValueError("it must be whole numbers, [frames, tokens] or [frames, rows, columns]")
    flat = data.reshape(len(data), -1)
    if flat.shape[1] != tokens:
        raise ValueError(f"frames of {flat.shape[1]} tokens, where the model has {tokens}")
    return flat
