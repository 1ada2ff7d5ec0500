"""Handle a suspect alone, and let no other suspect be counted for what it does.

A process dies with what it holds of all its queues. So while a suspect of one queue is handled, the consumers of the
others hold none: they take nothing new, and put theirs where the death of this process does not count them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any

from amqpflow.delivery.crashes import Suspicion, carried, is_moved, suspicion
from amqpflow.delivery.incoming import Incoming
from amqpflow.model.message import Delivery
from amqpflow.model.routes import QueueRoutes

from .health import Cause
from .session import InBackground, Session
from .settler import Settler
from .suspects import Suspects

_ALONE = "a message suspected of killing its consumer is handled alone; nothing else is handled until it ends"
_ELSEWHERE = (
    "a message of another queue suspected of killing its consumer is handled alone; a suspect here waits for it"
)
_ASIDE = "suspected of killing its consumer waits to be handled alone, until running handlers end; others are handled"
_PATIENCE = 5.0  #: seconds without a new handler call in which those that run may end, so that a suspect is alone


class Isolation:
    """Isolates the suspects of one handler's queue, and stands back for those of other queues."""

    def __init__(self, suspects: Suspects, routes: QueueRoutes, in_background: InBackground) -> None:
        self._suspects = suspects
        self._routes = routes
        self._in_background = in_background
        self._current: tuple[Session, Settler] | None = None
        self._standing_back = 0  # times that it does
        self._clearing = 0  # and still holds suspects that waited
        self._cleared = asyncio.Event()
        self._cleared.set()
        self._turn: Delivery | None = None  # the suspect of this queue that is handled alone
        suspects.consumers.append(self)

    def begin(self, session: Session, settler: Settler) -> None:
        """Note that deliveries come from this session from now on."""
        self._current = session, settler

    def suspicion(self, session: Session, incoming: Incoming) -> Suspicion:
        return suspicion(
            incoming,
            self._routes,
            survived=self._suspects.survived(incoming),
            excused=session.is_excused(incoming.delivery),
            requeues_count=session.nack_counts,
        )

    def is_suspect(self, delivery: Delivery) -> bool:
        """Return whether a delivery is handled alone, or not at all. Never raises."""
        incoming = self._incoming(delivery)
        survived = self._suspects.survived(incoming)
        return suspicion(incoming, self._routes, survived=survived) is not Suspicion.NONE

    def arrived(self) -> None:
        """Stand back if a suspect has arrived while another one is handled alone."""
        if not self._suspects.free.is_set():
            self._begin_to_stand_back()

    def ended(self, delivery: Delivery | None = None) -> None:
        """Let the next suspect be handled: this one is settled, or its session is over.

        Its handler may still run, for as long as it likes. RabbitMQ has counted the loss already.
        """
        if self._turn is not None and (delivery is None or delivery is self._turn):
            self._turn = None
            self._suspects.end_turn()

    def lost(self, held: Sequence[Delivery]) -> None:
        """Note that RabbitMQ counts what the ended session held, and that none of it killed this process."""
        self.ended()
        if self._routes.queue_type == "quorum":
            self._suspects.live_through(self._routes.queue, map(self._incoming, held))

    def _incoming(self, delivery: Delivery) -> Incoming:
        return Incoming(delivery, native=self._routes.native is not None)

    async def may_start(self, session: Session, settler: Settler, delivery: Delivery) -> bool:
        """Wait until nothing else of the queue is handled, and no other suspect is held; False when it is put off."""
        if session.longer:
            self._set_aside(session, settler, delivery)
            return False
        if not self._suspects.take_turn():
            session.put_off(delivery)
            await self._stand_back(session, settler)
            return False
        self._turn = delivery
        try:
            await session.isolate(delivery)
            await self._put_suspects_away(session, settler)
            for other in self._suspects.consumers:
                if other is not self:
                    await other.stands_back()
            if await session.is_alone(delivery, within=_PATIENCE):
                self._in_background(session, self._say(session, settler, _ALONE))
                return True
        except BaseException:
            self.ended(delivery)
            raise
        self.ended(delivery)
        if session.holds(delivery):
            self._set_aside(session, settler, delivery)
        await session.resume(delivery)
        return False

    def _set_aside(self, session: Session, settler: Settler, delivery: Delivery) -> None:
        back = session.set_aside(delivery)
        self._in_background(session, self._wait_aside(session, settler, delivery, back))

    async def _wait_aside(self, session: Session, settler: Settler, delivery: Delivery, back: asyncio.Event) -> None:
        """Report a suspect that waits for others, and keep it no longer than half the consumer timeout."""
        left = session.held_since(delivery) + self._routes.half_consumer_timeout - asyncio.get_running_loop().time()
        _report_aside(session, settler)
        try:
            async with asyncio.timeout(max(left, _PATIENCE)):
                await session.until_set(back)
        except TimeoutError:
            if session.holds(delivery) and delivery.delivery_tag in session.aside:
                session.back(delivery)
                await self._put_suspects_away(session, settler)
        finally:
            _report_aside(session, settler)

    def _begin_to_stand_back(self) -> None:
        if self._current is not None and not (self._current[0].over.is_set() or self._standing_back):
            self._in_background(self._current[0], self._stand_back(*self._current))

    async def stands_back(self) -> None:
        """Hold no suspect that waits, until the one that is handled alone in another queue is settled."""
        if self._current is None:
            return
        if self._current[0].has_waiting_suspects:
            self._begin_to_stand_back()
        await self._current[0].until_set(self._cleared)

    def _stand_back(self, session: Session, settler: Settler) -> Coroutine[Any, Any, None]:
        # now, and not when the task runs: the other consumer asks at once
        self._standing_back += 1
        self._clearing += 1
        self._cleared.clear()
        return self._keep_back(session, settler)

    async def _keep_back(self, session: Session, settler: Settler) -> None:
        try:
            try:
                await session.stand_back()  # else the consumer would get them again before the other one starts
                await self._put_suspects_away(session, settler)
            finally:
                self._clearing -= 1
                if not self._clearing:
                    self._cleared.set()
            await self._say(session, settler, _ELSEWHERE)
        finally:
            self._standing_back -= 1
            await session.come_forward()

    async def _say(self, session: Session, settler: Settler, why: str) -> None:
        """Wait until no suspect is handled alone, and report it if that takes long."""
        try:
            async with asyncio.timeout(_PATIENCE):
                await session.until_set(self._suspects.free)
            return
        except TimeoutError:
            settler.health.set(session.queue, Cause.ALONE, why)
        try:
            await session.until_set(self._suspects.free)
        finally:
            settler.health.clear(session.queue, Cause.ALONE)

    async def _put_suspects_away(self, session: Session, settler: Settler) -> None:
        """Requeue suspects where that is not counted; else move them to the end of their queue."""
        await asyncio.gather(*(self._put_away(session, settler, each) for each in session.waiting_suspects()))

    async def _put_away(self, session: Session, settler: Settler, delivery: Delivery) -> None:
        if not session.nack_counts:
            session.requeue(delivery)
            return
        if self.suspicion(session, self._incoming(delivery)) is Suspicion.CRASHED:
            session.put_off(delivery)  # it is parked next; a copy would be handled again before that
        elif not await self.move(session, settler, delivery):
            session.put_off(delivery)

    async def requeue(self, session: Session, settler: Settler, delivery: Delivery) -> None:
        """Requeue a delivery whose handler was not called, or not to its end.

        A message that a copy of ours calls a suspect is moved where RabbitMQ counts requeueing: each later count would
        bring it closer to parking.
        """
        if not (self._is_counted(session, delivery) and await self.move(session, settler, delivery)):
            session.requeue(delivery)

    def leaves(self, delivery: Delivery) -> asyncio.Task[None] | None:
        """Requeue in a task what must not be requeued with a nack, as the consumer stops; None when a nack will do."""
        if self._current is None or not self._is_counted(self._current[0], delivery):
            return None
        return self._in_background(self._current[0], self.requeue(*self._current, delivery))

    def _is_counted(self, session: Session, delivery: Delivery) -> bool:
        return session.nack_counts and is_moved(self._incoming(delivery))

    async def move(self, session: Session, settler: Settler, delivery: Delivery) -> bool:
        """Put a message behind all others of its queue, so that RabbitMQ counts its deliveries from 0.

        False when that cannot be done now. A message whose copy is not confirmed is held, and may wait again.
        """
        answers: list[bool] = []
        elsewhere = False

        async def moving() -> None:
            incoming = self._incoming(delivery)
            lost = carried(incoming, self._routes, survived=self._suspects.survived(incoming))
            answers.append(await settler.set_back(session, incoming, lost))
            if answers == [False] and elsewhere and session.holds(delivery):
                session.put_off(delivery)

        task = self._in_background(session, moving())
        off_hands = asyncio.ensure_future(session.off_hands(delivery))
        try:
            await asyncio.wait((task, off_hands), return_when=asyncio.FIRST_COMPLETED)
        finally:
            off_hands.cancel()
            elsewhere = True
        return answers != [False]


def _report_aside(session: Session, settler: Settler) -> None:
    if session.aside and not session.ended.is_set():
        messages = "a message" if len(session.aside) == 1 else f"{len(session.aside)} messages, each"
        settler.health.set(session.queue, Cause.ASIDE, f"{messages} {_ASIDE}")
    else:
        settler.health.clear(session.queue, Cause.ASIDE)
