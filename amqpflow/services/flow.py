"""
What a message waits for before its handler is called: a rate, and a slot of a budget that several handlers share.

What waits is held, not started: when the consumer stops it is given back. A rate and a budget are those of a process.
"""

from __future__ import annotations

import asyncio
from collections import deque

from amqpflow.delivery.rate import Pace
from amqpflow.model.outcome import Outcome

from .calling import NotStarted
from .incoming import Message
from .middleware import CallNext


class Rate:
    """The middleware that calls what is further in so many times a second at most."""

    def __init__(self, per_second: float) -> None:
        self._pace = Pace(interval=1 / per_second)
        self._waiting: set[asyncio.Future[None]] = set()
        self._closed = False

    async def __call__(self, message: Message, call_next: CallNext) -> Outcome | None:
        loop = asyncio.get_running_loop()
        if self._closed:
            raise NotStarted("the consumer was stopped")
        self._pace, at = self._pace.begin(loop.time())
        if at > loop.time():
            turn = loop.create_future()
            self._waiting.add(turn)
            timer = loop.call_at(at, _release, turn)
            try:
                await turn
            finally:
                timer.cancel()
                self._waiting.discard(turn)
        return await call_next(message)

    def close(self) -> None:
        """Whoever waits is not started."""
        self._closed = True
        _refuse(self._waiting)


class Budget:
    """
    So many calls at once in all handlers of a consumer.

    Each handler has one slot for itself whenever it needs it, so that none can starve another. The others go to
    whoever uses least of them for its weight.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._shares: list[Share] = []
        self._running = 0

    def share(self, weight: float) -> Share:
        """The middleware of one handler."""
        share = Share(self, weight)
        self._shares.append(share)
        return share

    def may_start(self, share: Share) -> bool:
        """Whether a slot is left for it, when every other handler that has none running keeps one."""
        kept = sum(1 for each in self._shares if not each.running and each is not share)
        return self._running + (kept if share.running else 0) < self._size

    def started(self, share: Share) -> None:
        self._running += 1
        share.running += 1

    def ended(self, share: Share) -> None:
        """Give the slot to the one that waits and uses least for its weight."""
        self._running -= 1
        share.running -= 1
        while ready := [each for each in self._shares if each.waiting and self.may_start(each)]:
            chosen = min(ready, key=lambda each: each.running / each.weight)
            turn = chosen.waiting.popleft()
            if not turn.done():
                self.started(chosen)
                turn.set_result(None)


class Share:
    """The middleware that calls what is further in when its handler's share of a budget allows it."""

    def __init__(self, budget: Budget, weight: float) -> None:
        self.weight = weight
        self.running = 0
        self.waiting: deque[asyncio.Future[None]] = deque()
        self._budget = budget
        self._closed = False

    async def __call__(self, message: Message, call_next: CallNext) -> Outcome | None:
        if self._closed:
            raise NotStarted("the consumer was stopped")
        if not self.waiting and self._budget.may_start(self):
            self._budget.started(self)
        else:
            turn = asyncio.get_running_loop().create_future()
            self.waiting.append(turn)
            try:
                await turn
            except BaseException:
                if turn.done() and not turn.cancelled() and turn.exception() is None:
                    self._budget.ended(self)
                raise
        try:
            return await call_next(message)
        finally:
            self._budget.ended(self)

    def close(self) -> None:
        """Whoever waits is not started."""
        self._closed = True
        _refuse(self.waiting)


def _release(turn: asyncio.Future[None]) -> None:
    if not turn.done():
        turn.set_result(None)


def _refuse(waiting: set[asyncio.Future[None]] | deque[asyncio.Future[None]]) -> None:
    for turn in list(waiting):
        if not turn.done():
            turn.set_exception(NotStarted("the consumer was stopped"))
    waiting.clear()
