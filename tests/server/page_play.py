"""What tests of the page share: what a player sees and does, read off a real browser."""

from __future__ import annotations

import base64
import io
import shutil
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

CHROMIUM = shutil.which("chromium")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed: apt-get install chromium")
PICTURE = np.random.default_rng(3).integers(0, 256, (16, 16, 3), np.uint8)
OTHER = np.random.default_rng(4).integers(0, 256, (16, 16, 3), np.uint8)


def png(picture: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(picture).save(out, "PNG")
    return out.getvalue()


def now(page: Any) -> tuple[int, int]:
    """(index of the frame shown, index of the last)."""
    shown, last = page.inner_text("#position").split(" / ")
    return int(shown), int(last)


def until(true: Callable[[], bool], what: str = "") -> None:
    deadline = time.monotonic() + 15
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def at(page: Any, shown: int, last: int | None = None) -> None:
    want = (shown, shown if last is None else last)
    until(lambda: now(page) == want, f"{want} was awaited, {now(page)} is shown")


def pixels(page: Any, selector: str = "#screen") -> list[Any]:
    text = page.eval_on_selector(selector, "canvas => canvas.toDataURL('image/png')")
    image = Image.open(io.BytesIO(base64.b64decode(text.split(",")[1])))
    return np.asarray(image.convert("RGB")).tolist()


PRESS = """([key, code]) => {
  const how = { key, code, bubbles: true, cancelable: true };
  for (const kind of ["keydown", "keyup"]) document.activeElement.dispatchEvent(new KeyboardEvent(kind, how));
}"""


def tap(page: Any, *keys: str) -> None:
    """Each key down and up at once, however busy the machine is: a key held for longer asks for more frames."""
    for key in keys:
        shown = now(page)[0]
        page.evaluate(PRESS, [key, key])
        at(page, shown + 1)


def steady(page: Any) -> int:
    """The frame shown, once it has not changed for a while."""
    shown = now(page)[0]
    while True:
        time.sleep(0.3)
        if now(page)[0] == shown:
            return shown
        shown = now(page)[0]


def choose(page: Any, world: int) -> None:
    """Choose a world by its place in the list."""
    page.click("#world-button")
    page.locator("#worlds-list .world").nth(world).locator("button").click()
