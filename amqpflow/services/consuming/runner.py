"""Run one handler on a connection: session after session, each with its own channel, until the connection ends.

In: a connection, and a session if one is open. Out: each delivery goes through the pipeline in a slot of the handler.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Coroutine
from typing import Any

from amqpflow.delivery.backoff import Backoff, jittered
from amqpflow.delivery.ending import CANCELLED, cancelled, channel_closed
from amqpflow.errors import AmqpflowError, BrokerError, PermissionDeniedError
from amqpflow.model.event import ConsumerStarted, ConsumerStopped
from amqpflow.model.message import Delivery
from amqpflow.model.routes import QueueRoutes
from amqpflow.model.safe import safe
from amqpflow.rabbitmq.connection import ANOTHER_LOGIN, Connection
from amqpflow.services.handling.exits import handling_context
from amqpflow.services.handling.handler import Handler, full_name
from amqpflow.services.handling.invocation import HandlerInvoker
from amqpflow.services.handling.middleware import Middleware
from amqpflow.services.handling.ordering import KeyCheck, KeyOrdering
from amqpflow.services.handling.throttling import ConcurrencyBudget, Rate
from amqpflow.services.handling.turns import Turns
from amqpflow.services.handling.unpacking import Unpacker
from amqpflow.services.process.waiting import end, first_of
from amqpflow.services.publishing.loop_publisher import LoopPublisher

from .circuit import CircuitBreaker
from .events import Events
from .health import BEFORE_A_SESSION, Cause, ConsumerHealth
from .isolation import Isolation
from .left_behind import LeftBehind, Slot
from .overdue import Overdue
from .pending import PendingPublishes
from .pipeline import Pipeline
from .session import Session
from .settler import Settler
from .suspects import Suspects
from .telemetry import ConsumerTelemetry

log = logging.getLogger("amqpflow.consumer")

_BACKOFF = Backoff(0.5)  #: between attempts to consume
_ASKING = 5.0  #: seconds for the broker to say whether a queue is there
_HALT_PATIENCE = 25.0  #: seconds for handlers that run when a consumer stops itself
_LONG_ENOUGH = 5.0  #: seconds after which an ended session did begin properly
_NACK_IS_NOT_COUNTED = (4, 3)  #: from this release on a nack does not count against a delivery limit (fact 3.3)


class HandlerRunner:
    """One handler of a consumer. It outlives connections: its slots are what keeps `concurrency` true across them."""

    def __init__(
        self,
        handler: Handler,
        routes: QueueRoutes,
        max_body_bytes: int,
        events: Events,
        telemetry: ConsumerTelemetry,
        health: ConsumerHealth,
        suspects: Suspects,
        *,
        publisher: LoopPublisher | None = None,
        budget: ConcurrencyBudget | None = None,
        single_active: bool = False,
    ) -> None:
        self.handler = handler
        self.session: Session | None = None
        self._events = events
        self._health = health
        self._slots = asyncio.Semaphore(handler.concurrency)
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()
        self._halted = ""  #: why this process does not consume the queue any more
        self._threads = handler.threads()
        self._unpacker = Unpacker(handler.queue)
        #: where a message waits before its handler begins
        self._turns: list[Turns] = []
        self._breaker = CircuitBreaker(handler.breaker, routes, events, health)
        outer: list[Middleware] = []
        if handler.rate is not None:
            outer.append(rate := Rate(handler.rate))
            self._turns.append(rate.turns)
        if budget is not None:
            outer.append(share := budget.share(handler.weight))
            self._turns.append(share.turns)
        if handler.breaker is not None or self._turns:
            outer.append(self._breaker)
        if handler.order_by is not None:
            outer.append(KeyCheck(handler.order_by))
        self._single_active = single_active
        self._overdue: Overdue | None = None
        if self._threads is not None:
            self._turns.append(self._threads.turns)
            self._overdue = Overdue(self._threads, handler, health, on_exhausted=self._stand_still)
        self._left_behind = LeftBehind(handler, health)
        self._ordering: KeyOrdering | None = None
        if handler.order_by is not None:
            native = routes.native is not None
            self._ordering = KeyOrdering(handler.order_by, max_body_bytes, native=native, unpack=self._unpacker.unpack)
        self._clock = asyncio.get_running_loop().time
        self._isolation = Isolation(suspects, routes, self._in_background)
        self._routes = routes
        self._pipeline = Pipeline(
            invoker=HandlerInvoker(handler, routes, self._stopping, threads=self._threads, outer=outer),
            isolation=self._isolation,
            suspects=suspects,
            breaker=self._breaker,
            telemetry=telemetry,
            unpacker=self._unpacker,
            publisher=publisher,
            max_body_bytes=max_body_bytes,
            ordered=self._ordering is not None,
            stopping=self._stopping,
            halt=self._halt,
        )

    async def open(self, connection: Connection) -> Session:
        """Start to consume. Raises BrokerError, PermissionDeniedError, BrokerUnavailableError."""
        routes = self._routes
        counted = routes.queue_type == "quorum" and connection.version < _NACK_IS_NOT_COUNTED
        session = Session(
            await connection.open_channel(),
            self.handler.queue,
            prefetch=self.handler.prefetch,
            first_prefetch=self.handler.concurrency,
            ordering=self._ordering,
            single_active=self._single_active,
            nack_counts=counted,
            is_suspect=self._isolation.is_suspect,
            on_suspect=self._isolation.arrived,
            on_end=self._isolation.lost,
            on_leave=self._isolation.leaves,
        )
        # a single active consumer gets at once what it requeues
        self._breaker.watch(session, hold=counted or session.keeps_order)
        await session.start()
        self.session = session
        self._events.emit(
            ConsumerStarted(
                queue=self.handler.queue, prefetch=self.handler.concurrency, single_active=self._single_active
            )
        )
        return session

    async def run(self, connection: Connection, settler: Settler, session: Session | None) -> None:
        """Handle deliveries until the connection ends or the task is cancelled; `session` is the first, if open."""
        wait, clock = _BACKOFF.first, asyncio.get_running_loop().time
        while not (connection.is_closed or self._stopping.is_set()):
            if self._halted:
                self._health.set(self.handler.queue, Cause.HALTED, self._halted)
                await first_of(connection.closed.wait(), self._stopping.wait())
                return
            if self._overdue is not None and self._overdue.threads.exhausted:
                self._health.set(self.handler.queue, Cause.THREADS, self._overdue.text)
                await first_of(connection.closed.wait(), self._stopping.wait(), self._overdue.threads.available.wait())
                continue
            opened = clock()
            try:
                session = session or await self.open(connection)
            except AmqpflowError as error:
                if connection.is_closed or self._stopping.is_set():
                    return
                missing = isinstance(error, BrokerError) and error.missing
                hint = "`amqpflow apply FILE` creates the queue" if missing else error.hint
                why = f"{error}{f'; {hint}' if hint else ''}"
                log.error("%s: cannot consume: %s", self.handler.queue, safe(why))
                self._health.set(self.handler.queue, Cause.CONNECTION, f"cannot consume: {why}")
                if isinstance(error, PermissionDeniedError) and await connection.has_another_login():
                    await connection.close(ANOTHER_LOGIN)
                    return
            else:
                if self._stopping.is_set():
                    await session.stop(until=clock())
                    return
                self._health.clear(self.handler.queue, *BEFORE_A_SESSION)
                try:
                    await self._handle(
                        session, PendingPublishes(settler, self.handler.concurrency, self._in_background)
                    )
                    session.why_ended = await self._why_ended(session, connection)
                finally:
                    session.why_ended = session.why_ended or self._why_cut(session, connection)
                    self._events.emit(ConsumerStopped(queue=self.handler.queue, reason=session.why_ended))
                if self._stopping.is_set():
                    return
                if not connection.is_closed:
                    log.warning("%s: the consumer ended and restarts: %s", self.handler.queue, safe(session.why))
                await session.channel.close()
                self._health.set(self.handler.queue, Cause.ENDED, session.why)
                session = None
            if clock() - opened > _LONG_ENOUGH:
                wait = _BACKOFF.first
                continue
            # a session that ends at once would do so again, and every round counts against delivery limits
            await first_of(
                connection.closed.wait(), self._stopping.wait(), asyncio.sleep(jittered(wait, random.random()))
            )
            wait = _BACKOFF.after(wait)

    def _why_cut(self, session: Session, connection: Connection) -> str:
        """Return why a session ended, without asking the broker."""
        if self._stopping.is_set():
            return "the consumer was stopped"
        if self._overdue is not None and self._overdue.threads.exhausted:
            return self._overdue.text
        if connection.is_closed:
            return f"the connection was lost: {connection.close_reason}"
        if session.cancelled_by_server:
            return CANCELLED
        return channel_closed(session.channel.close_reason, session.held(), full_name(self.handler.function))

    async def _why_ended(self, session: Session, connection: Connection) -> str:
        """Return why a session ended. A cancel has no reason (fact 18.2), so ask whether the queue exists."""
        if self._stopping.is_set() or connection.is_closed or not session.cancelled_by_server:
            return self._why_cut(session, connection)
        held = session.held()  # before time goes by
        exists = await self._queue_exists(connection)
        if connection.closed.is_set():
            return self._why_cut(session, connection)
        timeout_ms = self._routes.consumer_timeout_ms
        return cancelled(exists, held, full_name(self.handler.function), timeout_ms)

    async def _queue_exists(self, connection: Connection) -> bool | None:
        """Ask more than once: a deleted queue is found for a moment. None if the broker cannot be asked."""
        try:
            async with asyncio.timeout(_ASKING):
                for pause in (0.0, 0.1, 0.4):
                    await asyncio.sleep(pause)
                    await connection.queue_counts(self.handler.queue)
            return True
        except BrokerError as error:
            return False if error.missing else None
        except (AmqpflowError, TimeoutError):
            # a virtual host cancels the consumers before it closes the connections
            await first_of(connection.closed.wait(), asyncio.sleep(1))
            return None

    def _in_background(self, session: Session, work: Coroutine[Any, Any, object]) -> asyncio.Task[None]:
        task = asyncio.create_task(self._or_end(session, work), context=handling_context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _or_end(self, session: Session, work: Coroutine[Any, Any, object]) -> None:
        try:
            await work
        except BaseException:
            # nothing else would settle its delivery: the end of the channel requeues it
            if not self._stopping.is_set():
                await session.channel.close()
            raise

    async def _handle(self, session: Session, publishes: PendingPublishes) -> None:
        self._isolation.begin(session, publishes.settler)
        slots = [Slot() for _ in range(self.handler.concurrency)]
        for slot in slots:
            slot.task = self._in_background(session, self._work(session, publishes, slot))
        try:
            await self._left_behind.watch(session.ended)
        finally:
            # handlers run to their end: cancelling them would leave their work half done for nothing
            session.dismiss_idle()
            for each in self._turns:
                each.refuse_gone()
            self._left_behind.add(slots)

    async def _work(self, session: Session, publishes: PendingPublishes, slot: Slot) -> None:
        # a slot before a delivery: a started one is in a handler, or about to be
        async with self._slots:
            while (delivery := await session.next()) is not None:
                slot.delivery, slot.since = delivery, self._clock()
                await self._pipeline.process(session, publishes, delivery)
                slot.delivery = None

    async def _halt(self, session: Session, delivery: Delivery, why: str) -> None:
        """Stop consuming for good: a person has to look, and a restart consumes again."""
        session.requeue(delivery)
        if self._halted:
            return
        self._halted = why
        self._health.set(session.queue, Cause.HALTED, why)
        log.error("%s: not consumed until a restart: %s", session.queue, why)
        await session.stop(until=asyncio.get_running_loop().time() + _HALT_PATIENCE)

    @property
    def stands_still(self) -> bool:
        """Return whether all threads are overdue: only a restart of the process helps for sure."""
        return self._threads is not None and self._threads.exhausted

    def _stand_still(self) -> None:
        """Stop the session, so that another process may take what is held here."""
        if self.session is not None:
            until = self._clock() + _HALT_PATIENCE
            self._in_background(self.session, self.session.stop(until=until))

    # -- ending

    async def stop(self, until: float) -> None:
        """Stop taking deliveries, wait for the handlers that run, requeue the rest. `until`: the loop's time."""
        self._stopping.set()
        self._refuse_waiting()
        if self.session is not None:
            unfinished = await self.session.stop(until=until)
            self.session.dismiss_idle()
            if unfinished:
                log.warning("%s: %d unfinished deliveries were requeued", self.handler.queue, unfinished)
        left = max(0.0, until - asyncio.get_running_loop().time())
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=left)
        await self.abandon()

    def _refuse_waiting(self) -> None:
        for each in self._turns:
            each.close()

    async def abandon(self) -> None:
        """Cancel the handlers that run. A thread runs to the end of its handler."""
        self._stopping.set()
        self._refuse_waiting()
        self._breaker.stop()
        if self._threads is not None:
            self._threads.shutdown()
        if self._overdue is not None:
            self._overdue.forget()
        self._left_behind.forget()
        self._unpacker.shutdown()
        await end(self._tasks)
