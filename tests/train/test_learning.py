"""The parts of training: losses, the optimizer, the loop and what it does when something goes wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
import torus  # noqa: E402

from genie_cpp.train import checks, loop, losses, propose, tokens  # noqa: E402
from genie_cpp.train.errors import TrainError  # noqa: E402
from genie_cpp.train.loop import Training  # noqa: E402
from genie_cpp.train.muon import Muon  # noqa: E402
from genie_cpp.train.played import _walks  # noqa: E402
from genie_cpp.train.videos import Facts  # noqa: E402

pytestmark = pytest.mark.heavy


@pytest.mark.parametrize("shape", [(24, 40), (40, 24), (32, 32)])
def test_muon_is_pytorchs_in_float(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    mine = torch.nn.Parameter(torch.randn(shape))
    theirs = torch.nn.Parameter(mine.detach().clone())
    begun = mine.detach().clone()
    pair = Muon([mine], 0.02, 0.01), torch.optim.Muon([theirs], 0.02, 0.01)
    for _ in range(5):
        mine.grad = torch.randn(shape)
        theirs.grad = mine.grad.clone()
        for optimizer in pair:
            optimizer.step()
        with torch.no_grad():  # the other one rounds to bf16, which has 8 bits
            assert float((mine - theirs).norm() / (mine - begun).norm()) < 0.02, float(
                (mine - theirs).norm() / (mine - begun).norm()
            )
    assert pair[0].state_dict()["state"][0].keys() == pair[1].state_dict()["state"][0].keys()


def test_the_shift_decoder_can_say_where_everything_went() -> None:
    """If the code names a step, the mixture can be that step alone, and then only the border is a guess."""
    g = propose.config(16, 16, "tiny", 1, 8, 4, "g")
    decoder = losses.ShiftDecoder(g, parts=2)
    assert len(decoder.steps) == 25 and (4, -8) in decoder.steps
    with torch.no_grad():
        decoder.everywhere.weight.zero_()
        decoder.everywhere.bias.copy_(torch.tensor([50.0 * (step == (0, 4)) for step in decoder.steps]))
        decoder.place.bias.zero_()
        video = torch.rand(1, 3, 16, 16, 3)
        shown = decoder(video, torch.zeros(1, 2, g.lam.latent_length))
    assert torch.allclose(shown[:, :, :, :12], video[:, :2, :, 4:], atol=1e-5)  # the picture moved left by 4
    assert torch.allclose(shown[:, :, :, 12:], video[:, :2, :, 15:].expand(-1, -1, -1, 4, -1), atol=1e-5)


@pytest.mark.parametrize(("step", "parts"), [(8, 1), (4, 2), (3, 4), (0, 2)])
def test_the_size_of_the_pictures_steps_is_found(tmp_path: Path, step: int, parts: int) -> None:
    from genie_cpp.train import dataset, videos
    from genie_cpp.train.dataset import Dataset
    from genie_cpp.train.starting import parts_of_steps

    rng = np.random.default_rng(0)
    field, at = rng.integers(0, 256, (120, 120, 3), np.uint8), np.array([40, 40])
    frames = []
    for number in range(60):
        at = np.clip(at + step * rng.integers(-1, 2, 2), 0, 80) if step else at
        at = at // max(step, 1) * max(step, 1)
        frame = field[at[0] : at[0] + 32, at[1] : at[1] + 32].copy()
        frame[12:16, number % 28 : number % 28 + 4] = 255  # something that moves by itself
        frames.append(frame)
    np.savez(tmp_path / "v.npz", frames=np.stack(frames))
    dataset.write(tmp_path / "data", videos.find([tmp_path / "v.npz"]), 32, 32, 10, 4, print, lambda *_: None)
    assert parts_of_steps(Dataset(tmp_path / "data", 4), 8) == parts


def test_latents_that_move_the_picture_alike_stand_for_each_other() -> None:
    torch.manual_seed(0)
    field = torch.randint(1000, (8, 40))
    ids, actions = torch.empty(64, 2, 16, dtype=torch.int32), torch.full((64, 2), -1, dtype=torch.int16)
    for k in range(64):
        x, right = 8 + k % 16, k % 2
        for t, at in enumerate((x, x + (1 if right else -1))):
            ids[k, t] = field[:4, at : at + 4].flatten()
        actions[k, 1] = (0 if k % 4 < 2 else 2) + right  # 0 and 2 are left, 1 and 3 right
    actions[5, 1] = 0  # a pair that was called left, and went right
    said: list[str] = []
    given = tokens.moved_alike(ids, actions, 4, 4, said.append)[:, 1]
    assert (given % 2 == torch.arange(64) % 2).all() and (given[::2] == 2).any() and (given[::2] == 0).any()
    assert given[5] in (1, 3) and "0.0156" in said[0]


def test_windows_join_to_walks() -> None:
    at = np.array([[0, 1, 2, 3], [2, 3, 4, 5], [6, 7, 8, 9]])  # two of one clip, one of the next
    ids, actions = at[:, :, None].astype(np.int32), np.pad(at[:, 1:], ((0, 0), (1, 0)), constant_values=-1)
    walks, acted = _walks(ids, actions.astype(np.int16), at)
    assert [w[:, 0].tolist() for w in walks] == [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9]]
    assert [a.tolist() for a in acted] == [[-1, 1, 2, 3, 4, 5], [-1, 7, 8, 9]]


def one(tmp_path: Path, minutes: float = 0.01, batch: int = 8) -> tuple[torch.nn.Module, Training, list[str]]:
    torch.manual_seed(0)
    model, said = torch.nn.Linear(4, 1), list[str]()
    return model, Training(model, tmp_path / "part", minutes, 1e-2, batch, said.append), said


def loss_of(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {"loss": (model(torch.ones(8, 4)) - 1).square().mean()}


def test_it_learns_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    model, training, _ = one(tmp_path)
    training.run(lambda batch, share: loss_of(model), lambda *_: None)
    assert float(loss_of(model)["loss"].detach()) < 1e-3 and training.done
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    _, again, _ = one(tmp_path, minutes=0.02)
    assert again.count == training.count and 0.4 < again.spent / again.budget < 0.9
    assert all(torch.equal(kept[name], value) for name, value in again.model.state_dict().items())
    rows = (tmp_path / "part.csv").read_text(encoding="utf-8").splitlines()
    assert rows[0] == "step,seconds,loss" and len(rows) > 2


def test_a_loss_that_is_no_number_goes_back_thrice_at_half_the_rate(tmp_path: Path) -> None:
    model, training, said = one(tmp_path, minutes=1)
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(TrainError, match="no numbers 4 times"):
        training.run(lambda batch, share: {"loss": model.weight.sum() * float("nan")}, lambda *_: None)
    assert len(said) == 3 and training.rates[0][0] == pytest.approx(1e-2 / 8)
    saved = torch.load(tmp_path / "part.training.pt", weights_only=True)["model"]
    assert all(torch.equal(kept[name], value) for name, value in saved.items())  # the last good state stays
    model, training, said = one(tmp_path)
    failures = iter([True])

    def once(batch: int, share: float) -> dict[str, torch.Tensor]:
        found = loss_of(model)
        return {"loss": found["loss"] * (float("nan") if next(failures, False) else 1)}

    training.run(once, lambda *_: None)
    assert len(said) == 1 and float(loss_of(model)["loss"].detach()) < 1e-2


def test_out_of_memory_halves_the_batch(tmp_path: Path) -> None:
    model, training, said = one(tmp_path)

    def large(batch: int, share: float) -> dict[str, torch.Tensor]:
        if batch > 2:
            raise torch.OutOfMemoryError("too much")
        return loss_of(model)

    training.run(large, lambda *_: None)
    assert training.batch == 2 and said == [f"out of memory: {n} clips at a time from here on" for n in (4, 2)]
    model, training, _ = one(tmp_path / "..", minutes=0.02, batch=1)
    with pytest.raises(TrainError, match="too little memory"):
        training.run(lambda batch, share: large(3, share), lambda *_: None)


def test_a_full_disk_keeps_the_older_state(tmp_path: Path) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    _, training, _ = one(tmp_path)
    training.save()
    before = (tmp_path / "part.training.pt").read_bytes()
    (tmp_path / "part.training.tmp").symlink_to(full)
    with pytest.raises((OSError, TrainError)):
        training.save()
    assert (tmp_path / "part.training.pt").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["part.training.pt"]


def test_a_stage_that_learned_nothing_ends_the_run(tmp_path: Path) -> None:
    from genie_cpp.convert.reference.model import Genie
    from genie_cpp.train import dataset, videos
    from genie_cpp.train.dataset import Dataset

    torus.save(tmp_path / "v.npz", 6, 30)
    dataset.write(tmp_path / "data", videos.find([tmp_path / "v.npz"]), 16, 16, 10, 4, print, lambda *_: None)
    held = Dataset(tmp_path / "data", 4, held=True)
    genie = Genie(propose.config(16, 16, "tiny", 1, 8, 4, "g"))
    with pytest.raises(TrainError, match="the tokenizer collapsed") as caught:
        checks.tokenizer(genie.tokenizer, held)
    assert "goes on from here" in caught.value.hint
    with pytest.raises(TrainError, match="no actions were found"):
        checks.actions(genie.lam, losses.ShiftDecoder(genie.config), held)


@pytest.mark.parametrize(
    ("videos", "size"),
    [
        ([(640, 400)], (128, 80)),
        ([(1920, 1080)], (136, 72)),
        ([(64, 64)], (64, 64)),
        ([(33, 20)], (32, 20)),
        ([(96, 64), (96, 64), (64, 96)], (96, 64)),
        ([(1080, 1920)], (72, 136)),
    ],
)
def test_the_size_follows_the_videos(videos: list[tuple[int, int]], size: tuple[int, int]) -> None:
    assert propose.frame_size([Facts(*video, None) for video in videos]) == size
    propose.config(*size, None, 60, 8, 8, "g")  # which checks it


@pytest.mark.parametrize("text", ["128", "128x", "0x0", "130x80", "9999x8", "-8x8", "x"])
def test_a_size_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(TrainError, match="--size"):
        propose.parsed_size(text)


def test_presets() -> None:
    for preset in propose.PRESETS:
        propose.config(64, 64, preset, 60, 8, 16, "g")
    with pytest.raises(TrainError, match="no preset"):
        propose.config(64, 64, "huge", 60, 8, 16, "g")
    assert loop.MOST_FAILURES == 3
