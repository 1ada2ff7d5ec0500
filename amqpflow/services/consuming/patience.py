"""Hold what cannot be settled now, while others are handled: unacked, for half the consumer timeout at most.

In: a delivery whose publish waits, was refused or is not confirmed. Out: it is settled after all, or requeued. What is
held takes up the prefetch. Once it takes all of it the consumer is paused, which listeners and probes see.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from typing import Any

from amqpflow.delivery.incoming import Incoming
from amqpflow.model.event import ConsumerPaused, ConsumerResumed, MessageHeld
from amqpflow.model.routes import QueueRoutes
from amqpflow.services.publishing.outbox import Outbox

from .events import Events, about
from .health import Cause, ConsumerHealth
from .session import Session

log = logging.getLogger("amqpflow.consumer")

CONFIRM_PATIENCE = 10.0  #: seconds without a confirm after which a message counts as held
_EVERY = 0.5  #: seconds between two reports of what is not confirmed


@dataclass(frozen=True, slots=True, kw_only=True)
class Requeued:
    """The delivery was not settled: the broker has it again, or will when its channel ends."""

    why: str


def lost(session: Session) -> Requeued:
    """Return why a delivery can no longer be settled: its session ended, with everything that was unacked."""
    return Requeued(why=f"its channel ended before it was settled: {session.why}")


@dataclass(kw_only=True)
class Patience:
    """Holds deliveries of one queue on one connection."""

    routes: QueueRoutes
    outbox: Outbox
    events: Events
    health: ConsumerHealth
    _paused: bool = field(default=False, init=False)  #: listeners know that it is paused
    _why: str = field(default="", init=False)  #: what the last message was held for

    async def hold(
        self,
        session: Session,
        incoming: Incoming,
        why: str,
        wait: float | None = None,
        done: asyncio.Future[None] | None = None,
    ) -> None:
        """Keep a delivery unacked for `wait` seconds, half the consumer timeout at most.

        Returns early when `done` is, or when the session is over: what cannot be settled then is requeued.
        """
        if session.ended.is_set():
            return  # the broker has it already, and the queue's problem is that of the next session
        if session.hold(incoming.delivery):
            self.events.emit(MessageHeld(**about(incoming), reason=why))
        self._report(session, why)
        clock = asyncio.get_running_loop().time
        half = self.routes.half_consumer_timeout
        until = session.held_since(incoming.delivery) + half
        left = until - clock()
        over = asyncio.create_task(session.over.wait())
        waiting: list[asyncio.Future[Any]] = [over] if done is None else [over, done]
        try:
            timeout = max(0.0, left if wait is None else min(wait, left))
            await asyncio.wait(waiting, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            over.cancel()
        session.requeue_waiting(older_than=half)
        if done is not None and done.done():
            return
        if session.over.is_set():
            session.requeue(incoming.delivery)
        elif clock() >= until and session.requeue(incoming.delivery):
            log.error("%s: requeued after half the consumer timeout: %s", session.queue, why)

    async def hold_for_publishes(self, session: Session, incoming: Incoming, reason: str) -> None:
        """Hold a delivery until the broker unblocks publishes: what is not sent cannot be there twice."""
        await self.hold(session, incoming, _blocked(reason), done=self.outbox.unblocked())

    async def wait_for_confirm(self, session: Session, incoming: Incoming, answered: asyncio.Future[None]) -> None:
        """Hold a delivery until its publish is answered, or the delivery was requeued.

        There is no second publish: the first may still be confirmed, as when a broker's alarm is over.
        """
        while session.holds(incoming.delivery) and not answered.done():
            blocked = self.outbox.blocked
            why = "the broker does not confirm" if blocked is None else _blocked(blocked)
            await self.hold(session, incoming, why, _EVERY, answered)
        self.release(session, incoming)

    def release(self, session: Session, incoming: Incoming) -> None:
        session.admission.held_up.discard(incoming.delivery.delivery_tag)
        if session.ended.is_set():
            self._paused = False  # the problem is another one now
        elif session.admission.held_up:
            self._report(session, self._why)
        else:
            self._report_pause(session, "")
            self.health.clear(session.queue, Cause.HELD)

    def lost(self, session: Session) -> Requeued:
        """Return why a delivery is not the session's any more."""
        why = self.health.problems.get(session.queue, "it was held too long")
        return lost(session) if session.ended.is_set() else Requeued(why=why)

    def _report(self, session: Session, why: str) -> None:
        self._why, count, still = why, len(session.admission.held_up), session.stands_still
        held = f"{count} message{'s' if count != 1 else ''} held"
        text = f"{why}: {held}, {'nothing else is' if still else 'others are'} handled"
        self.health.set(session.queue, Cause.HELD, text)
        self._report_pause(session, text if still else "")

    def _report_pause(self, session: Session, why: str) -> None:
        if why and not self._paused:
            self.events.emit(ConsumerPaused(queue=session.queue, reason=why))
        elif self._paused and not why:
            self.events.emit(ConsumerResumed(queue=session.queue))
        self._paused = bool(why)


def _blocked(reason: str) -> str:
    return f"the broker blocks publishes: {reason}"
