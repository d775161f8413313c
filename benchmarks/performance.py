"""Measure this machine and write docs/performance.md with its figures: `make bench`, on an idle machine.

Each section is kept in build/bench once measured. `--resume` uses those of an interrupted run; `--only` measures some
again. All peers must be installed. `--smoke` uses tiny shapes and whatever peers there are, to test this program.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import logging
import tempfile
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import timing

timing.quiet_threads()

import ggml_peer  # noqa: E402
import peers  # noqa: E402
import torch  # noqa: E402
from attention import attention  # noqa: E402
from growth import growth  # noqa: E402
from page import page  # noqa: E402
from products import products  # noqa: E402
from samplers import samplers  # noqa: E402
from step import small_step, step  # noqa: E402
from whole_frame import ROOT, against_torch, converted, memory_and_load, scaling, window  # noqa: E402

from genie_cpp.bench import Bench, environment, environment_line, mean_sd  # noqa: E402
from genie_cpp.cli import synthetic  # noqa: E402
from genie_cpp.convert.reference import checkpoint  # noqa: E402
from genie_cpp.convert.reference.config import DynamicsConfig, GenieConfig, LamConfig, TokenizerConfig  # noqa: E402
from genie_cpp.convert.reference.model import Genie  # noqa: E402
from genie_cpp.spec.stack_spec import StackParams  # noqa: E402

# Random weights: speed does not depend on what a model has learned.
CONFIGS = {"coinrun": ROOT / "examples/coinrun/config.json", "appendix-f": ROOT / "examples/coinrun/appendix-f.json"}


def models(rows: list[tuple[Path | None, int, list[int | None]]], repetitions: int) -> list[dict[str, Any]]:
    """Means for each (file, threads, steps); None: the bundled world, with its own steps."""
    found = []
    for path, threads, steps in rows:
        bench = Bench(repetitions)
        timing.wait_for_cores(threads)
        bench.run(path, threads, steps)
        for r in bench.results:
            columns = ("step", "tokens", "dynamics", "decode", "frame")
            row = {name: mean_sd([getattr(s, name) for s in r.samples])[0] for name in columns}
            share = mean_sd(r.share)[0] if r.share else 0.0
            found.append({"model": r.model, "isa": r.isa, "threads": threads, "steps": r.steps, "share": share, **row})
            print(f"  {r.model}, {threads} threads, {r.steps} steps", flush=True)
    return found


def reference(config: GenieConfig, folder: Path) -> Genie:
    """A model with random weights, saved to a folder."""
    torch.manual_seed(0)
    genie = Genie(config).eval()
    checkpoint.save(genie, folder)
    return genie


def tiny_config() -> GenieConfig:
    stack = StackParams(
        block_count=1, embedding_length=64, head_count=2, key_length=32, feed_forward_length=64, qk_norm=True
    )
    tokenizer = TokenizerConfig(stack, stack, patch_size=4, codebook_size=16, latent_length=8)
    dynamics = DynamicsConfig(stack, {"steps": 2, "temperature": 0.5})
    return GenieConfig(tokenizer, LamConfig(stack, stack, 8, 8), dynamics, 16, 16, context_length=4, action_count=3)


def full(rounds: int, work: Path) -> dict[str, Callable[[], Any]]:
    """What makes each section."""
    loaded: dict[str, Genie] = {}

    def genie(name: str) -> Genie:
        if name not in loaded:
            loaded[name] = reference(GenieConfig.load(CONFIGS[name]), work / name)
        return loaded[name]

    def files() -> list[Path]:
        for name in CONFIGS:
            genie(name)
        return [converted(work / name, "q8_0", work / f"{name}-q8_0.gguf") for name in CONFIGS]

    def whole_models() -> Any:
        rows: list[tuple[Path | None, int, list[int | None]]] = [(None, 1, [None]), (None, 2, [None, 1, 4, 8, 25])]
        for size in ("tiny", "appendix-f"):
            for type in ("q8_0", "q4_0"):
                path = synthetic.build(size, type, work)
                rows += [(path, threads, [8]) for threads in (1, 2)]
        return models(rows, 5)

    def frames() -> Any:
        for name in CONFIGS:
            genie(name)
        return [
            *against_torch("coinrun", work / "coinrun", 12, work, min(rounds, 5)),
            *against_torch("appendix-f", work / "appendix-f", 8, work, min(rounds, 2)),
        ]

    return {
        "products": lambda: products(rounds, 0.03),
        "attention": lambda: attention(2 * rounds, 0.03),
        "step": lambda: step(genie("appendix-f"), work / "appendix-f", "appendix-f", work, 2 * rounds, 0.1, (1, 2)),
        "small_step": lambda: small_step(synthetic.build("tiny", "q8_0", work), 4 * rounds, 0.05),
        "models": whole_models,
        "frames": frames,
        "scaling": lambda: scaling(files(), rounds),
        "window": lambda: window(files()[0], {"half": 64, "exact": 32}),
        "memory": lambda: memory_and_load(files()),
        "growth": lambda: growth(rounds, 0.05),
        "samplers": lambda: samplers(work),
    }


def small(work: Path) -> dict[str, Callable[[], Any]]:
    """The same sections in seconds; the figures mean nothing."""
    folder = work / "tiny"
    genie = reference(tiny_config(), folder)
    path = converted(folder, "q8_0", work / "tiny-q8_0.gguf")
    return {
        "products": lambda: products(1, 1e-4, small=True),
        "attention": lambda: attention(1, 1e-4, small=True),
        "step": lambda: step(genie, folder, "tiny", work, 1, 1e-4, (1,)),
        "small_step": lambda: small_step(path, 1, 1e-4),
        "models": lambda: models([(path, 1, [2])], 1),
        "frames": lambda: against_torch("tiny", folder, 2, work, 1),
        "scaling": lambda: scaling([path], 1),
        "window": lambda: window(path, {"half": 3}),
        "memory": lambda: memory_and_load([path]),
        "growth": lambda: growth(1, 1e-4, small=True),
        "samplers": lambda: samplers(work, small=True),
    }


def versions() -> str:
    names = ("torch", "onnxruntime", "openvino", "libggml-python")
    found = []
    for name in names:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return "Beside " + ", ".join(found) + "."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True, help="the page; its figures are put beside it")
    parser.add_argument("-r", "--rounds", type=int, default=5)
    parser.add_argument("--work", type=Path, default=ROOT / "build/bench", help="where sections are kept")
    parser.add_argument("--resume", action="store_true", help="do not measure again the sections that are there")
    parser.add_argument("--only", default="", help="measure these again, such as products,step; implies --resume")
    parser.add_argument("--smoke", action="store_true")
    args = parser.parse_args()
    notes = [f"Not there, so left out: {name}." for name in peers.missing()]
    if "native" not in ggml_peer.folders():
        notes.append("Not there, so left out: ggml compiled for this CPU.")
    if not peers.have("matplotlib"):
        notes.append("Not there, so no figures are drawn: matplotlib.")
    if notes and not args.smoke:
        raise SystemExit("\n".join(notes) + "\n`make bench` installs what is missing")
    logging.disable(logging.WARNING)  # exporters log a lot
    only = [name for name in args.only.split(",") if name]
    args.work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        sections = small(Path(folder)) if args.smoke else full(args.rounds, Path(folder))
        if unknown := set(only) - set(sections):
            raise SystemExit(f"no section {', '.join(sorted(unknown))}; there are {', '.join(sections)}")
        results: dict[str, Any] = {
            "environment": environment_line(environment()),
            "versions": versions(),
            "notes": notes,
        }
        earlier: list[str] = []
        for name, measure in sections.items():
            kept = args.work / f"{name}.json"
            if kept.exists() and (only or args.resume) and name not in only:
                results[name] = json.loads(kept.read_text(encoding="utf-8"))
                day = datetime.fromtimestamp(kept.stat().st_mtime, timezone.utc)
                earlier.append(f"{name} {day:%Y-%m-%dT%H:%MZ}")
                continue
            print(f"{name} …", flush=True)
            started = time.perf_counter()
            results[name] = measure()
            kept.write_text(json.dumps(results[name], indent=1), encoding="utf-8")
            print(f"{name}: {time.perf_counter() - started:.0f} s", flush=True)
    if earlier:
        notes.append(f"Measured before this run: {', '.join(earlier)}.")
    plots = {}
    if peers.have("matplotlib"):
        from plots import draw

        plots = draw(results, args.output.parent)
    args.output.write_text(page(results, plots), encoding="utf-8")
    print(args.output)


if __name__ == "__main__":
    main()
