"""The exported page in a real browser: from a server, from disk, without a network, and with damaged files."""

from __future__ import annotations

import functools
import http.server
import json
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

playwright_api = pytest.importorskip("playwright.sync_api")

from genie_cpp import World  # noqa: E402
from genie_cpp.web.export import export  # noqa: E402

CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.heavy,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed: apt-get install chromium"),
]
FRAME = """(({ width, height }, context) => [height, width, ...context.getImageData(0, 0, width, height).data])(
  document.getElementById("world"), document.getElementById("world").getContext("2d"))"""


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    context = browser.new_context(viewport={"width": 390, "height": 844})
    opened = context.new_page()
    faults: list[str] = []
    opened.on("pageerror", lambda error: faults.append(str(error)))
    opened.on("console", lambda message: message.type == "error" and faults.append(message.text))
    opened.faults = faults
    yield opened
    context.close()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(2):
        pixels = np.random.default_rng(number).integers(0, 256, (16, 16, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}-place.png")
    return folder


@pytest.fixture
def site(tiny_gguf: Callable[[str], Path], pictures: Path, tmp_path: Path) -> Path:
    export(tiny_gguf("f32"), tmp_path / "site", [pictures], title="<b>Tiny</b>")
    return tmp_path / "site"


@pytest.fixture
def address(site: Path) -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


def shows(page: Any, text: str) -> None:
    playwright_api.expect(page.locator("#frame")).to_have_text(re.compile(rf"^{text}$"), timeout=60_000)


def reaches(page: Any, number: int) -> None:
    """Waits for this frame or any after it: frames come faster than a test looks."""
    there = re.compile(rf"frame ([{number}-9]|\d\d+) ")
    playwright_api.expect(page.locator("#frame")).to_have_text(there, timeout=60_000)


def says(page: Any, text: str) -> None:
    playwright_api.expect(page.locator("#says")).to_have_text(re.compile(text), timeout=60_000)


def pixels(page: Any) -> np.ndarray:
    height, width, *data = page.evaluate(FRAME)
    return np.array(data, np.uint8).reshape(height, width, 4)[..., :3]


def close_to(frame: np.ndarray, wanted: np.ndarray) -> bool:
    """Float rounding differs between instruction sets, which moves a pixel by one now and then."""
    return bool(np.abs(frame.astype(int) - wanted).max() <= 2)


def played(page: Any, tiny: Path, picture: Path) -> None:
    """What everybody does, compared with Python."""
    world = World.load(tiny, threads=1)
    wanted = [world.reset(np.asarray(Image.open(picture)), seed=0)]
    shows(page, "frame 0 of 0")
    assert page.locator("#starts img").count() == 2 and page.locator("#actions button").count() == 3
    assert close_to(pixels(page), wanted[0])
    for number, key in enumerate("120", 1):
        page.keyboard.press(key)
        shows(page, f"frame {number} of {number}")
        wanted.append(world.step(int(key)))
        assert close_to(pixels(page), wanted[-1]), number
    page.keyboard.press("Backspace")
    page.click("#back")
    shows(page, "frame 1 of 3")
    assert close_to(pixels(page), wanted[1])
    page.click("[data-action='1']")  # a branch
    shows(page, "frame 2 of 2")
    world.reset(np.asarray(Image.open(picture)), seed=0)
    world.step(1)
    assert close_to(pixels(page), world.step(1))
    with page.expect_download() as saved:
        page.click("#gif")
    with Image.open(saved.value.path()) as film:
        assert saved.value.suggested_filename == "world.gif" and film.n_frames == 3 and film.info["loop"] == 0
        film.seek(2)
        last = np.asarray(film.convert("RGB"))[::4, ::4]
    assert np.abs(last.astype(int) - pixels(page)).max() <= 40  # 256 colours in all


@pytest.fixture
def tiny_path(tiny_gguf: Callable[[str], Path]) -> Path:
    return tiny_gguf("f32")


def test_from_a_server(page: Any, address: str, tiny_path: Path, pictures: Path) -> None:
    page.goto(address)
    played(page, tiny_path, pictures / "0-place.png")
    assert page.title() == "<b>Tiny</b>" and page.text_content("h1") == "<b>Tiny</b>"
    # A link: whoever opens it sees the same.
    page.click("#share")
    says(page, "The address now holds what you played")
    link, frame = page.url, pixels(page)
    assert link.endswith("#start=0&seed=0&steps=3&temperature=0.5&actions=1*2")
    page.goto("about:blank")
    page.goto(link)
    shows(page, "frame 2 of 2")
    assert (pixels(page) == frame).all()
    # What a link cannot hold is said.
    page.fill("#steps", "2")
    page.locator("#world").focus()
    page.keyboard.press("1")
    shows(page, "frame 3 of 3")
    page.click("#share")
    says(page, "changed on the way")
    # A picture of one's own, and letters of a keyboard that writes others.
    page.set_input_files("#own", {"name": "p.png", "mimeType": "image/png", "buffer": b"no picture"})
    says(page, "not a picture that this browser reads")
    page.set_input_files("#own", str(pictures / "1-place.png"))
    shows(page, "frame 0 of 0")
    page.evaluate(
        "for (const kind of ['keydown', 'keyup']) dispatchEvent(new KeyboardEvent(kind, {key: 'ф', code: 'KeyA'}))"
    )
    shows(page, "frame 1 of 1")
    assert [fault for fault in page.faults if "createImageBitmap" not in fault] == []


def test_a_link_that_is_damaged(page: Any, address: str) -> None:
    page.goto(f"{address}#start=0&seed=0&steps=3&temperature=0.5&actions=1*2,99")
    shows(page, "frame 0 of 0")
    says(page, "the link asks for an action 99")
    page.keyboard.press("1")
    shows(page, "frame 1 of 1")


def test_a_picture_that_is_none_stops_nothing(page: Any, address: str) -> None:
    page.goto(address)
    shows(page, "frame 0 of 0")
    page.set_input_files("#own", {"name": "p.png", "mimeType": "image/png", "buffer": b"no picture"})
    says(page, "not a picture that this browser reads")
    page.keyboard.down("1")
    reaches(page, 3)
    page.keyboard.down("Control")  # a key is let go beside another
    page.keyboard.up("1")
    page.keyboard.up("Control")
    page.wait_for_timeout(400)
    stopped = page.text_content("#frame")
    page.wait_for_timeout(400)
    assert page.text_content("#frame") == stopped


def test_held_keys_go_on_and_stop(page: Any, address: str) -> None:
    page.goto(address)
    shows(page, "frame 0 of 0")
    page.keyboard.down("1")
    reaches(page, 9)
    page.keyboard.up("1")
    page.wait_for_timeout(500)
    stopped = page.text_content("#frame")
    page.wait_for_timeout(500)
    assert page.text_content("#frame") == stopped


def test_without_a_network_once_it_was_seen(browser: Any, address: str) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.goto(address)
    shows(page, "frame 0 of 0")
    page.evaluate("navigator.serviceWorker.ready.then(() => 1)")
    page.reload()  # the files come through the service worker, which keeps them
    shows(page, "frame 0 of 0")
    context.set_offline(True)
    page.reload()
    shows(page, "frame 0 of 0")
    page.keyboard.press("1")
    shows(page, "frame 1 of 1")
    context.close()


@pytest.mark.slow
@pytest.mark.parametrize("single", [False, True], ids=["server", "disk"])
@pytest.mark.parametrize("name", ["meadow", "maze", "tinyworlds"])
def test_real_worlds(name: str, single: bool, page: Any, tmp_path: Path) -> None:
    """The bundled ones and a converted one, played with keys and held to the frames that Python makes."""
    model = World.load(name, threads=1).model.path if name != "tinyworlds" else tmp_path / "tinyworlds.gguf"
    if name == "tinyworlds":
        from genie_cpp.convert.writer import convert

        golden = Path(__file__).parents[1] / "golden" / name
        convert(sorted(path for path in golden.iterdir() if path.name != "expected.npz"), model, "q8_0")
    world = World.load(model, threads=1)
    pictures = [] if len(world.prompts) else [tmp_path / "start.png"]
    for path in pictures:
        Image.fromarray(np.random.default_rng(2).integers(0, 256, world.prompts.shape[1:], np.uint8)).save(path)
    export(model, tmp_path / ("a.html" if single else "site"), pictures, single_file=single)
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=str(tmp_path / "site"))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    page.goto((tmp_path / "a.html").as_uri() if single else f"http://127.0.0.1:{server.server_port}/")
    shows(page, "frame 0 of 0")
    world.reset(np.asarray(Image.open(pictures[0]).convert("RGB")) if pictures else world.prompts[0], seed=0)
    alike = 0
    for number, action in enumerate([0, 1, 1, 2, 0], 1):
        page.keyboard.press(str(action))
        shows(page, f"frame {number} of {number}")
        alike += close_to(pixels(page), world.step(action))
    assert alike >= 4  # floats round differently, so a token may be another one
    assert page.faults == []
    server.shutdown()
    server.server_close()


# A walk in a worker of its own with so many threads -> {threads, frames}, or {error}.
WALK = """async ([threads, actions]) => {
  const worker = new Worker("worker.mjs", { type: "module" }), call = (call, given) => new Promise((done) => {
    worker.onmessage = ({ data }) => data.id && done(data);
    worker.postMessage({ id: 1, call, given });
  });
  const sampler = { steps: 3, temperature: 1 };
  const loaded = await call("load", { url: new URL("plan.json", location.href).href, threads });
  if (loaded.error) return loaded;
  const frames = [await call("reset", { picture: loaded.result.starts[0], seed: "4", sampler })];
  for (const action of actions) frames.push(await call("step", { action, sampler }));
  worker.terminate();
  return { threads: loaded.result.threads, frames: frames.map(({ result }) => Array.from(result.frame).join()) };
}"""


def test_threads_once_the_page_may_share_memory(browser: Any, site: Path, address: str) -> None:
    """From the second visit on, the service worker adds the headers for it. The frames are the same."""
    context = browser.new_context()
    page = context.new_page()
    page.goto(address)
    shows(page, "frame 0 of 0")
    actions = [0, 1, 2, 1, 0, 2]
    alone = page.evaluate(WALK, [3, actions])
    assert not page.evaluate("crossOriginIsolated") and alone["threads"] == 1
    assert len(set(alone["frames"])) > 3
    page.evaluate("navigator.serviceWorker.ready.then(() => 1)")
    page.reload()
    shows(page, "frame 0 of 0")
    assert page.evaluate("crossOriginIsolated")
    for threads in (1, 2, 3, 8):
        assert page.evaluate(WALK, [threads, actions]) == {**alone, "threads": threads}
    # In the page itself, which may not wait, a world has one thread.
    there = "import('./genie.mjs').then(({ World }) => World.load('plan.json', { threads: 2 })).then((w) => w.threads)"
    assert page.evaluate(there) == 1
    cpus = page.evaluate("navigator.hardwareConcurrency")
    assert page.evaluate("document.body.dataset.threads") == str(min(8, cpus if cpus <= 4 else cpus // 2))
    for lost in ("thread.mjs", "genie-threads.wasm"):  # where a thread cannot be had, one is enough
        (site / lost).unlink()
        assert page.evaluate(WALK, [2, actions]) == alone
    context.close()


@pytest.mark.parametrize("simd", [True, False])
def test_one_file_from_disk(simd: bool, page: Any, tiny_path: Path, pictures: Path, tmp_path: Path) -> None:
    export(tiny_path, tmp_path / "tiny.html", [pictures], single_file=True)
    if not simd:
        page.add_init_script("WebAssembly.validate = () => false")
    page.goto((tmp_path / "tiny.html").as_uri())
    played(page, tiny_path, pictures / "0-place.png")
    assert ("no WebAssembly SIMD" in (page.text_content("#note") or "")) is not simd
    assert page.faults == []


@pytest.mark.parametrize(
    ("name", "change", "why"),
    [
        ("weights.bin", lambda raw: raw[:-1], "the download was cut off"),
        ("weights.bin", lambda raw: raw[:-1] + bytes([raw[-1] ^ 1]), "not those that the plan was made for"),
        ("plan.json", lambda raw: raw[:99], "damaged or was cut off"),
        ("plan.json", lambda raw: json.dumps(json.loads(raw) | {"version": 9}).encode(), "of version 9"),
        ("plan.json", lambda raw: json.dumps({"version": 1}).encode(), "the world's plan is damaged"),
        ("plan.json", None, "plan.json is not beside this page"),
        ("weights.bin", None, "the server answers 404"),
        ("genie-simd128.wasm", lambda raw: raw[:1000], "CompileError|WebAssembly"),
    ],
)
def test_damaged_files(
    name: str, change: Callable[[bytes], bytes] | None, why: str, site: Path, address: str, page: Any
) -> None:
    if change is None:
        (site / name).unlink()
    else:
        (site / name).write_bytes(change((site / name).read_bytes()))
    page.goto(address)
    says(page, why)
