"""genie-bench as users type it: rows, formats, faults, Ctrl-C, and no files left behind."""

from __future__ import annotations

import csv
import importlib
import io
import json
import re
import shutil
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

from genie_cpp.backends import _native
from genie_cpp.bench import Bench, Result, Sample
from genie_cpp.cli import main as cli

pytestmark = pytest.mark.heavy

# `genie_cpp.cli.main` binds the name `bench` to the command; this gets the module.
bench = importlib.import_module("genie_cpp.cli.bench")
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(
    tmp_path: Path,
    tiny_gguf: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Command:
    """command("-r", 1) -> exit code, stdout, stderr, in a folder with a.gguf and b.gguf; temporary files go to tmp/."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("genie_cpp.bench._PEAK_SECONDS", 1e-4)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    shutil.copy(tiny_gguf("q8_0"), "a.gguf")
    shutil.copy(tiny_gguf("f32"), "b.gguf")

    def call(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["genie-bench", *map(str, words)])
        with pytest.raises(SystemExit) as left:
            cli.main_bench()
        assert list((tmp_path / "tmp").iterdir()) == []
        assert isinstance(left.value.code, int)
        return left.value.code, *capsys.readouterr()

    return call


@pytest.mark.skipif(find_spec("mlx") is None, reason="MLX is not installed")
def test_a_row_of_the_metal_backend(command: Command) -> None:
    code, out, err = command("-m", "a.gguf", "-r", 1, "--backend", "metal")
    assert (code, err) == (0, "")
    titles, _, row, *_ = ([cell.strip() for cell in line.strip("|").split("|")] for line in out.splitlines())
    named = dict(zip(titles, row, strict=True))
    assert named["backend"] == "metal" and named["ISA"].startswith("mlx") and float(named["ms/frame"].split()[0]) > 0
    assert named["threads"] == named["% of peak"] == ""
    code, out, err = command("-m", "a.gguf", "-t", "1", "--backend", "metal")
    assert (code, out) == (1, "") and err.startswith("error: --threads are of the cpu backend\nhint: ")


def test_json_has_a_row_for_each_combination(command: Command) -> None:
    code, out, err = command("-m", "a.gguf,b.gguf", "-t", "1,2", "--steps", "1, 2", "-r", 2, "-o", "json")
    assert (code, err) == (0, "")
    report = json.loads(out)
    assert set(report["environment"]) == {"cpu", "cores", "isa", "os", "version", "commit", "date"}
    rows = report["results"]
    order = [(row["model"], row["type"], row["threads"], row["steps"]) for row in rows]
    models = (("a", "Q8_0"), ("b", "F32"))
    assert order == [(*model, threads, steps) for model in models for threads in (1, 2) for steps in (1, 2)]
    vector = rows[0]["isa"] != "scalar"
    for row in rows:
        assert (row["repetitions"], row["window"], row["size"]) == (2, 4, Path(f"{row['model']}.gguf").stat().st_size)
        for name, *_ in bench.MEASURED:
            if name == "share_of_peak" and not vector:
                assert row[name] is None
                continue
            low, high = sorted(row[name]["samples"])
            assert 0 < low <= row[name]["mean"] <= high
            assert row[name]["sd"] == pytest.approx((high - low) / 2**0.5)
        kind = "int8" if row["type"] == "Q8_0" else "float"
        assert list(row["peak_operations_per_second"]) == list(row["operations_per_step"]) == [kind]
        assert (row["peak_operations_per_second"][kind] > 0) == vector


def test_csv(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    for isa in (_native.isas()[0], "scalar"):
        monkeypatch.setenv("GENIE_ISA", isa)
        code, out, err = command("-m", "a.gguf", "-t", 1, "--steps", "1,2", "-r", 1, "-o", "csv")
        assert (code, err) == (0, "")
        rows = list(csv.DictReader(io.StringIO(out)))
        assert [row["steps"] for row in rows] == ["1", "2"]
        for row in rows:
            assert None not in row and None not in row.values()
            assert row["isa"] == isa and float(row["step_ms"]) > 0 and float(row["step_ms_sd"]) == 0
            assert (row["share_of_peak"] == "" and row["peak_int8"] == "") == (isa == "scalar")
            assert row["cpu"] and row["version"] and row["date"]


def test_md(command: Command) -> None:
    shutil.copy("a.gguf", "a|\x1b[31mb.gguf")
    code, out, _ = command("-m", "a|\x1b[31mb.gguf", "-t", 1, "-r", 2)
    titles, rule, row, empty, environment = out.splitlines()
    assert code == 0 and empty == "" and "genie_cpp " in environment and "\x1b" not in out
    assert len({len(line) for line in (titles, rule, row)}) == 1
    cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]]
    named = dict(zip((title.strip() for title in titles.split("|")[1:-1]), cells, strict=True))
    assert (
        named["model"] == "a\\|\\x1b[31mb" and named["threads"] == "1" and named["steps"] == "3" and named["r"] == "2"
    )
    assert re.fullmatch(r"\d+\.\d\d ± \d+\.\d\d", named["ms/step"])
    assert re.fullmatch(r"\d+\.\d ± \d+\.\d", named["% of peak"]) or named["ISA"] == "scalar"


def test_a_name_with_a_comma_is_a_file_if_there_is_one(command: Command) -> None:
    shutil.copy("a.gguf", "a,b.gguf")
    code, out, _ = command("-m", "a,b.gguf", "-t", 1, "-r", 1, "-o", "json")
    assert code == 0 and [row["model"] for row in json.loads(out)["results"]] == ["a,b"]


def test_the_bundled_world_is_the_default(command: Command) -> None:
    for words in ((), ("-m", "")):
        code, out, _ = command(*words, "-t", 1, "--steps", 1, "-r", 1, "-o", "json")
        (row,) = json.loads(out)["results"]
        assert code == 0 and row["model"] == "meadow"


def test_synthetic(command: Command) -> None:
    code, out, _ = command("--synthetic", "Tiny", "--type", "q8_0,f16", "-t", 1, "--steps", 1, "-r", 1, "-o", "json")
    rows = json.loads(out)["results"]
    assert code == 0 and [(row["model"], row["type"]) for row in rows] == [("tiny-q8_0", "Q8_0"), ("tiny-f16", "F16")]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("-o", "xml"), "unknown output 'xml'"),
        (("-t", "0"), "-t takes whole numbers in 1…1024, not '0'"),
        (("-t", "1,,2"), "-t takes whole numbers"),
        (("-t", "9" * 5000), "-t takes whole numbers"),
        (("-t", "1.5"), "-t takes whole numbers"),
        (("-t", "²"), "-t takes whole numbers"),
        (("--steps", "8,x"), "--steps takes whole numbers in 1…1024, not 'x'"),
        (("--steps", "1025"), "--steps takes"),
        (("-r", "0"), "repetitions must be in"),
        (("-m", "a.gguf,nowhere.gguf"), "cannot read 'nowhere.gguf'"),
        (("-m", "text.gguf"), "is not a GGUF file"),
        (("-m", "tmp"), "'tmp' is not a regular file"),
        (("--type", "f32"), "--type needs --synthetic"),
        (("--synthetic", "huge"), "unknown synthetic model 'huge'"),
        (("--synthetic", "tiny", "--type", "q8_0,q5"), "unknown type 'q5'"),
        (("--synthetic", "tiny", "-m", "a.gguf"), "--model and --synthetic exclude each other"),
    ],
)
def test_faults_are_told_before_anything_is_measured(
    words: tuple[str, ...], says: str, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("text.gguf").write_text("hello", encoding="utf-8")
    monkeypatch.setattr(Bench, "run", lambda *_: pytest.fail("measured"))
    code, out, err = command(*words)
    fault, hint = err.splitlines()
    assert (code, out) == (1, "") and fault.startswith("error: ") and says in fault and hint.startswith("hint: ")


def stop_after(frames: int, error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    """Raise when the n-th frame ends; warm-up frames count too."""
    left, run = [frames], Bench.run

    def stopped(
        self: Bench,
        path: Path,
        threads: int,
        steps: list[int | None],
        progress: Callable[[], None],
        backend: str,
        force: bool,
    ) -> None:
        def count() -> None:
            progress()
            left[0] -= 1
            if left[0] == 0:
                raise error

        run(self, path, threads, steps, count, backend, force)

    monkeypatch.setattr(Bench, "run", stopped)


def test_ctrl_c_prints_what_was_measured(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    stop_after(1 + 3 + 1 + 2, KeyboardInterrupt(), monkeypatch)  # during the second row's second repetition
    code, out, err = command("--synthetic", "tiny", "-t", 1, "--steps", "1,2,3", "-r", 3, "-o", "json")
    assert (code, err) == (130, "interrupted\n")
    assert [(row["steps"], row["repetitions"]) for row in json.loads(out)["results"]] == [(1, 3), (2, 2)]


def test_ctrl_c_before_anything_was_measured(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    stop_after(1, KeyboardInterrupt(), monkeypatch)
    assert command("-m", "a.gguf", "-t", 1) == (130, "", "interrupted\n")


def test_a_fault_on_the_way_keeps_the_rows_before_it(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    stop_after(1 + 1 + 1, MemoryError(), monkeypatch)
    code, out, err = command("-m", "a.gguf,b.gguf", "-t", 1, "-r", 1, "-o", "csv")
    assert (code, err) == (1, "error: out of memory\n") and [line[:2] for line in out.splitlines()] == ["mo", "a,"]


def test_all_formats_take_a_row_without_a_share(capsys: pytest.CaptureFixture[str]) -> None:
    row = Result(
        "m", 1, 1, "Q8_0", "cpu", "scalar", 1, 1, 2, {"int8": 1}, {"int8": 0.0}, [Sample(1.0, 2.0, 3.0, 4.0, 5.0)]
    )
    for write in bench.FORMATS.values():
        write([row], {"cpu": "c", "cores": 1, "isa": "scalar", "os": "o", "version": "0", "commit": "abc", "date": "d"})
        assert "abc" in capsys.readouterr().out
