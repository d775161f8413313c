"""Files of the Hugging Face hub, through its own library (its cache, variables, progress bars). Every byte is checked.

Each file is checked against the hash that the hub lists: SHA-256 for large files, git's hash for small ones. The
library itself accepts wrong bytes of the right length, also from its cache.
"""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import hashlib
import importlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from genie_cpp.catalog.names import Source
from genie_cpp.errors import HubError
from genie_cpp.words import one_line, quoted

INSTALL = "pip install 'genie_cpp[hub]'"


@dataclass(frozen=True)
class Listed:
    """A file as the hub lists it. digest: "sha256:…" for a large file, "git:…" for a small one."""

    name: str
    size: int
    digest: str


@dataclass(frozen=True)
class Listing:
    """All files of a source. commit: the full hash of the revision."""

    source: Source
    commit: str
    files: tuple[Listed, ...]


def library() -> Any:
    """huggingface_hub. Raises HubError if it is not installed."""
    try:
        importlib.import_module("huggingface_hub.errors")
        return importlib.import_module("huggingface_hub")
    except ImportError:
        raise HubError("fetching a world needs huggingface_hub, which is not installed", INSTALL) from None


def offline() -> bool:
    """Whether the network must not be used (HF_HUB_OFFLINE, --offline)."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def listing(source: Source) -> Listing:
    """The files that a source has now, asked of the hub. Raises HubError."""
    api = library().HfApi()
    with _told(source):
        info = api.repo_info(source.repo, repo_type=source.kind, revision=source.revision)
        tree = list(api.list_repo_tree(source.repo, recursive=True, repo_type=source.kind, revision=info.sha))
    files = []
    for entry in tree:
        if getattr(entry, "blob_id", None) is None:  # a folder
            continue
        path = PurePosixPath(entry.path)
        if path.is_absolute() or ".." in path.parts or "\\" in entry.path or ":" in entry.path:
            raise HubError(f"{source.repo} lists a file {quoted(entry.path)}, not a safe name", "it is refused")
        lfs = getattr(entry, "lfs", None)
        digest = f"sha256:{lfs.sha256}" if lfs is not None else f"git:{entry.blob_id}"
        files.append(Listed(entry.path, int(entry.size), digest))
    return Listing(source, str(info.sha), tuple(files))


def wanted(found: Listing) -> tuple[Listed, ...]:
    """The files that match the source's names and patterns. Raises HubError if one matches nothing."""
    chosen: dict[str, Listed] = {}
    for pattern in found.source.files:
        matches = [file for file in found.files if fnmatch.fnmatchcase(file.name, pattern)]
        if not matches:
            raise HubError(
                f"{found.source.repo} has no {quoted(pattern)}",
                "the repository is not what this version knows; convert its files with genie-convert",
            )
        chosen |= {file.name: file for file in matches}
    return tuple(chosen.values())


def fetch(found: Listing, file: Listed, got: Callable[[int], None] | None = None) -> Path:
    """One complete file with the hash that the hub lists. A damaged file is fetched once more.

    got: is told the bytes of each piece, instead of a bar on stderr. Raises HubError.
    """
    hub, source = library(), found.source
    bar = None if got is None else _bar(got)
    for again in (False, True):
        with _told(source):
            path = Path(
                hub.hf_hub_download(
                    source.repo, file.name, repo_type=source.kind, revision=found.commit, force_download=again,
                    local_files_only=offline(), tqdm_class=bar,
                )
            )  # fmt: skip
        if _digest(path, file.digest) == file.digest:
            return path
        if offline():
            break
    raise HubError(
        f"{quoted(file.name)} of {source.repo} has other bytes than the hub lists, "
        + ("and offline it cannot be fetched anew" if offline() else "twice"),
        "try again later; if it stays so, tell the repository's owner",
    )


def _bar(got: Callable[[int], None]) -> Any:
    """A progress bar that shows nothing and tells `got`."""

    class Bar(importlib.import_module("tqdm").tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **more: Any) -> None:
            more["disable"] = True
            super().__init__(*args, **{name: more[name] for name in ("total", "disable", "initial") if name in more})
            got(int(more.get("initial") or 0))

        def update(self, n: float | None = 1) -> None:
            got(int(n or 0))

    return Bar


def _digest(path: Path, like: str) -> str:
    kind = like.partition(":")[0]
    # git's hash covers a header before the file's bytes.
    digest = hashlib.sha256() if kind == "sha256" else hashlib.sha1(usedforsecurity=False)
    if kind == "git":
        digest.update(f"blob {path.stat().st_size}\0".encode())
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return f"{kind}:{digest.hexdigest()}"


@contextlib.contextmanager
def _told(source: Source) -> Iterator[None]:
    """Turn the library's many errors into a HubError of one line, with a hint."""
    errors = library().errors
    where = f"https://huggingface.co/{'datasets/' if source.kind == 'dataset' else ''}{source.repo}"
    try:
        yield
    except errors.GatedRepoError:
        raise HubError(f"{source.repo} is gated", f"ask for access at {where}, then: hf auth login") from None
    except errors.RevisionNotFoundError:
        raise HubError(f"{source.repo} has no revision {quoted(str(source.revision))}", f"see {where}") from None
    except errors.RepositoryNotFoundError:
        raise HubError(
            f"there is no {source.kind} {source.repo} on the hub, or it is private",
            "check the name; for a private one: hf auth login",
        ) from None
    except (errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError):
        what = "this is offline" if offline() else "the hub cannot be reached"
        raise HubError(f"{source.repo} was not fetched before, and {what}", "connect once to fetch it") from None
    except errors.EntryNotFoundError as error:
        raise HubError(f"a file of {source.repo} is not there any more: {one_line(error)}", f"see {where}") from None
    except errors.HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        if status == 401:
            raise HubError(f"the hub asks who wants {source.repo}", "hf auth login, or set HF_TOKEN") from None
        if status == 429:
            wait = error.response.headers.get("Retry-After", "")
            after = f"in {wait} s" if wait.isdigit() else "in some minutes"
            raise HubError("the hub has had too many requests from here", f"try again {after}") from None
        raise HubError(f"the hub answers {status} for {source.repo}", "try again later") from None
    except (errors.HTTPError, ConnectionError, TimeoutError) as error:
        raise HubError(f"the hub cannot be reached: {one_line(error)}", "check the connection and try again") from None
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise HubError(
                f"there is no space left for {source.repo}", "free some, or set HF_HOME to another disk"
            ) from None
        raise HubError(
            f"{source.repo} cannot be fetched: {one_line(error)}", "try again; what was fetched is kept"
        ) from None
