"""Every key and button of the page, in a real browser, on a tiny world whose frames are known."""

from __future__ import annotations

import base64
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from page_play import OTHER, PICTURE, at, choose, needs_chromium, now, pixels, steady, tap, until
from PIL import Image

from genie_cpp import Model, World
from genie_cpp.frames import fit
from genie_cpp.play.recipe import read

pytest.importorskip("fastapi")
pytest.importorskip("playwright")

pytestmark = needs_chromium


def test_keys_are_the_latent_actions(page: Any, model: Model) -> None:
    world = World(model)
    assert pixels(page) == world.reset(fit(PICTURE, 16, 16), 0).tolist()
    for key, action in (
        ("ArrowLeft", 0), ("ArrowRight", 1), ("ArrowUp", 2), ("a", 0), ("d", 1), ("w", 2), ("0", 0), ("1", 1), ("2", 2),
        ("D", 1),
    ):  # fmt: skip
        tap(page, key)
        assert pixels(page) == world.step(action).tolist(), key
    for key in ("3", "s", "ArrowDown", "x", "Control+a"):  # not an action of this model
        page.keyboard.press(key)
    assert steady(page) == 10
    assert float(page.inner_text("#fps")) > 0
    assert re.match(r"\d+ ms\s+median \d+", page.inner_text("#latency"))
    assert len(re.findall(r"\d\.\d ms", page.inner_text("#stages"))) == 6
    assert page.locator("#strip button").count() == 11


def test_a_held_key_goes_on_and_two_keys_take_turns(page: Any) -> None:
    page.keyboard.down("1")
    until(lambda: now(page)[0] >= 5)
    assert page.locator("#pad button.held").get_attribute("data-action") == "1"
    page.keyboard.down("2")
    page.keyboard.up("2")
    page.keyboard.up("1")
    assert steady(page) >= 5
    assert page.locator("#pad button.held").count() == 0


@pytest.mark.parametrize("page", [{"width": 390, "height": 844}], indirect=True)
def test_touch_buttons_in_a_narrow_window(page: Any, model: Model) -> None:
    world = World(model)
    world.reset(fit(PICTURE, 16, 16), 0)
    for action in range(3):
        page.locator(f"#pad button[data-action='{action}']").click()
        at(page, action + 1)
        assert pixels(page) == world.step(action).tolist()
    page.locator("#pad button").first.hover()
    page.mouse.down()
    until(lambda: now(page)[0] >= 6)
    page.mouse.up()
    steady(page)
    wide = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert wide[0] <= wide[1], "the page scrolls sideways"
    for button in page.locator("button:visible").all():
        box = button.bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= 390


@pytest.mark.parametrize("page", [{"width": 844, "height": 390}, {"width": 640, "height": 360}], indirect=True)
def test_a_phone_on_its_side_plays_without_scrolling(page: Any) -> None:
    size = page.viewport_size
    for button in page.locator("#pad button, #transport button, #keys-button").all():
        box = button.bounding_box()
        assert box["x"] + box["width"] <= size["width"] and box["y"] + box["height"] <= size["height"]
    screen = page.locator("#screen").bounding_box()
    assert screen["y"] + screen["height"] <= size["height"] and screen["height"] >= 0.6 * size["height"]
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    for action in range(3):
        page.locator(f"#pad button[data-action='{action}']").click()
        at(page, action + 1)
    assert page.evaluate("scrollY") == 0


def test_pause_step_and_reset(page: Any) -> None:
    tap(page, "1", "2")
    for pause in (lambda: page.click("#pause"), lambda: page.keyboard.press("p")):
        pause()
        assert page.inner_text("#state") == "paused" and page.inner_text("#pause") == "Go on"
        page.keyboard.press("0")
        before = steady(page)
        page.click("#step")
        at(page, before + 1)
        page.keyboard.press(".")
        at(page, before + 2)
        page.locator("#screen").focus()
        page.keyboard.press("Space")
        assert page.inner_text("#state") == "" and page.inner_text("#pause") == "Pause"
    page.click("#reset")
    at(page, 0)
    tap(page, "1")
    page.keyboard.press("r")
    at(page, 0)


def test_rewind_scrub_and_branch(page: Any, model: Model) -> None:
    tap(page, "1", "2", "2", "1", "0")
    page.keyboard.down("Backspace")
    until(lambda: now(page)[0] <= 2)
    page.keyboard.up("Backspace")
    assert steady(page) <= 2
    page.locator("#scrub").focus()
    page.keyboard.press("End")
    at(page, 5)
    page.locator("#rewind").hover()
    page.mouse.down()
    at(page, 0, 5)
    page.mouse.up()
    page.locator("#scrub").focus()
    page.keyboard.press("ArrowRight")
    at(page, 1, 5)
    page.locator("#rewind").focus()
    page.keyboard.down("Enter")
    at(page, 0, 5)
    page.keyboard.up("Enter")
    page.locator("#strip button").nth(2).click()
    at(page, 2, 5)
    page.locator("#screen").focus()
    tap(page, "0")  # a branch: 3 / 3
    world = World(model)
    world.reset(fit(PICTURE, 16, 16), 0)
    assert pixels(page) == world.rollout([1, 2, 0])[-1].tolist()
    assert page.locator("#strip button").count() == 4
    for image in page.locator("#strip img").all():
        assert image.evaluate("async i => (await i.decode(), i.naturalWidth)") == 16


def test_bookmarks(page: Any) -> None:
    tap(page, "1", "2")
    there = pixels(page)
    page.click("#mark")
    page.locator("#marks li").wait_for()
    page.click("#reset")
    at(page, 0)
    tap(page, "0", "0", "0")
    page.keyboard.press("b")
    until(lambda: page.locator("#marks li").count() == 2)
    page.keyboard.press("b")  # the same frame: no second mark
    page.get_by_label("Go to bookmark, frame 2").click()
    at(page, 2)
    assert pixels(page) == there
    tap(page, "1")
    page.get_by_label("Remove bookmark, frame 2").click()
    until(lambda: page.locator("#marks li").count() == 1)
    page.get_by_label("Go to bookmark, frame 3").click()
    at(page, 3)
    page.get_by_label("Remove bookmark, frame 3").click()
    page.locator("#no-marks").wait_for()


def test_a_recording_is_downloaded_and_says_how_it_was_made(page: Any, tmp_path: Path) -> None:
    page.click("#record")
    assert page.inner_text("#state") == "recording, 1"
    page.locator("#screen").focus()
    tap(page, "1", "2", "2")
    page.keyboard.press("c")
    assert page.inner_text("#recordings li").startswith("Frames 0 to 3")
    kinds = page.locator("#recordings li a").all_inner_texts()
    assert kinds[:2] == ["GIF", "WebP"]
    for kind in kinds:
        with page.expect_download() as download:
            page.get_by_role("link", name=kind).click()
        path = tmp_path / download.value.suggested_filename
        download.value.save_as(path)
        assert path.suffix == f".{kind.lower()}"
        recipe = read(path)
        assert recipe is not None and recipe.actions == "1,2*2" and recipe.fps == 20
        if kind != "MP4":
            with Image.open(path) as image:
                assert image.n_frames == 4
    page.keyboard.press("c")
    page.click("#reset")  # ends the recording
    until(lambda: page.locator("#recordings li").count() == 2)
    assert page.inner_text("#state") == ""


def test_a_session_is_saved_and_opened_elsewhere(page: Any, browser: Any, address: str, tmp_path: Path) -> None:
    tap(page, "1", "2", "0")
    page.keyboard.press("b")
    page.locator("#marks li").wait_for()
    page.locator("#scrub").focus()
    page.keyboard.press("ArrowLeft")
    at(page, 2, 3)
    there = pixels(page)
    with page.expect_download() as download:
        page.click("#save")
    path = tmp_path / download.value.suggested_filename
    download.value.save_as(path)
    assert path.suffix == ".genie"
    page.locator("#screen").focus()
    tap(page, "1")
    want = pixels(page)
    other = browser.new_page()
    other.goto(address)
    other.wait_for_selector("#veil", state="hidden")
    tap(other, "0")
    with other.expect_file_chooser() as chooser:
        other.click("#open")
    chooser.value.set_files(path)
    at(other, 2, 3)
    assert pixels(other) == there and other.locator("#strip button").count() == 4
    tap(other, "1")
    assert pixels(other) == want
    other.get_by_label("Go to bookmark, frame 3").click()
    at(other, 3)
    path.write_bytes(path.read_bytes()[:200])
    other.set_input_files("#session-file", path)
    other.locator("#message:has-text('not a session file')").wait_for()
    tap(other, "1")
    other.close()


def test_settings(page: Any, model: Model) -> None:
    page.locator("#steps").focus()
    page.keyboard.press("Home")
    assert page.inner_text("#steps-value") == "1" and now(page) == (0, 0)
    page.locator("#temperature").focus()
    page.keyboard.press("Home")
    assert page.inner_text("#temperature-value") == "0.00"
    page.locator("#screen").focus()
    tap(page, "1")
    from genie_cpp import Sampler

    world = World(model, Sampler(1, 0.0, model.sampler.order, model.sampler.noise))
    world.reset(fit(PICTURE, 16, 16), 0)
    assert pixels(page) == world.step(1).tolist()
    page.locator("#limit").focus()
    page.keyboard.press("End")
    assert page.inner_text("#limit-value") == "no limit"
    page.fill("#seed", "7")
    page.keyboard.press("Tab")
    at(page, 0)
    page.click("#dice")
    until(lambda: page.input_value("#seed") != "7")
    page.select_option("#idle", "2")
    until(lambda: now(page)[0] > 5)  # without a key press
    page.select_option("#idle", "")
    steady(page)
    page.reload()
    page.wait_for_selector("#veil", state="hidden")
    assert page.inner_text("#limit-value") == "no limit"


def test_keys_are_edited_and_kept(page: Any) -> None:
    page.click("#keys-button")
    page.click("[data-add='2']")
    page.keyboard.press("r")
    assert "a control already" in page.inner_text("#keys-hint")
    page.keyboard.press("k")
    page.get_by_label("Remove 0 from action 0").click()
    page.click("[data-add='1']")
    page.keyboard.press("Escape")
    page.locator("[data-add='1']:has-text('+ key')").wait_for()
    page.click("#keys-done")
    assert page.locator("#pad button").nth(2).locator("kbd").all_inner_texts() == ["2", "↑", "W", "K"]
    tap(page, "k")
    page.keyboard.press("0")
    assert steady(page) == 1
    page.reload()
    page.wait_for_selector("#veil", state="hidden")
    tap(page, "k")
    page.click("#keys-button")
    page.click("#keys-default")
    page.click("#keys-done")
    page.keyboard.press("k")
    assert steady(page) == 2  # it went on after the reload
    tap(page, "0")


def test_pictures_chosen_dropped_and_refused(page: Any, model: Model, tmp_path: Path) -> None:
    Image.fromarray(OTHER).save(tmp_path / "other.png")
    (tmp_path / "bad.png").write_bytes(b"nothing")
    (tmp_path / "large.png").write_bytes(bytes(50_001))
    world, tapped = World(model), 0
    with page.expect_file_chooser() as chooser:
        page.click("#choose")
    chooser.value.set_files(tmp_path / "other.png")
    until(lambda: pixels(page) == world.reset(OTHER, 0).tolist())
    for name, why in (("bad.png", "not a picture"), ("large.png", "KiB; 49 are the limit")):
        page.set_input_files("#file", tmp_path / name)
        page.locator(f"#message:has-text('{why}')").wait_for()
        tap(page, "1")
        assert page.locator("#message").is_hidden()
        tapped += 1
    assert pixels(page) == world.rollout([1] * tapped)[-1].tolist()
    text = base64.b64encode((Path(tmp_path / "other.png")).read_bytes()).decode()
    for kind, holder in (("drop", "dataTransfer"), ("paste", "clipboardData")):
        tap(page, "2")
        page.evaluate(
            """([kind, holder, text]) => {
                const bytes = Uint8Array.from(atob(text), c => c.charCodeAt(0)), data = new DataTransfer();
                data.items.add(new File([bytes], 'other.png', {type: 'image/png'}));
                const Kind = kind === 'drop' ? DragEvent : ClipboardEvent;
                document.body.dispatchEvent(new Kind(kind, {bubbles: true, cancelable: true, [holder]: data}));
            }""",
            [kind, holder, text],
        )
        at(page, 0)
        assert pixels(page) == world.reset(OTHER, 0).tolist()


def test_a_drawing_starts_a_world(page: Any, model: Model) -> None:
    page.click("#draw-button")
    page.click("#draw-copy")
    assert pixels(page, "#paper") == pixels(page)
    page.click("#draw-undo")
    blank = pixels(page, "#paper")
    assert len({tuple(pixel) for row in blank for pixel in row}) == 1
    page.locator("#colours button").nth(3).click()
    page.locator("#paper").focus()
    for key in ("ArrowLeft", "ArrowUp", "Space"):
        page.keyboard.press(key)
    dotted = pixels(page, "#paper")
    assert sum(dotted[y][x] != blank[y][x] for y in range(16) for x in range(16)) == 9  # a brush of 3
    box = page.locator("#paper").bounding_box()
    page.mouse.move(box["x"] + 5, box["y"] + box["height"] - 5)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] - 5, box["y"] + box["height"] - 5)
    page.mouse.up()
    drawn = pixels(page, "#paper")
    assert len({tuple(pixel) for pixel in drawn[15]}) == 1 and drawn[15] != blank[15]
    page.locator("#colours button").nth(5).click()
    page.click("#draw-fill")
    page.mouse.click(box["x"] + 5, box["y"] + 5)
    filled = pixels(page, "#paper")
    assert filled[0] != blank[0] and filled[15] == drawn[15]
    page.fill("#colour", "#102030")
    page.click("#draw-clear")
    assert pixels(page, "#paper")[0][0] == [16, 32, 48]
    page.click("#draw-undo")
    page.locator("#brush").focus()
    page.keyboard.press("Home")
    assert page.inner_text("#brush-value") == "1"
    page.click("#draw-cancel")
    assert now(page) == (0, 0)
    page.click("#draw-button")
    assert pixels(page, "#paper") == filled
    page.click("#draw-play")
    want = World(model).reset(np.asarray(filled, np.uint8), 0).tolist()
    until(lambda: pixels(page) == want)
    tap(page, "1")


def test_models_help_and_theme(page: Any) -> None:
    choose(page, 1)  # has no picture
    page.locator("#veil-text:has-text('Drop a picture')").wait_for()
    with page.expect_file_chooser():
        page.click("#veil-button")
    choose(page, 0)
    page.wait_for_selector("#veil", state="hidden")
    tap(page, "1")
    page.keyboard.press("?")
    assert "action 2" in page.inner_text("#help-keys")
    page.keyboard.press("1")  # no step behind the dialog
    page.click("#help-done")
    assert steady(page) == 1
    page.click("#help-button")
    page.keyboard.press("Escape")
    colours = set()
    for name in ("light", "dark", "auto"):
        page.click("#theme")
        assert page.inner_text("#theme").endswith(name)
        colours.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert len(colours) == 2
    page.click("#theme")
    page.reload()
    assert page.inner_text("#theme").endswith("light")


def test_another_model_while_one_is_stepping(page: Any) -> None:
    page.select_option("#idle", "1")
    page.keyboard.down("2")
    for index in (1, 0, 1):
        until(lambda: now(page)[0] > 2 or page.locator("#veil").is_visible())
        choose(page, index)
    page.locator("#veil-text:has-text('Drop a picture')").wait_for()
    time.sleep(0.5)
    assert page.locator("#veil").is_visible() and page.locator("#message").is_hidden()
