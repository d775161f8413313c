"""Films and pipes as pictures: mp4, webm, mov, mkv and standard input."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from genie_cpp import frames
from genie_cpp.errors import ImageError
from genie_cpp.frames import decode_image, iter_frames, load_frames, load_image, sha256
from genie_cpp.media.video import is_video

pytestmark = pytest.mark.heavy

WIDTH, HEIGHT, COUNT = 48, 32, 6


def pictures() -> np.ndarray:
    """Each has a red, a green, a blue and a white quarter, and moves down by one pixel per frame."""
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    picture[: HEIGHT // 2, : WIDTH // 2, 0] = picture[HEIGHT // 2 :, WIDTH // 2 :] = 220
    picture[: HEIGHT // 2, WIDTH // 2 :, 1] = picture[HEIGHT // 2 :, : WIDTH // 2, 2] = 220
    return np.stack([np.roll(picture, t, 0) for t in range(COUNT)])


def ffmpeg(*words: str | Path, data: bytes = b"") -> None:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-v", "error", *(str(word) for word in words)]
    subprocess.run(command, input=data, check=True)


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{WIDTH}x{HEIGHT}", "-r", "10", "-i", "-"]
    for name, codec in (("a.mp4", "libx264"), ("a.mov", "mpeg4"), ("a.webm", "libvpx"), ("a.mkv", "ffv1")):
        quality = ["-b:v", "4M"] if name != "a.mkv" else []
        ffmpeg(*raw, "-c:v", codec, *quality, folder / name, data=pictures().tobytes())
    ffmpeg("-display_rotation", "90", "-i", folder / "a.mp4", "-c", "copy", folder / "turned.mp4")
    return folder


def likeness(got: np.ndarray, want: np.ndarray) -> float:
    return float(np.abs(got.astype(int) - want).mean())


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.webm", "a.mkv"])
def test_the_frames_of_a_film(name: str, films: Path) -> None:
    got = load_frames(films / name)
    assert len(got) == COUNT
    for frame, want in zip(got, pictures(), strict=True):
        assert likeness(frame, want) < 20  # colours are halved in resolution
    np.testing.assert_array_equal(load_image(films / name), got[0])


def test_a_film_that_a_phone_turned(films: Path) -> None:
    (frame, *_) = iter_frames(films / "turned.mp4")
    assert frame.shape == (WIDTH, HEIGHT, 3)
    best = min(range(4), key=lambda k: likeness(np.rot90(pictures()[0], k), frame) if k % 2 else 999.0)
    assert likeness(np.rot90(pictures()[0], best), frame) < 20


def test_no_more_is_decoded_than_is_asked(films: Path) -> None:
    stream = iter_frames(films / "a.mp4")
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert len(load_frames(films / "a.mp4", 2)) == 2


def test_names_that_ffmpeg_would_take_for_something_else(films: Path, tmp_path: Path) -> None:
    for name in ("concat:a|b.mp4", "-i.mp4", "%03d.mp4", "pipe:.mp4", "ü .mp4"):
        path = tmp_path / name
        path.write_bytes((films / "a.mp4").read_bytes())
        assert len(load_frames(path)) == COUNT


@pytest.mark.parametrize(
    "data",
    [
        b"\x1aE\xdf\xa3" + bytes(100),
        b"\0\0\0\x18ftypisom" + bytes(100),
        b"\0\0\0\x08moov",
        b"\0\0\0\x14ftypqt  \0\0\0\0qt  \xff\xff\xff\xffmoov" + b"\xff" * 64,
    ],
)
def test_damaged_films(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.mp4").write_bytes(data)
    with pytest.raises(ImageError, match=r"x\.mp4 is not a film that can be read") as caught:
        load_image(tmp_path / "x.mp4")
    assert "\n" not in str(caught.value) and caught.value.hint


def test_a_film_cut_short_gives_what_it_has_or_an_error(films: Path, tmp_path: Path) -> None:
    whole = (films / "a.webm").read_bytes()
    (tmp_path / "cut.webm").write_bytes(whole[: len(whole) // 2])
    try:
        assert 0 < len(load_frames(tmp_path / "cut.webm")) < COUNT
    except ImageError as error:
        assert "not a film" in str(error)


def test_a_playlist_is_no_film(films: Path, tmp_path: Path) -> None:
    """ffmpeg would open the files that it names."""
    (tmp_path / "list.mp4").write_text(f"#EXTM3U\n#EXTINF:1,\n{films / 'a.mp4'}\n")
    with pytest.raises(ImageError, match="not a picture that can be read"):
        load_image(tmp_path / "list.mp4")
    (tmp_path / "concat.mkv").write_bytes(b"ffconcat version 1.0\nfile " + bytes(films / "a.mp4") + b"\n")
    with pytest.raises(ImageError):
        load_image(tmp_path / "concat.mkv")


def test_a_film_is_no_picture_that_somebody_may_send(films: Path) -> None:
    """The servers only take pictures, because a film would start a program."""
    with pytest.raises(ImageError, match="is not a picture"):
        decode_image((films / "a.mp4").read_bytes())


def test_small_and_large_films(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, films: Path) -> None:
    ffmpeg("-f", "lavfi", "-i", "testsrc=size=6x6:rate=5:duration=1", "-c:v", "ffv1", tmp_path / "small.mkv")
    with pytest.raises(ImageError, match="6x6 pixels; 8x8 are the least"):
        load_image(tmp_path / "small.mkv")
    monkeypatch.setattr(frames, "MAX_PIXELS", 1000)
    with pytest.raises(ImageError, match=r"48x32 pixels; 0\.001 million are the limit"):
        load_image(films / "a.mp4")


def test_without_ffmpeg(films: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(ImageError, match="needs ffmpeg") as caught:
        load_image(films / "a.mp4")
    assert "genie_cpp[video]" in (caught.value.hint or "")


def test_what_is_a_film() -> None:
    assert is_video(b"\0\0\0\x20ftypmp42") and is_video(b"\0\0\0\x14ftypqt  ") and is_video(b"\x1aE\xdf\xa3")
    assert not any(is_video(b"\0\0\0\x20ftyp" + brand) for brand in (b"avif", b"heic", b"mif1"))
    assert not any(is_video(head) for head in (b"", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"RIFF\0\0\0\0WEBP", b"II*\0"))


def test_a_heic_picture_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_bytes(b"\0\0\0\x20ftypheic" + bytes(100))
    with pytest.raises(ImageError, match="HEIC") as caught:
        load_image(tmp_path / "x.jpg")
    assert "JPEG" in (caught.value.hint or "")


def run(*words: str | Path, data: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    command = [Path(sys.executable).with_name("genie-run"), *words]
    return subprocess.run([str(word) for word in command], input=data, capture_output=True, timeout=300)


def test_a_run_from_a_film_with_its_actions(films: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.png"
    ran = run("-p", films / "a.mp4", "--prompt-frames", "3", "--actions-from", films / "a.webm", "-o", out)
    assert ran.returncode == 0, ran.stderr
    with Image.open(out) as image:
        assert image.n_frames == COUNT - 1 + 1
    few = run("-p", films / "a.mp4", "--prompt-frames", "9", "-o", tmp_path / "no.png")
    assert few.returncode == 1 and b"too few frames" in few.stderr and not (tmp_path / "no.png").exists()


@pytest.mark.parametrize("kind", ["png", "webm"])
def test_pictures_and_films_through_standard_input(kind: str, films: Path, tmp_path: Path) -> None:
    file = tmp_path / "in.png"
    Image.fromarray(pictures()[0]).save(file)
    file = file if kind == "png" else films / "a.webm"
    made = {}
    for name, words, data in (("file", ["-p", file], None), ("pipe", ["-p", "-"], file.read_bytes())):
        ran = run(*words, "--actions", "1*3", "-o", tmp_path / f"{name}.png", data=data)
        assert ran.returncode == 0, ran.stderr
        with Image.open(tmp_path / f"{name}.png") as image:
            image.seek(2)
            made[name] = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(made["file"], made["pipe"])
    nothing = run("-p", "-", "-o", tmp_path / "no.png", data=b"")
    assert nothing.returncode == 1 and nothing.stderr.startswith(b"error: standard input is not a picture")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_named_pipe_is_read_once_for_a_picture_and_its_hash(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    encoded = io.BytesIO()
    Image.fromarray(pictures()[0]).save(encoded, "PNG")
    writer = threading.Thread(target=(tmp_path / "pipe.png").write_bytes, args=(encoded.getvalue(),))
    writer.start()
    np.testing.assert_array_equal(load_image(tmp_path / "pipe.png"), pictures()[0])
    writer.join()
    (tmp_path / "same.png").write_bytes(encoded.getvalue())
    assert sha256(tmp_path / "pipe.png") == sha256(tmp_path / "same.png")
    other = io.BytesIO()
    Image.fromarray(255 - pictures()[0]).save(other, "PNG")
    writer = threading.Thread(target=(tmp_path / "pipe.png").write_bytes, args=(other.getvalue(),))
    writer.start()
    np.testing.assert_array_equal(load_image(tmp_path / "pipe.png"), 255 - pictures()[0])  # the next one that comes
    writer.join()
