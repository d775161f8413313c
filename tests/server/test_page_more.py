"""What the page offers beside playing: start pictures, two worlds at once, explanations, gamepads, other machines."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from page_play import OTHER, PICTURE, at, needs_chromium, now, pixels, png, tap, until
from PIL import Image

from genie_cpp import Model, World
from genie_cpp.frames import fit

pytest.importorskip("fastapi")
pytest.importorskip("playwright")
pytest.importorskip("segno")
from genie_cpp.server.common.limits import Limits
from genie_cpp.server.page.shelf import Shelf
from genie_cpp.server.run import listen, server

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def gallery(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, list[np.ndarray]]]:
    """A page with a key, whose world has three start pictures, and these."""
    folder = tmp_path_factory.mktemp("gallery")
    (folder / "w.gguf").write_bytes(model.path.read_bytes())
    (folder / "w").mkdir()
    pictures = [np.random.default_rng(number).integers(0, 256, (16, 16, 3), np.uint8) for number in range(3)]
    for number, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / "w" / f"{number}-place{number}.png")
    from genie_cpp.play.session import Prompt

    world = Model.open(folder / "w.gguf", threads=1)
    listener = listen(0)
    listener.listen(8)
    port = listener.getsockname()[1]
    runner = server(
        Shelf([world], [Prompt.beside(world)]), Limits(linger_seconds=5), "secret", port,
        [f"http://10.0.0.7:{port}/worlds/?key=secret"], "/worlds",
    )  # fmt: skip
    thread = threading.Thread(target=runner.run, kwargs={"sockets": [listener]})
    thread.start()
    yield f"http://127.0.0.1:{port}/worlds/?key=secret", pictures
    runner.should_exit = True
    thread.join(20)


@pytest.fixture
def own(browser: Any, gallery: tuple[str, list[np.ndarray]], request: pytest.FixtureRequest) -> Iterator[Any]:
    context = browser.new_context(**getattr(request, "param", {}))
    page, faults = context.new_page(), []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto(gallery[0])
    page.wait_for_selector("#veil", state="hidden")
    yield page
    context.close()
    assert faults == []


def test_start_pictures_and_ones_own(own: Any, gallery: tuple[str, list[np.ndarray]], model: Model) -> None:
    page, pictures = own, gallery[1]
    world = World(model)
    assert page.locator("#starts li").count() == 3
    page.get_by_label("Start from place2").click()
    until(lambda: pixels(page) == world.reset(pictures[2], 0).tolist())
    tap(page, "1")
    page.keyboard.press("n")
    until(lambda: now(page) == (0, 0))
    assert pixels(page) in [world.reset(picture, 0).tolist() for picture in pictures]
    for _ in range(2):  # the same picture is remembered once
        page.set_input_files("#file", files=[{"name": "p.png", "mimeType": "image/png", "buffer": png(OTHER)}])
        until(lambda: pixels(page) == world.reset(OTHER, 0).tolist())
    page.locator("#starts li").nth(3).wait_for()
    assert page.locator("#starts li").count() == 4
    page.get_by_label("Start from place0").click()
    until(lambda: pixels(page) == world.reset(pictures[0], 0).tolist())
    page.reload()
    page.wait_for_selector("#veil", state="hidden")
    page.get_by_label("Start from your picture 1").click()
    until(lambda: pixels(page) == world.reset(OTHER, 0).tolist())
    page.get_by_label("Forget your picture 1").click()
    until(lambda: page.locator("#starts li").count() == 3)


def test_pictures_that_only_the_browser_can_take(own: Any, model: Model) -> None:
    """A photograph of 24 megapixels, a drawing, and transparent parts on a colour of one's choice."""
    page, world = own, World(model)
    page.evaluate("""async () => {
      const canvas = new OffscreenCanvas(6000, 4000), context = canvas.getContext("2d");
      context.fillStyle = "rgb(200, 40, 40)";
      context.fillRect(0, 0, 6000, 4000);
      const blob = await canvas.convertToBlob({ type: "image/jpeg" });
      const data = new DataTransfer();
      data.items.add(new File([blob], "photo.jpg", { type: "image/jpeg" }));
      document.body.dispatchEvent(new DragEvent("drop", { bubbles: true, cancelable: true, dataTransfer: data }));
    }""")
    page.locator("#starts li").nth(3).wait_for()
    svg = b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 8 8"><rect width="8" height="8" fill="#0000ff"/></svg>'
    page.set_input_files("#file", files=[{"name": "d.svg", "mimeType": "image/svg+xml", "buffer": svg}])
    blue = np.full((16, 16, 3), (0, 0, 255), np.uint8)
    until(lambda: pixels(page) == world.reset(blue, 0).tolist())
    page.locator("#ground").evaluate("e => { e.value = '#00ff00'; e.dispatchEvent(new Event('change')); }")
    clear = Image.new("RGBA", (16, 16))
    clear.putalpha(0)
    import io

    out = io.BytesIO()
    clear.save(out, "PNG")
    page.set_input_files("#file", files=[{"name": "c.png", "mimeType": "image/png", "buffer": out.getvalue()}])
    green = np.full((16, 16, 3), (0, 255, 0), np.uint8)
    until(lambda: pixels(page) == world.reset(green, 0).tolist())


def test_two_at_once(page: Any, model: Model) -> None:
    tap(page, "1")
    page.fill("#compare-seed", "5")
    page.click("#compare")
    until(lambda: page.inner_text("#compare-says") != "")
    at(page, 0)
    assert page.inner_text("#compare-says") == "The same picture."
    tap(page, "2", "1")
    ours, theirs = World(model), World(model)
    ours.reset(fit(PICTURE, 16, 16), 0)
    theirs.reset(fit(PICTURE, 16, 16), 5)
    seen = theirs.rollout([2, 1])[-1].tolist()
    assert pixels(page) == ours.rollout([2, 1])[-1].tolist()
    until(lambda: pixels(page, "#other") == seen)
    assert "dB (PSNR) apart" in page.inner_text("#compare-says")
    page.select_option("#compare-shown", "difference")
    difference = np.abs(np.asarray(pixels(page), int) - np.asarray(seen, int))
    assert pixels(page, "#other") == np.minimum(4 * difference, 255).tolist()
    page.keyboard.press("Escape")
    page.locator("#screen").focus()
    page.keyboard.press("Backspace")
    until(lambda: now(page)[0] < 2)
    page.fill("#compare-seed", "0")  # both start again
    page.keyboard.press("Tab")
    until(lambda: now(page) == (0, 0))
    page.locator("#screen").focus()
    tap(page, "1", "1")
    until(lambda: page.inner_text("#compare-says") == "The same picture.")
    page.click("#compare")
    tap(page, "1")
    assert not page.locator("#other").is_visible()


def test_what_is_seen(page: Any) -> None:
    page.select_option("#explain", "filled")
    assert "Go on by one frame" in page.inner_text("#explain-says")
    page.locator("#screen").focus()
    tap(page, "1")
    until(lambda: "This frame: 3 steps" in page.inner_text("#explain-says"))
    over = pixels(page, "#overlay")
    assert len({tuple(pixel) for row in over for pixel in row}) >= 2
    box = page.locator("#screen").bounding_box()
    page.mouse.move(box["x"] + 3, box["y"] + 3)
    page.locator("#explain-says:has-text('filled in at step')").wait_for()
    page.select_option("#explain", "bits")
    until(lambda: pixels(page, "#overlay") != over)
    assert not page.locator("#looked").is_visible()
    page.select_option("#explain", "looked")
    looked = "[...document.querySelectorAll('#looked meter')].map((bar) => bar.value)"
    until(lambda: page.evaluate(looked) != [])
    whole = page.evaluate(looked)
    assert len(whole) == now(page)[0] + 1 and abs(sum(whole) - 1) < 0.01  # this frame, and all before it
    page.locator("#screen").focus()
    tap(page, "2")
    until(lambda: len(page.evaluate(looked)) == len(whole) + 1)
    whole = page.evaluate(looked)
    page.mouse.move(box["x"] + 9, box["y"] + 9)
    until(lambda: page.evaluate(looked) != whole)
    page.select_option("#explain", "")
    assert not page.locator("#looked").is_visible()
    assert not page.locator("#overlay").is_visible()


def test_a_gamepad(page: Any) -> None:
    page.evaluate("""() => {
      window.pad = { axes: [0, 0], buttons: Array.from({ length: 16 }, () => ({ pressed: false })) };
      navigator.getGamepads = () => [window.pad];
      dispatchEvent(new Event("gamepadconnected"));
    }""")
    page.evaluate("window.pad.axes = [0.9, 0.1]")
    page.locator("#pad button.held[data-action='1']").wait_for()
    until(lambda: now(page)[0] >= 2)
    page.evaluate("window.pad.axes = [0, 0]")
    page.locator("#pad button.held").wait_for(state="detached")
    page.evaluate("window.pad.buttons[9].pressed = true")
    until(lambda: page.inner_text("#state") == "paused")
    page.evaluate("window.pad.buttons[9].pressed = false")
    page.evaluate("window.pad.buttons[12].pressed = true")  # up: action 2
    page.locator("#pad button.held[data-action='2']").wait_for()
    page.evaluate("window.pad.buttons[12].pressed = false")


@pytest.mark.parametrize(
    "own", [{"viewport": {"width": 844, "height": 390}, "has_touch": True, "is_mobile": True}], indirect=True
)
def test_a_phone_with_a_key_under_a_path(own: Any, gallery: tuple[str, list[np.ndarray]], browser: Any) -> None:
    page = own
    assert page.url.endswith("/worlds/")  # the key is a cookie now
    assert page.evaluate("document.cookie") == ""
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    left, right = (page.locator(f"[data-way={way}]").bounding_box() for way in ("left", "right"))
    up = page.locator("[data-way=up]").bounding_box()
    assert left["x"] < up["x"] < right["x"] and up["y"] < left["y"] == right["y"]
    for box in (left, right, up):
        assert box["y"] + box["height"] <= 390 and min(box["width"], box["height"]) >= 40
    page.locator("[data-way=right]").tap()
    at(page, 1)
    screen = page.locator("#screen").bounding_box()
    x, y = screen["x"] + screen["width"] / 2, screen["y"] + screen["height"] / 2
    finger = page.context.new_cdp_session(page)
    finger.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [{"x": x, "y": y}]})
    finger.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": [{"x": x - 60, "y": y}]})
    page.locator("#pad button.held[data-action='0']").wait_for()
    finger.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    until(lambda: now(page)[0] >= 2)
    page.click("#phone-button")
    assert page.inner_text("#invite-address").startswith("http://10.0.0.7")
    until(lambda: page.locator("#invite").evaluate("i => i.naturalWidth") > 50)
    page.click("#phone-done")
    page.click("#help-button")
    assert page.locator("#help-dialog").evaluate("e => [e.scrollTop, e.scrollHeight > e.clientHeight]") == [0, True]
    page.click("#help-done")
    page.click("#world-button")
    page.locator(".world img").first.wait_for()
    sides = page.locator(".world img").first.evaluate("i => i.width / i.height")
    assert abs(sides - 8 / 5) < 0.05, "the picture is not stretched"
    page.click("#worlds-done")
    stranger = browser.new_context().new_page()
    answer = stranger.goto(page.url)
    assert answer is not None and answer.status == 401 and "genie-play printed" in answer.text()
    stranger.context.close()


def test_views(page: Any) -> None:
    small = page.locator("#screen").bounding_box()["width"]
    page.locator("#screen").focus()
    page.keyboard.press("t")
    until(lambda: page.locator("#screen").bounding_box()["width"] >= small)
    assert not page.locator("header").is_visible()
    page.click("#smooth")
    assert page.locator("#screen").evaluate("e => e.style.imageRendering") == "auto"
    page.click("#theatre")
    page.keyboard.press("f")
    until(lambda: page.evaluate("document.fullscreenElement?.id") == "stage")
    page.keyboard.press("f")
    until(lambda: page.evaluate("document.fullscreenElement === null"))
    page.reload()
    assert page.get_attribute("#smooth", "aria-pressed") == "true"


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_nothing_keeps_people_out(page: Any, theme: str) -> None:
    """axe-core: names, roles, contrast (AA) and order, of the page and of each dialog."""
    Axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe
    page.emulate_media(color_scheme=theme, reduced_motion="reduce")
    tap(page, "1")
    page.keyboard.press("b")
    page.locator("#marks li").wait_for()

    def grave() -> list[str]:
        found = Axe().run(page).response["violations"]
        return [
            f"{fault['id']}: {[node['html'][:120] for node in fault['nodes']]}"
            for fault in found
            if fault["impact"] in ("serious", "critical")
        ]

    assert grave() == []
    dialogs = {"help-button": "help-done", "keys-button": "keys-done", "world-button": "worlds-done",
               "draw-button": "draw-cancel"}  # fmt: skip
    for opens, done in dialogs.items():
        page.click(f"#{opens}")
        assert grave() == [], opens
        page.click(f"#{done}")
