"""Who plays. A player whose connection ends is kept for a while, so that a page that comes back goes on at once."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable

from genie_cpp.server.common.limits import Limits
from genie_cpp.server.page.player import Player

Leave = Callable[[], None]


class Players:
    """For one event loop; not thread-safe."""

    def __init__(self, make: Callable[[str], Player], limits: Limits) -> None:
        self._make, self._limits = make, limits
        self._all: dict[str, Player] = {}
        self._leave: dict[str, Leave] = {}  # of those that are connected
        self._left: dict[str, float] = {}  # when the others' connections ended

    def __len__(self) -> int:
        return len(self._all)

    @property
    def connected(self) -> int:
        return len(self._leave)

    def get(self, id: str) -> Player | None:
        return self._all.get(id)

    def enter(self, id: str, leave: Leave) -> Player | None:
        """The player with this id, else a new one; None if there are too many.

        leave: is called when another connection takes over the player.
        """
        self.sweep()
        player = self._all.get(id)
        if player is None:
            while len(self._all) >= self._limits.sessions and self._left:
                self._drop(min(self._left, key=self._left.__getitem__))
            if len(self._all) >= self._limits.sessions:
                return None
            player = self._make(secrets.token_urlsafe(16))
            self._all[player.id] = player
        elif (before := self._leave.pop(player.id, None)) is not None:
            before()
        self._left.pop(player.id, None)
        self._leave[player.id] = leave
        return player

    def leave(self, player: Player, leave: Leave) -> None:
        """The connection that `leave` belongs to has ended. One that was taken over changes nothing."""
        if self._leave.get(player.id) is not leave:
            return
        del self._leave[player.id]
        self._left[player.id] = time.monotonic()
        if not player.plays or self._limits.linger_seconds <= 0:
            self._drop(player.id)

    def sweep(self) -> None:
        """Drop players that have been gone for too long."""
        oldest = time.monotonic() - self._limits.linger_seconds
        for id in [id for id, when in self._left.items() if when < oldest]:
            self._drop(id)

    def _drop(self, id: str) -> None:
        del self._all[id], self._left[id]
