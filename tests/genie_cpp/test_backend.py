"""Which backend a name means, on machines with and without MLX and Metal."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from genie_cpp import GenieError
from genie_cpp.backends import choose as backend

needs_mlx = pytest.mark.skipif(find_spec("mlx") is None, reason="MLX is not installed")


def test_a_name_that_is_none() -> None:
    with pytest.raises(GenieError, match=r"must be one of auto, cpu, metal, not 'gpu'") as error:
        backend.choose("gpu", 1)
    assert error.value.hint


def test_the_cpu_backend_says_what_it_runs_on() -> None:
    cpu = backend.choose("cpu", 3)
    assert (cpu.name, cpu.threads, cpu.device) == ("cpu", 3, f"{cpu.isa}, 3 threads")


@pytest.mark.parametrize(
    ("platform", "hint"), [("darwin", "pip install 'genie_cpp[metal]'"), ("linux", "pip install 'mlx[cpu]'")]
)
def test_without_mlx(monkeypatch: pytest.MonkeyPatch, platform: str, hint: str) -> None:
    monkeypatch.setattr(backend, "_installed", lambda: False)
    monkeypatch.setattr("sys.platform", platform)
    assert backend.resolve("auto") == "cpu"
    with pytest.raises(GenieError, match="MLX, which is not installed") as error:
        backend.choose("metal", None)
    assert error.value.hint.startswith(hint)


@needs_mlx
@pytest.mark.parametrize(
    ("platform", "metal", "means"), [("darwin", True, "metal"), ("darwin", False, "cpu"), ("linux", True, "cpu")]
)
def test_auto_takes_metal_where_it_is(monkeypatch: pytest.MonkeyPatch, platform: str, metal: bool, means: str) -> None:
    monkeypatch.setattr("sys.platform", platform)
    monkeypatch.setattr("genie_cpp.backends.metal.has_metal", lambda: metal)
    assert backend.resolve("auto") == means
    assert backend.choose("auto", 1).name == means
    assert backend.choose("cpu", 1).name == "cpu"


@needs_mlx
def test_the_metal_backend_says_what_it_runs_on() -> None:
    metal = backend.choose("metal", None)
    assert metal.name == "metal" and metal.device.startswith("MLX ")
    assert metal.isa.startswith("mlx") and metal.isa.isalnum() and len(metal.isa) <= 32  # as a recipe stores it
