"""Random models: the strict reader reads them, their sizes match their names, and they are made without torch."""

from __future__ import annotations

import subprocess
import sys
from math import prod
from pathlib import Path

import numpy as np
import pytest

from genie_cpp import BenchError, World
from genie_cpp.cli import synthetic
from genie_cpp.file.gguf_file import GGUFFile, TensorType
from genie_cpp.spec.hparams import expected_tensors, validate

pytestmark = pytest.mark.heavy


@pytest.mark.parametrize("type", ["f32", "f16", "q8_0", "q4_0"])
def test_a_file_is_valid_and_plays(type: str, tmp_path: Path) -> None:
    path = synthetic.build("tiny", type, tmp_path)
    assert path == tmp_path / f"tiny-{type}.gguf" and list(tmp_path.iterdir()) == [path]
    with GGUFFile.open(path) as file:
        assert validate(file) == synthetic.SIZES["tiny"]
        assert file.tensors["dynamics.blk.0.ffn.up.weight"].type.name == type.upper()
        ends = file.tensors["dynamics.output.weight"].type
        assert ends is (TensorType.Q8_0 if type == "q4_0" else TensorType[type.upper()])
        norms = file.data("dynamics.blk.1.spatial.q_norm.weight").view("<f4")
        assert (norms == 1).all()
        codes = file.data("tokenizer.codebook.weight").view("<f4").reshape(-1, 32)
        np.testing.assert_allclose(np.linalg.norm(codes, axis=1), 1, rtol=1e-6)
    world = World.load(path, threads=1)
    world.reset(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    first, second = world.step(0), world.step(1)
    assert first.std() > 0 and (first != second).any()
    assert np.isfinite(world.logits).all()


def dynamics_parameters(size: str) -> int:
    shapes = expected_tensors(synthetic.SIZES[size])
    return sum(prod(shape) for name, (shape, _) in shapes.items() if name.startswith("dynamics."))


def test_the_sizes_are_the_papers() -> None:
    for size, blocks, width, heads, key in (
        ("tiny", 4, 128, 4, 32),
        ("appendix-f", 12, 512, 8, 64),
        ("41m", 18, 512, 8, 64),
    ):
        hp = synthetic.SIZES[size]
        s = hp.stacks["dynamics"]
        assert (s.block_count, s.embedding_length, s.head_count, s.key_length) == (blocks, width, heads, key)
        assert (hp.token_count("dynamics"), hp.context_length, hp.sampler_steps) == (256, 16, 25)
    assert 40.5e6 < dynamics_parameters("41m") < 41.5e6
    tokenizer = synthetic.SIZES["appendix-f"].stacks["tokenizer.encoder"]
    assert (tokenizer.block_count, tokenizer.embedding_length, tokenizer.head_count) == (8, 512, 8)


def test_what_there_is_not_is_refused(tmp_path: Path) -> None:
    for size, type in (("huge", "q8_0"), ("tiny", "q5_1"), ("", "")):
        with pytest.raises(BenchError, match="unknown") as error:
            synthetic.build(size, type, tmp_path)
        assert "choose among" in error.value.hint
    assert list(tmp_path.iterdir()) == []


def test_torch_is_not_needed() -> None:
    program = (
        "import sys; sys.modules['torch'] = sys.modules['safetensors'] = None\n"
        "from genie_cpp.cli.main import main_bench\n"
        "sys.argv = ['genie-bench', '--synthetic', 'tiny', '-r', '1', '-t', '1', '--steps', '1', '-o', 'csv']\n"
        "main_bench()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0 and len(done.stdout.splitlines()) == 2, done.stderr
