"""Make messages wait before their handler is called: for a rate, or for a slot of a budget that several handlers share.

A waiting message is held, not started: when the consumer stops it is requeued. A rate and a budget hold for a process.
"""

from __future__ import annotations

import asyncio

from amqpflow.delivery.leaky_bucket import LeakyBucket
from amqpflow.model.outcome import Outcome

from .message import Message
from .middleware import CallNext
from .turns import Turns


class Rate:
    def __init__(self, per_second: float) -> None:
        self._bucket = LeakyBucket(interval=1 / per_second)
        self.turns = Turns()
        self._timer: asyncio.TimerHandle | None = None

    async def __call__(self, message: Message, call_next: CallNext) -> Outcome | None:
        self.turns.require_open()
        loop = asyncio.get_running_loop()
        bucket, at = self._bucket.begin(loop.time())
        if self.turns or at > loop.time():
            if self._timer is None:
                self._timer = loop.call_at(at, self._give, loop)
            await self.turns.wait(message)
        else:
            self._bucket = bucket
        return await call_next(message)

    def _give(self, loop: asyncio.AbstractEventLoop) -> None:
        # a turn is taken when it comes and not when the wait begins: a message that is refused meanwhile, as all of a
        # lost connection are, delays no other
        self._timer = None
        while self.turns:
            bucket, at = self._bucket.begin(loop.time())
            if at > loop.time():
                self._timer = loop.call_at(at, self._give, loop)
                return
            self._bucket = bucket
            self.turns.give()


class ConcurrencyBudget:
    """A concurrency limit shared by all handlers of a consumer.

    Each handler has one slot for itself whenever it needs it, so that none can starve another. The other slots go to
    the handler that uses least for its weight.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._shares: list[ConcurrencyShare] = []
        self._running = 0

    def share(self, weight: float) -> ConcurrencyShare:
        share = ConcurrencyShare(self, weight)
        self._shares.append(share)
        return share

    def may_start(self, share: ConcurrencyShare) -> bool:
        """Return whether a slot is left for it, when every other handler without a running call keeps one."""
        kept = sum(1 for each in self._shares if not each.running and each is not share)
        return self._running + (kept if share.running else 0) < self._size

    def started(self, share: ConcurrencyShare) -> None:
        self._running += 1
        share.running += 1

    def ended(self, share: ConcurrencyShare) -> None:
        """Give the slot to the one that waits and uses least for its weight."""
        self._running -= 1
        share.running -= 1
        while ready := [each for each in self._shares if each.turns and self.may_start(each)]:
            chosen = min(ready, key=lambda each: each.running / each.weight)
            self.started(chosen)
            chosen.turns.give()


class ConcurrencyShare:
    """The middleware that calls a handler when its share of the budget allows it."""

    def __init__(self, budget: ConcurrencyBudget, weight: float) -> None:
        self.weight = weight
        self.running = 0
        self.turns = Turns()
        self._budget = budget

    async def __call__(self, message: Message, call_next: CallNext) -> Outcome | None:
        self.turns.require_open()
        if not self.turns and self._budget.may_start(self):
            self._budget.started(self)
        else:
            await self.turns.wait(message, unused=lambda: self._budget.ended(self))
        try:
            return await call_next(message)
        finally:
            self._budget.ended(self)
