"""The bytes of a saved world: an uncompressed zip of `head.npy` (JSON) and a few arrays, as `numpy.savez` writes it.

The sender is not trusted. Where numpy would accept many forms, this reader accepts only the ones that `pack` writes.
"""

from __future__ import annotations

import io
import json
import math
import re
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genie_cpp.errors import StateError

MAX_HEAD = 4096  # bytes of JSON
_TYPES = {"|u1": np.uint8, "<i4": np.int32, "<f4": np.float32}
_HEADER = re.compile(r"\{'descr': '([^']{3})', 'fortran_order': False, 'shape': \(([0-9, ]{0,80})\), \} *\n")


def pack(head: dict[str, Any], arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Arrays are uint8, int32 or float32."""
    out = io.BytesIO()
    np.savez(out, allow_pickle=False, head=np.frombuffer(json.dumps(head).encode(), np.uint8), **arrays)
    return out.getvalue()


def unpack(state: bytes, most: int) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """(head, arrays), the inverse of `pack`. most: bytes that one member may have. Raises StateError."""
    try:
        with zipfile.ZipFile(io.BytesIO(state)) as members:
            infos = members.infolist()
            names = [info.filename for info in infos]
            if len(set(names)) < len(names) or not set(names) <= {"head.npy", "ids.npy", "actions.npy", "pixels.npy"}:
                raise ValueError("it has other members")
            for info in infos:
                # Uncompressed and no larger than a window, so that a small file cannot unpack into a large one.
                if info.compress_type or info.flag_bits & 1 or info.file_size != info.compress_size:
                    raise ValueError("a member is compressed or encrypted")
                if info.file_size > most + 256:
                    raise ValueError("a member is too large")
            arrays = {info.filename.removesuffix(".npy"): _array(members.read(info)) for info in infos}
        head = json.loads(arrays.pop("head").tobytes()[:MAX_HEAD])
    except Exception as error:  # zipfile raises many kinds on damaged bytes, struct.error among them
        raise StateError(f"not a saved world: {type(error).__name__}: {str(error)[:100]}") from None
    if not isinstance(head, dict):
        raise StateError("not a saved world: it has no head")
    return head, arrays


def _array(data: bytes) -> NDArray[Any]:
    """Reads version 1.0 of numpy's format, only with the types and order that `pack` writes. Raises ValueError."""
    if data[:8] != b"\x93NUMPY\x01\x00":
        raise ValueError("a member is not an array")
    length = int.from_bytes(data[8:10], "little")
    found = _HEADER.fullmatch(data[10 : 10 + length].decode("latin-1"))
    if found is None or found[1] not in _TYPES:
        raise ValueError("an array is of another kind")
    shape = [int(word) for word in found[2].split(",") if word.strip()]
    kind = np.dtype(_TYPES[found[1]])
    if len(shape) > 3 or math.prod(shape) * kind.itemsize != len(data) - 10 - length:
        raise ValueError("an array is cut short")
    return np.frombuffer(data, kind, offset=10 + length).reshape(shape).copy()  # a copy is aligned
