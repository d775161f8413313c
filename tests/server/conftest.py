"""Fixtures of the tests of the page. What belongs to an extra is imported when it is used."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from page_play import CHROMIUM, PICTURE
from PIL import Image

from genie_cpp import Model
from genie_cpp.play.session import Prompt

FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


@pytest.fixture(scope="module")
def model(tiny_gguf) -> Model:  # type: ignore[no-untyped-def]
    return Model.open(tiny_gguf("q8_0"), threads=1)


@pytest.fixture(scope="module")
def address(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    from genie_cpp.server.common.limits import Limits
    from genie_cpp.server.page.shelf import Shelf
    from genie_cpp.server.run import listen, server

    path = tmp_path_factory.mktemp("prompt") / "p.png"
    Image.fromarray(PICTURE).save(path)
    listener = listen(0)
    listener.listen(8)
    shelf = Shelf([model, model], [Prompt.load(path), None])
    runner = server(shelf, Limits(sessions=40, picture_bytes=50_000, linger_seconds=20))
    thread = threading.Thread(target=runner.run, kwargs={"sockets": [listener]})
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
    runner.should_exit = True
    thread.join(20)
    assert not thread.is_alive()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright import sync_api

    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any, address: str, request: pytest.FixtureRequest) -> Iterator[Any]:
    """The page, with its world at the prompt. Checks at the end that no script failed and no other server was asked."""
    context = browser.new_context(viewport=getattr(request, "param", {"width": 1200, "height": 900}))
    page, faults = context.new_page(), []
    page.on("pageerror", lambda error: faults.append(str(error)))
    # A thumbnail requested just before another model was chosen no longer exists: the page drops it.
    page.on(
        "console",
        lambda m: (
            m.type == "error" and not ("404" in m.text and "/sessions/" in m.location["url"]) and faults.append(m.text)
        ),
    )
    page.on("request", lambda r: r.url.startswith((address, "data:", "blob:")) or faults.append(r.url))
    page.goto(address)
    page.wait_for_selector("#veil", state="hidden")
    yield page
    context.close()
    assert faults == []
