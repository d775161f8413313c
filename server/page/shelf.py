"""The worlds that the page offers: the ones it was started with, bundled ones, those kept here, and published ones."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from genie_cpp.catalog import fetched, listing, names
from genie_cpp.catalog.bundled import locate, start_name, starts
from genie_cpp.errors import GenieError, ModelError, StateError
from genie_cpp.frames import fit, load_image
from genie_cpp.model import Model
from genie_cpp.play.session import Prompt, png
from genie_cpp.words import quoted

Opener = Callable[[str], Model]


@dataclass
class Fetch:
    """A world that is being fetched, in a thread of its own."""

    words: str = ""
    done: int = 0
    total: int = 0
    error: GenieError | None = None
    ready: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    def got(self, count: int, total: int) -> None:
        with self.lock:
            self.done, self.total = min(self.done + count, total), total

    def say(self, text: str) -> None:
        self.words = text


class Shelf:
    """Thread-safe. Worlds that were opened later are closed when no player has them any more."""

    def __init__(
        self,
        models: Sequence[Model],
        prompts: Sequence[Prompt | None],
        opener: Opener | None = None,
        fetches: bool = False,
    ) -> None:
        """opener: opens further worlds by name; None: there are none but `models`. fetches: published ones too."""
        self.fetches = fetches and opener is not None
        self._opener = opener
        self._given: dict[str, tuple[Model, Prompt | None]] = {}
        for model, prompt in zip(models, prompts, strict=True):
            name, number = model.reference, 2
            while name in self._given:  # the same file twice
                name, number = f"{model.reference} #{number}", number + 1
            self._given[name] = model, prompt
        self._open: weakref.WeakValueDictionary[str, Model] = weakref.WeakValueDictionary()
        self._fetching: dict[str, Fetch] = {}
        self._lock = threading.Lock()
        self._opening = threading.Lock()

    def rows(self) -> list[dict[str, Any]]:
        """For each world: name, title, about, licence, bytes, and whether it is "here" or "published"."""
        found = [self._given_row(name) for name in self._given]
        if self._opener is None:
            return found
        for row in listing.rows():
            if row["name"] in self._given or (row["state"] == listing.PUBLISHED and not self.fetches):
                continue
            here = row["state"] != listing.PUBLISHED
            found.append(
                {
                    "name": row["name"],
                    "title": row["name"],
                    "about": row["description"],
                    "license": row["license"],
                    "bytes": row.get("bytes", 0),
                    "state": "here" if here else "published",
                    "starts": row.get("starts", 0),
                    "from": ", ".join(row.get("sources", ())),
                }
            )
        return found

    def _given_row(self, name: str) -> dict[str, Any]:
        model, prompt = self._given[name]
        return {
            "name": name,
            "title": model.called or model.name,
            "about": str(model.metadata.get("general.description", "")),
            "license": str(model.metadata.get("general.license", "none stated")),
            "bytes": model.path.stat().st_size if model.path.is_file() else 0,
            "state": "here",
            "starts": len(model.starts) or int(prompt is not None),
            "from": "",
        }

    @property
    def first(self) -> str:
        return next(iter(self._given))

    def open(self, name: str) -> tuple[Model, Prompt | None]:
        """A world that is here, and what it starts from. Raises StateError for any other, and what `Model.open`
        raises."""
        if name in self._given:
            return self._given[name]
        opener = self._known(name)
        with self._opening:
            model = self._open.get(name)
            if model is None:
                model = self._open[name] = opener(name)
        return model, Prompt.beside(model)

    def _known(self, name: str) -> Opener:
        if self._opener is None or not any(row["name"] == name and row["state"] == "here" for row in self.rows()):
            raise StateError(f"there is no world {quoted(name)} here", "choose one of the list")
        return self._opener

    def fetch(self, name: str) -> Fetch:
        """Begin to fetch a published world, or look how far it is. Raises StateError, and once what went wrong."""
        published = names.parse(name) if self.fetches and name in names.aliases() else None
        if published is None:
            raise StateError(f"there is no world {quoted(name)} to fetch", "choose one of the list")
        with self._lock:
            now = self._fetching.get(name)
            if now is not None and (now.ready or now.error is not None):
                del self._fetching[name]
                if now.error is not None:
                    raise now.error
                return now
            if now is None:
                now = self._fetching[name] = Fetch()
                threading.Thread(target=self._get, args=(published, now), daemon=True).start()
        return now

    def _get(self, published: names.Published, now: Fetch) -> None:
        try:
            fetched.open_published(published, now.say, now.got)
            now.ready = True
        except GenieError as error:
            now.error = error
        except Exception as error:  # a thread that dies would leave the page waiting
            now.error = ModelError(f"{published.name} could not be fetched: {type(error).__name__}: {error}")

    def start_names(self, name: str) -> list[str]:
        """The start pictures of a world that is here, first the one it starts from. Raises StateError."""
        prompt = self._given[name][1] if name in self._given else None
        own = [start_name(path) for path in self._pictures(name)]
        return own if prompt is None or prompt.path in own else ["", *own]

    def start(self, name: str, number: int) -> Prompt:
        """One of `start_names`. Raises StateError, ImageError."""
        found = self.start_names(name)
        if not 0 <= number < len(found):
            raise StateError("this world has no such start picture")
        if not found[number]:  # the picture that genie-play was given
            prompt = self._given[name][1]
            assert prompt is not None
            return prompt
        path = self._pictures(name)[number - (found[0] == "")]
        return Prompt(load_image(path), start_name(path))

    def thumbnail(self, name: str, number: int, size: int = 160) -> bytes:
        """A start picture, `size` pixels wide at most, as PNG. Raises StateError, ImageError."""
        picture = self.start(name, number).picture
        height, width = picture.shape[:2]
        scale = min(1.0, size / width)
        return png(fit(picture, max(1, round(width * scale)), max(1, round(height * scale))))

    def _pictures(self, name: str) -> list[Path]:
        if name in self._given:
            return self._given[name][0].starts
        self._known(name)
        return starts(locate(name)[0])
