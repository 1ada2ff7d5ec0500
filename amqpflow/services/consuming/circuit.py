"""Stop consuming a queue while a dependency of its handler is down, instead of sending the whole queue through its
retry queues into parking.

A failed message takes its retry queue as always; prefetched messages wait. They are requeued where that is not counted.
A quorum queue before RabbitMQ 4.3 counts a nack against its delivery limit (fact 3.3), so there they are held, for half
the consumer timeout at most. They are held as well where an order must be kept.
"""

from __future__ import annotations

import asyncio

from amqpflow.delivery.breaker import Breaker, BreakerState, Phase, counted, half_opened, opened, tried
from amqpflow.delivery.schedule import rule_for
from amqpflow.delivery.verdict import Decided, Verdict
from amqpflow.errors import UndecodableError
from amqpflow.model.event import BreakerClosed, BreakerHalfOpen, BreakerOpened, ConsumerPaused, ConsumerResumed
from amqpflow.model.message import Delivery
from amqpflow.model.outcome import Outcome, Pause, Retry
from amqpflow.model.routes import QueueRoutes
from amqpflow.services.handling.errors import named_among, rule_names
from amqpflow.services.handling.exception_groups import cancellation_in, has_error, meaning
from amqpflow.services.handling.message import Message
from amqpflow.services.handling.middleware import CallNext
from amqpflow.services.handling.stack import message_of, type_name
from amqpflow.services.handling.turns import NotStarted
from amqpflow.services.process.waiting import first_of

from .events import Events
from .health import Cause, ConsumerHealth
from .session import Session


class CircuitBreaker:
    """The breaker of one handler, over all its sessions. Without a `Breaker`, only a handler's `Pause` opens it."""

    def __init__(self, breaker: Breaker | None, routes: QueueRoutes, events: Events, health: ConsumerHealth) -> None:
        self.state = BreakerState()
        self._breaker = breaker
        self._routes = routes
        self._queue = routes.queue
        self._events = events
        self._health = health
        self._session: Session | None = None
        self._hold = True
        self._changed = asyncio.Event()
        self._attending: asyncio.Task[None] | None = None
        self._attended: Session | None = None
        self._stopped = False

    @property
    def over(self) -> bool:
        """Return whether the breaker is closed."""
        return self.state.phase is Phase.CLOSED

    # -- counting calls

    async def __call__(self, message: Message, call_next: CallNext) -> Outcome | None:
        before = self.state
        if before.phase is not Phase.CLOSED and not self._is_tried(message):
            raise NotStarted(f"breaker {before.phase}")  # the outage began while it waited for its turn
        try:
            result = await call_next(message)
        except BaseException as error:
            self._raised(before, error)
            raise
        self._ended(before, result if isinstance(result, Outcome) else None)
        return result

    def _raised(self, before: BreakerState, error: BaseException) -> None:
        means = meaning(error)
        if not isinstance(means, NotStarted):
            self._ended(before, means, error)

    def _is_tried(self, message: Message) -> bool:
        return self._session is not None and self._session.admission.tried == message.delivery_tag

    def _ended(self, before: BreakerState, result: BaseException | None, raised: BaseException | None = None) -> None:
        """Count a call. `result`: an outcome or an exception. `raised`: the group that it may be out of."""
        # a call that began before the breaker opened, or half-opened, says nothing about the present
        if self._breaker is None or isinstance(result, Pause) or before.openings != self.state.openings:
            return
        if self._stopped and raised is not None and cancellation_in(raised) is not None:
            return
        error = result.__cause__ if isinstance(result, Outcome) else result
        if error is None and raised is not None and has_error(raised):
            error = raised  # a group: an error beside the outcome
        trip = _named(error, self._breaker.trip_on)
        failed = bool(trip) or self._failed(result, error)
        now = asyncio.get_running_loop().time()
        if before.phase is Phase.HALF_OPEN:
            self._become(tried(self.state, self._breaker, now, failed=failed))
        elif before.phase is Phase.CLOSED:
            self._become(counted(self.state, self._breaker, now, failed=failed, trip=trip))

    def _failed(self, result: BaseException | None, error: BaseException | None) -> bool:
        if isinstance(result, Outcome) and not isinstance(result, Retry):
            return False
        if self._breaker is not None and self._breaker.errors:
            return bool(_named(error, self._breaker.errors))
        if error is None:
            return isinstance(result, Retry)
        rule = rule_for(self._routes, rule_names(error, self._routes))
        return not (isinstance(error, UndecodableError) or (rule is not None and rule.park is not None))

    def after(self, session: Session, delivery: Delivery, verdict: Verdict | None) -> None:
        """Note a delivery that was processed during an outage, or whose handler said `Pause`."""
        now = asyncio.get_running_loop().time()
        outcome = verdict.outcome if isinstance(verdict, Decided) else None
        if isinstance(outcome, Pause):
            reason = f"a handler said Pause{f': {outcome.reason}' if outcome.reason else ''}"
            self._become(opened(self.state, now, (outcome.after_ms or 0) / 1000, reason))
        elif session.admission.tried == delivery.delivery_tag and self.state.phase is Phase.HALF_OPEN:
            if verdict is not None and self._breaker is None:
                self._become(tried(self.state, None, now, failed=False))
            else:
                self._changed.set()  # its handler was not called, so another delivery is tried

    # -- stopping and trying

    def watch(self, session: Session, *, hold: bool) -> None:
        """Keep a new session from consuming while the outage lasts. `hold`: keep what is prefetched then."""
        self._session = session
        self._hold = hold
        if self.over:
            self._health.clear(self._queue, Cause.BREAKER)
        else:
            self._health.set(self._queue, Cause.BREAKER, f"breaker open: {self.state.reason}")
            session.admission.shut()
            self._attend(session)

    def _become(self, state: BreakerState) -> None:
        before, self.state = self.state, state
        if state.phase is before.phase and state.until == before.until:
            return
        self._changed.set()
        queue, now = self._queue, asyncio.get_running_loop().time()
        if state.phase is Phase.OPEN and before.phase is not Phase.OPEN:
            why = f"breaker open: {state.reason}"
            self._health.set(queue, Cause.BREAKER, why)
            if self._session is not None:
                self._session.admission.shut()  # in this step already: nothing that waits may start
                self._attend(self._session)
            if before.phase is Phase.CLOSED:
                self._events.emit(ConsumerPaused(queue=queue, reason=why))
            self._events.emit(BreakerOpened(queue=queue, reason=state.reason, open_for=state.until - now))
        elif state.phase is Phase.HALF_OPEN:
            self._health.set(queue, Cause.BREAKER, "breaker half-open: a single message is tried")
            self._events.emit(BreakerHalfOpen(queue=queue))
        elif state.phase is Phase.CLOSED:
            self._health.clear(queue, Cause.BREAKER)
            self._events.emit(BreakerClosed(queue=queue, open_for=now - before.opened_at))
            self._events.emit(ConsumerResumed(queue=queue))

    def _attend(self, session: Session) -> None:
        if self._attending is None or self._attending.done() or self._attended is not session:
            self._attended = session
            self._attending = asyncio.create_task(self._attend_to_end(session), name="amqpflow outage")

    async def _attend_to_end(self, session: Session) -> None:
        """Requeue what waits, and try one delivery at a time, as long as the outage and the session last."""
        half = self._routes.half_consumer_timeout
        clock = asyncio.get_running_loop().time
        while await self._continues(session):
            self._changed.clear()
            self._become(half_opened(self.state, clock()))
            if self.state.phase is Phase.OPEN:
                await session.rest(older_than=half if self._hold else 0.0)
            else:
                await session.try_one()
            wait = self.state.until - clock() if self.state.phase is Phase.OPEN else half / 2
            await first_of(session.over.wait(), self._changed.wait(), within=max(0.0, min(wait, half / 2)))

    async def _continues(self, session: Session) -> bool:
        if self.over and not session.over.is_set():
            await session.open()  # held messages may begin the next outage before the broker has answered
        return not (self.over or session.over.is_set())

    def stop(self) -> None:
        """Attend no session any more: the consumer stops."""
        self._stopped = True
        if self._attending is not None:
            self._attending.cancel()


def _named(error: BaseException | None, errors: tuple[type[BaseException] | str, ...]) -> str:
    """Return type and text of an error, or of the first of a group, if it is one of these, else ""."""
    named = None if error is None else named_among(error, errors)
    return "" if named is None else f"{type_name(type(named))}: {message_of(named)}"
