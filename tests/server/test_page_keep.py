"""Nothing that was played is lost: a reload, a second tab, a server that stops, a tab that is closed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from page_play import PICTURE, at, choose, needs_chromium, now, pixels, tap, until

from genie_cpp import Model

pytest.importorskip("fastapi")
pytest.importorskip("playwright")
from genie_cpp.play.session import Prompt
from genie_cpp.server.common.limits import Limits
from genie_cpp.server.page.shelf import Shelf
from genie_cpp.server.run import listen, server

pytestmark = needs_chromium


class Server:
    """A server that stops and comes back at the same port, without what it knew."""

    def __init__(self, model: Model) -> None:
        self.model, self.port = model, 0
        self.start()

    def start(self) -> None:
        listener = listen(self.port)
        listener.listen(8)
        self.port = listener.getsockname()[1]
        self._runner = server(Shelf([self.model], [Prompt(PICTURE)]), Limits(sessions=4))
        self._thread = threading.Thread(target=self._runner.run, kwargs={"sockets": [listener]})
        self._thread.start()

    def stop(self) -> None:
        self._runner.should_exit = True
        self._thread.join(20)
        assert not self._thread.is_alive()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}/"


@pytest.fixture
def service(model: Model) -> Iterator[Server]:
    one = Server(model)
    yield one
    one.stop()


def played(page: Any) -> None:
    page.wait_for_selector("#veil", state="hidden")
    tap(page, "1", "2", "0")
    page.keyboard.press("b")
    page.locator("#marks li").wait_for()


def kept(page: Any, depth: int, marks: int = 1) -> None:
    """Waits until this browser holds the session up to a frame, with its bookmarks."""
    held = """async () => {
      const open = indexedDB.open("genie");
      await new Promise((done) => (open.onsuccess = done));
      const all = open.result.transaction("plays").objectStore("plays").getAll();
      await new Promise((done) => (all.onsuccess = done));
      open.result.close();
      return all.result.map((play) => [play.depth + (play.journal?.length ?? 0), play.marks]);
    }"""
    until(lambda: [depth, marks] in page.evaluate(held), "the session is not kept")


def test_a_reload_goes_on_where_it_was(page: Any) -> None:
    played(page)
    page.keyboard.press("Backspace")
    at(page, 2, 3)
    there = pixels(page)
    page.reload()
    at(page, 2, 3)
    assert pixels(page) == there and page.locator("#marks li").count() == 1
    assert page.locator("#strip button").count() == 4
    page.goto("about:blank")
    page.go_back()
    at(page, 2, 3)
    tap(page, "1")


def test_a_second_tab_takes_the_game_over_and_gives_it_back(page: Any) -> None:
    played(page)
    there = pixels(page)
    other = page.context.new_page()
    player = page.evaluate("sessionStorage.getItem('genie.player')")
    other.add_init_script(f"sessionStorage.setItem('genie.player', '{player}')")  # as when a tab is duplicated
    other.goto(page.url)
    at(other, 3)
    assert pixels(other) == there
    page.locator("#veil-text:has-text('goes on in another tab')").wait_for()
    tap(other, "1")
    page.click("#veil-button")
    at(page, 4)
    other.locator("#veil-text:has-text('goes on in another tab')").wait_for()
    other.close()


def test_a_server_that_stops_and_comes_back(browser: Any, service: Server) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.goto(service.address)
    played(page)
    kept(page, 3)
    tap(page, "1", "1")
    there = pixels(page)
    kept(page, 5)  # the last two are in no saved session yet, or in one
    page.select_option("#idle", "2")
    until(lambda: now(page)[0] > 6)
    page.select_option("#idle", "")
    last = now(page)[0]
    service.stop()
    page.locator("#veil-text:has-text('The connection is closed')").wait_for()
    page.click("#theme")  # it still answers
    service.start()
    page.wait_for_selector("#veil", state="hidden")  # it connects by itself, and plays it all again
    until(lambda: now(page)[0] >= last)
    assert page.locator("#marks li").count() == 1 and page.inner_text("#state") == ""
    page.keyboard.press("Escape")
    page.locator("#strip button").nth(5).click()
    until(lambda: now(page)[0] == 5)
    assert pixels(page) == there
    # A tab that was closed is offered to the next one.
    page.close()
    other = context.new_page()
    other.goto(service.address)
    other.wait_for_selector("#veil", state="hidden")
    assert now(other) == (0, 0)
    earlier = other.locator("#earlier li")
    earlier.first.wait_for()
    earlier.first.locator("button").first.click()
    until(lambda: now(other)[1] >= last)
    assert other.locator("#marks li").count() == 1
    context.close()


def test_without_storage_it_plays_and_warns_before_leaving(browser: Any, address: str) -> None:
    context = browser.new_context()
    context.add_init_script(
        "Object.defineProperty(window, 'indexedDB', { value: { open() { throw new Error('none') } } })"
    )
    page = context.new_page()
    page.goto(address)
    played(page)
    page.wait_for_timeout(400)  # it tries to keep the session
    asked: list[str] = []
    page.on("dialog", lambda dialog: (asked.append(dialog.type), dialog.accept()))
    page.reload()
    assert asked == ["beforeunload"]
    at(page, 3)  # the server still knows it
    context.close()


def test_a_world_without_a_picture_is_left_and_found_again(page: Any) -> None:
    choose(page, 1)
    page.locator("#veil-text:has-text('Drop a picture')").wait_for()
    page.reload()
    page.locator("#veil-text:has-text('Drop a picture')").wait_for()
    choose(page, 0)
    at(page, 0)
