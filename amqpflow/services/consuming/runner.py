"""Run one handler on a connection: session after session, each with its own channel, until the connection ends."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

from amqpflow.delivery.backoff import Backoff, jittered
from amqpflow.delivery.crashes import Suspicion, losses
from amqpflow.delivery.ending import CANCELLED, cancelled, channel_closed
from amqpflow.delivery.incoming import Incoming
from amqpflow.delivery.settle import Acknowledge, Circumstances, Reject, Settlement, ToParking, ToTier, decide
from amqpflow.delivery.verdict import Crashed, Verdict
from amqpflow.errors import AmqpflowError, BrokerError, PermissionDeniedError
from amqpflow.model.decompression import LARGE
from amqpflow.model.event import ConsumerStarted, ConsumerStopped
from amqpflow.model.message import Delivery
from amqpflow.model.routes import QueueRoutes
from amqpflow.model.safe import safe
from amqpflow.rabbitmq.connection import ANOTHER_LOGIN, Connection
from amqpflow.services.handling.exits import handling_context
from amqpflow.services.handling.handler import Handler, full_name
from amqpflow.services.handling.invocation import DONE, HandlerInvoker
from amqpflow.services.handling.message import Message, takes_long_to_unpack, unpack
from amqpflow.services.handling.middleware import Middleware
from amqpflow.services.handling.ordering import KeyCheck, KeyOrdering
from amqpflow.services.handling.thread_pool import Threads
from amqpflow.services.handling.throttling import ConcurrencyBudget, ConcurrencyShare, Rate
from amqpflow.services.handling.turns import NotStarted, require_held
from amqpflow.services.publishing.loop_publisher import LoopPublisher

from .circuit import CircuitBreaker
from .events import Events
from .health import BEFORE_A_SESSION, Cause, ConsumerHealth
from .isolation import Isolation
from .left_behind import LeftBehind, Slot
from .overdue import Overdue
from .pending import PendingPublish, PendingPublishes
from .session import Session
from .settler import Requeued, Settler, now
from .suspects import Suspects
from .telemetry import ConsumerTelemetry

log = logging.getLogger("amqpflow.consumer")

_BACKOFF = Backoff(0.5)  #: between attempts to consume
_ASKING = 5.0  #: seconds for the broker to say whether a queue is there
_HALT_PATIENCE = 25.0  #: seconds for handlers that run when a consumer stops itself
_LONG_ENOUGH = 5.0  #: seconds after which a session that ended is not one that cannot begin
_NACK_IS_NOT_COUNTED = (4, 3)  #: from this release on a nack does not count against a delivery limit (fact 3.3)

_STOPPED = Requeued(why="the consumer was stopped")


class _Handled(NamedTuple):
    """A delivery that was handled and is being settled."""

    session: Session
    settler: Settler
    incoming: Incoming
    began: float  #: the loop's time in seconds
    verdict: Verdict
    at: Circumstances
    settlement: Settlement


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
        self._max_body_bytes = max_body_bytes
        self._publisher = publisher
        self._events = events
        self._health = health
        self._telemetry = telemetry
        self._suspects = suspects
        self._slots = asyncio.Semaphore(handler.concurrency)
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()
        self._halted = ""  #: why this process does not consume the queue any more
        self._threads = handler.threads()
        self._unpacking: ThreadPoolExecutor | None = None
        #: where a message waits before its handler begins
        self._flow: list[Rate | ConcurrencyShare | Threads] = []
        self._breaker = CircuitBreaker(handler.breaker, routes, events, health)
        outer: list[Middleware] = []
        if handler.rate is not None:
            outer.append(rate := Rate(handler.rate))
            self._flow.append(rate)
        if budget is not None:
            outer.append(share := budget.share(handler.weight))
            self._flow.append(share)
        if handler.breaker is not None or self._flow:
            outer.append(self._breaker)
        if handler.order_by is not None:
            outer.append(KeyCheck(handler.order_by))
        self._single_active = single_active
        self._overdue: Overdue | None = None
        if self._threads is not None:
            self._flow.append(self._threads)
            self._overdue = Overdue(self._threads, handler, health, on_exhausted=self._stand_still)
        self._left_behind = LeftBehind(handler, health)
        self._ordering: KeyOrdering | None = None
        if handler.order_by is not None:
            native = routes.native is not None
            self._ordering = KeyOrdering(handler.order_by, max_body_bytes, native=native, unpack=self._unpack)
        self._unpacks = handler.is_async or handler.order_by is not None
        self._clock = asyncio.get_running_loop().time
        self._isolation = Isolation(suspects, routes, self._in_background)
        self._invoker = HandlerInvoker(handler, routes, self._stopping, threads=self._threads, outer=outer)

    async def open(self, connection: Connection) -> Session:
        """Start to consume. Raises BrokerError, PermissionDeniedError, BrokerUnavailableError."""
        routes = self._invoker.routes
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
        # what a single active consumer gives back is its own again at once
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
        """
        Handle deliveries until the connection ends or the task is cancelled.

        Args:
            session: the first session when it is open already.
        """
        wait, clock = _BACKOFF.first, asyncio.get_running_loop().time
        while not (connection.is_closed or self._stopping.is_set()):
            if self._halted:
                self._health.set(self.handler.queue, Cause.HALTED, self._halted)
                await _first_of(connection.closed.wait(), self._stopping.wait())
                return
            if self._overdue is not None and self._overdue.exhausted:
                self._health.set(self.handler.queue, Cause.THREADS, self._overdue.text)
                await _first_of(connection.closed.wait(), self._stopping.wait(), self._overdue.available.wait())
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
                    log.warning("%s: the consumer ended and starts again: %s", self.handler.queue, safe(session.why))
                await session.channel.close()
                self._health.set(self.handler.queue, Cause.ENDED, session.why)
                session = None
            if clock() - opened > _LONG_ENOUGH:
                wait = _BACKOFF.first
                continue
            # what ends at once would end at once again, and every round counts against delivery limits
            await _first_of(
                connection.closed.wait(), self._stopping.wait(), asyncio.sleep(jittered(wait, random.random()))
            )
            wait = _BACKOFF.after(wait)

    def _why_cut(self, session: Session, connection: Connection) -> str:
        """Why a session ended, without asking the broker."""
        if self._stopping.is_set():
            return "the consumer was stopped"
        if self._overdue is not None and self._overdue.exhausted:
            return self._overdue.text
        if connection.is_closed:
            return f"the connection was lost: {connection.close_reason}"
        if session.cancelled_by_server:
            return CANCELLED
        return channel_closed(session.channel.close_reason, session.held(), full_name(self.handler.function))

    async def _why_ended(self, session: Session, connection: Connection) -> str:
        """Why a session ended. A cancel has no reason (fact 18.2): whether the queue is still there tells more."""
        if self._stopping.is_set() or connection.is_closed or not session.cancelled_by_server:
            return self._why_cut(session, connection)
        held = session.held()  # before time goes by
        exists = await self._queue_exists(connection)
        if connection.closed.is_set():
            return self._why_cut(session, connection)
        timeout_ms = self._invoker.routes.consumer_timeout_ms
        return cancelled(exists, held, full_name(self.handler.function), timeout_ms)

    async def _queue_exists(self, connection: Connection) -> bool | None:
        """None when the broker cannot be asked. It is asked again: a queue is found for a moment after its deletion."""
        try:
            async with asyncio.timeout(_ASKING):
                for pause in (0.0, 0.1, 0.4):
                    await asyncio.sleep(pause)
                    channel = await connection.open_channel()
                    await channel.queue_depth(self.handler.queue)
                    await channel.close()
            return True
        except BrokerError as error:
            return False if error.missing else None
        except (AmqpflowError, TimeoutError):
            # a virtual host cancels the consumers before it closes the connections
            await _first_of(connection.closed.wait(), asyncio.sleep(1))
            return None

    def _in_background(self, session: Session, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(self._or_end(session, work), context=handling_context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _or_end(self, session: Session, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except BaseException:
            # nobody else would settle what it was about: its channel gives it back
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
            # those in a handler run on to its end: cancelling them would leave its work half done for nothing
            session.dismiss_idle()
            for each in self._flow:
                each.refuse_gone()
            self._left_behind.add(slots)

    async def _work(self, session: Session, publishes: PendingPublishes, slot: Slot) -> None:
        # a slot before a delivery: what is started is in a handler, or about to be
        async with self._slots:
            while (delivery := await session.next()) is not None:
                slot.delivery, slot.since = delivery, self._clock()
                await self._process(session, publishes, delivery)
                slot.delivery = None

    async def _process(self, session: Session, publishes: PendingPublishes, delivery: Delivery) -> None:
        settler, clock = publishes.settler, self._clock
        if self._stopping.is_set():
            await self._isolation.requeue(session, settler, delivery)
            return
        began = clock()
        incoming = Incoming(delivery, native=settler.routes.native is not None)
        if looping := settler.hot_loop(incoming, session.held_since(delivery)):
            await self._halt(session, delivery, looping)
            return
        alone, crashed = False, None
        if incoming.may_have_been_lost and (lost := losses(incoming, settler.routes)):
            suspected = self._isolation.suspicion(session, incoming)
            if suspected is Suspicion.UNCERTAIN and await self._isolation.move(session, settler, delivery):
                return
            alone = suspected in (Suspicion.ALONE, Suspicion.UNCERTAIN)
            if alone and not await self._isolation.may_start(session, settler, delivery):
                return
            if suspected is Suspicion.CRASHED:
                crashed = Crashed(deliveries=lost)
                session.excuse_others(delivery)
            else:
                self._suspects.starts(incoming, lost, alone=alone)
        self._telemetry.received(incoming, began - session.held_since(delivery))
        verdict: Verdict | None = crashed
        settled: Settlement | Requeued | None = _STOPPED
        if self._ordering is not None:
            session.handling(delivery)
        try:
            if crashed is not None:
                settled = None  # it is told of when its copy has been confirmed
                at = settler.circumstances(incoming)
                settlement = decide(incoming, crashed, at)
                self._send(publishes, _Handled(session, settler, incoming, began, crashed, at, settlement))
                await session.off_hands(delivery)
            elif not incoming.is_due(now()) and not await self._is_to_be_handled(session, publishes, incoming, began):
                settled = None  # it is told of when it is in a retry queue again
            else:
                message = Message(
                    incoming, max_body_bytes=self._max_body_bytes, holds=session.holds, publisher=self._publisher
                )
                if len(delivery.body) > LARGE and self._unpacks and takes_long_to_unpack(message):
                    await self._unpack(message)
                    require_held(message)
                verdict = await self._invoker.call(message)
                if verdict is not DONE or not self._breaker.over:
                    self._breaker.after(session, delivery, verdict)
                self._telemetry.handled(incoming, verdict, clock() - began)
                settled = settler.settle_at_once(session, incoming, verdict)
                if settled is None:
                    session.unsettled(delivery)
                    settled = _STOPPED
                    at = settler.circumstances(incoming)
                    settlement = decide(incoming, verdict, at)
                    handled = _Handled(session, settler, incoming, began, verdict, at, settlement)
                    if isinstance(settlement, Acknowledge | Reject):
                        settled = await settler.settle(session, incoming, verdict, at, first=settlement)
                    else:
                        settled = None  # it is told of when its copy has been confirmed
                        self._send(publishes, handled)
                        if alone or not self._breaker.over or publishes.is_crowded(session):
                            await session.off_hands(delivery)  # one that cannot be settled takes up no slot
        except NotStarted as why:
            settled = Requeued(why=str(why))
            if not session.waits_again(delivery):
                await self._isolation.requeue(session, settler, delivery)
        except Exception as error:
            settled = await self._could_not(session, settler, incoming, error)
        finally:
            if self._ordering is not None:
                session.handled(delivery)
            if settled is not None:
                self._telemetry.ended(incoming, settled, clock() - began, verdict)
            if not self._breaker.over:
                self._breaker.after(session, delivery, None)
            self._suspects.ended(incoming)
            if alone:
                self._isolation.ended(delivery)
                await session.resume(delivery)

    async def _unpack(self, message: Message) -> None:
        """Undo the encoding of a large body in a thread: of our own, since the default ones may all hang."""
        if self._unpacking is None:
            self._unpacking = ThreadPoolExecutor(1, f"amqpflow unpack {self.handler.queue}")
        await asyncio.get_running_loop().run_in_executor(self._unpacking, unpack, message)

    async def _is_to_be_handled(
        self, session: Session, publishes: PendingPublishes, incoming: Incoming, began: float
    ) -> bool:
        """Send round what is back before it is due; True when that cannot be, and its handler is to see it."""
        answers: list[Settlement | Requeued | None] = []
        elsewhere = False

        async def send() -> None:
            settled: Settlement | Requeued | None = _STOPPED
            try:
                settled = await publishes.settler.postpone(session, incoming)
            except Exception as error:
                settled = await self._could_not(session, publishes.settler, incoming, error)
            finally:
                answers.append(settled)
                if settled is None and elsewhere:  # it became due while it was held, and its slot is another's
                    session.requeue(incoming.delivery)
                    settled = Requeued(why="it was held until it was due")
                if settled is not None:
                    self._telemetry.ended(incoming, settled, self._clock() - began, None)

        sending = publishes.settle(session, send())
        off_hands = asyncio.ensure_future(session.off_hands(incoming.delivery))
        try:
            await asyncio.wait((sending, off_hands), return_when=asyncio.FIRST_COMPLETED)
        finally:
            off_hands.cancel()
            elsewhere = True
        return answers == [None]

    def _send(self, publishes: PendingPublishes, handled: _Handled) -> None:
        told, otherwise = partial(self._told, handled), partial(self._settle_after, handled)
        if isinstance(handled.settlement, ToTier | ToParking):
            publishes.send(PendingPublish(handled.session, handled.incoming, handled.settlement, told, otherwise))
        else:
            publishes.settle(handled.session, otherwise(None))

    def _told(self, handled: _Handled, what: Settlement | Requeued) -> None:
        """What became of a delivery that no task waits for."""
        self._telemetry.ended(handled.incoming, what, self._clock() - handled.began, handled.verdict)

    async def _settle_after(self, handled: _Handled, failure: AmqpflowError | None) -> None:
        """Its publish has ended so, or cannot be made now: it is settled in another way, or later."""
        session, settler, incoming, began, verdict, at, settlement = handled
        settled: Settlement | Requeued = _STOPPED
        try:
            settled = await settler.settle(session, incoming, verdict, at, first=settlement, failure=failure)
        except Exception as error:
            settled = await self._could_not(session, settler, incoming, error)
        finally:
            self._telemetry.ended(incoming, settled, self._clock() - began, verdict)

    async def _could_not(
        self, session: Session, settler: Settler, incoming: Incoming, error: Exception
    ) -> Settlement | Requeued:
        log.error("%s: settling a delivery failed", session.queue, exc_info=error)
        return await settler.leave_to_broker(session, incoming, f"settling it failed: {error!r}")

    async def _halt(self, session: Session, delivery: Delivery, why: str) -> None:
        """Stop to consume for good: a person has to look, and a restart consumes again."""
        session.requeue(delivery)
        if self._halted:
            return
        self._halted = why
        self._health.set(session.queue, Cause.HALTED, why)
        log.error("%s: not consumed until a restart: %s", session.queue, why)
        await session.stop(until=asyncio.get_running_loop().time() + _HALT_PATIENCE)

    @property
    def stands_still(self) -> bool:
        """Its threads are all overdue: only a restart of the process makes the consumer go on for sure."""
        return self._overdue is not None and self._overdue.exhausted

    def _stand_still(self) -> None:
        """Another process may take what is held here."""
        if self.session is not None:
            until = self._clock() + _HALT_PATIENCE
            self._in_background(self.session, self._stop_session(self.session, until))

    async def _stop_session(self, session: Session, until: float) -> None:
        await session.stop(until=until)

    # -- ending

    async def stop(self, until: float) -> None:
        """Stop taking deliveries, wait for the handlers that run, requeue the rest. `until`: the loop's time."""
        self._stopping.set()
        self._refuse_waiting()
        if self.session is not None:
            unfinished = await self.session.stop(until=until)
            self.session.dismiss_idle()
            if unfinished:
                log.warning("%s: %d unfinished deliveries were given back", self.handler.queue, unfinished)
        left = max(0.0, until - asyncio.get_running_loop().time())
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=left)
        await self.abandon()

    def _refuse_waiting(self) -> None:
        for each in self._flow:
            each.close()

    async def abandon(self) -> None:
        """Cancel the handlers that run. A thread that is in a handler runs on to its end."""
        self._stopping.set()
        self._refuse_waiting()
        self._breaker.stop()
        if self._threads is not None:
            self._threads.shutdown()
        if self._overdue is not None:
            self._overdue.forget()
        self._left_behind.forget()
        if self._unpacking is not None:
            self._unpacking.shutdown(wait=False)
        await _cancelled(self._tasks)


async def _first_of(*coroutines: object) -> None:
    tasks = [asyncio.ensure_future(each) for each in coroutines]  # type: ignore[call-overload]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await _cancelled(tasks)


async def _cancelled(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel tasks and wait until they have ended."""
    ending = list(tasks)
    for task in ending:
        task.cancel()
    await asyncio.gather(*ending, return_exceptions=True)
