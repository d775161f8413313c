"""Fixtures shared by all tests, and the handling of optional dependencies.

A module that imports the packages of an extra is skipped if these are not installed; the message names the extra.
`--quick` leaves out tests that need torch or a browser, that build or emulate something, or that take long.
"""

from __future__ import annotations

import ast
import os
import signal
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import tiny

if TYPE_CHECKING:
    from genie_cpp.convert.reference.config import GenieConfig
    from genie_cpp.convert.reference.model import Genie

# Packages that test modules import and that may be missing, and the extra that installs each.
EXTRAS = {
    "torch": "convert", "safetensors": "convert", "yaml": "convert", "h5py": "hub", "huggingface_hub": "hub",
    "gymnasium": "gym", "mlx": "metal", "fastapi": "play", "uvicorn": "play", "websockets": "play",
    "prometheus_client": "play", "imageio_ffmpeg": "video", "playwright": "dev", "hypothesis": "dev", "httpx": "dev",
    "schemathesis": "dev",
}  # fmt: skip
# Modules of this project that need torch.
NEEDS_TORCH = (
    "genie_cpp.convert.writer",
    *(f"genie_cpp.convert.reference.{name}" for name in ("model", "checkpoint", "stack", "sampler", "vq")),
)
SLOW_TO_START = ("torch", "playwright", "mlx")
TORCH_FIXTURES = {"tiny_model", "tiny_checkpoint"}


# Workers that start threads on the same CPUs wait for one another. So each has a CPU of its own, where the system can
# give it one, and PyTorch one thread: a quarter of the time.
if worker := os.environ.get("PYTEST_XDIST_WORKER"):
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if hasattr(os, "sched_setaffinity"):
        cpus = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cpus[int(worker.removeprefix("gw")) % len(cpus)]})

# A shell ignores SIGINT for what it runs in the background, and nohup SIGHUP. Programs that tests interrupt would
# inherit that.
for _name in ("SIGINT", "SIGHUP"):
    if (_number := getattr(signal, _name, None)) is not None and signal.getsignal(_number) == signal.SIG_IGN:
        signal.signal(_number, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--quick", action="store_true", help="no torch, no browser, no emulators, nothing that takes long")


def imported(path: Path) -> set[str]:
    """The packages that a module imports when it is itself imported."""
    found: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and node.value.args:  # importorskip
            names += [a.value for a in node.value.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
        found |= {name.partition(".")[0] for name in names}
        if any(name.startswith(NEEDS_TORCH) for name in names):
            found.add("torch")
    return found


class LeftOut(pytest.Module):
    """A test module that is not even imported."""

    why = ""

    def collect(self) -> Any:
        pytest.skip(self.why, allow_module_level=True)


def pytest_pycollect_makemodule(module_path: Path, parent: Any) -> pytest.Module | None:
    wanted = imported(module_path)
    missing = [name for name in sorted(wanted & EXTRAS.keys()) if find_spec(name) is None]
    why = f"pip install 'genie_cpp[{EXTRAS[missing[0]]}]' brings {missing[0]}" if missing else ""
    if parent.config.getoption("quick") and wanted & set(SLOW_TO_START):
        why = "left out by --quick"
    if not why:
        return None
    module: LeftOut = LeftOut.from_parent(parent, path=module_path)
    module.why = why
    return module


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("quick"):
        return
    long = [i for i in items if i.get_closest_marker("heavy") or TORCH_FIXTURES & set(getattr(i, "fixturenames", ()))]
    config.hook.pytest_deselected(items=long)
    items[:] = [item for item in items if item not in long]


@pytest.fixture(scope="session")
def tiny_config() -> GenieConfig:
    """The configuration of `tiny.config`."""
    return tiny.config()


@pytest.fixture(scope="session")
def tiny_model(tiny_config: GenieConfig) -> Genie:
    """The weights of `tiny_gguf`, in PyTorch. Those that play does not need are random."""
    torch = pytest.importorskip("torch")
    from genie_cpp.convert.native import hparams_of, native_name
    from genie_cpp.convert.reference.model import Genie
    from genie_cpp.spec.hparams import expected_tensors

    torch.manual_seed(7)
    model = Genie(tiny_config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(1.0 if "norm.weight" in name else 0.0, 0.1 if parameter.dim() == 1 else 0.15)
        own = model.state_dict()
        for name, (shape, _) in expected_tensors(hparams_of(tiny_config)).items():
            own[native_name(name)].copy_(torch.from_numpy(tiny.weights(name, shape[::-1])))
    return model


@pytest.fixture(scope="session")
def tiny_checkpoint(tiny_model: Genie, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a native checkpoint. Copy it before changing it."""
    from genie_cpp.convert.reference import checkpoint

    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    checkpoint.save(tiny_model, folder)
    return folder


@pytest.fixture(scope="session")
def tiny_gguf(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """tiny_gguf("q8_0") -> the path of the model's file, made once per type. Copy it before changing it."""
    folder = tmp_path_factory.mktemp("gguf")

    def make(type: str = "f32") -> Path:
        path = folder / f"tiny-{type}.gguf"
        if not path.exists():
            tiny.write(path, type)
        return path

    return make
