"""Each allocation and each thread start of the core fails once, while a model is opened, reset and stepped."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).parent
pytestmark = [pytest.mark.heavy, pytest.mark.skipif(platform.system() != "Linux", reason="a library is preloaded")]

# Each try does what a player does, from the start. It must succeed or end in one clear error. After that the same
# process must still play as if nothing had happened.
PROGRAM = """
import ctypes, sys
import numpy as np
from genie_cpp import Model, World
from genie_cpp.backends import _native
from genie_cpp.errors import NativeError

path, threads = sys.argv[1], int(sys.argv[2])
shim = ctypes.CDLL(sys.argv[3])
shim.fail_at.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_long]
shim.calls_seen.restype = ctypes.c_long
symbol = int(_native.ffi.cast("uintptr_t", _native.ffi.addressof(_native.lib, "genie_abi_version")))
size = _native.library().stat().st_size + (1 << 20)

def played():
    model = Model.open(path, threads, "cpu")
    hp = model.info
    world = World(model)
    video = np.random.default_rng(0).integers(0, 256, (3, hp.frame_height, hp.frame_width, 3), np.uint8)
    world.reset(video if hp.has_lam else video[0], seed=1)
    frames = [world.step(0).tobytes() for _ in range(hp.context_length + 1)]
    other = world.fork()
    return frames + [other.step(0).tobytes(), world.save()]

def armed(n):
    shim.fail_at(symbol, size, n)
    try:
        return played()
    finally:
        seen = shim.calls_seen()
        shim.fail_at(symbol, size, -1)
        armed.seen = seen

want = armed(-1)
total = armed.seen
assert total > 20, total
failed = 0
for n in range(total):
    try:
        got = armed(n)
        assert got == want, f"call {n} failed, and the frames are other ones"
    except NativeError as error:
        assert "\\n" not in str(error) and str(error), repr(str(error))
        failed += 1
    if n % 25 == 0:
        assert played() == want, f"after call {n} failed, the frames are other ones"
assert played() == want
assert failed > total // 2, (failed, total)
print(total, failed)
"""


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    library = tmp_path_factory.mktemp("shim") / "failing.so"
    command = [
        os.environ.get("CC", "cc"),
        "-shared",
        "-fPIC",
        "-O1",
        "-fno-builtin",
        "-o",
        library,
        HERE / "failing.c",
        "-ldl",
    ]
    subprocess.run([str(word) for word in command], check=True)
    return library


@pytest.mark.parametrize("threads", [pytest.param(1, marks=pytest.mark.slow), 3])
@pytest.mark.parametrize("type", [pytest.param("f32", marks=pytest.mark.slow), "q8_0"])
def test_each_fails_once(type: str, threads: int, shim: Path, tiny_gguf: Callable[[str], Path]) -> None:
    env = {**os.environ, "LD_PRELOAD": str(shim), "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-c", PROGRAM, str(tiny_gguf(type)), str(threads), str(shim)]
    ran = subprocess.run(command, env=env, capture_output=True, text=True, timeout=600)
    assert ran.returncode == 0, (ran.stdout + ran.stderr)[-3000:]
    assert int(ran.stdout.split()[0]) > 20


def test_with_convolutions(shim: Path, tmp_path: Path) -> None:
    from genie_cpp.convert.writer import convert

    folder = HERE.parent / "golden" / "one_x_gpt"
    convert([folder / "pre_norm", folder / "magvit2.ckpt"], tmp_path / "world.gguf", "q8_0")
    env = {**os.environ, "LD_PRELOAD": str(shim), "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "world.gguf"), "2", str(shim)]
    ran = subprocess.run(command, env=env, capture_output=True, text=True, timeout=600)
    assert ran.returncode == 0, (ran.stdout + ran.stderr)[-3000:]
