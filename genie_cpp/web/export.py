"""A world as a folder of static files, or as one HTML file that also opens from disk."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from genie_cpp.catalog.bundled import start_name, starts
from genie_cpp.errors import ModelError, OutputError
from genie_cpp.frames import fit, load_image
from genie_cpp.leftovers import REPLACED, folder_beside
from genie_cpp.web import plan as plans
from genie_cpp.words import quoted

SITE = Path(__file__).parent / "site"
PAGE = (
    "index.html", "page.css", "page.mjs", "keys.mjs", "link.mjs", "gif.mjs", "worker.mjs", "thread.mjs", "genie.mjs",
    "genie.d.mts", "offline.mjs",
)  # fmt: skip
CORES = ("genie.wasm", "genie-simd128.wasm", "genie-threads.wasm")
MOST_STARTS = 64


def export(
    model: Path,
    output: Path,
    pictures: Sequence[Path] = (),
    title: str | None = None,
    single_file: bool = False,
    overwrite: bool = False,
    how: str = "crop",
) -> dict[str, Any]:
    """Write a page that plays `model`. Returns the plan.

    pictures: to start from, files or folders; by default the model's own. single_file: `output` is one HTML file, else
    a folder. The output appears whole or not at all. Raises GGUFError, ModelError, ImageError, OutputError;
    OSError for a model that cannot be read.
    """
    _check(output, single_file, overwrite)
    model.open("rb").close()  # what cannot be read is not to be taken for what cannot be written
    try:
        work = folder_beside(output)
        try:
            made = work / "site"
            made.mkdir()
            plan = _site(model, made, _listed(pictures) or starts(model), title, how)
            if single_file:
                made = work / "page.html"
                made.write_text(_single(work / "site", plan), encoding="utf-8")
            _check(output, single_file, overwrite)
            if output.exists():
                os.replace(output, work / REPLACED)
            os.replace(made, output)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    except OSError as error:
        raise OutputError(
            f"cannot write {quoted(str(output))}: {error.strerror or error}", "check the folder and the space on it"
        ) from None
    return plan


def _check(output: Path, single_file: bool, overwrite: bool) -> None:
    if not output.parent.is_dir():
        raise OutputError(f"the folder {quoted(str(output.parent))} does not exist", "make it first")
    if single_file and output.is_dir():
        raise OutputError(f"{quoted(str(output))} is a folder", "name a file, such as world.html")
    if not single_file and output.exists() and not output.is_dir():
        raise OutputError(f"{quoted(str(output))} is a file", "name a folder, or give --single-file")
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return
    ours = output.is_file() or (output / "plan.json").is_file()
    if not ours:
        raise OutputError(f"{quoted(str(output))} holds files that are not of such a page", "name another folder")
    if not overwrite:
        raise OutputError(f"{quoted(str(output))} exists", "give -y to replace it")


def _listed(pictures: Sequence[Path]) -> list[Path]:
    found: list[Path] = []
    for path in pictures:
        found += sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]
    return found


def _site(model: Path, folder: Path, pictures: Sequence[Path], title: str | None, how: str) -> dict[str, Any]:
    if len(pictures) > MOST_STARTS:
        raise ModelError(f"{len(pictures)} start pictures; a page shows {MOST_STARTS} at most", "give fewer")
    with (folder / "weights.bin").open("wb") as file:
        plan = plans.write(model, file)
    plan["title"] = title or plan["name"]
    plan["starts"] = []
    for number, path in enumerate(pictures, 1):
        width, height = plan["frame"]
        frame = fit(load_image(path), width, height, how)
        name = f"start-{number:02}.png"
        Image.fromarray(frame).save(folder / name, optimize=True)
        plan["starts"].append({"file": name, "name": start_name(path).partition(":")[2]})
    (folder / "plan.json").write_text(json.dumps(plan, ensure_ascii=False, separators=(",", ":")), encoding="utf-8")
    for name in (*PAGE, *CORES):
        shutil.copyfile(SITE / name, folder / name)
    page = (SITE / "index.html").read_text(encoding="utf-8")
    (folder / "index.html").write_text(_titled(page, plan["title"]), encoding="utf-8")
    return plan


def _titled(page: str, title: str) -> str:
    return page.replace("<title>A world to play</title>", f"<title>{html.escape(title)}</title>")


def _bundled(*names: str) -> str:
    """Modules as one plain script: without their imports of each other, and without `export`.

    A page from disk may not start a worker that is a module."""
    text = "\n".join((SITE / name).read_text(encoding="utf-8") for name in names).replace("import.meta.url", '""')
    return re.sub(r"^export ", "", re.sub(r'^import .* from "\./.*";\n', "", text, flags=re.M), flags=re.M)


def _single(folder: Path, plan: dict[str, Any]) -> str:
    """The page with everything in it. Its policy names the hashes of its only script and style."""

    def coded(name: str) -> str:
        return base64.b64encode((folder / name).read_bytes()).decode()

    def policy(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    inside = {**plan, "starts": [
        {**start, "file": f"data:image/png;base64,{coded(start['file'])}"} for start in plan["starts"]
    ]}  # fmt: skip
    script = _bundled("genie.mjs", "keys.mjs", "link.mjs", "gif.mjs", "page.mjs")
    style = (SITE / "page.css").read_text(encoding="utf-8")
    rules = (
        f"default-src 'none'; script-src {policy(script)} 'wasm-unsafe-eval' blob:; worker-src blob:; "
        f"connect-src data: blob:; img-src data: blob:; style-src {policy(style)}; base-uri 'none'; form-action 'none'"
    )
    blocks = [
        ("plan", json.dumps(inside, ensure_ascii=True).replace("<", "\\u003c")),
        ("weights", coded("weights.bin")),
        *((name, coded(f"genie{name.removeprefix('wasm')}.wasm")) for name in ("wasm", "wasm-simd128")),
        ("worker-code", _bundled("genie.mjs", "worker.mjs")),
    ]
    data = "\n".join(f'<script type="text/plain" id="{name}">{text}</script>' for name, text in blocks)
    page = _titled((SITE / "index.html").read_text(encoding="utf-8"), plan["title"])
    page = re.sub(r'(http-equiv="Content-Security-Policy" content=)"[^"]*"', lambda m: f'{m[1]}"{rules}"', page)
    page = page.replace('<link rel="stylesheet" href="page.css">', f"<style>{style}</style>")
    page = page.replace('<script type="module" src="page.mjs"></script>\n', "")
    return page.replace("</body>", f'{data}\n<script type="module">{script}</script>\n</body>')
