"""The default keys of the latent actions."""

from __future__ import annotations

from collections.abc import Sequence

# Names of KeyboardEvent.key.
DIRECTIONS = {
    "left": ("ArrowLeft", "a"),
    "right": ("ArrowRight", "d"),
    "up": ("ArrowUp", "w"),
    "down": ("ArrowDown", "s"),
}
SAME = {"jump": "up", "turn-left": "left", "turn-right": "right", "forward": "up", "back": "down"}


def default_keys(action_count: int, action_names: Sequence[str] | None = None) -> dict[str, int]:
    """Key -> latent action: a digit is that action; arrows and WASD are the first action with that name.

    Latent actions have no names until somebody finds out what they do. Without names, left, right, up and down are
    actions 0 to 3.
    """
    keys = {str(digit): digit for digit in range(min(10, action_count))}
    names = list(DIRECTIONS)[:action_count] if action_names is None else [SAME.get(n, n) for n in action_names]
    for name, pressed in DIRECTIONS.items():
        if name in names:
            keys |= dict.fromkeys(pressed, names.index(name))
    return keys
