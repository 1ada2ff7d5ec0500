"""Limit a replay: by a rate, by a ramp, and by the room that is left in the destination."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from math import inf

from .request import ReplayRequest

_DEPTH_EVERY = 0.25  #: seconds between two looks at the destination
_BURST = 0.1  #: seconds' worth of a rate that may be sent at once


class RateLimiter:
    """Says how many messages may be sent now. `depth` counts the fullest destination; times are the event loop's."""

    def __init__(self, choice: ReplayRequest, depth: Callable[[], Awaitable[int]], now: float) -> None:
        self.next_at = inf  #: seconds of the event loop: when there may be more
        self.wants_look = False  #: a step of the ramp is done: count what came back before the next
        self.total = 0  #: sent
        self._rate = choice.rate
        self._max_depth = choice.max_depth
        self._depth = depth
        self._tokens = 1.0
        self._filled_at = now
        self._room: int | None = None
        self._looked_at = -inf
        self._steps = list(choice.ramp)
        self._step_left = self._steps.pop(0) if self._steps else None

    def window(self, at_most: int) -> int:
        """Return how many messages to hold at once: a slow replay holds few, since none may be held for long."""
        return at_most if self._rate is None else max(1, min(at_most, int(self._rate * 10)))

    async def allowance(self, now: float) -> int:
        """Return how many messages may be sent now; after 0 ask again at `next_at`."""
        if self.wants_look:
            return 0
        allowed = [1 << 30, self._by_rate(now)]
        if self._step_left is not None:
            allowed.append(self._step_left)
        if self._max_depth is not None and min(allowed):
            allowed.append(await self._by_depth(now, self._max_depth))
        return min(allowed)

    def _by_rate(self, now: float) -> int:
        self.next_at = now + 1.0
        if self._rate is None:
            return 1 << 30
        most = max(1.0, self._rate * _BURST)
        self._tokens = min(most, self._tokens + (now - self._filled_at) * self._rate)
        self._filled_at = now
        if self._tokens < 1:
            self.next_at = now + (1 - self._tokens) / self._rate
        return int(self._tokens)

    async def _by_depth(self, now: float, max_depth: int) -> int:
        if self._room is None or (self._room <= 0 and now >= self._looked_at + _DEPTH_EVERY):
            self._looked_at = now
            self._room = max_depth - await self._depth()
        if self._room <= 0:
            self.next_at = min(self.next_at, self._looked_at + _DEPTH_EVERY)
        return max(0, self._room)

    def sent(self, count: int) -> None:
        self.total += count
        self._tokens -= count
        if self._room is not None:
            self._room -= count
        if self._step_left is not None:
            self._step_left -= count
            self.wants_look = self._step_left <= 0

    def looked(self) -> None:
        """Begin the next step of the ramp, and after the last all the rest."""
        self.wants_look = False
        self._step_left = self._steps.pop(0) if self._steps else None
