"""Which key asks for which latent action, unless the player says otherwise."""

from __future__ import annotations

from collections.abc import Sequence

# As KeyboardEvent.key names them.
DIRECTIONS = {
    "left": ("ArrowLeft", "a"),
    "right": ("ArrowRight", "d"),
    "up": ("ArrowUp", "w"),
    "down": ("ArrowDown", "s"),
}
SAME = {"jump": "up", "turn-left": "left", "turn-right": "right", "forward": "up", "back": "down"}


def default_keys(action_count: int, action_names: Sequence[str] | None = None) -> dict[str, int]:
    """Key -> latent action: digits are their own, arrows and WASD the first action of that name.

    Latents have no meaning before somebody has looked: without names they go to left, right, up, down in order.
    """
    keys = {str(digit): digit for digit in range(min(10, action_count))}
    names = list(DIRECTIONS)[:action_count] if action_names is None else [SAME.get(n, n) for n in action_names]
    for name, pressed in DIRECTIONS.items():
        if name in names:
            keys |= dict.fromkeys(pressed, names.index(name))
    return keys
