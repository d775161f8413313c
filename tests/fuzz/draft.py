"""A GGUF in pieces, which can be changed before they are put together."""

from __future__ import annotations

import dataclasses
import struct
from pathlib import Path

from genie_cpp.file.gguf_file import GGUFFile

U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
CODES = {"uint32": (U32, "<I"), "float32": (F32, "<f"), "bool": (BOOL, "<?")}
BIG = 2**64 - 1


def text(value: bytes | str) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw)) + raw


def strings(*values: str) -> bytes:
    return struct.pack("<IQ", STRING, len(values)) + b"".join(map(text, values))


@dataclasses.dataclass
class Pair:
    key: bytes
    code: int
    payload: bytes

    def raw(self) -> bytes:
        return text(self.key) + struct.pack("<I", self.code) + self.payload


@dataclasses.dataclass
class Tensor:
    name: bytes
    dims: list[int]
    code: int
    data: bytes
    offset: int | None = None  # None: after the one before it
    dim_count: int | None = None


@dataclasses.dataclass
class Draft:
    """The pieces."""

    pairs: list[Pair]
    tensors: list[Tensor]
    magic: bytes = b"GGUF"
    version: int = 3
    tensor_count: int | None = None
    pair_count: int | None = None
    alignment: int = 32

    @staticmethod
    def of(path: Path) -> Draft:
        with GGUFFile.open(path) as file:
            pairs = []
            for key, value in file.metadata.items():
                kind = file.value_types[key]
                if kind in CODES:
                    code, payload = CODES[kind][0], struct.pack(CODES[kind][1], value)
                elif kind == "string":
                    code, payload = STRING, text(str(value))
                else:
                    assert isinstance(value, list)
                    code, payload = ARRAY, strings(*value)
                pairs.append(Pair(key.encode(), code, payload))
            tensors = [
                Tensor(t.name.encode(), list(t.shape), int(t.type), file.data(t.name).tobytes())
                for t in file.tensors.values()
            ]
        return Draft(pairs, tensors)

    def raw(self) -> bytes:
        head = self.magic + struct.pack("<I", self.version)
        head += struct.pack("<Q", len(self.tensors) if self.tensor_count is None else self.tensor_count)
        head += struct.pack("<Q", len(self.pairs) if self.pair_count is None else self.pair_count)
        head += b"".join(pair.raw() for pair in self.pairs)
        body = b""
        for t in self.tensors:
            body += b"\0" * (-len(body) % self.alignment)
            offset = len(body) if t.offset is None else t.offset
            body += t.data
            head += text(t.name) + struct.pack("<I", len(t.dims) if t.dim_count is None else t.dim_count)
            head += b"".join(struct.pack("<Q", d) for d in t.dims) + struct.pack("<IQ", t.code, offset)
        return head + b"\0" * (-len(head) % self.alignment) + body

    # Small methods, so that an attack is one line.
    def set(self, key: str, code: int, payload: bytes) -> None:
        for pair in self.pairs:
            if pair.key == key.encode():
                pair.code, pair.payload = code, payload
                return
        self.pairs.append(Pair(key.encode(), code, payload))

    def u32(self, key: str, value: int) -> None:
        self.set(key, U32, struct.pack("<I", value))

    def f32(self, key: str, value: float) -> None:
        self.set(key, F32, struct.pack("<f", value))

    def string(self, key: str, value: str) -> None:
        self.set(key, STRING, text(value))

    def drop(self, key: str) -> None:
        self.pairs = [pair for pair in self.pairs if pair.key != key.encode()]

    def tensor(self, name: str) -> Tensor:
        return next(t for t in self.tensors if t.name == name.encode())
