"""The page's keyboard: every layout, the mouse beside it, and what is not to be lost by one key."""

from __future__ import annotations

import time
from typing import Any

import pytest
from page_play import OTHER, PRESS, at, choose, needs_chromium, now, pixels, png, tap, until

pytest.importorskip("fastapi")
pytest.importorskip("playwright")

pytestmark = needs_chromium


@pytest.mark.parametrize(
    ("key", "code", "action"),
    [
        ("в", "KeyD", 1), ("ф", "KeyA", 0), ("ц", "KeyW", 2),  # Russian
        ("δ", "KeyD", 1), ("ש", "KeyA", 0),  # Greek, Hebrew
        ("&", "Digit1", 1), ("é", "Digit2", 2),  # French, without Shift
        ("d", "KeyX", 1),  # what is written comes first
    ],
)  # fmt: skip
def test_letters_of_other_layouts_count_by_their_place(page: Any, key: str, code: str, action: int) -> None:
    page.evaluate(PRESS, [key, code])
    at(page, 1)
    there = pixels(page)
    page.click("#reset")
    at(page, 0)
    page.click(f"#pad [data-action='{action}']")
    at(page, 1)
    assert pixels(page) == there


def test_controls_count_by_their_place_too(page: Any) -> None:
    page.evaluate(PRESS, ["з", "KeyP"])
    until(lambda: page.inner_text("#state") == "paused")
    page.evaluate(PRESS, ["з", "KeyP"])
    until(lambda: page.inner_text("#state") == "")
    tap(page, "1")
    page.evaluate(PRESS, ["и", "KeyB"])
    page.locator("#marks li").wait_for()


def test_space_after_a_click_pauses(page: Any) -> None:
    tap(page, "1", "2", "0")
    for button in ("#reset", "#record", "#mark"):
        page.click(button)
        at(page, 0)
        shown = now(page)
        page.keyboard.press("Space")
        until(lambda: page.get_attribute("#pause", "aria-pressed") == "true")
        assert now(page) == shown
        page.keyboard.press("Space")
        until(lambda: page.get_attribute("#pause", "aria-pressed") == "false")


def test_enter_in_the_seed_gives_the_keys_back(page: Any) -> None:
    tap(page, "1")
    page.fill("#seed", "7")
    page.keyboard.press("Enter")
    at(page, 0)
    tap(page, "2")
    assert page.input_value("#seed") == "7"


def test_starting_again_can_be_undone(page: Any) -> None:
    tap(page, "1", "2", "0")
    there = pixels(page)
    page.keyboard.press("Backspace")
    at(page, 2, 3)
    page.keyboard.press("r")
    at(page, 0)
    page.locator("#message:has-text('Started again')").wait_for()
    page.get_by_role("button", name="Undo").click()
    at(page, 2, 3)
    page.locator("#scrub").focus()
    page.keyboard.press("End")
    at(page, 3)
    assert pixels(page) == there
    page.locator("#screen").focus()
    tap(page, "1")


def test_a_hidden_tab_does_not_go_on_by_itself(page: Any) -> None:
    page.select_option("#idle", "1")
    until(lambda: now(page)[0] > 2)
    page.evaluate(
        "Object.defineProperty(document, 'hidden', { value: true, configurable: true });"
        "document.dispatchEvent(new Event('visibilitychange', { bubbles: true }))"
    )
    time.sleep(0.5)
    shown = now(page)
    time.sleep(0.5)
    assert now(page) == shown
    page.evaluate(
        "Object.defineProperty(document, 'hidden', { value: false, configurable: true });"
        "document.dispatchEvent(new Event('visibilitychange', { bubbles: true }))"
    )
    until(lambda: now(page)[0] > shown[0])


def test_switching_worlds_keeps_the_play_of_each(page: Any) -> None:
    """Frames are numbered anew in each session; the browser keeps pictures by their address."""
    tap(page, "1", "2")
    page.keyboard.press("b")
    page.locator("#marks li").wait_for()
    there, first = pixels(page), page.locator("#strip img").first.get_attribute("src")
    choose(page, 1)
    page.locator("#veil-text:has-text('Drop a picture')").wait_for()
    page.set_input_files("#file", files=[{"name": "p.png", "mimeType": "image/png", "buffer": png(OTHER)}])
    at(page, 0)
    assert page.locator("#marks li").count() == 0
    second = page.locator("#strip img").first.get_attribute("src")
    assert first is not None and second is not None and first.split("/")[2] != second.split("/")[2]
    tap(page, "1", "1", "1")
    choose(page, 0)
    at(page, 2)
    assert pixels(page) == there and page.locator("#marks li").count() == 1
    assert page.locator("#strip img").first.get_attribute("src") == first
    choose(page, 1)
    at(page, 3)


def test_the_keyboard_alone_reaches_everything(page: Any) -> None:
    page.locator("#screen").focus()
    seen = set()
    for _ in range(70):
        page.keyboard.press("Tab")
        seen.add(page.evaluate("document.activeElement.id || document.activeElement.dataset.action"))
    wanted = {
        "world-button", "help-button", "theme", "screen", "smooth", "theatre", "fullscreen", "scrub", "reset", "rewind",
        "pause", "step", "mark", "record", "idle", "keys-button", "0", "1", "2", "steps", "temperature", "limit",
        "seed", "dice", "choose", "draw-button", "save", "open", "surprise", "ground", "compare", "compare-world",
        "explain", "copy-frame", "scale",
    }  # fmt: skip
    assert wanted <= seen, wanted - seen
    page.locator("#pad button").nth(1).focus()
    page.keyboard.press("Enter")
    at(page, 1)
    page.locator("#step").focus()
    page.keyboard.press("Space")  # presses the button instead of pausing
    at(page, 2)
    assert page.inner_text("#state") == ""
