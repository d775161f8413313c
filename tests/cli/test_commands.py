"""The commands as users type them: real files, real processes, one line per fault, and no files left behind."""

from __future__ import annotations

import io
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

BIN = Path(sysconfig.get_path("scripts"))


def command(*words: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(BIN / str(words[0])), *map(str, words[1:])], cwd=cwd, capture_output=True, text=True,
        env={**os.environ, **environment}, timeout=120, check=False,
    )  # fmt: skip


@pytest.fixture
def place(tmp_path: Path, tiny_gguf, tiny_checkpoint) -> Path:  # type: ignore[no-untyped-def]
    """A folder with w.gguf, a picture p.png and a checkpoint folder."""
    shutil.copy(tiny_gguf("q8_0"), tmp_path / "w.gguf")
    shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint")
    picture = np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8)
    Image.fromarray(picture).save(tmp_path / "p.png")
    return tmp_path


def test_run_and_make_again(place: Path) -> None:
    done = command("genie-run", "-m", "w.gguf", "--prompt-frame", "p.png", "--actions", "0,2*3,1", "-s", 5, cwd=place)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "out.gif\n"
    assert done.stderr.startswith("Tiny Q8_0, ") and "seed 5" in done.stderr and "cropped" in done.stderr
    with Image.open(place / "out.gif") as image:
        assert image.n_frames == 6 and image.size == (64, 64)
    first = (place / "out.gif").read_bytes()
    told = command("genie-info", "out.gif", cwd=place)
    (place / "out.gif").unlink()
    words = shlex.split(told.stdout)
    assert command(*words, cwd=place).returncode == 0
    assert (place / "out.gif").read_bytes() == first


@pytest.mark.heavy
def test_a_world_without_actions_goes_on_from_frames(tmp_path: Path) -> None:
    """Convert, start from tokens in the project's own format, then from the pictures that came out, and make these
    again from the recipe."""
    golden = Path(__file__).parents[1] / "golden" / "one_x_gpt"
    done = command("genie-convert", golden / "pre_norm", golden / "magvit2.ckpt", "-o", "w.gguf", cwd=tmp_path)
    assert done.returncode == 0 and done.stderr.startswith("recognised 1xgpt: "), done.stderr
    (tmp_path / "data").mkdir()
    with np.load(golden / "expected.npz") as data:
        data["tokens"].astype(np.uint32).tofile(tmp_path / "data" / "video.bin")
        np.save(tmp_path / "ids.npy", data["tokens"][::2])
    (tmp_path / "data" / "metadata.json").write_text('{"num_images": 4, "s": 4, "token_dtype": "uint32"}')
    run = ("genie-run", "-m", "w.gguf", "--prompt-frames", 2, "-n", 5)
    done = command(*run, "-p", "data", "--prompt-stride", 2, "-o", "a.gif", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert command(*run, "-p", "ids.npy", "-o", "b.png", cwd=tmp_path).returncode == 0
    with Image.open(tmp_path / "a.gif") as image:
        assert image.n_frames == 6 and image.size == (32, 32)
    first = (tmp_path / "a.gif").read_bytes()
    told = command("genie-info", "a.gif", cwd=tmp_path).stdout
    (tmp_path / "a.gif").unlink()
    assert command(*shlex.split(told), cwd=tmp_path).returncode == 0
    assert (tmp_path / "a.gif").read_bytes() == first
    done = command(*run, "-p", "a.gif", "-o", "c.gif", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for words, message in (
        (("-p", "data", "--prompt-stride", 4), "has 4 frames, too few for 2 that are 4 apart"),
        (("-p", "b.png", "--prompt-stride", 60), "has too few frames for 2"),
        (("-p", "a.gif", "--actions", "1"), "action 1 is not in 0…0"),
        (("-p", "a.gif", "--actions-from", "a.gif"), "cannot infer actions"),
    ):
        done = command(*run, *words, "-o", "d.gif", cwd=tmp_path)
        assert done.returncode == 1 and message in done.stderr and "hint: " in done.stderr, done.stderr
        assert not (tmp_path / "d.gif").exists()


@pytest.mark.skipif(find_spec("mlx") is None, reason="MLX is not installed")
@pytest.mark.slow
def test_run_on_metal_and_make_again(place: Path) -> None:
    words = ("genie-run", "-m", "w.gguf", "-p", "p.png", "--actions", "0,2*3,1", "--backend", "metal")
    done = command(*words, cwd=place)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("Tiny Q8_0, metal: MLX ") and "seed 0" in done.stderr.partition("\n")[0]
    first = (place / "out.gif").read_bytes()
    told = command("genie-info", "out.gif", cwd=place)
    assert "--backend metal" in told.stdout and "GENIE_ISA" not in told.stdout
    (place / "out.gif").unlink()
    assert command(*shlex.split(told.stdout), cwd=place).returncode == 0
    assert (place / "out.gif").read_bytes() == first
    for name in ("genie-bench", "genie-play", "genie-serve", "genie-run"):
        bad = command(name, "-m", "w.gguf", cwd=place, GENIE_BACKEND="gpu", GENIE_PROMPT_FRAME="p.png", GENIE_YES="1")
        assert bad.returncode == 1 and bad.stderr.startswith("error: the backend must be"), bad.stderr


def test_json_and_the_umbrella(place: Path) -> None:
    done = command(
        "genie-cpp", "run", "-m", "w.gguf", "-p", "p.png", "-n", 7, "--steps", 2, "--temperature", 0, "--window",
        "exact", "-o", "frames/", "--json", "--threads", 1, cwd=place,
    )  # fmt: skip
    report = json.loads(done.stdout)
    assert report["frames"] == 7 and report["recipe"]["window"] == "exact" and report["timings"]["frames"] == 7
    assert len(list((place / "frames").glob("frame_*.png"))) == 8
    told = command("genie-info", "frames", cwd=place).stdout
    assert told.startswith("genie-run ") and told.endswith("-o frames/\n")
    assert command("genie-info", "frames", cwd=place, GENIE_ISA="scalar").stdout.startswith(("GENIE_ISA=", "genie-run"))
    for name in ("genie-cpp", "genie-run", "genie-convert", "genie-info", "genie-bench", "genie-play", "genie-serve"):
        assert command(name, "--help", cwd=place).returncode == 0
    assert command("genie-cpp", "--version", cwd=place).stdout.startswith("genie_cpp ")
    assert command("genie-run", "--version", cwd=place).stdout.startswith("genie_cpp ")
    assert command("genie-cpp", "nonsense", cwd=place).returncode == 2


def test_environment_and_actions_from_an_animation(place: Path) -> None:
    assert command("genie-run", "-p", "p.png", "-o", "a.webp", cwd=place, GENIE_MODEL="w.gguf").returncode == 0
    done = command("genie-run", "-m", "w.gguf", "-p", "p.png", "--actions-from", "a.webp", "-o", "b.gif", cwd=place)
    assert done.returncode == 0, done.stderr
    with Image.open(place / "b.gif") as image:
        assert image.n_frames == 33


def test_convert_and_info(place: Path) -> None:
    done = command("genie-convert", "checkpoint", "-o", "new.gguf", "--type", "q4_0", cwd=place)
    assert done.returncode == 0, done.stderr
    assert "attention" in done.stderr
    facts = json.loads(command("genie-info", "new.gguf", "--json", cwd=place).stdout)
    assert "Tiny" in json.dumps(facts)
    shown = command("genie-info", "new.gguf", cwd=place)
    assert shown.returncode == 0 and "feed_forward_length" in shown.stdout
    assert not {"None", "expert_count"} & set(shown.stdout.split()), "what it has not is not shown"
    assert command("genie-run", "-m", "new.gguf", "-p", "p.png", "-n", 2, cwd=place).returncode == 0


def _text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


BAD = {
    "not a gguf": (lambda d: _text(d / "w.gguf", "hello"), []),
    "truncated gguf": (lambda d: os.truncate(d / "w.gguf", 3000), []),
    "no model": (lambda d: (d / "w.gguf").unlink(), []),
    "not a picture": (lambda d: _text(d / "p.png", "hello"), []),
    "no picture": (lambda d: (d / "p.png").unlink(), []),
    "1x1": (lambda d: Image.new("RGB", (1, 1)).save(d / "p.png"), []),
    "action out of range": (None, ["--actions", "3"]),
    "action not a number": (None, ["--actions", "left"]),
    "no steps": (None, ["--steps", "0"]),
    "steps in words": (None, ["--steps", "many"]),
    "threshold": (None, ["--threshold", "1.5"]),
    "negative temperature": (None, ["--temperature", "-1"]),
    "unknown order": (None, ["--order", "sideways"]),
    "unknown window": (None, ["--window", "open"]),
    "unknown fit": (None, ["--fit", "stretch"]),
    "unknown output": (None, ["-o", "x.avi"]),
    "no such folder": (None, ["-o", "no/such/x.gif"]),
    "output exists": (lambda d: _text(d / "out.gif", "mine"), []),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(place: Path, name: str) -> None:
    make, options = BAD[name]
    if make:
        make(place)
    before = {p: p.read_bytes() for p in place.rglob("*") if p.is_file()}
    done = command("genie-run", "-m", "w.gguf", "--prompt-frame", "p.png", *options, cwd=place)
    assert done.returncode == 1, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and "internal" not in errors[0] and "Traceback" not in done.stderr, done.stderr
    assert done.stdout == ""
    assert {p: p.read_bytes() for p in place.rglob("*") if p.is_file()} == before


def test_unwritable_output(place: Path) -> None:
    if os.geteuid() == 0:
        target: object = "/proc/out.gif"
    else:
        (place / "locked").mkdir(mode=0o500)
        target = "locked/out.gif"
    done = command("genie-run", "-m", "w.gguf", "-p", "p.png", "-o", target, cwd=place)
    assert done.returncode == 1 and done.stderr.splitlines()[-1].startswith(("error: ", "hint: ")), done.stderr


def test_an_isa_that_is_not_there(place: Path) -> None:
    done = command("genie-run", "-m", "w.gguf", "-p", "p.png", cwd=place, GENIE_ISA="mmx")
    assert done.returncode == 1 and done.stderr.startswith("error: GENIE_ISA='mmx'")
    assert command("genie-run", "-m", "w.gguf", "-p", "p.png", cwd=place, GENIE_ISA="scalar").returncode == 0


def test_names_from_files_do_not_reach_the_terminal(place: Path) -> None:
    evil = place / "\x1b[31mred\n.gguf"
    evil.write_text("x")
    for name in ("genie-info", "genie-run"):
        words = [name, evil] if name == "genie-info" else [name, "-m", evil, "-p", "p.png"]
        done = command(*words, cwd=place)
        assert done.returncode == 1 and "\x1b" not in done.stderr and done.stderr.count("error: ") == 1


def test_ctrl_c_keeps_what_exists(place: Path) -> None:
    words = [str(BIN / "genie-run"), "-m", "w.gguf", "-p", "p.png", "-n", "1000000", "--steps", "1", "-o", "x.png"]
    process = subprocess.Popen(
        words,
        cwd=place,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        # If the tests run in the background, Ctrl-C is ignored, and child processes inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stderr is not None
    assert "Tiny" in process.stderr.readline()
    time.sleep(1.0)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert "keeping" in errors
    with Image.open(place / "x.png") as image:
        assert image.n_frames > 1


@pytest.mark.parametrize(
    ("start", "without"),
    [
        ("import genie_cpp, genie_cpp.cli.main", "numpy typer rich"),  # --version
        ("from genie_cpp import World", "torch gguf cffi PIL typer rich urllib.request genie_cpp.catalog.fetched"),
        ("import genie_cpp.cli.run", "torch gguf cffi huggingface_hub fastapi"),
        ("from genie_cpp import World; w = World.load(); w.reset(); w.step(0)", "torch gguf cffi typer yaml"),
    ],
)
def test_what_a_start_leaves_out(start: str, without: str) -> None:
    """Each of these takes longer to import than the command takes to do its work."""
    code = f"import sys\n{start}\nprint(*sorted(set(sys.argv[1:]) & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code, *without.split()], cwd="/", check=True, capture_output=True, text=True
    )
    assert done.stdout == "\n"


@pytest.mark.heavy
def test_a_run_goes_on_from_a_bookmark_and_can_be_made_again(tmp_path: Path, tiny_gguf) -> None:  # type: ignore[no-untyped-def]
    from genie_cpp import Model
    from genie_cpp.play.recipe import read
    from genie_cpp.play.session import Prompt, Session
    from genie_cpp.play.session_file import SessionFile

    model = Model.open(tiny_gguf("q8_0"), threads=1)
    session = Session(model)
    session.reset(Prompt(np.random.default_rng(3).integers(0, 256, (16, 16, 3), np.uint8)), seed=8)
    for action in (0, 1, 2, 0, 1):
        session.step(action)
    session.seek(3)
    session.bookmark()
    saved = tmp_path / "s.genie"
    saved.write_bytes(SessionFile.of(session).to_bytes())
    words = ["-m", model.path, "--from", saved, "--bookmark", "1", "--actions", "2,2,1", "-o", tmp_path / "a.webp"]
    done = subprocess.run([BIN / "genie-run", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    want = [session.node.png, *(session.step(action).png for action in (2, 2, 1))]
    with Image.open(tmp_path / "a.webp") as image:
        assert image.n_frames == 4
        for index, data in enumerate(want):
            image.seek(index)
            frame = Image.open(io.BytesIO(data)).convert("RGB").resize(image.size, Image.Resampling.NEAREST)
            assert image.convert("RGB").tobytes() == frame.tobytes()
    recipe = read(tmp_path / "a.webp")
    assert recipe is not None and recipe.bookmark == 1 and recipe.seed == 8
    again = shlex.split(recipe.command(str(tmp_path / "b.webp")))
    subprocess.run([BIN / again[0], *again[1:]], check=True, capture_output=True)
    assert (tmp_path / "b.webp").read_bytes() == (tmp_path / "a.webp").read_bytes()
    facts = subprocess.run([BIN / "genie-info", "--json", saved], capture_output=True, text=True, check=True).stdout
    assert json.loads(facts) == {**json.loads(facts), "frames": 6, "bookmarks": [3], "shown": 3}
    (tmp_path / "bad.genie").write_bytes(saved.read_bytes()[:200])
    for more, why in (
        (["--from", saved, "--bookmark", "2"], "no bookmark 2"),
        (["--from", saved, "--seed", "1"], "leave --seed out"),
        (["--from", saved, "--window", "exact"], "leave --window out"),
        (["--from", saved, "-p", tmp_path / "a.webp"], "--prompt-frame, or --from"),
        ([], "no pictures of its own to start from"),
        (["--from", tmp_path / "bad.genie"], "not a session file"),
        (["--from", tmp_path / "none.genie"], "No such file"),
    ):
        done = command("genie-run", "-m", model.path, *more, "-o", "c.gif", cwd=tmp_path)
        said = " ".join(done.stderr.replace("│", " ").split())
        assert done.returncode in (1, 2) and why in said and not (tmp_path / "c.gif").exists(), done.stderr


def test_a_world_in_several_files(place: Path) -> None:
    """Another project's three files, converted, shown and played."""
    golden = Path(__file__).parents[1] / "golden" / "tinyworlds"
    parts = [golden / name for name in ("dynamics.pth", "tokenizer.pth", "latent_actions_step_5")]
    done = command("genie-convert", *parts, "-o", "other.gguf", cwd=place)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("recognised tinyworlds: tokenizer 'tokenizer.pth'") and "\nassumed " in done.stderr
    done = command(
        "genie-run", "-m", "other.gguf", "--prompt-frame", "p.png", "--actions", "0,3*4", "--window", "exact", "-o",
        "exact.gif", cwd=place,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    made = command("genie-info", "exact.gif", cwd=place).stdout
    assert "--window exact" in made and "--order largest-probability" in made
    (place / "spoiled.pth").write_bytes(parts[0].read_bytes()[:3000])
    done = command("genie-convert", place / "spoiled.pth", *parts[1:], "-o", "never.gguf", cwd=place)
    assert done.returncode == 1 and done.stderr.startswith("error: ") and "\nhint: " in done.stderr
    assert not list(place.glob("*never*"))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
@pytest.mark.slow
def test_large_frames_of_a_small_file_are_fitted_as_they_come(place: Path) -> None:
    """Stored at full size they would take 48 MB each."""
    frames = [Image.new("L", (4000, 4000), shade) for shade in range(40)]
    frames[0].save(place / "large.gif", save_all=True, append_images=frames[1:], optimize=True)
    assert (place / "large.gif").stat().st_size < 1 << 20
    peak = "import sys; from genie_cpp.cli.main import main_run; sys.argv[0] = 'genie-run'\n"
    peak += "try: main_run()\nfinally: print(*(l for l in open('/proc/self/status') if 'VmHWM' in l), file=sys.stderr)"
    for words in (("-p", "large.gif", "--prompt-frames", "30"), ("-p", "p.png", "--actions-from", "large.gif")):
        done = subprocess.run(
            [sys.executable, "-c", peak, "-m", "w.gguf", *words, "-n", "2", "-o", "out.gif", "-y", "-t", "1"],
            cwd=place, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert int(done.stderr.split("VmHWM:")[1].split()[0]) < 500_000  # KiB


def test_output_that_cannot_be_printed_is_no_failure(place: Path) -> None:
    run = ("genie-run", "-m", "w.gguf", "-p", "p.png", "-n", 2, "-t", 1)
    done = command(*run, "-o", "世界.gif", cwd=place, PYTHONIOENCODING="cp1252")
    assert done.returncode == 0 and done.stdout == "\\u4e16\\u754c.gif\n", done.stderr
    assert command("genie-info", "世界.gif", cwd=place, PYTHONIOENCODING="ascii").returncode == 0
    for words in ((*run, "-o", "a.gif"), ("genie-info", "a.gif"), ("genie-info", "w.gguf"), ("genie-cpp", "worlds")):
        shell = shlex.join([str(BIN / words[0]), *map(str, words[1:])]) + " >&-"
        closed = subprocess.run(["sh", "-c", shell], cwd=place, capture_output=True, text=True, check=False)
        assert closed.returncode == 0, closed.stderr
    assert (place / "a.gif").exists()


@pytest.mark.slow
def test_names_of_245_bytes(place: Path) -> None:
    name = "世" * 80
    assert command("genie-convert", "checkpoint", "-o", f"{name}.gguf", cwd=place).returncode == 0
    done = command("genie-run", "-m", f"{name}.gguf", "-p", "p.png", "-n", 2, "-o", f"{name}.webp", cwd=place)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="no hang-ups here")
@pytest.mark.parametrize("number", [signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)])
def test_a_signal_keeps_what_was_made(place: Path, number: signal.Signals) -> None:
    words = ["-m", "w.gguf", "-p", "p.png", "-n", "1000000", "-t", "1", "-o", "out.webp", "--json"]
    running = subprocess.Popen([BIN / "genie-run", *words], cwd=place, stdout=-1, stderr=-1, text=True)
    time.sleep(3)
    running.send_signal(number)
    out, error = running.communicate(timeout=60)
    assert running.returncode == 130 and "interrupted" in error, error
    made = json.loads(out)["frames"]
    with Image.open(place / "out.webp") as image:
        assert image.n_frames == made + 1 > 2
