"""Action lists as people write them: "0,3*8,1", a file with such a list, or "random"."""

from __future__ import annotations

import itertools
import operator
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from genie_cpp.errors import ActionError

MAX_ACTIONS = 1_000_000
_MAX_FILE = 1 << 24  # bytes
_SYNTAX = "write actions as 0,3*8,1 (3*8 is action 3 eight times), the path of a file of these, or random"


def action_number(action: Any, choices: int, names: Sequence[str] | None = None) -> int:
    """A latent action 0…choices-1, from an integer (numpy's too) or from one of the model's action names.

    Raises ActionError.
    """
    if isinstance(action, str):
        if action in (names or ()):
            return list(names or ()).index(action)
        known = ", ".join(dict.fromkeys(names or ())) or "the model names none; use numbers"
        raise ActionError(f"{action[:40]!r} is not an action", f"names: {known}")
    try:
        number = -1 if isinstance(action, bool) else operator.index(action)
    except TypeError:
        number = -1
    if not 0 <= number < choices:
        raise ActionError(f"action {str(action)[:40]} is not in 0…{choices - 1}", f"the model has {choices}")
    return number


def parse_actions(text: str, action_count: int, names: Sequence[str] | None = None) -> list[int]:
    """ "0,3*8,1" -> [0, 3, 3, 3, 3, 3, 3, 3, 3, 1]. Commas, spaces and new lines separate. Raises ActionError.

    names: the model's action names, which are accepted too ("left*8"). If several actions share a name, the first wins.
    """
    actions: list[int] = []
    numbers = {name: str(action) for action, name in reversed(list(enumerate(names or ())))}
    for item in _items(text):
        value, star, repeat = item.partition("*")
        value = numbers.get(value, value)
        if not value.isascii() or not value.isdigit() or (star and not (repeat.isascii() and repeat.isdigit())):
            raise ActionError(f"{item[:40]!r} is not an action", _SYNTAX)
        if len(value) > 9 or not int(value) < action_count:
            raise ActionError(f"action {value[:20]} is not in 0…{action_count - 1}", f"the model has {action_count}")
        count = int(repeat[:9]) if star else 1
        if not 1 <= count <= MAX_ACTIONS - len(actions):
            raise ActionError(f"{item[:40]!r} repeats {count} times; 1…{MAX_ACTIONS} actions are possible", _SYNTAX)
        actions += [int(value)] * count
    if not actions:
        raise ActionError("the list of actions is empty", _SYNTAX)
    return actions


def _items(text: str) -> list[str]:
    return text.replace(",", " ").split()


def random_actions(action_count: int, n: int, seed: int) -> list[int]:
    """n actions, each held 4 frames, from numpy's PCG64 with the run's seed."""
    rng = np.random.default_rng(seed)
    return np.repeat(rng.integers(action_count, size=(n + 3) // 4), 4)[:n].tolist()


def read_actions(
    text: str, action_count: int, n: int | None, seed: int, names: Sequence[str] | None = None
) -> list[int]:
    """What `--actions` and `-n` ask for: a list, a file or "random". n: cut or repeat the list to n actions.

    Text that can be read as a list is never taken as a file name, so that a recipe's command means the same in every
    folder.
    """
    if text == "random":
        return random_actions(action_count, 32 if n is None else n, seed)
    if not all(re.fullmatch(r"[0-9*]*", item) or item.partition("*")[0] in (names or ()) for item in _items(text)):
        text = _read(text)
    actions = parse_actions(text, action_count, names)
    return actions if n is None else list(itertools.islice(itertools.cycle(actions), n))


def _read(name: str) -> str:
    try:
        with Path(name).open("rb") as file:
            data = file.read(_MAX_FILE + 1)
        if len(data) > _MAX_FILE:
            raise ActionError(f"{name[:80]!r} is larger than {_MAX_FILE >> 20} MiB", _SYNTAX)
        return data.decode("utf-8-sig")
    except (OSError, ValueError) as error:
        if isinstance(error, ActionError):
            raise
        raise ActionError(f"{name[:80]!r} is neither a list of actions nor a readable file", _SYNTAX) from None


def format_actions(actions: Sequence[int]) -> str:
    """The inverse of `parse_actions`. Repeated actions are written as "3*8"."""
    runs = [(value, len(list(run))) for value, run in itertools.groupby(actions)]
    return ",".join(f"{value}*{n}" if n > 1 else str(value) for value, n in runs)
