"""What a benchmark counts and how it calculates. No test asserts how long anything takes."""

from __future__ import annotations

import dataclasses
import shutil
import statistics
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from genie_cpp import BenchError, Model, SamplerError, bench
from genie_cpp.backends import _native
from genie_cpp.bench import Bench, Result, Sample, environment, matmul_operations, mean_sd, measure_peak
from genie_cpp.cli import synthetic

pytestmark = pytest.mark.heavy

VECTOR = [isa for isa in _native.isas() if isa != "scalar"]


def result(operations: dict[str, int], peaks: dict[str, float], *steps: float) -> Result:
    samples = [Sample(1.0, step, 20.0, 5.0, 25.0) for step in steps]
    return Result("m", 1, 1, "Q8_0", "cpu", "avx2", 1, 4, 16, operations, peaks, samples)


def test_mean_and_deviation() -> None:
    assert mean_sd([2.0, 4.0, 6.0]) == (4.0, 2.0)
    assert mean_sd([3.0]) == (3.0, 0.0)


def test_the_share_is_least_time_over_time() -> None:
    # 10^9 operations at 10^11 a second take 10 ms.
    assert result({"int8": 10**9}, {"int8": 1e11}, 10.0, 40.0).share == pytest.approx([1.0, 0.25])
    mixed = result({"int8": 10**9, "float": 10**9}, {"int8": 1e11, "float": 1e10}, 220.0)
    assert mixed.share == pytest.approx([0.5])
    assert result({"int8": 10**9}, {"int8": 0.0}, 10.0).share == []  # scalar
    assert result({"int8": 10**9, "float": 1}, {"int8": 1e11, "float": 0.0}, 10.0).share == []
    assert mixed.frames_per_second == [40.0]


@pytest.mark.parametrize(("type", "kind"), [("f32", "float"), ("f16", "float"), ("q8_0", "int8")])
def test_operations_of_a_step(type: str, kind: str, tiny_gguf: Callable[[str], Path]) -> None:
    model = Model.open(tiny_gguf(type), threads=1)
    s, P, V = model.info.stacks["dynamics"], model.token_count, model.info.codebook_size
    E, F, HD = s.embedding_length, s.feed_forward_length, s.head_count * s.key_length
    assert s.sublayers == ("spatial", "temporal", "ffn") and s.ffn == "gelu"
    want = 2 * P * (s.block_count * (2 * 4 * E * HD + 2 * E * F) + E * V)
    assert matmul_operations(model) == {kind: want}


def test_of_experts_those_that_a_token_takes_count(tmp_path: Path) -> None:
    hp = synthetic.SIZES["tiny"]
    plain = dataclasses.replace(hp.stacks["dynamics"], block_count=1)
    found = []
    for name, changes in (("one", {}), ("some", {"expert_count": 3, "expert_used_count": 2})):
        stacks = {**hp.stacks, "dynamics": dataclasses.replace(plain, **changes)}
        path = synthetic.write(dataclasses.replace(hp, stacks=stacks), name, "q8_0", tmp_path)
        found.append(matmul_operations(Model.open(path, threads=1))["int8"])
    assert found[1] - found[0] == 2 * 256 * 2 * plain.embedding_length * plain.feed_forward_length


@pytest.mark.parametrize("isa", _native.isas())
def test_a_peak_is_found_where_there_is_one(isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "_PEAK_SECONDS", 1e-4)
    for kind in ("int8", "float"):
        assert (measure_peak(isa, 2, kind) > 0) == (isa != "scalar")


def test_the_peak_is_the_best_try(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a fake clock: slow tries and short tries do not count."""
    now, seen = [0.0], []
    seconds = iter([0.01, 0.02, 0.04, 0.08, 0.05, *[0.04] * 100])

    def operations(isa: str, pool: object, type: int, rounds: int) -> int:
        now[0] += next(seconds)
        seen.append(rounds)
        return 1000 * rounds

    monkeypatch.setattr(bench.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(bench._native, "peak_operations", operations)
    assert measure_peak("avx2", 1, "int8") == pytest.approx(1000 * seen[-1] / 0.04)
    assert len(seen) == 2 + bench._PEAK_TRIES and seen[2] == 4 * seen[0] == seen[-1]


def test_a_run(tiny_gguf: Callable[[str], Path]) -> None:
    measured, frames = Bench(2), []
    measured.run(tiny_gguf("q8_0"), 1, [None, 2], lambda: frames.append(1))
    assert len(frames) == 2 * (1 + 2)
    first, second = measured.results
    assert (first.steps, second.steps, first.window, first.threads) == (3, 2, 4, 1)
    assert first.model == "tiny-q8_0" and first.type == "Q8_0" and first.size == tiny_gguf("q8_0").stat().st_size
    assert first.parameters == Model.open(tiny_gguf("q8_0"), 1).info.parameter_count()
    for row in measured.results:
        assert len(row.samples) == 2
        for sample in row.samples:
            assert min(sample) > 0
            assert row.steps * sample.step < sample.dynamics  # the rest commits the frame
            assert sample.dynamics + sample.decode <= sample.frame * (1 + 1e-9)
        assert len(row.share) == (2 if row.isa in VECTOR else 0)
    assert first.peaks == second.peaks  # measured once


def test_every_repetition_finds_the_same_full_window(
    tiny_gguf: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    step = bench.World.step
    monkeypatch.setattr(
        bench.World,
        "step",
        lambda world, action: (found.append(len(world._window.prediction.dynamics)), step(world, 0)),
    )
    Bench(3).run(tiny_gguf("q8_0"), 1, [1])
    assert found == [3] * 4  # the context of 4 less the frame to come; warm-up and 3 repetitions


def test_an_interrupted_row_keeps_what_it_has(tiny_gguf: Callable[[str], Path]) -> None:
    measured, left = Bench(5), iter(range(3))

    def progress() -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measured.run(tiny_gguf("q8_0"), 1, [1], progress)
    (row,) = measured.results
    assert len(row.samples) == 3


def test_scalar_has_no_share(tiny_gguf: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENIE_ISA", "scalar")
    measured = Bench(1)
    measured.run(tiny_gguf("q8_0"), 1, [1])
    assert measured.results[0].share == [] and measured.results[0].isa == "scalar"


def test_what_is_out_of_range_is_refused(tiny_gguf: Callable[[str], Path]) -> None:
    for repetitions in (0, -1, bench.MAX_REPETITIONS + 1):
        with pytest.raises(BenchError, match="repetitions"):
            Bench(repetitions)
    with pytest.raises(SamplerError):
        Bench(1).run(tiny_gguf("q8_0"), 1, [0])


def test_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = environment()
    assert set(facts) == {"cpu", "cores", "isa", "os", "version", "commit", "date"}
    assert facts["cpu"] and facts["cores"] >= 1 and facts["isa"] in _native.isas()
    assert "\n" not in "".join(map(str, facts.values()))


@pytest.mark.skipif(shutil.which("git") is None, reason="no git")
def test_the_commit_is_of_this_source_tree_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*words: str) -> str:
        identity = ("-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "commit.gpgsign=false")
        done = subprocess.run(["git", *identity, *words], cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    git("init", "-q")
    git("commit", "-q", "--allow-empty", "-m", "m")
    head = git("rev-parse", "HEAD")
    for path, own in (("genie_cpp/bench.py", True), ("lib/site-packages/genie_cpp/bench.py", False)):
        monkeypatch.setattr(bench, "__file__", str(tmp_path / path))
        commit = bench._commit()
        assert (head.startswith(commit) and len(commit) >= 4) if own else commit == ""
    assert bench._said("no-such-program") == "" and bench._said("git", "no-such-verb") == ""


def test_deviation_is_that_of_a_sample() -> None:
    values = [1.0, 2.5, 7.25, 3.0]
    assert mean_sd(values) == (statistics.mean(values), pytest.approx(statistics.stdev(values)))
