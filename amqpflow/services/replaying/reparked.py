"""Replayed messages that are parked again: guard against them, count them, and wait until the last has been handled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from amqpflow.errors import AmqpflowError
from amqpflow.services.process.waiting import set_within
from amqpflow.services.reading.messages import ParkedMessages
from amqpflow.services.reading.reader import ParkingReader
from amqpflow.services.reading.target import ReadTarget

from .depths import Depths
from .rate_limiter import RateLimiter
from .state import ReplayState

GUARD_EVERY = 2.0  #: seconds between two looks at how much was parked meanwhile
WATCH_EVERY = 1.0  #: seconds
_QUIET = 3  #: looks in a row that find empty destinations, which end a watch

OnWatch = Callable[[int, int], None]
"""Ready messages in the destinations and their retry queues; ready in the parking queues."""


@dataclass
class ReparkedMessages:
    """Finds the messages of one replay that are parked again."""

    state: ReplayState
    target: ReadTarget
    limiter: RateLimiter
    depths: Depths
    news: asyncio.Event  #: set when the limiter stops for a look

    async def guard(self, reader: ParkingReader) -> None:
        """Ask for a look when more messages were parked meanwhile than may come back."""
        share, asked_at = self.state.choice.stop_if_reparked, 0
        while share is not None:
            await asyncio.sleep(GUARD_EVERY)
            try:
                parked = await reader.parked_meanwhile()
            except AmqpflowError:
                return  # the reading finds out itself
            replayed = self.state.report.replayed
            if replayed and parked >= share * replayed and parked > asked_at * 1.5:
                asked_at = parked
                self.limiter.wants_look = True
                self.news.set()

    async def look(self) -> None:
        """Count the messages that came back, and halt the replay when they are too many."""
        state, share = self.state, self.state.choice.stop_if_reparked
        if state.choice.ramp:
            await set_within(self.target.stop, state.choice.ramp_wait)
        if self.target.is_stopped:
            return
        came_back, is_known = await self._count()
        if share is not None and came_back and came_back >= share * state.report.replayed:
            state.report.guarded = True
            state.halt(
                f"{came_back} of {state.report.replayed} replayed messages are parked again",
                "amqpflow parked list shows why",
            )
        elif share is not None and not is_known:
            state.halt(
                f"with a prefetch of {self.target.options.prefetch} only that many parked messages can be read: it is "
                "not known how many came back",
                "a larger prefetch shows more",
            )
        self.limiter.looked()

    async def watch(self, on_watch: OnWatch) -> None:
        """Wait until the destinations and their retry queues stay empty, and count what came back."""
        quiet = 0
        while quiet < _QUIET and not self.target.is_stopped:
            on_the_way = await self.depths.on_the_way()
            on_watch(on_the_way, await self.depths.parked())
            quiet = quiet + 1 if not on_the_way else 0
            await set_within(self.target.stop, WATCH_EVERY)
        if not self.target.is_stopped:
            _, is_known = await self._count()
            if not is_known:
                self.state.report.notes.append(
                    f"with a prefetch of {self.target.options.prefetch} only that many parked messages were read: "
                    "more may have come back"
                )

    async def _count(self) -> tuple[int, bool]:
        """Return how many came back, and whether all of the parked messages could be read."""
        count, is_known, state = 0, True, self.state
        for parking_queue in self.target.queues:
            async with ParkedMessages(self.target, parking_queue) as messages:
                async for parked in messages:
                    messages.keep(parked)
                    mark = parked.record.replay if parked.record is not None else None
                    count += mark is not None and mark.id == state.context.id
            state.remaining[parking_queue] = messages.reader.ready_after
            is_known = is_known and not messages.reader.is_full
        state.report.came_back = max(state.report.came_back, count)
        return count, is_known
