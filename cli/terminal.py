"""`genie-play --terminal`: a world played by keys and shown in half-blocks, also over ssh."""

from __future__ import annotations

import itertools
import os
import select
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from genie_cpp.errors import GenieError
from genie_cpp.media.output import write
from genie_cpp.model import Model
from genie_cpp.play import halfblocks
from genie_cpp.play.keyboard import default_keys
from genie_cpp.play.session import Node, Prompt, Session, pixels
from genie_cpp.play.session_file import SessionFile
from genie_cpp.words import printable

# Byte sequences of a terminal -> names of keys as on the page.
SEQUENCES = {
    b"\x1b[D": "ArrowLeft", b"\x1b[C": "ArrowRight", b"\x1b[A": "ArrowUp", b"\x1b[B": "ArrowDown",
    b"\x1bOD": "ArrowLeft", b"\x1bOC": "ArrowRight", b"\x1bOA": "ArrowUp", b"\x1bOB": "ArrowDown",
    b"\x7f": "Backspace", b"\x08": "Backspace", b"\x1b": "Escape", b"\x03": "Escape", b"\x04": "Escape",
}  # fmt: skip
_ENTER = "\x1b[?1049h\x1b[?25l\x1b[2J"  # alternate screen, hidden cursor
_LEAVE = "\x1b[0m\x1b[?25h\x1b[?1049l"
_QUITS = ("SIGTERM", "SIGHUP")
_STATUS_ROWS = 2
_HELP = (
    ("arrows WASD 0-9", "act"),
    (".", "the last action once more"),
    ("backspace", "back by a frame; an action from there starts a branch"),
    ("b", "bookmark this frame"),
    ("g", "visit the bookmarks, the newest first"),
    ("c", "save the frames up to this one as a GIF, and the session to go on from"),
    ("r", "start again from the picture"),
    ("q Escape Ctrl-C", "leave"),
)


def play_in_terminal(model: Model, prompt: Prompt, seed: int) -> None:
    """Play until q, Escape or Ctrl-C. Raises GenieError if stdin or stdout is not a terminal."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise GenieError("--terminal needs a terminal for input and output", "leave it out to play on a page")
    try:
        import termios
        import tty
    except ImportError:
        raise GenieError("--terminal needs a Unix terminal", "leave it out to play on a page") from None
    session = Session(model)
    session.reset(prompt, seed)
    game = Game(session, prompt, seed, depth_of_colour(dict(os.environ)))
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    with _signals(game):
        try:
            tty.setraw(descriptor)
            sys.stdout.write(_ENTER)
            game.play(descriptor)
        finally:
            # However play ends: by q, a signal or an error. An error message then appears on the normal screen.
            termios.tcsetattr(descriptor, termios.TCSAFLUSH, before)
            sys.stdout.write(_LEAVE)
            for path in game.saved:
                sys.stdout.write(f"saved {printable(str(path))}\n")
            sys.stdout.flush()


def depth_of_colour(environment: dict[str, str]) -> int:
    """Number of colours of the terminal, from COLORTERM, or from a TERM that ends in -direct."""
    true = environment.get("COLORTERM") in ("truecolor", "24bit")
    return 1 << 24 if true or environment.get("TERM", "").endswith("-direct") else 256


class Game:
    """What keys do and what is shown. The terminal repeats held keys; only the newest pending key is used."""

    def __init__(self, session: Session, prompt: Prompt, seed: int, colours: int) -> None:
        self.session, self.prompt, self.seed, self.colours = session, prompt, seed, colours
        self.keys = default_keys(session.model.info.choices, session.model.info.action_names)
        self.last_action = 0
        self.message = ""
        self.over = False
        self.saved: list[Path] = []
        self._helps = False
        self._resized = True
        self._marks = 0  # number of jumps to bookmarks
        self._ms = 0.0

    def play(self, descriptor: int) -> None:
        while not self.over:
            self._show()
            # Wake up often enough to notice a resize or a signal.
            while not (self.over or self._resized or select.select([descriptor], [], [], 0.1)[0]):
                pass
            if not self._resized and not self.over:
                data = os.read(descriptor, 4096)
                if not data:
                    return
                # Over a slow line an arrow key may arrive in two parts. Its first part alone would be read as Escape.
                while data.endswith((b"\x1b", b"\x1b[", b"\x1bO")) and select.select([descriptor], [], [], 0.05)[0]:
                    data += os.read(descriptor, 4096)
                # Use the last key only. Otherwise a slow model would go on long after the key is released.
                self.press(list(keys_in(data))[-1:])

    def press(self, names: list[str]) -> None:
        for name in names:
            self.message = ""
            if self._helps and name not in ("q", "Escape"):
                self._helps, self._resized = False, True  # draw anew
                continue
            try:
                self._act(name)
            except GenieError as error:
                self.message = str(error)

    def resized(self, *_: Any) -> None:
        self._resized = True

    def quit(self, *_: Any) -> None:
        self.over = True

    def _act(self, name: str) -> None:
        session = self.session
        if name in self.keys:
            self._step(self.keys[name])
        elif name in ("q", "Escape"):
            self.over = True
        elif name == "Backspace":
            session.seek(session.node.depth - 1)
        elif name == ".":
            self._step(self.last_action)
        elif name == "r":
            session.reset(self.prompt, self.seed)
        elif name == "b":
            session.bookmark()
            self.message = f"frame {session.node.depth} is bookmarked"
        elif name == "?":
            self._helps = self._resized = True
        elif name == "c":
            film, session_file = self._save()
            self.message = f"saved {film}, and {session_file} to go on from"
        elif name == "g" and session.bookmarks:
            self._marks += 1
            session.go_to(session.bookmarks[-1 - (self._marks - 1) % len(session.bookmarks)])

    def _step(self, action: int) -> None:
        self.last_action = action
        self._marks = 0
        started = time.perf_counter()
        self.session.step(action)
        self._ms = 1000 * (time.perf_counter() - started)

    def _save(self) -> tuple[Path, Path]:
        """Save the path up to the frame shown as a new GIF in the working folder, and the session beside it."""
        names = ((Path(f"world-{n}.gif"), Path(f"world-{n}.genie")) for n in itertools.count(1))
        film, kept = next(pair for pair in names if not any(path.exists() for path in pair))
        pngs, says = self.session.recording(self.session.path[0], self.session.node.id, 10, 4)
        write(film, pixels(pngs), says)
        self.saved.append(film.resolve())
        SessionFile.of(self.session).save(kept)
        self.saved.append(kept.resolve())
        return film, kept

    def _show(self) -> None:
        # In this order: a resize from here on is noticed by the next round.
        resized, self._resized = self._resized, False
        columns, rows = os.get_terminal_size(sys.stdout.fileno())  # not COLUMNS, which knows nothing of a resize
        if resized:
            sys.stdout.write("\x1b[0m\x1b[2J")
        if self._helps:
            self._show_help(columns, rows)
            return
        node = self.session.node
        frame = halfblocks.scaled(pixels([node.png])[0], columns, max(1, rows - _STATUS_ROWS))
        out = ["\x1b[H"]
        left = max(0, (columns - frame.shape[1]) // 2)
        for number, line in enumerate(halfblocks.text(frame, self.colours), 1):
            out.append(f"\x1b[{number};{left + 1}H{line}")
        for number, line in zip((rows - 1, rows), self._status(node, columns - 1), strict=True):
            out.append(f"\x1b[{number};1H\x1b[K{line[: columns - 1]}")
        sys.stdout.write("".join(out))
        sys.stdout.flush()

    def _show_help(self, columns: int, rows: int) -> None:
        lines = [*(f"{keys:>17}  {what}" for keys, what in _HELP), "", "any key goes on"]
        for number, line in enumerate(lines[:rows], 1):
            sys.stdout.write(f"\x1b[{number};1H\x1b[K{line[: columns - 1]}")
        sys.stdout.flush()

    def _name(self, action: int) -> str:
        names = self.session.model.info.action_names
        return f"action {action}" if names is None else names[action]

    def _status(self, node: Node, room: int) -> tuple[str, str]:
        """Two lines. The keys shown are those that fit into `room` characters, and always how to leave."""
        last = self.session.nodes[self.session.path[-1]].depth
        name = printable(self.session.model.name)
        by = "" if node.action < 0 else f", {self._name(node.action)}"
        speed = f", {self._ms:.0f} ms" if self._ms else ""
        act = f"arrows 0-{min(self.session.model.info.choices - 1, 9)} act"
        first = self.message or f"{name}: frame {node.depth} of {last}{by}{speed}"
        rest = [". again", "bksp back", "b mark", "g visit", "c save", "r reset"]  # with these, 79 characters
        while rest and len("  ".join((act, *rest, "?  q quit"))) > room:
            rest.pop()
        return first, "  ".join((act, *rest, "?  q quit"))


def keys_in(data: bytes) -> Iterator[str]:
    """Names of the keys that a terminal sent; unknown sequences are skipped."""
    at = 0
    while at < len(data):
        if data[at : at + 3] in SEQUENCES:
            yield SEQUENCES[data[at : at + 3]]
            at += 3
        elif data[at : at + 1] == b"\x1b" and data[at + 1 : at + 2] in (b"[", b"O"):
            at += 2
            while at < len(data) and not 0x40 <= data[at] <= 0x7E:  # up to the last byte of the sequence
                at += 1
            at += 1
        else:
            one = data[at : at + 1]
            name = SEQUENCES.get(one) or one.decode("ascii", "ignore").lower()
            at += 1
            if name:
                yield name


@contextmanager
def _signals(game: Game) -> Iterator[None]:
    def leave(number: int, frame: FrameType | None) -> None:
        game.quit()

    wanted = {getattr(signal, name): leave for name in _QUITS} | {signal.SIGWINCH: game.resized}
    before = {number: signal.signal(number, handler) for number, handler in wanted.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
