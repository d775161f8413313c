"""Published worlds by name, from a fake hub: fetched, checked, converted once; and every kind of network fault."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from hub import Hub

from genie_cpp.catalog.names import Source, aliases, parse
from genie_cpp.convert.writer import convert
from genie_cpp.errors import HubError

pytestmark = pytest.mark.heavy

BIN = Path(sys.executable).parent
GOLDEN = Path(__file__).parents[1] / "golden"
SONIC, DATA = "models/AlmondGod/tinyworlds-models", "datasets/AlmondGod/tinyworlds"
PICTURE = Path(__file__).parents[2] / "examples" / "meadow" / "frame.png"
Run = Callable[..., subprocess.CompletedProcess[str]]


def sonic() -> dict[str, bytes]:
    """As published: three files that include the training's settings and an optimizer's state."""
    lam = GOLDEN / "tinyworlds" / "latent_actions_step_5" / "model_state_dict.pt"
    out = io.BytesIO()
    settings = torch.load(GOLDEN / "tinyworlds" / "dynamics.pth", weights_only=True)["config"]
    torch.save({"model": torch.load(lam, weights_only=True), "config": {**settings, "num_blocks": 1}, "step": 5}, out)
    return {
        "README.md": b"worlds\n",
        "sonic/sonic_video_tokenizer_step_27500_2025.pth": (GOLDEN / "tinyworlds" / "tokenizer.pth").read_bytes(),
        "sonic/sonic_latent_actions_step_2500_2025.pth": out.getvalue(),
        "sonic/sonic_dynamics_step_97500_2025.pth": (GOLDEN / "tinyworlds" / "dynamics.pth").read_bytes(),
        "pong/pong_dynamics_step_1.pth": b"x" * 5000,
    }


def frames() -> bytes:
    out = io.BytesIO()
    with h5py.File(out, "w") as file:
        pictures = np.random.default_rng(0).integers(0, 256, (40, 64, 64, 3), np.uint8)
        file.create_dataset("frames", data=pictures, compression="lzf")
    return out.getvalue()


@pytest.fixture
def hub() -> Iterator[Hub]:
    made = Hub()
    made.repositories[SONIC] = sonic()
    made.repositories[DATA] = {"sonic_frames.h5": frames()}
    yield made
    made.close()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def surroundings(hub: Hub, home: Path) -> dict[str, str]:
    """Variables of an empty home, with that hub."""
    return {"HF_ENDPOINT": hub.address, "HF_HOME": str(home / "hf"), "GENIE_CACHE": str(home / "genie"),
            "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}  # fmt: skip


@pytest.fixture
def run(hub: Hub, home: Path, tmp_path: Path) -> Run:
    """run("genie-run", …): one of our commands with an empty home and that hub."""

    def call(program: str, *words: object, **env: str) -> subprocess.CompletedProcess[str]:
        settings = {**surroundings(hub, home), **env}
        base = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "GENIE_"))}
        return subprocess.run(
            [str(BIN / program), *map(str, words)], cwd=tmp_path, env=base | settings, capture_output=True, text=True,
            timeout=300,
        )  # fmt: skip

    return call


def played(run: Run, name: str, *words: object, **env: str) -> subprocess.CompletedProcess[str]:
    return run("genie-run", "-m", name, "--actions", "0*3", "-o", "out.gif", "-y", *words, **env)


def refused(ran: subprocess.CompletedProcess[str], message: str, hint: str, home: Path) -> None:
    assert ran.returncode == 1, ran.stdout + ran.stderr
    error = re.search(r"^error: (.*)$", ran.stderr, re.MULTILINE)
    told = re.search(r"^hint: (.*)$", ran.stderr, re.MULTILINE)
    assert error and re.search(message, error[1]), ran.stderr
    assert told and re.search(hint, told[1]), ran.stderr
    assert "Traceback" not in ran.stderr
    assert not list((home / "genie").glob("worlds/*")), "something half-made is left"


def test_a_published_world_by_its_name(run: Run, hub: Hub, home: Path) -> None:
    """Fetched, converted, with pictures to start from. The second start makes no request."""
    first = played(run, "tinyworlds:sonic")
    assert first.returncode == 0, first.stderr
    assert "licence: none stated" in first.stderr and "converting to q8_0, once" in first.stderr
    assert "recognised tinyworlds" in first.stderr
    assert not any("pong" in request for request in hub.requests), "only what is needed is fetched"
    hub.requests.clear()
    started = time.monotonic()
    second = played(run, "tinyworlds:sonic", "--prompt-frame", "start:frame-13")
    assert second.returncode == 0, second.stderr
    assert time.monotonic() - started < 15 and hub.requests == [] and "fetch" not in second.stderr
    # The recipe has the name that the user gave.
    told = run("genie-info", "out.gif")
    assert "-m tinyworlds:sonic" in told.stdout, told.stdout + told.stderr
    record = json.loads(next((home / "genie").glob("worlds/*/source.json")).read_text())
    assert record["sources"][0]["commit"] == hub.commit(SONIC) and len(record["sources"][0]["files"]) == 3
    assert all(file["digest"].startswith("sha256:") for file in record["sources"][0]["files"].values())


@pytest.mark.slow
def test_the_same_as_converting_by_hand(run: Run, hub: Hub, home: Path, tmp_path: Path) -> None:
    for name, data in sonic().items():
        if name.startswith("sonic/"):
            (tmp_path / Path(name).name).write_bytes(data)
    convert(sorted(tmp_path.glob("sonic_*")), tmp_path / "by-hand.gguf", "q4_0")
    ran = run("genie-convert", "tinyworlds:sonic", "-o", "by-name.gguf", "-t", "q4_0")
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "by-name.gguf").read_bytes() == (tmp_path / "by-hand.gguf").read_bytes()
    assert run("genie-info", "tinyworlds:sonic:q4_0").returncode == 0
    kept = next((home / "genie").glob("worlds/*/world.gguf"))
    assert kept.read_bytes() == (tmp_path / "by-hand.gguf").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in aliases() if name != "tinyworlds:sonic"])
def test_other_aliases(name: str, run: Run, hub: Hub) -> None:
    suite = name.rpartition(":")[2]
    hub.repositories[SONIC] = {file.replace("sonic", suite): data for file, data in sonic().items() if "sonic" in file}
    hub.repositories[DATA] = {f"{suite.removesuffix('_mini')}_frames.h5": frames()}
    golden = GOLDEN / "genieredux"
    hub.repositories["models/INSAIT-Institute/GenieRedux"] = {
        "GenieRedux_Tokenizer_CoinRun_100mln_v1.0.pt": (golden / "tokenizer.pt").read_bytes(),
        "GenieRedux_CoinRun_250mln_v1.0.pt": (golden / "genieredux.pt").read_bytes(),
        "GenieRedux_Guided_CoinRun_80mln_v1.0.pt": (golden / "guided.pt").read_bytes(),
    }
    golden = GOLDEN / "one_x_gpt"
    for size in ("35M", "138M"):
        files = {file.name: file.read_bytes() for file in (golden / "qk_norm").iterdir()}
        hub.repositories[f"models/1x-technologies/GENIE_{size}"] = files
    hub.repositories["datasets/1x-technologies/worldmodel"] = {
        "magvit2.ckpt": (golden / "magvit2.ckpt").read_bytes(), "train_v1.1/video.bin": bytes(5000)
    }  # fmt: skip
    own = [] if name.startswith("tinyworlds") else ["-p", PICTURE]
    ran = played(run, name, *own)
    assert ran.returncode == 0, ran.stderr
    assert not any("video.bin" in request for request in hub.requests)


@pytest.mark.slow
def test_anything_on_the_hub(
    run: Run, hub: Hub, home: Path, tiny_gguf: Callable[[str], Path], tiny_checkpoint: Path
) -> None:
    ggufs = {f"world-{type}.gguf": tiny_gguf(type).read_bytes() for type in ("q8_0", "f16")}
    hub.repositories["models/some/worlds"] = {**ggufs, "native/a.txt": b"a"}
    hub.repositories["models/some/native"] = {
        f"deep/er/{file.name}": file.read_bytes() for file in tiny_checkpoint.iterdir()
    }
    assert played(run, "hf:some/worlds:f16", "-p", PICTURE).returncode == 0
    assert "f16" in run("genie-info", "hf:some/worlds:f16").stdout.lower()
    refused_ = played(run, "hf:some/worlds", "-p", PICTURE)
    assert "has 2 GGUFs" in refused_.stderr and "hf:some/worlds:TYPE" in refused_.stderr
    ran = played(run, "hf:some/native/deep/er@v1:q4_0", "-p", PICTURE)
    assert ran.returncode == 0, ran.stderr
    ran = played(run, "hf:AlmondGod/tinyworlds-models", "-p", PICTURE)
    assert "several folders with weights: pong, sonic" in ran.stderr
    assert played(run, "hf:AlmondGod/tinyworlds-models/sonic", "-p", PICTURE).returncode == 0
    assert len(list((home / "genie").glob("worlds/*/world.gguf"))) == 3


@pytest.mark.slow
def test_worlds_are_listed_found_and_removed(run: Run, hub: Hub, home: Path) -> None:
    rows = {row["name"]: row for row in json.loads(run("genie-cpp", "worlds", "--json").stdout)}
    assert rows["meadow"]["state"] == "bundled" and rows["tinyworlds:sonic"]["state"].startswith("published")
    assert hub.requests == []
    assert played(run, "tinyworlds:sonic").returncode == 0
    listed = run("genie-cpp", "worlds").stdout
    assert re.search(
        r"^tinyworlds:sonic +kept here, 16x16, 8 start pictures, .*licence: none stated$", listed, re.MULTILINE
    )
    path = Path(run("genie-cpp", "worlds", "--path", "tinyworlds:sonic").stdout.strip())
    assert path.is_file() and path.is_relative_to(home)
    assert run("genie-cpp", "worlds", "--remove", "tinyworlds:sonic").returncode == 0
    assert not path.exists()
    for words in (("--remove", "tinyworlds:sonic"), ("--path", "tinyworlds:zelda")):
        ran = run("genie-cpp", "worlds", *words)
        assert ran.returncode == 1 and "is kept here" in ran.stderr and "hint: none is kept" in ran.stderr


@pytest.mark.slow
def test_a_connection_that_ends_in_the_middle(run: Run, hub: Hub) -> None:
    hub.cut["sonic/sonic_dynamics_step_97500_2025.pth"] = 1
    ran = played(run, "tinyworlds:sonic")
    assert ran.returncode == 0, ran.stderr


@pytest.mark.slow
def test_wrong_bytes_of_the_right_length(run: Run, hub: Hub, home: Path) -> None:
    """Once: fetched again. Always: refused by name. Works again as soon as the hub does."""
    file = "sonic/sonic_dynamics_step_97500_2025.pth"
    hub.wrong[file] = 1
    assert played(run, "tinyworlds:sonic").returncode == 0
    shutil.rmtree(home)
    hub.wrong[file] = 99
    refused(played(run, "tinyworlds:sonic"), rf"'{file}' of AlmondGod/tinyworlds-models has other bytes", "later", home)
    hub.wrong[file] = 0
    assert played(run, "tinyworlds:sonic").returncode == 0


@pytest.mark.slow
def test_a_blob_that_was_damaged_in_the_cache(run: Run, hub: Hub, home: Path) -> None:
    assert played(run, "tinyworlds:sonic").returncode == 0
    for blob in (home / "hf").rglob("blobs/*"):
        blob.write_bytes(bytes(blob.stat().st_size))
    ran = played(run, "tinyworlds:sonic:q4_0")  # another conversion of the same files
    assert ran.returncode == 0, ran.stderr
    for blob in (home / "hf").rglob("blobs/*"):
        blob.write_bytes(bytes(blob.stat().st_size))
    ran = played(run, "tinyworlds:sonic:f16", "--offline")
    assert ran.returncode == 1 and "offline it cannot be fetched anew" in ran.stderr


@pytest.mark.slow
def test_a_file_that_was_replaced_upstream(run: Run, hub: Hub, home: Path) -> None:
    """The cached world still works; fetched again, it is the new commit. Changed files of one commit are refused."""
    assert played(run, "tinyworlds:sonic").returncode == 0
    before = json.loads(next((home / "genie").glob("worlds/*/source.json")).read_text())
    hub.repositories[SONIC]["README.md"] = b"newer\n"
    assert played(run, "tinyworlds:sonic").returncode == 0
    run("genie-cpp", "worlds", "--remove", "tinyworlds:sonic")
    assert played(run, "tinyworlds:sonic").returncode == 0
    after = json.loads(next((home / "genie").glob("worlds/*/source.json")).read_text())
    assert after["sources"][0]["commit"] != before["sources"][0]["commit"]
    commit = hub.commit(SONIC)
    hub.commit = lambda repository: commit  # type: ignore[method-assign]
    hub.repositories[SONIC]["sonic/sonic_dynamics_step_97500_2025.pth"] += b"more"
    ran = played(run, "tinyworlds:sonic:f16")
    assert ran.returncode == 1 and "has changed, although the commit has not" in ran.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("status", "message", "hint"),
    [
        (401, "there is no model|asks who wants", "hf auth login"),
        (403, "is gated", "ask for access at https://huggingface.co/AlmondGod"),
        (404, "there is no model AlmondGod/tinyworlds-models", "check the name"),
        (429, "too many requests", r"try again in \d+ s"),
        (500, "the hub answers 500", "later"),
    ],
)
def test_answers_that_are_none(status: int, message: str, hint: str, run: Run, hub: Hub, home: Path) -> None:
    hub.status[SONIC] = status
    refused(played(run, "tinyworlds:sonic"), message, hint, home)
    if status == 500:
        hub.status.clear()
        assert played(run, "tinyworlds:sonic").returncode == 0


def test_no_network_and_offline(run: Run, hub: Hub, home: Path) -> None:
    refused(played(run, "tinyworlds:sonic", HF_ENDPOINT="http://127.0.0.1:9"), "cannot be reached", "connection", home)
    refused(
        played(run, "tinyworlds:sonic", "--offline"), "was not fetched before, and this is offline", "connect", home
    )
    assert played(run, "tinyworlds:sonic").returncode == 0
    hub.requests.clear()
    for words in (("tinyworlds:sonic",), ("tinyworlds:sonic:f32", "-p", PICTURE)):  # another type, of the same files
        ran = played(run, *words, "--offline")  # type: ignore[arg-type]
        assert ran.returncode == 0, ran.stderr
    assert hub.requests == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["/etc/evil.pth", "sonic/../../evil.pth", "C:\\evil.pth"])
def test_names_that_lead_elsewhere(name: str, run: Run, hub: Hub, home: Path) -> None:
    hub.names = [name]
    refused(played(run, "tinyworlds:sonic"), "not a safe name", "refused", home)
    assert not list(home.rglob("evil*"))


@pytest.mark.slow
def test_a_slow_hub_and_two_at_once(run: Run, hub: Hub, home: Path) -> None:
    """Both play: one converts, the other waits."""
    hub.seconds = 0.05
    settings = {
        **os.environ,
        "HF_ENDPOINT": hub.address,
        "HF_HOME": str(home / "hf"),
        "GENIE_CACHE": str(home / "genie"),
    }
    words = [str(BIN / "genie-run"), "-m", "tinyworlds:sonic", "--actions", "0*2", "-y", "-o"]
    both = [
        subprocess.Popen([*words, str(home.parent / f"{k}.gif")], env=settings, stderr=subprocess.PIPE, text=True)
        for k in range(2)
    ]
    said = [program.communicate(timeout=300)[1] for program in both]
    assert [program.returncode for program in both] == [0, 0], said
    assert sum("converting" in text for text in said) == 1
    assert len(list((home / "genie" / "worlds").iterdir())) == 1


@pytest.mark.slow
def test_a_checkpoint_that_cannot_be_converted(run: Run, hub: Hub, home: Path) -> None:
    hub.repositories[SONIC]["sonic/sonic_dynamics_step_97500_2025.pth"] = b"x" * 5000
    refused(played(run, "tinyworlds:sonic"), "sonic_dynamics.*(is not a PyTorch checkpoint|is refused)", ".", home)


@pytest.mark.slow
def test_a_world_without_the_data_of_its_pictures(run: Run, hub: Hub) -> None:
    del hub.repositories[DATA]
    ran = played(run, "tinyworlds:sonic", "-p", PICTURE)
    assert ran.returncode == 0 and "no start pictures" in ran.stderr


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("hf:a/b", (Source("a/b"), None)),
        ("hf:a/b/c d/e@v1.0:Q4_0", (Source("a/b", folder="c d/e", revision="v1.0"), "q4_0")),
        ("hf:a/b@refs/pr/1", (Source("a/b", revision="refs/pr/1"), None)),
        ("tinyworlds:sonic:f16", None),
    ],
)
def test_the_grammar(text: str, want: Any) -> None:
    world = parse(text)
    assert world is not None and world.name == text
    assert want is None or (world.sources[0], world.type) == want


@pytest.mark.parametrize(
    "text", ["hf:", "hf:a", "hf:a/b/../c", "hf:a/b:q9", "hf:a/b@", "tinyworlds:sonic:q9", "hf:a/b c"]
)
def test_what_the_grammar_refuses(text: str) -> None:
    with pytest.raises(HubError) as caught:
        parse(text)
    assert caught.value.hint


def test_paths_and_other_words_are_none_of_it() -> None:
    for text in ("world.gguf", "meadow", "C:\\worlds\\a.gguf", "a:b", "tinyworlds:", "./tinyworlds:sonic"):
        assert parse(text) is None
    assert {"tinyworlds:sonic", "genieredux", "genieredux-g", "genie-35m", "genie-138m"} <= set(aliases())


def test_a_page_from_an_empty_home(hub: Hub, home: Path, tmp_path: Path) -> None:
    """`genie-play tinyworlds:sonic`: a page that plays. The second start makes no request and does not wait."""
    from websockets.sync.client import connect
    from websockets.typing import Subprotocol

    settings = {**os.environ, **surroundings(hub, home)}
    for start in (1, 2):
        hub.requests.clear()
        began = time.monotonic()
        with subprocess.Popen(
            [str(BIN / "genie-play"), "tinyworlds:sonic", "--port", "0", "--no-open"], env=settings, cwd=tmp_path,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        ) as program:  # fmt: skip
            try:
                assert program.stdout is not None
                found = re.search(r"http://(127\.0\.0\.1:\d+)", program.stdout.readline())
                assert found, program.stderr and program.stderr.read()
                print(f"start {start}: {time.monotonic() - began:.1f} s")
                with connect(f"ws://{found[1]}/ws", subprotocols=[Subprotocol("genie-play.2")]) as page:
                    hello = json.loads(page.recv())
                    assert hello["world"] == "tinyworlds:sonic"
                    page.send(json.dumps({"type": "world", "name": "tinyworlds:sonic"}))
                    assert json.loads(page.recv())["type"] == "world"
                    page.send(json.dumps({"type": "reset"}))
                    assert isinstance(page.recv(), bytes)
                    page.send(json.dumps({"type": "step", "action": 1}))
                    assert isinstance(page.recv(), bytes)
            finally:
                program.terminate()
        assert (hub.requests == []) == (start == 2)


@pytest.mark.slow
@pytest.mark.parametrize("which", ["HF_HOME", "GENIE_CACHE"])
def test_a_full_disk(which: str, run: Run, hub: Hub, home: Path, tmp_path: Path) -> None:
    """A real small file system holds the hub's cache or the conversions."""
    big = Path(json.loads(run("genie-cpp", "worlds", "--json").stdout)[0]["path"])
    place = tmp_path / "small"
    place.mkdir()
    mount = shutil.which("mount")
    words = [mount or "", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)]
    if mount is None or subprocess.run(words, capture_output=True, check=False).returncode:
        pytest.skip("only root may make a small file system")
    try:
        ran = played(run, "tinyworlds:sonic", **{which: str(place)})
        refused(ran, "no space left|cannot be (fetched|written)|cannot write", ".", home)
        assert not list(place.glob("worlds/*"))
        hub.repositories["models/some/world"] = {"mine.gguf": big.read_bytes()}
        refused(played(run, "hf:some/world", **{which: str(place)}), "no space|cannot be (fetched|kept)", ".", home)
    finally:
        subprocess.run(["umount", str(place)], check=True)
    assert played(run, "tinyworlds:sonic").returncode == 0


@pytest.mark.slow
def test_the_only_gguf_of_a_repository(run: Run, hub: Hub, tiny_gguf: Callable[[str], Path]) -> None:
    """It is taken, whatever its name and whatever type was asked for."""
    hub.repositories["models/some/world"] = {"mine.gguf": tiny_gguf("q8_0").read_bytes(), "README.md": b"x"}
    assert played(run, "hf:some/world:q4_0", "-p", PICTURE).returncode == 0
