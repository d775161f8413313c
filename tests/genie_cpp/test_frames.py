"""Pictures of every kind are read. Other files are refused in one line."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from genie_cpp.errors import ImageError
from genie_cpp.frames import decode_image, describe_fit, fit, iter_frames, load_frames, load_image


@pytest.fixture
def rgb() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)


def save(image: Image.Image, path: Path, **options: object) -> Path:
    image.save(path, **options)
    return path


def test_lossless_rgb_is_exact(rgb: np.ndarray, tmp_path: Path) -> None:
    for name, options in (("a.png", {}), ("a.bmp", {}), ("a.webp", {"lossless": True})):
        np.testing.assert_array_equal(load_image(save(Image.fromarray(rgb), tmp_path / name, **options)), rgb)


def test_jpeg_and_gif_are_close(rgb: np.ndarray, tmp_path: Path) -> None:
    flat = np.full_like(rgb, 90)
    for name in ("a.jpg", "a.gif"):
        assert np.abs(load_image(save(Image.fromarray(flat), tmp_path / name)).astype(int) - 90).max() <= 2


def test_transparency_lies_over_black(rgb: np.ndarray, tmp_path: Path) -> None:
    alpha = np.full((20, 30, 1), 128, np.uint8)
    got = load_image(save(Image.fromarray(np.concatenate([rgb, alpha], 2)), tmp_path / "a.png"))
    assert np.abs(got - rgb * (128 / 255)).max() <= 1
    grey = Image.merge("LA", (Image.new("L", (9, 9), 200), Image.new("L", (9, 9), 0)))
    assert load_image(save(grey, tmp_path / "b.png")).max() == 0


def test_palette_grey_cmyk_and_16_bits(rgb: np.ndarray, tmp_path: Path) -> None:
    palette = Image.fromarray(rgb).quantize(16)
    np.testing.assert_array_equal(load_image(save(palette, tmp_path / "p.png")), np.asarray(palette.convert("RGB")))
    grey = load_image(save(Image.new("L", (10, 12), 77), tmp_path / "g.png"))
    assert grey.shape == (12, 10, 3) and (grey == 77).all()
    assert load_image(save(Image.new("CMYK", (10, 10)), tmp_path / "c.jpg")).min() >= 250
    deep = Image.fromarray(np.full((10, 10), 0x8080, np.uint16))
    assert (load_image(save(deep, tmp_path / "d.png")) == 128).all()
    assert (load_image(save(Image.new("1", (10, 10), 1), tmp_path / "m.png")) == 255).all()


def test_exif_rotation(tmp_path: Path) -> None:
    image = Image.new("RGB", (40, 20))
    image.paste((255, 255, 255), (0, 0, 20, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees
    got = load_image(save(image, tmp_path / "a.jpg", exif=exif))
    assert got.shape == (40, 20, 3)
    assert got[:15].min() > 200 and got[-15:].max() < 50


def bomb(path: Path, width: int, height: int) -> Path:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return path


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda d: d / "nothing.png", "does not exist"),
        (lambda d: d, "is a folder"),
        (lambda d: _write(d / "a.png", b""), "not a picture"),
        (lambda d: _write(d / "a.png", b"GGUF" * 100), "not a picture"),
        (lambda d: _write(d / "a.png", bomb(d / "b.png", 100, 100).read_bytes()[:60]), "not a picture"),
        (lambda d: save(Image.new("RGB", (1, 1)), d / "a.png"), "1x1"),
        (lambda d: bomb(d / "a.png", 40_000, 40_000), "limit"),
        (lambda d: bomb(d / "a.png", 10_000, 10_000), "million"),
    ],
    ids=["missing", "folder", "empty", "gguf", "truncated", "1x1", "40000", "10000"],
)
def test_refused(make, says: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ImageError) as caught:
        load_image(make(tmp_path))
    assert says in str(caught.value) and "\n" not in str(caught.value)


def _write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_fit(rgb: np.ndarray) -> None:
    np.testing.assert_array_equal(fit(rgb, 30, 20), rgb)
    assert describe_fit(rgb, 30, 20, "crop") == ""
    wide = np.zeros((50, 100, 3), np.uint8)
    wide[:, 25:75] = 255
    assert fit(wide, 8, 8, "crop").min() > 230  # the filter reads a little beyond the cut
    padded = fit(wide, 8, 8, "pad")
    assert padded[0].max() == 0 and padded[-1].max() == 0 and padded[4, 4].min() == 255
    assert "50x50" in describe_fit(wide, 8, 8, "crop") and "padded" in describe_fit(wide, 8, 8, "pad")
    with pytest.raises(ImageError):
        fit(wide, 8, 8, "stretch")


def test_extreme_shapes_fit() -> None:
    for shape in ((8000, 8, 3), (8, 8000, 3)):
        for how in ("crop", "pad"):
            assert fit(np.zeros(shape, np.uint8), 16, 16, how).shape == (16, 16, 3)


def test_frames_of_an_animation_come_one_by_one(rgb: np.ndarray, tmp_path: Path) -> None:
    images = [Image.fromarray(np.roll(rgb, i, 0)) for i in range(5)]
    path = save(images[0], tmp_path / "a.png", save_all=True, append_images=images[1:])
    np.testing.assert_array_equal(np.stack(load_frames(path)), np.stack([np.asarray(i) for i in images]))
    assert len(load_frames(path, 2)) == 2
    np.testing.assert_array_equal(next(iter_frames(path)), rgb)


def test_formats_that_start_other_programs_are_no_pictures(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 20\n%%EndComments\nshowpage\n")
    with pytest.raises(ImageError, match="cannot identify"):
        load_image(path)


@pytest.mark.filterwarnings("error")  # a warning would be printed between the lines meant for the user
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_damaged_files_are_one_error(kind: str, rgb: np.ndarray, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = save(Image.fromarray(rgb), tmp_path / "a", format=kind, **({"exif": exif} if kind != "BMP" else {}))
    data, rng = path.read_bytes(), np.random.default_rng(1)
    for _ in range(200):
        hurt = bytearray(data[: rng.integers(1, len(data) + 1)])
        for at in rng.integers(0, min(len(hurt), 128), rng.integers(1, 6)):
            hurt[at] = rng.integers(256)
        try:
            load_frames(_write(path, bytes(hurt)))
        except ImageError as error:
            assert "\n" not in str(error)


def test_messages_name_no_object_of_ours(tmp_path: Path) -> None:
    (tmp_path / "p.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(40))
    for read in (lambda: load_image(tmp_path / "p.png"), lambda: decode_image(bytes(100)), lambda: decode_image(b"")):
        with pytest.raises(ImageError) as caught:
            read()
        assert "0x" not in str(caught.value) and "_io" not in str(caught.value)
