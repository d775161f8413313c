"""Worlds by name, bundled or published, and the pictures that a world can start from."""

from __future__ import annotations

import difflib
import re
import sys
from pathlib import Path

from genie_cpp.catalog import names
from genie_cpp.errors import ImageError, ModelError
from genie_cpp.words import quoted

DEFAULT = "meadow"
START = "start:"


def bundled() -> dict[str, Path]:
    """Name -> file of each bundled world, the default first. Raises ModelError if the package has none."""
    import genie_cpp

    found = {file.stem: file for folder in genie_cpp.__path__ for file in Path(folder, "data").glob("*.gguf")}
    if not found:
        raise ModelError("the bundled worlds are not installed", "give a model with -m world.gguf")
    return {name: found[name] for name in sorted(found, key=lambda name: (name != DEFAULT, name))}


def locate(model: str | Path | None) -> tuple[Path, str | None]:
    """What `-m` means, as (file, the name it was asked by or None for a path). None means the default world.

    A bare name means the bundled world even if a file has that name, so that it means the same in every folder
    (`./maze` is a file). A published world (names.py) is fetched and converted the first time. Raises ModelError if it
    is neither a world's name nor a file; HubError, CheckpointError for a published world.
    """
    if model is None:
        name, path = next(iter(bundled().items()))
        return path, name
    text, path = str(model), Path(model)
    worlds = bundled() if text == path.name and not path.suffix else {}
    if isinstance(model, str) and text in worlds:
        return worlds[text], text
    if isinstance(model, str) and not path.exists() and (published := names.parse(text)) is not None:
        from genie_cpp.catalog import fetched  # only a world that is not bundled needs the network's modules

        return fetched.open_published(published, _say), text
    if worlds and not path.exists():
        near = difflib.get_close_matches(text, [*worlds, *names.aliases()], 3, 0.5)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise ModelError(
            f"there is no world called {quoted(text)}, and no such file",
            f"{hint}bundled worlds: {', '.join(worlds)}; published ones: genie-cpp worlds; or give a path, world.gguf",
        )
    return path, None


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def starts(model: Path) -> list[Path]:
    """Pictures that a model can start from: world.png beside world.gguf, then those in the folder world/, by name."""
    from genie_cpp.frames import FORMATS  # Pillow, which opening a model does without

    endings = {f".{name.lower()}" for name in FORMATS} | {".jpg"}
    single, folder = model.with_suffix(".png"), model.with_suffix("")
    try:
        found = sorted(folder.iterdir()) if folder.is_dir() and folder != model else []
    except OSError:  # perhaps we have no permission to read the folder
        found = []
    return [p for p in (single, *found) if p.suffix.lower() in endings and p.is_file()]


def start_name(path: Path) -> str:
    """The name `--prompt-frame` uses for a start picture of a model: "start:village". The same in any folder."""
    return START + re.sub(r"^\d+-", "", path.stem)


def find_start(model: Path, name: str) -> Path:
    """The start picture with this name, with or without "start:". Raises ImageError, which lists the existing names."""
    found = {start_name(path).removeprefix(START): path for path in starts(model)}
    if (wanted := name.removeprefix(START)) not in found:
        names = ", ".join(found) or "it has none"
        raise ImageError(f"this world has no start picture called {quoted(wanted)}", f"its start pictures: {names}")
    return found[wanted]
