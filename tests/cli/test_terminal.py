"""genie-play --terminal in a pty: what is drawn, what keys do, and that the terminal is restored afterwards."""

from __future__ import annotations

import os
import re
import select
import signal
import struct
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from genie_cpp import Model, World
from genie_cpp.cli.terminal import depth_of_colour, keys_in
from genie_cpp.frames import fit
from genie_cpp.play import halfblocks
from genie_cpp.play.recipe import read
from genie_cpp.play.session_file import SessionFile

pytestmark = pytest.mark.heavy

termios = pytest.importorskip("termios")
fcntl = pytest.importorskip("fcntl")

PLAY = Path(sysconfig.get_path("scripts")) / "genie-play"
PICTURE = np.random.default_rng(3).integers(0, 256, (16, 16, 3), np.uint8)
ENTERED, LEFT = b"\x1b[?1049h\x1b[?25l", b"\x1b[?25h\x1b[?1049l"


class Terminal:
    """A process in its own pty; `seen` is all its output."""

    def __init__(self, words: list[str], cwd: Path, **environment: str) -> None:
        self.master, slave = os.openpty()
        self.resize(80, 24)
        self.before = termios.tcgetattr(slave)
        self.process = subprocess.Popen(
            words, stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
            cwd=cwd, env={**os.environ, "TERM": "xterm-256color", "COLORTERM": "", **environment},
        )  # fmt: skip
        self.slave, self.seen = slave, b""

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def until(self, true: Callable[[], Any]) -> None:
        deadline = time.monotonic() + 60
        while not true():
            assert time.monotonic() < deadline, self.seen[-2000:]
            if select.select([self.master], [], [], 0.05)[0]:
                self.seen += os.read(self.master, 1 << 16)

    def shows(self, text: str) -> None:
        self.until(lambda: text.encode() in self.seen)

    def press(self, keys: str, shows: str) -> None:
        self.seen = b""
        os.write(self.master, keys.encode())
        self.shows(shows)

    def ended(self) -> int:
        self.until(lambda: self.process.poll() is not None)
        while select.select([self.master], [], [], 0.05)[0]:
            self.seen += os.read(self.master, 1 << 16)
        return self.process.returncode

    def restored(self) -> bool:
        return LEFT in self.seen and termios.tcgetattr(self.slave) == self.before

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for descriptor in (self.master, self.slave):
            os.close(descriptor)


@pytest.fixture
def place(tmp_path: Path, tiny_gguf) -> Path:  # type: ignore[no-untyped-def]
    Image.fromarray(PICTURE).save(tmp_path / "p.png")
    (tmp_path / "w.gguf").write_bytes(tiny_gguf("q8_0").read_bytes())
    return tmp_path


@pytest.fixture
def terminal(place: Path) -> Iterator[Callable[..., Terminal]]:
    opened = []

    def start(*words: str, **environment: str) -> Terminal:
        command = words or (str(PLAY), "--terminal", "-m", str(place / "w.gguf"), "-p", str(place / "p.png"))
        opened.append(Terminal(list(command), place, **environment))
        return opened[-1]

    yield start
    for one in opened:
        one.close()


def test_keys_move_the_world_and_q_leaves(terminal: Callable[..., Terminal], place: Path) -> None:
    run = terminal(COLORTERM="truecolor")
    run.shows("frame 0 of 0")
    assert ENTERED in run.seen and "▀".encode() in run.seen
    world = World(Model.open(place / "w.gguf"))
    world.reset(fit(PICTURE, 16, 16), 0)
    for number, (key, action) in enumerate((("\x1b[D", 0), ("\x1bOC", 1), ("w", 2), ("1", 1)), 1):
        run.press(key, f"frame {number} of {number}, action {action}")
        for line in halfblocks.text(halfblocks.scaled(world.step(action), 80, 22)):
            assert line.encode() in run.seen
    os.write(run.master, b"\x1b")  # an arrow key that arrives in two parts is not Escape
    time.sleep(0.01)
    run.press("[A", "frame 5 of 5, action 2")
    run.press("\x7f", "frame 4 of 5")
    run.press("\x7f", "frame 3 of 5")
    run.press("b", "frame 3 is bookmarked")
    run.press(".", "frame 4 of 4, action 2")
    run.press("g", "frame 3 of 3")
    for name in ("world-1.gif", "world-2.gif"):
        run.press("c", name)
        recipe = read(place / name)
        assert recipe is not None and recipe.actions == "0,1,2"
    assert SessionFile.load(place / "world-2.genie").bookmarks == [3]
    run.press("?", "visit the bookmarks")
    run.press("x", "frame 3 of 3")
    for key in ("b mark", "g visit", "c save", "r reset", "?  q quit"):
        assert key.encode() in run.seen, "at 80 columns"
    run.press("r", "frame 0 of 0")
    os.write(run.master, b"q")
    assert run.ended() == 0 and run.restored()
    after = run.seen[run.seen.rindex(LEFT) :]
    assert f"saved {place / 'world-1.gif'}".encode() in after and f"saved {place / 'world-2.genie'}".encode() in after


@pytest.mark.parametrize("end", ["\x03", "\x1b", signal.SIGTERM, signal.SIGHUP])
def test_the_terminal_is_as_before(terminal: Callable[..., Terminal], end: str | signal.Signals) -> None:
    run = terminal()
    run.shows("frame 0")
    assert termios.tcgetattr(run.slave) != run.before
    if isinstance(end, str):
        os.write(run.master, end.encode())
    else:
        run.process.send_signal(end)
    run.ended()
    assert run.restored()


def test_and_after_a_crash(terminal: Callable[..., Terminal], place: Path) -> None:
    crash = (
        "import sys, genie_cpp.world as w; from genie_cpp.cli.main import main_play\n"
        "def step(self, action): raise ZeroDivisionError('crash')\n"
        f"w.World.step = step; sys.argv = ['genie-play', '--terminal', '-m', {str(place / 'w.gguf')!r}, '-p', "
        f"{str(place / 'p.png')!r}]; main_play()"
    )
    run = terminal(sys.executable, "-c", crash)
    run.shows("frame 0")
    os.write(run.master, b"1")
    assert run.ended() == 1 and run.restored()
    after = run.seen[run.seen.rindex(LEFT) :]
    assert b"error: internal: ZeroDivisionError: crash" in after  # on the main screen, which stays


def test_resize_and_256_colours(terminal: Callable[..., Terminal], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")  # as some shells export it
    run = terminal()
    run.shows("frame 0")
    assert b"8;5;" in run.seen and b"8;2;" not in run.seen
    widest = max(int(x) for x in re.findall(rb"\x1b\[1;(\d+)H", run.seen))
    assert widest == (80 - 32) // 2 + 1  # 16 pixels twice as large: 22 rows hold 44
    run.seen = b""
    run.resize(20, 8)
    os.kill(run.process.pid, signal.SIGWINCH)
    run.shows(f"\x1b[1;{(20 - 12) // 2 + 1}H")  # shrunk to 12x12
    run.shows("frame 0")
    run.seen = b""
    run.resize(50, 8)
    os.kill(run.process.pid, signal.SIGWINCH)
    run.shows("q quit")  # a narrow window must still show this key
    assert b"r reset" not in run.seen


def test_stale_keys_are_dropped(terminal: Callable[..., Terminal]) -> None:
    run = terminal()
    run.shows("frame 0")
    run.process.send_signal(signal.SIGSTOP)
    os.write(run.master, b"1" * 50)
    run.process.send_signal(signal.SIGCONT)
    run.shows("frame 1 of 1")
    time.sleep(0.5)
    run.press("2", "action 2")
    assert int(re.findall(rb"frame (\d+) of", run.seen)[-1]) <= 3


def test_refused_without_a_terminal_or_a_picture(place: Path) -> None:
    for words, why in ((["-p", place / "p.png"], "needs a terminal"), ([], "no picture to start from")):
        done = subprocess.run(
            [PLAY, "--terminal", "-m", place / "w.gguf", *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 1 and why in done.stderr and "hint: " in done.stderr


def test_half_blocks() -> None:
    frame = np.array([[[1, 2, 3], [1, 2, 3]], [[9, 9, 9], [4, 5, 6]], [[7, 7, 7], [7, 7, 7]]], np.uint8)
    assert halfblocks.text(frame) == [
        "\x1b[38;2;1;2;3;48;2;9;9;9m▀\x1b[48;2;4;5;6m▀\x1b[0m",
        "\x1b[38;2;7;7;7;48;2;0;0;0m▀▀\x1b[0m",
    ]
    shown = np.array([[0, 0, 0], [255, 255, 255], [255, 0, 0], [8, 8, 8], [95, 135, 175], [128, 128, 128]], np.uint8)
    assert halfblocks.nearest(shown).tolist() == [16, 231, 196, 232, 67, 244]
    assert halfblocks.nearest(np.array([[[38, 112, 64], [220, 40, 60]]], np.uint8)).tolist() == [
        [29, 160]
    ]  # green and red
    assert halfblocks.scaled(PICTURE, 80, 24).shape == (48, 48, 3)
    assert halfblocks.scaled(PICTURE, 10, 50).shape == (10, 10, 3)
    assert halfblocks.scaled(PICTURE, 1, 1).shape == (2, 1, 3)


def test_keys_and_colours_are_told_apart() -> None:
    sent = b"a\x1b[A\x1b[1;5CD\x1b[3~\x7f\x1bOB\xc3\xa4.\x1b"
    assert list(keys_in(sent)) == ["a", "ArrowUp", "d", "Backspace", "ArrowDown", ".", "Escape"]
    for environment, colours in (
        ({"COLORTERM": "truecolor"}, 1 << 24), ({"TERM": "xterm-direct"}, 1 << 24), ({"TERM": "xterm"}, 256),
        ({}, 256),
    ):  # fmt: skip
        assert depth_of_colour(environment) == colours
    assert list(keys_in(b"\x1b[")) == []
