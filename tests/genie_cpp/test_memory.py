"""Memory use is known before it is allocated, by one function that the loader, genie-info and these tests share."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from genie_cpp import Model, World
from genie_cpp.backends import assembly, memory
from genie_cpp.convert.writer import convert
from genie_cpp.errors import NativeError
from genie_cpp.file.gguf_file import GGUFFile
from genie_cpp.spec.hparams import HParams, expected_tensors, validate

GOLDEN = Path(__file__).parents[1] / "golden"
FAMILIES = ("tinyworlds", "tinyworlds_alone", "tinyworlds_experts", "one_x_gpt", "genieredux")


def files(family: str) -> list[Path]:
    folder = GOLDEN / family
    if family == "genieredux":
        return [folder / "tokenizer.pt", folder / "genieredux.pt"]
    if family == "one_x_gpt":
        return [folder / "pre_norm", folder / "magvit2.ckpt"]
    return sorted(path for path in folder.iterdir() if path.name != "expected.npz")


def taken(model: Model) -> tuple[int, int]:
    """(bytes that the core takes for the weights, bytes for one world)."""
    convs = sum(network.state().n_bytes for network in model._convs.values())
    return model.n_bytes, sum(model.state(name).n_bytes for name in model.info.stacks) + convs


def held_to(model: Model, threads: int) -> None:
    needs = memory.need(model.info, model.tensors, threads)
    weights, world = taken(model)
    beside = sum(4 * array.size for array in (model._codebook, model._actions) if array is not None)
    beside += sum(array.nbytes for array in model._head.values())
    beside += 0 if model._head_up is None else model._head_up[0].nbytes
    assert 1.0 <= (needs.weights + needs.biases) / (weights + beside) < 1.01
    # Only the weights show which of two attentions is used and how wide the strips of pictures are.
    assert 1.0 <= needs.world / world < 2.1


@pytest.mark.parametrize("type", ["f32", "f16", "q8_0", "q4_0"])
@pytest.mark.parametrize("threads", [1, 3])
def test_what_is_planned_is_what_is_taken(type: str, threads: int, tiny_gguf: Callable[[str], Path]) -> None:
    held_to(Model.open(tiny_gguf(type), threads, "cpu"), threads)


@pytest.mark.parametrize("family", FAMILIES)
def test_also_of_other_families(family: str, tmp_path: Path) -> None:
    """Experts, convolutions, biases by offset, matrices of heads."""
    convert(files(family), tmp_path / "world.gguf", "q8_0")
    held_to(Model.open(tmp_path / "world.gguf", 2, "cpu"), 2)


@pytest.mark.parametrize("name", ["meadow", "maze"])
def test_the_bundled_worlds(name: str) -> None:
    held_to(Model.open(name, 2, "cpu"), 2)


def wide(hp: HParams, side: int) -> HParams:
    """The same weights except for positions: frames of side x side tokens, with a bias for every offset."""
    stacks = {
        name: dataclasses.replace(stack, spatial_bias="relative", position="none") for name, stack in hp.stacks.items()
    }
    patch = hp.tokenizer_patch_size
    return dataclasses.replace(hp, frame_width=side * patch, frame_height=side * patch, stacks=stacks)


def test_a_small_file_that_wants_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table of biases by offset is small, but expanded to every pair of tokens it is large."""
    output = tmp_path / "world.gguf"
    convert(files("genieredux"), output, "q8_0")
    with GGUFFile.open(output) as file:
        hp = validate(file)
        grown = wide(hp, 96)
        tensors = {
            name: dataclasses.replace(file.tensors[name], shape=shape) if name in file.tensors else None
            for name, (shape, _) in expected_tensors(grown).items()
        }
    needs = memory.need(grown, {name: tensor for name, tensor in tensors.items() if tensor is not None}, 1)
    heads = sum(stack.head_count for stack in grown.stacks.values())
    assert needs.biases == 4 * 96**4 * heads > 1 << 30
    assert needs.weights < 32 << 20

    monkeypatch.setattr(memory, "available", lambda: 40 << 20)
    with pytest.raises(NativeError, match=r"needs .* of memory, of which 8\.0 MiB are free") as caught:
        memory.check(needs, "world.gguf")
    assert "--force" in caught.value.hint


def test_a_model_is_refused_before_anything_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available", lambda: 33 << 20)
    monkeypatch.setattr(assembly, "load", lambda *_: pytest.fail("it was loaded"))
    with pytest.raises(NativeError, match=r"needs 1.\.. MiB of memory, of which 1\.0 MiB are free"):
        World.load("meadow")


def test_force_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available", lambda: 0)
    world = World.load("meadow", threads=1, force=True)
    assert world.reset().shape == (80, 128, 3)


def test_where_nobody_says_how_much_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available", lambda: None)
    Model.open("meadow", 1)


def test_genie_info_says_the_same(tiny_gguf: Callable[[str], Path]) -> None:
    path = tiny_gguf("q8_0")
    command = [Path(sys.executable).with_name("genie-info"), path, "--json"]
    facts = json.loads(subprocess.run([str(word) for word in command], capture_output=True, check=True).stdout)
    model = Model.open(path, backend="cpu")
    needs = memory.need(model.info, model.tensors, model.threads)
    assert facts["memory"] == {**dataclasses.asdict(needs), "total": needs.total}


def system(root: Path, **files: str) -> Path:
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


MEMINFO = "MemTotal:       24000000 kB\nMemFree:  100 kB\nMemAvailable:   9000000 kB\n"


@pytest.mark.skipif(sys.platform == "win32", reason="there it is a call of the system's")
@pytest.mark.parametrize(
    ("groups", "files", "free"),
    [
        ("0::/\n", {}, 9_000_000 << 10),
        ("0::/a\n", {"a__memory.max": "max\n", "a__memory.current": "5\n"}, 9_000_000 << 10),
        ("0::/a\n", {"a__memory.max": "5000\n", "a__memory.current": "4000\n"}, 1000),
        ("0::/a\n", {"a__memory.max": "5000\n", "a__memory.current": "9000\n"}, 0),
        ("0::/a/b\n", {"a__memory.max": "5000\n", "a__memory.current": "4000\n", "a__b__memory.max": "700\n",
                       "a__b__memory.current": "600\n"}, 100),
        ("0::/\n", {"memory.max": "5000\n", "memory.current": "4000\n",
                    "memory.stat": "anon 1\ninactive_file 500\n"}, 1500),
        ("4:memory:/d\n", {"memory__d__memory.limit_in_bytes": "7000\n", "memory__d__memory.usage_in_bytes": "1000\n",
                           "memory__d__memory.stat": "total_inactive_file 300\n"}, 6300),
        ("0::/\n", {"memory.max": "many\n", "memory.current": "4000\n"}, 9_000_000 << 10),
    ],
)  # fmt: skip
def test_how_much_is_free(groups: str, files: dict[str, str], free: int, tmp_path: Path) -> None:
    system(tmp_path, **{"proc__meminfo": MEMINFO, "proc__self__cgroup": groups})
    system(tmp_path / "sys/fs/cgroup", **files)
    assert memory.available(tmp_path) == free


def test_here() -> None:
    free = memory.available()
    assert free is not None and free > 100 << 20
    if hasattr(os, "sysconf"):
        assert free <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
