"""Published worlds on this machine: each is fetched and converted once, then kept.

Under GENIE_CACHE (by default ~/.cache/genie_cpp):

    worlds/KEY/world.gguf, world/*.png, source.json     a conversion; KEY is a hash of its sources' hashes, its type and
                                                        the converter's version
    names/NAME.json                                     the KEY of a name, so that later starts need no network
    sources/NAME.json                                   what the first download listed: commit, sizes and hashes
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from genie_cpp.catalog import hub
from genie_cpp.catalog.hub import Listed, Listing
from genie_cpp.catalog.names import DEFAULT_TYPE, Published, Source
from genie_cpp.errors import CheckpointError, HubError
from genie_cpp.frames import MAX_PIXELS
from genie_cpp.leftovers import file_beside, folder_beside
from genie_cpp.version import __version__
from genie_cpp.words import one_line, quoted, size

Say = Callable[[str], None]


class Got(Protocol):
    """Is told of bytes that arrived, and how many there will be in all."""

    def __call__(self, count: int, total: int) -> None: ...


CHECKPOINTS = (".pt", ".pth", ".ckpt", ".safetensors", ".json", ".yaml")
_STARTS = 8  # pictures taken from a data set
_LIMIT = 1 << 20  # largest size of a record file in bytes


@dataclasses.dataclass(frozen=True)
class Kept:
    """A conversion on this machine."""

    name: str
    path: Path
    record: dict[str, Any]


def root() -> Path:
    """The cache folder."""
    return Path(os.environ.get("GENIE_CACHE") or Path.home() / ".cache" / "genie_cpp")


def kept() -> list[Kept]:
    """All conversions that have a name."""
    found = []
    for file in sorted((root() / "names").glob("*.json")):
        record = _read(file)
        path = root() / "worlds" / str(record.get("key", "")) / "world.gguf"
        if (
            isinstance(record.get("name"), str)
            and re.fullmatch("[0-9a-f]{16}", str(record.get("key")))
            and path.is_file()
        ):
            found.append(Kept(record["name"], path, _read(path.with_name("source.json"))))
    return found


def find(name: str) -> Kept | None:
    """The conversion with this name, if it is here and was made by this version."""
    found = next((one for one in kept() if one.name == name), None)
    return found if found is not None and found.record.get("version") == __version__ else None


def remove(name: str) -> bool:
    """Delete a conversion, but not the files in huggingface_hub's own cache. False if there is none."""
    found = next((one for one in kept() if one.name == name), None)
    if found is None:
        return False
    _name_file(name, "names").unlink(missing_ok=True)
    if all(other.path != found.path for other in kept()):
        shutil.rmtree(found.path.parent, ignore_errors=True)
    return True


def open_published(world: Published, say: Say, got: Got | None = None) -> Path:
    """The GGUF of a published world: the kept one, else fetched, checked and converted.

    say: gets progress in words. got: gets bytes as they come and, first, 0 and their total; without it a bar is drawn
    on stderr. Raises HubError, CheckpointError.
    """
    found = find(world.name)
    if found is not None:
        return found.path
    hub.library()
    from filelock import FileLock

    with _folders(world), FileLock(root() / "names" / f"{_slug(world.name)}.lock"):
        found = find(world.name)  # another process may have made it meanwhile
        return found.path if found is not None else _made(world, say, got)


def inputs(world: Published, say: Say) -> list[Path]:
    """The files or folders that genie-convert gets for a published world, fetched and checked. Raises HubError."""
    with _folders(world):
        return _inputs(*_fetched(world, say))


@contextlib.contextmanager
def _folders(world: Published) -> Iterator[None]:
    """Make the cache folders. An OSError while they are in use becomes a HubError."""
    try:
        for part in ("worlds", "names", "sources"):
            (root() / part).mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise HubError(
            f"{world.name} cannot be kept in {quoted(str(root()))}: {error.strerror or error}",
            "free some space there, or set GENIE_CACHE to another folder",
        ) from None


def _fetched(world: Published, say: Say, got: Got | None = None) -> tuple[list[Listing], list[list[Path]]]:
    listings = [_chosen(world, _listing(source)) for source in world.sources]
    total = sum(file.size for one in listings for file in one.files)
    say(f"{world.name}: {size(total)} to fetch" + (f", licence: {world.licence}" if world.licence else ""))
    piece = None
    if got is not None:
        got(0, total)
        piece = functools.partial(got, total=total)
    return listings, [[hub.fetch(one, file, piece) for file in one.files] for one in listings]


def _made(world: Published, say: Say, got: Got | None) -> Path:
    listings, paths = _fetched(world, say, got)
    ready = [path for one in paths for path in one if path.suffix == ".gguf"]
    type = "gguf" if ready else world.type or DEFAULT_TYPE
    seen = [[file.name, file.digest] for one in listings for file in one.files]
    key = hashlib.sha256(json.dumps([seen, type, world.family, __version__]).encode()).hexdigest()[:16]
    target = root() / "worlds" / key
    if not (target / "world.gguf").is_file():
        with _beside(target) as made:
            if ready:
                shutil.copyfile(ready[0], made / "world.gguf")
            else:
                say(f"{world.name}: converting to {type}, once")
                _convert(_inputs(listings, paths), made / "world.gguf", type, world.family, say)
            if world.frames is not None:
                _starts(world.frames, made / "world", say)
            sources = [
                {"repo": one.source.repo, "kind": one.source.kind, "commit": one.commit,
                 "files": {file.name: {"size": file.size, "digest": file.digest} for file in one.files}}
                for one in listings
            ]  # fmt: skip
            record = {"name": world.name, "type": type, "family": world.family, "licence": world.licence,
                      "version": __version__, "sources": sources}  # fmt: skip
            _write(made / "source.json", record)
    _write(_name_file(world.name, "names"), {"name": world.name, "key": key})
    return target / "world.gguf"


def _listing(source: Source) -> Listing:
    """The files of a source, as the hub lists them; offline, as they were listed before. The files of a commit never
    change, so a listing that differs from the earlier one of the same commit is an error."""
    record = _name_file(f"{source.kind}:{source.repo}@{source.revision or ''}", "sources")
    before = _recorded(source, _read(record))
    if hub.offline():
        if before is None:
            raise HubError(f"{source.repo} was not fetched before, and this is offline", "connect once to fetch it")
        return before
    now = hub.listing(source)
    if before is not None and before.commit == now.commit:
        old = {file.name: file for file in before.files}
        for file in now.files:
            if old.get(file.name, file) != file:
                raise HubError(
                    f"{quoted(file.name)} of {source.repo} has changed, although the commit has not",
                    f"that should not happen; to take it all the same remove {record}",
                )
    _write(record, {"commit": now.commit, "files": [dataclasses.astuple(file) for file in now.files]})
    return now


def _recorded(source: Source, data: dict[str, Any]) -> Listing | None:
    try:
        files = tuple(Listed(str(name), int(size), str(digest)) for name, size, digest in data["files"])
        return Listing(source, str(data["commit"]), files)
    except (KeyError, TypeError, ValueError):
        return None


def _chosen(world: Published, found: Listing) -> Listing:
    """Only the files that are needed. Raises HubError if it is not clear which."""
    source = found.source
    if source.files:
        return dataclasses.replace(found, files=hub.wanted(found))
    inside = [file for file in found.files if _below(file.name, source.folder)]
    ggufs = [file for file in inside if file.name.lower().endswith(".gguf")]
    if ggufs:
        fitting = [file for file in ggufs if world.type is None or world.type in file.name.lower().replace("-", "_")]
        fitting = ggufs if len(ggufs) == 1 else fitting
        if len(fitting) != 1:
            names = ", ".join(quoted(PurePosixPath(file.name).name)[1:-1] for file in ggufs[:6])
            raise HubError(
                f"{source.repo} has {len(ggufs)} GGUFs, {len(fitting)} of them of that kind: {names}",
                f"say which: hf:{source.repo}:TYPE, or with its folder",
            )
        return dataclasses.replace(found, files=tuple(fitting))
    files = tuple(file for file in inside if PurePosixPath(file.name).suffix.lower() in CHECKPOINTS)
    weights = [file for file in files if PurePosixPath(file.name).suffix.lower() not in (".json", ".yaml")]
    if not weights:
        where = f"{source.repo}/{source.folder}" if source.folder else source.repo
        raise HubError(f"{where} has neither a GGUF nor a checkpoint", "is it a world model's repository?")
    folders = {str(PurePosixPath(file.name).parent) for file in weights}
    if len(folders) > 1 and not any(
        PurePosixPath(file.name).parent == PurePosixPath(source.folder) for file in weights
    ):
        raise HubError(
            f"{source.repo} has several folders with weights: {', '.join(sorted(folders)[:8])}",
            f"say which: hf:{source.repo}/FOLDER",
        )
    return dataclasses.replace(found, files=files)


def _below(name: str, folder: str) -> bool:
    return not folder or name == folder or name.startswith(f"{folder}/")


def _inputs(listings: Sequence[Listing], paths: Sequence[list[Path]]) -> list[Path]:
    """What genie-convert gets: the whole folder if a source names no files, else the files."""
    found: list[Path] = []
    for one, files in zip(listings, paths, strict=True):
        if one.source.files:
            # genie-convert takes a folder with config.json as a whole.
            whole = [path for path in files if path.name == "config.json"]
            found += [whole[0].parent] if whole else files
        else:
            top = files[0]
            for _ in PurePosixPath(one.files[0].name).parts:
                top = top.parent
            found.append(top / one.source.folder if one.source.folder else top)
    return found


def _convert(paths: Sequence[Path], output: Path, type: str, family: str | None, say: Say) -> None:
    """Convert in a separate process, so that playing does not need PyTorch. Raises CheckpointError with its message."""
    if getattr(sys, "frozen", False):  # there is no Python executable, only this program itself
        raise HubError("a packed program cannot convert", "convert it with genie-convert, and open the GGUF")
    code = "from genie_cpp.cli.main import main_convert; main_convert()"
    words = [sys.executable, "-c", code, *map(str, paths), "-o", str(output), "-t", type]
    ran = subprocess.run(words + (["--family", family] if family else []), capture_output=True, text=True)
    if ran.returncode:
        said = dict(line.split(": ", 1) for line in ran.stderr.splitlines() if line.startswith(("error: ", "hint: ")))
        raise CheckpointError(
            said.get("error", f"converting ended with exit code {ran.returncode}"),
            said.get("hint", "try genie-convert"),
        )
    for line in ran.stderr.splitlines():
        if line.startswith(("recognised ", "assumed ")):
            say(line)


def _starts(source: Source, folder: Path, say: Say) -> None:
    """Pick frames spread over a data set as start pictures. If that fails there are none, and `say` reports it."""
    try:
        import h5py
        import numpy as np
        from PIL import Image

        found = _chosen_frames(source)
        say(f"start pictures: {size(found.files[0].size)} to fetch of {source.repo}")
        path = hub.fetch(found, found.files[0])
        with h5py.File(path, "r") as file:
            frames = file["frames"]
            ok = frames.ndim == 4 and frames.shape[3] == 3 and frames.dtype == np.uint8 and len(frames) > 0
            if not ok or frames.shape[1] * frames.shape[2] > MAX_PIXELS:
                raise HubError(f"{source.files[0]} has no frames [N, H, W, 3]", "start from a picture of your own")
            places = sorted({int(i) for i in np.linspace(0, len(frames) - 1, _STARTS + 2)[1:-1]})
            pictures = [np.asarray(frames[place]) for place in places]
    except (HubError, ImportError, OSError, KeyError, AttributeError) as error:
        say(f"no start pictures ({one_line(error)}): give --prompt-frame, or remove the world and open it again")
        return
    folder.mkdir()
    for number, (place, picture) in enumerate(zip(places, pictures, strict=True)):
        Image.fromarray(picture).save(folder / f"{number + 1:02}-frame-{place}.png")


def _chosen_frames(source: Source) -> Listing:
    found = hub.listing(source)
    return dataclasses.replace(found, files=hub.wanted(found))


@contextlib.contextmanager
def _beside(target: Path) -> Iterator[Path]:
    """A folder that becomes `target` if the body succeeds, and is deleted if it does not."""
    made = folder_beside(target)
    try:
        yield made
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(target)
        os.replace(made, target)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _slug(name: str) -> str:
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{re.sub(r'[^A-Za-z0-9]+', '-', name).strip('-')[:60]}-{digest}"


def _name_file(name: str, part: str) -> Path:
    return root() / part / f"{_slug(name)}.json"


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            data = json.loads(file.read(_LIMIT))
    except (OSError, ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}


def _write(path: Path, data: dict[str, Any]) -> None:
    part = file_beside(path)
    part.write_text(json.dumps(data, indent=1), encoding="utf-8")
    os.replace(part, path)
