"""The page's player in node: the frames of the native scalar core for any world; damaged plans are sentences."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from numpy.typing import NDArray

from genie_cpp import Model, World
from genie_cpp.backends import _native
from genie_cpp.web import plan as plans
from genie_cpp.web.export import CORES, SITE, export

HERE = Path(__file__).parent
GOLDEN = HERE.parent / "golden"
NODE = shutil.which("node")
pytestmark = [
    pytest.mark.heavy,
    pytest.mark.skipif(NODE is None, reason="node is not installed: apt-get install nodejs"),
]
SCALAR, SIMD, THREADS = (SITE / name for name in CORES)


def node(script: str, *words: object) -> Any:
    command = [str(NODE), str(HERE / script), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def exported(model: Path, folder: Path) -> tuple[Path, NDArray[np.uint8]]:
    """A page of a model, and a picture that it starts from."""
    export(model, folder, overwrite=True)
    width, height = json.loads((folder / "plan.json").read_text())["frame"]
    picture = np.random.default_rng(5).integers(0, 256, (height, width, 3), np.uint8)
    alpha = np.full((height, width, 1), 255, np.uint8)
    (folder / "start.rgba").write_bytes(np.concatenate([picture, alpha], 2).tobytes())
    return folder, picture


def played(folder: Path, core: Path, actions: list[int], **more: Any) -> Any:
    job = folder / "job.json"
    job.write_text(json.dumps({"start": "start.rgba", "seed": str(2**63 + 5), "actions": actions, **more}))
    return node("play.mjs", SITE, core, folder, job)


def hashes(world: World, picture: NDArray[np.uint8], actions: list[int]) -> list[str]:
    frames = [world.reset(picture, seed=2**63 + 5), *(world.step(a) for a in actions)]
    return [hashlib.sha256(frame.tobytes()).hexdigest() for frame in frames]


def held_to_native(model: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, steps: int = 0) -> None:
    """Scalar WebAssembly equals the native scalar core, byte for byte, past the first slide of the window."""
    monkeypatch.setenv("GENIE_ISA", "scalar")
    folder, picture = exported(model, folder)
    opened = Model.open(model, 2, "cpu")
    count = steps or opened.info.context_length + 3
    actions = [k * 7 % opened.info.choices for k in range(count)]
    got = played(folder, SCALAR, actions)
    assert "error" not in got, got
    assert got["frames"] == hashes(World(opened), picture, actions)
    assert got["again"] == got["frames"][-1]
    assert len(set(got["frames"])) > 1


@pytest.mark.parametrize("type", ["f32", "f16", "q8_0", "q4_0"])
def test_each_type(
    type: str, tiny_gguf: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held_to_native(tiny_gguf(type), tmp_path / "site", monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["meadow", "maze"])
def test_the_bundled_worlds(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held_to_native(Model.open(name, 1, "cpu").path, tmp_path / "site", monkeypatch, 10)


@pytest.mark.parametrize("family", ["tinyworlds", "tinyworlds_alone", "tinyworlds_experts", "one_x_gpt", "genieredux"])
def test_other_families(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FSQ, experts, FiLM, convolutions, factors of a token, next-frame, retokenize, PEG."""
    from genie_cpp.convert.writer import convert

    files = {
        "genieredux": [GOLDEN / family / "tokenizer.pt", GOLDEN / family / "genieredux.pt"],
        "one_x_gpt": [GOLDEN / family / "pre_norm", GOLDEN / family / "magvit2.ckpt"],
    }
    usual = sorted(path for path in (GOLDEN / family).iterdir() if path.name != "expected.npz")
    convert(files.get(family, usual), tmp_path / "world.gguf", "q8_0")
    held_to_native(tmp_path / "world.gguf", tmp_path / "site", monkeypatch)


@pytest.mark.parametrize("window", ["half", "exact", "retokenize"])
@pytest.mark.parametrize("schedule", ["cosine", "exponential", "cosine-ceil"])
def test_windows_and_schedules(
    window: str, schedule: str, tiny_gguf: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, picture = exported(tiny_gguf("q8_0"), tmp_path / "site")
    path = folder / "plan.json"
    plan = json.loads(path.read_text()) | {"window": window}
    plan["sampler"]["schedule"] = _native.number("SCHEDULE", schedule)
    path.write_text(json.dumps(plan))
    sampler = {"steps": 5, "temperature": 0.9, "threshold": 0.6, "noise": 0.5}
    monkeypatch.setenv("GENIE_ISA", "scalar")
    model = Model.open(tiny_gguf("q8_0"), 1, "cpu")
    model.info = dataclasses.replace(model.info, sampler_schedule=schedule)
    world = World(model, dataclasses.replace(model.sampler, **sampler), window)
    actions = [0, 1, 2, 2, 1, 0, 1, 1, 2]
    assert played(folder, SCALAR, actions, sampler=sampler)["frames"] == hashes(world, picture, actions)


def test_simd_plays_too_and_memory_stays_small(tiny_gguf: Callable[[str], Path], tmp_path: Path) -> None:
    folder, _ = exported(tiny_gguf("f32"), tmp_path / "site")
    actions = [0, 1, 2, 0, 1]
    assert len(played(folder, SIMD, actions)["frames"]) == 6
    model = Model.open("meadow", 1, "cpu")
    folder, _ = exported(model.path, tmp_path / "meadow")
    got = played(folder, SIMD, [0] * 10)
    windows = sum(model.state(stack).n_bytes for stack in ("dynamics", "tokenizer.encoder", "tokenizer.decoder"))
    assert got["memory"] <= 2.5 * (model.n_bytes + windows) + (4 << 20)  # and the core's stack


def test_simd_kernels_agree_with_scalar(tmp_path: Path) -> None:
    rng, calls = np.random.default_rng(7), []

    def text(array: NDArray[Any]) -> str:
        return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()

    types = {
        0: None,
        1: gguf.GGMLQuantizationType.F16,
        2: gguf.GGMLQuantizationType.Q4_0,
        8: gguf.GGMLQuantizationType.Q8_0,
    }
    for type, kind in types.items():
        for rows, columns, m in ((1, 32, 1), (5, 64, 2), (16, 96, 3), (33, 1088, 4), (50, 2080, 7), (17, 32, 100)):
            w = rng.normal(0, 1, (rows, columns)).astype(np.float32)
            x = rng.normal(0, 1, (m, columns)).astype(np.float32)
            x[0, : columns // 2] = 0
            packed = w if kind is None else gguf.quants.quantize(w, kind)
            calls.append(["matmul", type, rows, columns, text(packed), text(x), m])
    for type, rows, columns, m in ((0, 7, 33, 5), (1, 19, 45, 3)):  # rows that are not whole blocks
        w = rng.normal(0, 1, (rows, columns)).astype(np.float32)
        x = rng.normal(0, 1, (m, columns)).astype(np.float32)
        calls.append(["matmul", type, rows, columns, text(w if type == 0 else w.astype(np.float16)), text(x), m])
    for few, queries, keys, heads, length in ((0, 5, 7, 2, 12), (0, 40, 65, 3, 16), (1, 1, 9, 2, 8), (1, 3, 33, 1, 20)):
        q, k, v = (rng.normal(0, 1, (n, heads, length)).astype(np.float32) for n in (queries, keys, keys))
        calls.append(["attention", queries, keys, heads, length, few, text(q), text(k), text(v)])
    job = tmp_path / "job.json"
    job.write_text(json.dumps({"calls": calls}))
    both = [node("kernels.mjs", core, job) for core in (SCALAR, SIMD)]
    for call, *results in zip(calls, *both, strict=True):
        scalar, simd = (np.frombuffer(base64.b64decode(one), np.float32) for one in results)
        assert np.isfinite(scalar).all()
        assert np.abs(simd - scalar).max() <= 2e-6 * max(1.0, np.abs(scalar).max()) * (call[3] ** 0.5), call[:4]


def test_the_same_maths(tmp_path: Path) -> None:
    """Both cores' exponentials and the like have the bits of the native ones."""
    rng = np.random.default_rng(4)
    names = ("exp", "log", "cos", "expf", "tanhf", "erff")
    x = {name: rng.normal(0, 3, 5000) for name in names} | {
        "log": rng.uniform(0, 9, 5000),
        "cos": rng.uniform(0, 1.57, 5000),
    }
    calls = [["maths", n, base64.b64encode(x[name].tobytes()).decode()] for n, name in enumerate(names)]
    (tmp_path / "job.json").write_text(json.dumps({"calls": calls}))
    for core in (SCALAR, SIMD):
        for name, found in zip(names, node("kernels.mjs", core, tmp_path / "job.json"), strict=True):
            y = np.empty_like(x[name])
            arrays = (_native.ffi.from_buffer("double[]", x[name]), 5000, _native.ffi.from_buffer("double[]", y))
            _native.check(_native.lib.genie_maths(_native.number("MATHS", name), *arrays), name)
            assert base64.b64decode(found) == y.tobytes(), name


def test_constants_are_those_of_the_core() -> None:
    text = (SITE / "genie.mjs").read_text(encoding="utf-8")
    sizes = re.search(r"PARAMS_BYTES = (\d+), SAMPLER_BYTES = (\d+)", text)
    assert sizes is not None
    assert int(sizes[1]) == _native.ffi.sizeof("genie_stack_params")
    assert int(sizes[2]) == _native.ffi.sizeof("genie_sampler")
    assert f"const ABI = {_native.ABI_VERSION};" in text and f"PLAN_VERSION = {plans.VERSION};" in text


@pytest.mark.parametrize("length", [0, 1, 55, 56, 63, 64, 65, 119, 120, 200])
def test_sha256(length: int, tiny_gguf: Callable[[str], Path], tmp_path: Path) -> None:
    folder, _ = exported(tiny_gguf("q8_0"), tmp_path / "site")
    data = bytes(range(256))[:length]
    # An empty text would ask for no hash.
    got = played(folder, SCALAR, [], hash=data.hex()) if data else {"hash": hashlib.sha256(data).hexdigest()}
    assert got["hash"] == hashlib.sha256(data).hexdigest()


def cut_weights(folder: Path, plan: dict[str, Any]) -> None:
    (folder / "weights.bin").write_bytes((folder / "weights.bin").read_bytes()[:-100])


def other_weights(folder: Path, plan: dict[str, Any]) -> None:
    raw = bytearray((folder / "weights.bin").read_bytes())
    raw[len(raw) // 2] ^= 1
    (folder / "weights.bin").write_bytes(raw)


def tensor(**change: Any) -> Callable[[Path, dict[str, Any]], None]:
    names = ("block", "sublayer", "slot", "type", "rows", "columns", "offset", "bytes")

    def spoil(folder: Path, plan: dict[str, Any]) -> None:
        for name, value in change.items():
            plan["stacks"]["dynamics"]["tensors"][3][names.index(name)] = value

    return spoil


def field(*path: Any, to: Any) -> Callable[[Path, dict[str, Any]], None]:
    def spoil(folder: Path, plan: dict[str, Any]) -> None:
        at = plan
        for name in path[:-1]:
            at = at[name]
        at[path[-1]] = to

    return spoil


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (cut_weights, "the download was cut off"),
        (other_weights, "not those that the plan was made for"),
        (field("version", to=2), "of version 2; this page plays version 1"),
        (tensor(offset=-16), "damaged"),
        (tensor(offset=2**40), "damaged"),
        (tensor(offset=0.5), "damaged"),
        (tensor(offset="0"), "damaged"),
        (tensor(bytes=2**31), "damaged"),
        (tensor(bytes=0), "damaged"),
        (tensor(rows=2**50), "damaged"),
        (tensor(rows=2**39), "the core refuses"),
        (tensor(type=99), "the core refuses"),
        (tensor(slot=1000), "the core refuses"),
        (tensor(block=77), "the core refuses"),
        (tensor(bytes=8), "the core refuses"),
        (field("stacks", "dynamics", "params", to="AAAA"), "damaged: parameters"),
        (field("stacks", "dynamics", "params", to=base64.b64encode(bytes(328)).decode()), "the core refuses"),
        (field("stacks", "dynamics", "params", to=base64.b64encode(b"\xff" * 328).decode()), "the core refuses"),
        (field("stacks", "dynamics", "params", to=base64.b64encode(b"\x7f" * 328).decode()), "the core refuses"),
        (field("frame", to=[1e9, 16]), "damaged: the frame's size"),
        (field("patch", to=5), "not whole patches"),
        (field("stacks", "dynamics", "tokens", to=17), "damaged: tokens"),
        (field("codebook", "bytes", to=4), "damaged: the codebook"),
        (field("codebook_size", to=2**30), "damaged: the codebook's size"),
        (field("sampler", "steps", to=0), "number of steps"),
        (field("sampler", "order", to=9), "the core refuses"),
    ],
)
def test_a_damaged_world_is_a_sentence(
    spoil: Callable[[Path, dict[str, Any]], None], says: str, tiny_gguf: Callable[[str], Path], tmp_path: Path
) -> None:
    folder, _ = exported(tiny_gguf("q8_0"), tmp_path / "site")
    path = folder / "plan.json"
    plan = json.loads(path.read_text())
    spoil(folder, plan)
    path.write_text(json.dumps(plan))
    got = played(folder, SCALAR, [0])
    assert says in got.get("error", ""), got
    assert got["ours"]
