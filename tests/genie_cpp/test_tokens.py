"""Token prompts: what is read, and what is refused in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genie_cpp.errors import ImageError
from genie_cpp.tokens import are_tokens, data_file, load_tokens

IDS = np.arange(5 * 4, dtype=np.uint32).reshape(5, 4)


def folder(path: Path, ids: np.ndarray = IDS, **metadata: Any) -> Path:
    path.mkdir()
    ids.tofile(path / "video.bin")
    data = {"num_images": 5, "s": 2, "token_dtype": str(ids.dtype), **metadata}
    (path / "metadata.json").write_text(json.dumps({k: v for k, v in data.items() if v is not None}))
    return path


def test_a_folder(tmp_path: Path) -> None:
    path = folder(tmp_path / "a")
    assert are_tokens(path) and data_file(path) == path / "video.bin"
    assert not are_tokens(tmp_path) and not are_tokens(tmp_path / "p.png")
    np.testing.assert_array_equal(load_tokens(path, 4, 5), IDS)
    np.testing.assert_array_equal(load_tokens(path, 4, 3, 2), IDS[::2])
    np.testing.assert_array_equal(load_tokens(folder(tmp_path / "b", token_dtype=None), 4, 1), IDS[:1])
    wide = folder(tmp_path / "c", IDS.astype(np.int64), s=None, h=1, w=4)
    np.testing.assert_array_equal(load_tokens(wide, 4, 2), IDS[:2])


def test_an_array(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    for ids in (IDS, IDS.reshape(5, 2, 2).astype(np.int16), np.asfortranarray(IDS)):
        np.save(path, ids)
        np.testing.assert_array_equal(load_tokens(path, 4, 3, 2), IDS[::2])
    assert are_tokens(path) and data_file(path) == path


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"num_images": 6}, "video.bin has 80 bytes, where 6 frames of uint32 have 96"),
        ({"num_images": 0}, "num_images in metadata.json must be a whole number >= 1, not 0"),
        ({"num_images": True}, "num_images"),
        ({"num_images": 1 << 50}, "num_images"),
        ({"s": "2"}, "s in metadata.json must be"),
        ({"s": None}, "s in metadata.json must be"),
        ({"s": 3}, "frames of 3x3 tokens, where the model has 4"),
        ({"token_dtype": "float32"}, "token_dtype must be one of"),
        ({"token_dtype": ["O"]}, "token_dtype must be one of"),
        ({"token_dtype": "uint16"}, "80 bytes, where 5 frames of uint16 have 40"),
    ],
)
def test_faults_of_a_folder(metadata: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = folder(tmp_path / "a", **metadata)
    with pytest.raises(ImageError, match=message) as caught:
        load_tokens(path, 4, 1)
    assert "\n" not in str(caught.value)


def test_other_faults(tmp_path: Path) -> None:
    path = folder(tmp_path / "a")
    for count, stride in ((6, 1), (3, 3), (2, 5)):
        with pytest.raises(ImageError, match="has 5 frames, too few for"):
            load_tokens(path, 4, count, stride)
    for text in ("{", "[]", "[" * 100_000, " " * (1 << 20) + "{}"):
        (path / "metadata.json").write_text(text)
        with pytest.raises(ImageError, match="holds no frames of tokens"):
            load_tokens(path, 4, 1)
    (path / "video.bin").unlink()
    with pytest.raises(ImageError):
        load_tokens(path, 4, 1)
    array = tmp_path / "a.npy"
    for data in (np.zeros((2, 4), np.float32), np.zeros(4, int), np.array([[object()]]), np.zeros((0, 4), int)):
        np.save(array, data, allow_pickle=True)
        with pytest.raises(ImageError, match="holds no frames of tokens"):
            load_tokens(array, 4, 1)
    np.save(array, np.full((2, 4), -1))
    with pytest.raises(ImageError, match="tokens in -1…-1"):
        load_tokens(array, 4, 1)
    array.write_bytes(b"\x93NUMPY\x01\x00")
    with pytest.raises(ImageError, match="holds no frames"):
        load_tokens(array, 4, 1)
    with pytest.raises(ImageError, match="cannot be read"):
        load_tokens(tmp_path / "gone.npy", 4, 1)
