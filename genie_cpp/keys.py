"""Which key asks for which latent action, unless the player says otherwise."""

from __future__ import annotations

# As KeyboardEvent.key names them. Latents have no meaning before somebody has looked, so they go to keys in order.
DIRECTIONS = (("ArrowLeft", "a"), ("ArrowRight", "d"), ("ArrowUp", "w"), ("ArrowDown", "s"))


def default_keys(action_count: int) -> dict[str, int]:
    """Key -> latent action: digits are their own, arrows and WASD the first four (left, right, up, down)."""
    keys = {str(digit): digit for digit in range(min(10, action_count))}
    for action, names in enumerate(DIRECTIONS[:action_count]):
        keys |= dict.fromkeys(names, action)
    return keys
