"""The only GGUF reader: every byte of a model file passes through here before C gets a pointer (docs/gguf.md).

The file is untrusted. Counts are compared with the remaining bytes before anything is allocated. Lengths are checked as
`length <= remaining`. Nothing recurses. No part is memory-mapped, so a file that shrinks is an error, not a signal.
"""

from __future__ import annotations

import enum
import hashlib
import os
import stat
import struct
import threading
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genie_cpp.errors import GGUFError
from genie_cpp.file import foreign
from genie_cpp.words import quoted

MAGIC = b"GGUF"
ARCHITECTURE = "genie"
VERSION = 3
DEFAULT_ALIGNMENT = 32
MAX_NAME = 64
# Far more than a Genie has (512 blocks, 4 stacks, 44 tensors each), but far less than would cost gigabytes.
MAX_TENSORS = 1 << 17
MAX_KEYS = 1 << 14
MAX_KEY_BYTES = 256
MAX_STRING_BYTES = 1 << 20
MAX_ARRAY_ITEMS = 1 << 20
_WINDOW = 1 << 16  # bytes of the header that are read at a time

_DAMAGED = "the file is damaged or made to mislead; get it again from where it came, or convert the checkpoint again"
_CUT = "the download or copy was probably cut short; get the file again"


class TensorType(enum.IntEnum):
    """ggml tensor types that this version runs; the value is the one stored in the file."""

    F32 = 0
    F16 = 1
    Q4_0 = 2
    Q8_0 = 8


# type -> (values per block, bytes per block); a quantized block starts with its float16 scale.
BLOCKS: dict[TensorType, tuple[int, int]] = {
    TensorType.F32: (1, 4),
    TensorType.F16: (1, 2),
    TensorType.Q4_0: (32, 18),
    TensorType.Q8_0: (32, 34),
}

_TYPES = {int(kind): kind for kind in TensorType}

# GGUF value types by code: (name, struct format or None for string and array, smallest size in bytes).
_VALUES: dict[int, tuple[str, str | None, int]] = {
    0: ("uint8", "B", 1),
    1: ("int8", "b", 1),
    2: ("uint16", "H", 2),
    3: ("int16", "h", 2),
    4: ("uint32", "I", 4),
    5: ("int32", "i", 4),
    6: ("float32", "f", 4),
    7: ("bool", "?", 1),
    8: ("string", None, 8),
    9: ("array", None, 12),
    10: ("uint64", "Q", 8),
    11: ("int64", "q", 8),
    12: ("float64", "d", 8),
}
_BOOL, _STRING, _ARRAY = 7, 8, 9

_FIELDS = {code: struct.Struct("<" + code) for _, code, _ in _VALUES.values() if code}

Value = int | float | bool | str | list[Any]


@dataclass(frozen=True)
class TensorInfo:
    """One tensor. `shape` is as stored, fastest dimension first; `offset` is in bytes from the start of the file."""

    name: str
    type: TensorType
    shape: tuple[int, ...]
    offset: int
    n_bytes: int


class Source:
    """An open file that any thread can read in pieces."""

    def __init__(self, path: Path) -> None:
        """Raises OSError."""
        self._path, self._file, self._lock = path, path.open("rb", buffering=0), threading.Lock()
        self._opened = self._stamp()
        self.size = self._opened[0]

    def _stamp(self) -> tuple[int, int]:
        status = os.fstat(self._file.fileno())
        return status.st_size, status.st_mtime_ns

    def read(self, start: int, into: bytearray | memoryview) -> bytearray | memoryview:
        """Fill `into` from byte `start` on, and return it. Raises GGUFError."""
        view, done = memoryview(into), 0
        try:
            with self._lock:
                self._file.seek(start)
                while done < len(view) and (more := self._file.readinto(view[done:])):
                    done += more
        except ValueError:
            raise GGUFError(f"{quoted(str(self._path))} is closed") from None
        except OSError as error:
            raise GGUFError(f"cannot read {quoted(str(self._path))}: {error.strerror or error}") from None
        if done < len(view):
            raise self._changed()
        return into

    def check_unchanged(self) -> None:
        """Raises GGUFError."""
        if self._stamp() != self._opened:
            raise self._changed()

    def _changed(self) -> GGUFError:
        return GGUFError(
            f"{quoted(str(self._path))} changed while it was read", "try again when whoever writes it is done"
        )

    def close(self) -> None:
        self._file.close()


class _Cursor:
    """Reads little-endian fields, never past the end."""

    def __init__(self, source: Source) -> None:
        self.source, self.at, self.size = source, 0, source.size
        self._start, self._window = 0, b""  # the part of the file that is in memory

    @property
    def remaining(self) -> int:
        return self.size - self.at

    def take(self, count: int, what: str) -> bytes:
        if count > self.remaining:
            raise GGUFError(f"truncated at byte {self.size}: {what} needs {count} bytes at byte {self.at}", _CUT)
        start = self._see(count)
        self.at += count
        return self._window[start : start + count]

    def scalar(self, code: str, what: str) -> Any:
        field = _FIELDS[code]
        if field.size > self.remaining:
            self.take(field.size, what)  # raises the error
        start = self._see(field.size)
        self.at += field.size
        return field.unpack_from(self._window, start)[0]

    def _see(self, count: int) -> int:
        """Index in `_window` of the next `count` bytes. The caller has checked that the file has them."""
        start = self.at - self._start
        if start + count > len(self._window):
            wanted = min(self.remaining, max(count, _WINDOW))
            self._start, self._window, start = self.at, bytes(self.source.read(self.at, bytearray(wanted))), 0
        return start

    def count(self, limit: int, smallest: int, what: str) -> int:
        """A 64-bit number of records, each of at least `smallest` bytes."""
        value = int(self.scalar("Q", f"the number of {what}"))
        if value > self.remaining // smallest:
            raise GGUFError(
                f"the file claims {value} {what} at byte {self.at - 8}, but only {self.remaining} bytes are left",
                _DAMAGED,
            )
        if value > limit:
            raise GGUFError(f"the file has {value} {what}; at most {limit} are allowed", _DAMAGED)
        return value

    def string(self, limit: int, what: str) -> str:
        length = int(self.scalar("Q", f"the length of {what}"))
        if length > self.remaining:
            raise GGUFError(
                f"{what} claims {length} bytes at byte {self.at - 8}, but only {self.remaining} are left", _DAMAGED
            )
        if length > limit:
            raise GGUFError(f"{what} has {length} bytes; at most {limit} are allowed", _DAMAGED)
        raw = self.take(length, what)
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            raise GGUFError(f"{what} at byte {self.at - length} is not UTF-8", _DAMAGED) from None

    def value(self, code: int, what: str) -> Value:
        """One value that is not an array."""
        if code == _STRING:
            return self.string(MAX_STRING_BYTES, what)
        if code == _BOOL:
            byte = self.scalar("B", what)
            if byte > 1:
                raise GGUFError(f"{what} is a bool of value {byte}; only 0 and 1 are", _DAMAGED)
            return bool(byte)
        value: Value = self.scalar(_VALUES[code][1] or "", what)
        return value


class GGUFFile:
    """An open GGUF whose structure has been checked. Use `GGUFFile.open(path)`, as a context manager or with `close`.

    metadata: values by key. value_types: the stored type of each, such as "uint32" or "array of string".
    tensors: by name, in file order. alignment: of the tensor data, in bytes. size: of the file, in bytes.
    """

    def __init__(self, path: Path, source: Source) -> None:
        self.path, self.size = path, source.size
        self.metadata: dict[str, Value] = {}
        self.value_types: dict[str, str] = {}
        self.tensors: dict[str, TensorInfo] = {}
        self.alignment = DEFAULT_ALIGNMENT
        self._source = source
        self._parse(_Cursor(source))

    @staticmethod
    def open(path: str | os.PathLike[str]) -> GGUFFile:
        """Open and check a file. Raises GGUFError, whose message names the file and the first error found."""
        path = Path(path)
        try:
            # Opening a named pipe would block forever, so its kind is checked first.
            if not stat.S_ISREG(path.stat().st_mode):
                raise GGUFError(f"{quoted(str(path))} is not a regular file", "give the path of a .gguf file")
            source = Source(path)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise GGUFError(
                f"cannot read {quoted(str(path))}: {reason}", "check the path and its permissions"
            ) from None
        try:
            if source.size < 4 or bytes(source.read(0, bytearray(4))) != MAGIC:
                head = bytes(source.read(0, bytearray(min(source.size, foreign.HEAD))))
                what, hint = foreign.described(head) or ("not a GGUF file", "make one with genie-convert")
                raise GGUFError(f"{quoted(str(path))} is {what}", hint)
            try:
                return GGUFFile(path, source)
            except GGUFError as error:
                raise GGUFError(f"{quoted(str(path))}: {error}", error.hint) from None
        except BaseException:
            source.close()
            raise

    def data(self, name: str, into: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """The bytes of a tensor, uint8 `[n_bytes]`, read anew: into new memory or the start of `into`.

        Raises GGUFError."""
        info = self.tensors[name]
        bytes_ = np.empty(info.n_bytes, np.uint8) if into is None else into[: info.n_bytes]
        self._source.read(info.offset, bytes_.data)
        return bytes_

    def scratch(self) -> NDArray[np.uint8]:
        """A buffer large enough for any tensor, to pass to `data` repeatedly."""
        return np.empty(max((info.n_bytes for info in self.tensors.values()), default=0), np.uint8)

    def sha256(self) -> str:
        """SHA-256 of the opened file, hexadecimal, even if the path names another file by now. Raises GGUFError."""
        digest, block = hashlib.sha256(), bytearray(1 << 20)
        for start in range(0, self.size, len(block)):
            digest.update(self._source.read(start, memoryview(block)[: min(len(block), self.size - start)]))
        return digest.hexdigest()

    def check_unchanged(self) -> None:
        """Refuse a file that was changed since it was opened. Raises GGUFError."""
        self._source.check_unchanged()

    def check_finite(self, name: str) -> None:
        """Refuse NaN and infinity in a tensor's values or block scales. Raises GGUFError."""
        info = self.tensors[name]
        raw = self.data(name)
        if info.type is TensorType.F32:
            bits, mask = raw.view("<u4"), 0x7F800000
        elif info.type is TensorType.F16:
            bits, mask = raw.view("<u2"), 0x7C00
        else:
            bits, mask = np.ascontiguousarray(raw.reshape(-1, BLOCKS[info.type][1])[:, :2]).view("<u2").ravel(), 0x7C00
        for start in range(0, len(bits), 1 << 20):  # in pieces, so that a big tensor needs no second copy
            bad = (bits[start : start + (1 << 20)] & mask) == mask
            if bad.any():
                what = "value" if BLOCKS[info.type][0] == 1 else "block scale"
                raise GGUFError(
                    f"{quoted(str(self.path))}: tensor {quoted(name)} has a NaN or infinite {what} "
                    f"(number {start + int(bad.argmax())})",
                    _DAMAGED,
                )

    def close(self) -> None:
        """Close the file. Arrays that `data` returned stay valid."""
        self._source.close()

    def __enter__(self) -> GGUFFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _parse(self, cursor: _Cursor) -> None:
        cursor.take(4, "the magic")  # `open` has checked it
        version = cursor.scalar("I", "the version")
        if version != VERSION:
            if version == int.from_bytes(VERSION.to_bytes(4, "little"), "big"):
                raise GGUFError(
                    "the file is big-endian; only little-endian GGUF is read", "convert the checkpoint again"
                )
            raise GGUFError(f"GGUF version {version} is not supported, only {VERSION}", "convert the checkpoint again")
        # Smallest record: 1-byte name, dimension count, 1 dimension, type, offset. Smallest pair: 1-byte key, uint8.
        tensor_count = cursor.count(MAX_TENSORS, 8 + 1 + 4 + 8 + 4 + 8, "tensors")
        key_count = cursor.count(MAX_KEYS, 8 + 1 + 4 + 1, "metadata keys")
        items_left = MAX_ARRAY_ITEMS
        for index in range(key_count):
            items_left = self._parse_pair(cursor, index, items_left)
        self._set_alignment()
        architecture = self.metadata.get("general.architecture")
        if architecture != ARCHITECTURE and isinstance(architecture, str):
            # Checked first: another model's tensors may have types that no Genie has, which gives a less clear error.
            raise GGUFError(f"it is a GGUF of a {quoted(architecture, 40)} model, not of a Genie", "give a Genie's")
        infos = [self._parse_tensor(cursor, index) for index in range(tensor_count)]
        self._place(infos, -(-cursor.at // self.alignment) * self.alignment)

    def _parse_pair(self, cursor: _Cursor, index: int, items_left: int) -> int:
        """Read one key and value. Returns how many array items the rest of the file may have."""
        key = cursor.string(MAX_KEY_BYTES, f"the name of metadata key {index}")
        if not key:
            raise GGUFError(f"metadata key {index} has an empty name", _DAMAGED)
        if key in self.metadata:
            raise GGUFError(f"metadata key {quoted(key)} occurs twice", _DAMAGED)
        what = f"metadata key {quoted(key)}"
        code = cursor.scalar("I", f"the type of {what}")
        if code not in _VALUES:
            raise GGUFError(f"{what} has the unknown value type {code}", _DAMAGED)
        if code != _ARRAY:
            self.metadata[key] = cursor.value(code, what)
            self.value_types[key] = _VALUES[code][0]
            return items_left
        code = cursor.scalar("I", f"the item type of {what}")
        if code == _ARRAY:
            raise GGUFError(f"{what} is an array of arrays; arrays are not nested", _DAMAGED)
        if code not in _VALUES:
            raise GGUFError(f"{what} is an array of the unknown value type {code}", _DAMAGED)
        count = cursor.count(items_left, _VALUES[code][2], f"items in {what}")
        self.metadata[key] = [cursor.value(code, what) for _ in range(count)]
        self.value_types[key] = f"array of {_VALUES[code][0]}"
        return items_left - count

    def _set_alignment(self) -> None:
        value = self.metadata.get("general.alignment", DEFAULT_ALIGNMENT)
        if self.value_types.get("general.alignment", "uint32") != "uint32" or not isinstance(value, int):
            raise GGUFError(f"general.alignment is a {self.value_types['general.alignment']}, not a uint32", _DAMAGED)
        if not 8 <= value <= 65536 or value & (value - 1):
            raise GGUFError(f"general.alignment is {value}, not a power of two in 8…65536", _DAMAGED)
        self.alignment = value

    def _parse_tensor(self, cursor: _Cursor, index: int) -> TensorInfo:
        """One record. Its `offset` still counts from the start of the tensor data."""
        name = cursor.string(MAX_NAME, f"the name of tensor {index}")
        if not name:
            raise GGUFError(f"tensor {index} has an empty name", _DAMAGED)
        if name in self.tensors:
            raise GGUFError(f"tensor {quoted(name)} occurs twice", _DAMAGED)
        what = f"tensor {quoted(name)}"
        dims = cursor.scalar("I", f"the dimension count of {what}")
        if not 1 <= dims <= 4:
            raise GGUFError(f"{what} has {dims} dimensions, not 1…4", _DAMAGED)
        shape = tuple(int(cursor.scalar("Q", f"the shape of {what}")) for _ in range(dims))
        if 0 in shape:
            raise GGUFError(f"{what} has a dimension of 0: {list(shape)}", _DAMAGED)
        code = cursor.scalar("I", f"the type of {what}")
        kind = _TYPES.get(code)
        if kind is None:
            kinds = ", ".join(kind.name for kind in TensorType)
            raise GGUFError(
                f"{what} has the type {code}, which is not one of {kinds}", "convert it again as q8_0 or f16"
            )
        per_block, block_bytes = BLOCKS[kind]
        if shape[0] % per_block:
            raise GGUFError(
                f"{what} has rows of {shape[0]}, not a multiple of the {kind.name} block {per_block}", _DAMAGED
            )
        count = 1
        for length in shape:  # Python's integers do not overflow
            count *= length
        n_bytes = count // per_block * block_bytes
        if n_bytes > cursor.size:
            raise GGUFError(f"{what} would need {n_bytes} bytes, more than the whole file has", _CUT)
        offset = int(cursor.scalar("Q", f"the offset of {what}"))
        if offset % self.alignment:
            raise GGUFError(f"{what} starts at {offset}, which is not a multiple of {self.alignment}", _DAMAGED)
        info = TensorInfo(name, kind, shape, offset, n_bytes)
        self.tensors[name] = info
        return info

    def _place(self, infos: list[TensorInfo], start: int) -> None:
        """Convert offsets to offsets in the file. Every tensor must be in bounds, and none may overlap."""
        end, before = start, ""
        for info in sorted(infos, key=lambda info: info.offset):
            at = start + info.offset
            if at + info.n_bytes > self.size:
                raise GGUFError(
                    f"truncated at byte {self.size}: tensor {quoted(info.name)} goes on to byte {at + info.n_bytes}",
                    _CUT,
                )
            if at < end:
                raise GGUFError(f"tensors {quoted(before)} and {quoted(info.name)} overlap", _DAMAGED)
            end, before = at + info.n_bytes, info.name
        for info in infos:
            self.tensors[info.name] = TensorInfo(info.name, info.type, info.shape, start + info.offset, info.n_bytes)
