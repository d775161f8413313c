"""Videos in: what is found, how it is read, where it is cut, and what is left out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torus
from PIL import Image

pytest.importorskip("torch")

from genie_cpp.errors import ImageError
from genie_cpp.train import dataset, videos
from genie_cpp.train.dataset import Dataset
from genie_cpp.train.errors import TrainError


def write(folder: Path, paths: list[Path], length: int = 4, rate: float = 10) -> list[str]:
    """Make a dataset of paths; returns what was said."""
    said: list[str] = []
    dataset.write(folder, videos.find(paths), 16, 16, rate, length, said.append, lambda *_: None)
    return said


def pictures(folder: Path, frames: np.ndarray) -> Path:
    folder.mkdir()
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"frame-{number}.png")
    return folder


def test_files_are_found_in_folders_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    frames, _ = torus.walk(0, 12)
    (tmp_path / "deep").mkdir()
    pictures(tmp_path / "deep" / "shots", frames)
    torus.gif(tmp_path / "b10.gif", frames)
    torus.gif(tmp_path / "b9.gif", frames)
    (tmp_path / "notes.txt").write_text("no video", encoding="utf-8")
    found = videos.find([tmp_path])
    assert [video.path.name for video in found] == ["b9.gif", "b10.gif", "shots"]
    assert [video.kind for video in found] == ["film", "film", "pictures"] and not any(v.named for v in found)
    read = np.stack(list(videos.frames(found[2], 16, 16, 10)))
    assert (read == frames).all()  # frame-2 before frame-10


@pytest.mark.parametrize(
    ("path", "says"), [("nowhere", "does not exist"), ("notes.txt", "is no video"), (".", "holds no videos")]
)
def test_what_is_no_video_is_said(tmp_path: Path, path: str, says: str) -> None:
    (tmp_path / "notes.txt").write_text("no video", encoding="utf-8")
    with pytest.raises(TrainError, match=says) as caught:
        videos.find([tmp_path / path])
    assert caught.value.hint


def test_a_film_is_read_at_the_rate_asked_for(tmp_path: Path) -> None:
    writer = pytest.importorskip("imageio_ffmpeg").write_frames(
        str(tmp_path / "film.mp4"), (64, 48), fps=30, macro_block_size=1
    )
    writer.send(None)
    for shade in range(90):
        writer.send(np.full((48, 64, 3), shade * 2, np.uint8).tobytes())
    writer.close()
    [film] = videos.find([tmp_path / "film.mp4"])
    assert videos.facts(film) == (64, 48, 30.0)
    assert len(list(videos.frames(film, 16, 16, 60))) == 90
    tenth = [int(frame.mean()) for frame in videos.frames(film, 16, 16, 10)]
    assert len(tenth) == 30 and np.allclose(np.diff(tenth[1:]), 6, atol=2)


def test_a_film_is_cut_where_its_scene_changes() -> None:
    cuts, rng = videos.Cuts(), np.random.default_rng(0)
    scenes = [rng.integers(0, 100, (16, 64, 3), np.uint8), rng.integers(150, 256, (16, 64, 3), np.uint8)]
    for number in range(30):  # each scene is a slow pan
        cuts.see(np.roll(scenes[number // 15], number % 15, 1)[:, :16])
    assert cuts.found() == [15]
    turning = videos.Cuts()
    for number in range(30):  # fast, but one scene
        turning.see(np.roll(scenes[0], 7 * number, 1)[:, :16])
    assert turning.found() == []


def test_no_window_spans_a_cut_or_two_files(tmp_path: Path) -> None:
    dark, light = np.zeros((24, 16, 16, 3), np.uint8), np.full((24, 16, 16, 3), 160, np.uint8)
    for clip in (dark, light):
        clip[np.arange(24), :, np.arange(24) % 16] += 60  # a line that walks
    torus.gif(tmp_path / "cut.gif", np.concatenate([dark, light]))
    torus.gif(tmp_path / "other.gif", dark)
    assert write(tmp_path / "data", [tmp_path / "cut.gif", tmp_path / "other.gif"]) == []
    train, held = (Dataset(tmp_path / "data", 4, held) for held in (False, True))
    for clips in (train, held):
        assert len(clips) > 0
        for at in clips.windows(1):
            assert np.ptp(clips.frames[at].min((1, 2, 3))) < 100
        shades = clips.batch(64)
        assert float((shades.amin((2, 3, 4)).amax(1) - shades.amin((2, 3, 4)).amin(1)).max()) < 0.4
    used = [{int(f) for at in clips.windows(1) for f in at} for clips in (train, held)]
    assert not used[0] & used[1] and len(used[0]) + len(used[1]) == 72


def test_recorded_play_keeps_its_actions_and_its_own_test_episodes(tmp_path: Path) -> None:
    (tmp_path / "rec").mkdir()
    torus.save(tmp_path / "rec" / "train.npz", 5, 20)
    torus.save(tmp_path / "rec" / "test.npz", 2, 30)
    write(tmp_path / "data", [tmp_path / "rec"])
    train, held = (Dataset(tmp_path / "data", 4, held) for held in (False, True))
    assert train.windows(1).shape == (5 * 17, 4) and held.windows(1).shape == (2 * 27, 4)
    assert held.actions is not None
    first = held.windows(1)[0]
    _, actions = torus.walk(0, 30)
    assert held.actions[first[:3]].tolist() == actions[:3].tolist()
    with np.load(tmp_path / "data" / "test.npz") as test:
        assert test["frames"].shape == (2, 30, 16, 16, 3) and test["actions"].shape == (2, 29)


def test_what_cannot_be_read_is_left_out_and_said_unless_it_was_named(tmp_path: Path) -> None:
    frames, _ = torus.walk(0, 40)
    folder = tmp_path / "films"
    folder.mkdir()
    torus.gif(folder / "good.gif", frames)
    (folder / "broken.gif").write_bytes(b"GIF89a and no more")
    said = write(tmp_path / "data", [folder])
    assert len(said) == 1 and said[0].startswith("left out broken.gif: ")
    with pytest.raises(ImageError, match=r"broken\.gif"):
        write(tmp_path / "other", [folder / "broken.gif", folder / "good.gif"])
    assert not (tmp_path / "other").exists() and sorted(p.name for p in tmp_path.iterdir()) == ["data", "films"]


@pytest.mark.parametrize(
    ("frames", "says"),
    [
        (np.zeros((40, 16, 16, 3), np.uint8), "nothing to learn from"),  # black
        (np.repeat(torus.walk(0, 1)[0], 40, 0), "nothing to learn from"),  # static
        (torus.walk(0, 4)[0], "nothing to learn from"),  # too short for one window
        (torus.walk(0, 9)[0], "too short"),  # too short to hold some back
    ],
)
def test_videos_that_teach_nothing_are_refused(tmp_path: Path, frames: np.ndarray, says: str) -> None:
    np.savez(tmp_path / "v.npz", frames=frames)
    with pytest.raises(TrainError, match=says) as caught:
        write(tmp_path / "data", [tmp_path / "v.npz"], length=4)
    assert caught.value.hint and not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"frames": np.zeros((2, 9, 16, 16), np.uint8)}, "has no array 'frames'"),
        ({"frames": np.zeros((2, 9, 16, 16, 3), np.float32)}, "has no array 'frames'"),
        ({"frames": np.zeros((2, 9, 16, 16, 3), np.uint8), "actions": np.zeros((2, 9), np.uint8)}, "actions"),
        ({"frames": np.zeros((2, 9, 8, 8, 3), np.uint8)}, "frames of 8x8, not 16x16"),
        ({"frames": np.array([object()])}, "not a readable"),  # a pickle is never loaded
    ],
)
def test_arrays_are_claims_until_checked(tmp_path: Path, arrays: dict[str, np.ndarray], says: str) -> None:
    np.savez(tmp_path / "v.npz", **arrays)  # type: ignore[arg-type]
    with pytest.raises(TrainError, match=says):
        write(tmp_path / "data", [tmp_path / "v.npz"])
