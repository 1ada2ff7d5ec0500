"""Carry out settlements: publish, await the confirm, handle the return, then ack.

For every await between two broker operations the answer to "what if the process dies here?" is: the delivery is
unacked, so it comes again, and settling it again writes the same hop id.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from uuid import uuid4

from amqpflow.delivery.hot_loop import Rejections
from amqpflow.delivery.incoming import Incoming
from amqpflow.delivery.pauses import LONGEST_PAUSE, spread
from amqpflow.delivery.settle import (
    Acknowledge,
    Circumstances,
    LeaveToBroker,
    Reject,
    Settlement,
    ToParking,
    ToTier,
    decide,
    early,
    set_back,
)
from amqpflow.delivery.verdict import Decided, Verdict
from amqpflow.errors import (
    AmqpflowError,
    PublishFailed,
    PublishForbidden,
    Unpublishable,
)
from amqpflow.model.duration import format_duration
from amqpflow.model.event import ConsumerPaused, ConsumerResumed, MessageHeld
from amqpflow.model.headers import ParkReason
from amqpflow.model.message import Publish
from amqpflow.model.outcome import Ack
from amqpflow.model.routes import QueueRoutes

from .events import Events, about
from .log_limit import LogLimit
from .outbox import Outbox
from .session import Session

log = logging.getLogger("amqpflow.consumer")

DEFAULT_CONSUMER_TIMEOUT = 30 * 60.0  #: seconds; RabbitMQ's default
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, LONGEST_PAUSE  #: seconds between attempts to publish what is held
_REBINDING = 0.1  #: seconds; a key is without a queue for about a millisecond
_ASIDE = "lost before will be handled alone once the handlers that run have ended: others are handled"
CONFIRM_PATIENCE = 10.0  #: seconds without a confirm after which a message counts as held


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenBack:
    """The delivery was not settled: the broker has it again, or will when its channel ends."""

    why: str


_DONE = Acknowledge()


def lost(session: Session) -> GivenBack:
    """Say why a delivery can no longer be settled: its session ended, with everything that was unacked."""
    return GivenBack(why=f"its channel ended before it was settled: {session.why}")


def _log_more_not_taken(queue: str, retry_queue: str, count: int, seconds: float) -> None:
    log.warning("%s: retry queue %s did not take %d more messages within %.0fs", queue, retry_queue, count, seconds)


@dataclass(kw_only=True)
class Settler:
    """Settles the deliveries of one work queue on one connection."""

    routes: QueueRoutes
    outbox: Outbox
    frame_max: int  #: bytes, 0 for no limit
    host: str
    version: str
    events: Events
    problems: dict[str, str]  #: by queue: why messages are held, or it is not consumed; empty means healthy
    on_step: Callable[[str], None] | None = None  #: told before and after each broker operation
    rejections: Rejections | None = None  #: of a native queue
    random: random.Random = field(default_factory=random.Random)
    limit: LogLimit = field(default_factory=LogLimit)  #: of lines about messages
    _paused: bool = field(default=False, init=False)  #: said that it stands still
    _why: str = field(default="", init=False)  #: what the last message was held for

    def settle_at_once(self, session: Session, incoming: Incoming, verdict: Verdict) -> Settlement | GivenBack | None:
        """Settle a delivery that needs no publish; None when it is not that easy, and nothing was done."""
        if isinstance(verdict, Decided) and isinstance(verdict.outcome, Ack):
            # nearly every message, and no circumstance matters to it
            return _DONE if self.ack(session, incoming) else lost(session)
        return None

    async def settle(
        self,
        session: Session,
        incoming: Incoming,
        verdict: Verdict,
        at: Circumstances,
        *,
        first: Settlement,
        failure: AmqpflowError | None = None,
    ) -> Settlement | GivenBack:
        """
        Do what the verdict asks for, and say what was done.

        Args:
            session: where the delivery came from.
            incoming: the delivery.
            verdict: what came of its handler.
            at: the circumstances of every decision about it, so that each copy bears the same hop.
            first: what was decided already.
            failure: the error that its publish has ended with already.
        """
        missing: frozenset[str] = frozenset()
        looked_again = False
        settlement, error = first, failure
        while True:
            match settlement:
                case Acknowledge():
                    return settlement if self.ack(session, incoming) else lost(session)
                case ToTier():
                    done = await self._to_tier(session, incoming, settlement, error)
                    if done is not None:
                        return done
                    missing |= {settlement.tier.queue}
                case Reject():
                    return self._reject(session, incoming, settlement)
                case ToParking(reason=ParkReason.NO_ROUTE) if not looked_again:
                    # an apply that replaces a retry queue takes the key from one and gives it to the other
                    looked_again, missing = True, frozenset()
                    await asyncio.sleep(_REBINDING)
                case ToParking():
                    return await self._park(session, incoming, settlement, error)
                case LeaveToBroker(why=why):
                    return await self.leave_to_broker(session, incoming, why)
            settlement, error = decide(incoming, verdict, at, missing=missing), None

    def hot_loop(self, incoming: Incoming, arrived: float) -> str:
        """Why nothing delays what is rejected, "" when it is delayed or nothing is rejected. `arrived`: loop's time."""
        native, rejections = self.routes.native, self.rejections
        if native is None or rejections is None:
            return ""
        away = rejections.too_soon(incoming, arrived)
        if away is None:
            return ""
        return (
            f"a rejected message is back after {away * 1000:.0f} ms instead of {format_duration(native.min_ms)}: "
            f"RabbitMQ does not delay retries of {self.routes.queue}, and consuming it further would be a loop"
        )

    async def set_back(self, session: Session, incoming: Incoming, lost: int) -> bool:
        """
        Put a message behind all others of its queue, so that RabbitMQ counts its deliveries from 0.

        False when that cannot be done now, as in an alarm: it stays held, and nothing was done.
        """
        if self.outbox.blocked is not None:
            return False
        copy = set_back(incoming, self.circumstances(incoming), lost=lost)
        if copy is None:
            return False
        self.step("publish.before")
        try:
            confirmed = await self._confirmed(session, incoming, copy)
        except AmqpflowError as error:
            log.warning("%s: a message that may kill cannot be put back into its queue: %s", session.queue, error)
            return False
        self.step("publish.confirmed")
        if confirmed:
            self.ack(session, incoming)
        return True

    async def send_round(self, session: Session, incoming: Incoming) -> Settlement | GivenBack | None:
        """Send a message that is back before it is due to a tier again, uncounted; None when it is due."""
        record = incoming.record
        if record is None or record.due_at is None or record.due_at <= now():
            return None
        at = self.circumstances(incoming)
        missing: frozenset[str] = frozenset()
        while (settlement := early(incoming, at, missing=missing)) is not None:
            assert isinstance(settlement, ToTier)  # noqa: S101 - narrows the union for the type checker
            done = await self._to_tier(session, incoming, settlement)
            if done is not None:
                return done
            missing |= {settlement.tier.queue}
        return None

    def _reject(self, session: Session, incoming: Incoming, settlement: Reject) -> Settlement | GivenBack:
        self.step("reject.before")
        done = session.reject(incoming.delivery)
        if done and self.rejections is not None:
            self.rejections.rejected(incoming, asyncio.get_running_loop().time())
        self.step("reject.after")
        return settlement if done else lost(session)

    async def _to_tier(
        self, session: Session, incoming: Incoming, settlement: ToTier, error: AmqpflowError | None = None
    ) -> Settlement | GivenBack | None:
        """None when the tier does not take the message, which is then to be settled in another way."""
        done = await self._publish(session, incoming, settlement.publish, error, until_taken=False)
        if done is False:
            names = session.queue, settlement.tier.queue
            if self.limit.admits(names, partial(_log_more_not_taken, *names)):  # one for each message that fails
                log.warning("%s: retry queue %s does not take messages", *names)
            return None
        return self._acked(session, incoming, settlement) if done is True else done

    async def _park(
        self, session: Session, incoming: Incoming, settlement: ToParking, error: AmqpflowError | None
    ) -> Settlement | GivenBack:
        done = await self._publish(session, incoming, settlement.publish, error, until_taken=True)
        if isinstance(done, bool):
            return self._acked(session, incoming, settlement) if done else lost(session)
        return done

    def _acked(self, session: Session, incoming: Incoming, settlement: Settlement) -> Settlement | GivenBack:
        """Ack what was settled so; given back when it is no longer ours."""
        return settlement if self.ack(session, incoming) else lost(session)

    async def _publish(
        self,
        session: Session,
        incoming: Incoming,
        publish: Publish,
        failure: AmqpflowError | None,
        *,
        until_taken: bool,
    ) -> bool | Settlement | GivenBack:
        """
        Publish and await the confirm, for as long as the delivery is ours.

        A publish that is uncertain is made again, with the same hop id, while its source stays unacked. So is one for
        which a permission is missing: that is an outage, and the message keeps the retries that it has left.

        Args:
            failure: how a first publish has ended already.
            until_taken: hold on when the message is returned or refused as well.

        Returns:
            True when confirmed, False when returned or refused and not `until_taken`, else what became of the delivery.
        """
        wait, held = _FIRST_PAUSE, False
        try:
            while session.holds(incoming.delivery):
                try:
                    if failure is not None:
                        error, failure = failure, None
                        raise error
                    if (blocked := self.outbox.blocked) is not None:
                        # what is not sent cannot be there twice, should the connection be lost
                        held = True
                        await self._hold(session, incoming, _blocked(blocked), done=self.outbox.unblocked())
                        continue
                    self.step("publish.before")
                    if not await self._confirmed(session, incoming, publish):
                        return self.lost(session)
                    self.step("publish.confirmed")
                    return True
                except Unpublishable as error:
                    return await self.leave_to_broker(session, incoming, str(error))
                except PublishForbidden as error:
                    # nothing is wrong with the message or its queue: another exchange would only hide what is missing
                    why = f"cannot publish: {error}"
                except PublishFailed as error:
                    if not until_taken:
                        return False
                    why = f"cannot park: {error}"
                except AmqpflowError as error:  # uncertain, or there is no connection to publish on
                    why = f"cannot publish: {error}"
                held = True
                await self._hold(session, incoming, why, spread(wait, self.random.random()))
                wait = min(wait * 2, _LONGEST_PAUSE)
            return self.lost(session)
        finally:
            if held:
                self.release(session, incoming)

    async def _confirmed(self, session: Session, incoming: Incoming, publish: Publish) -> bool:
        """Await one publish, however long it takes; False when the delivery was requeued meanwhile."""
        told: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        answers: list[AmqpflowError | None] = []

        def settled(error: AmqpflowError | None) -> None:
            answers.append(error)
            wake(told)

        self.outbox.post(publish, settled)
        await asyncio.wait([told], timeout=CONFIRM_PATIENCE)
        if not answers:
            await self.wait_for_confirm(session, incoming, told)
        if answers and answers[0] is not None:
            raise answers[0]
        return bool(answers)

    async def wait_for_confirm(self, session: Session, incoming: Incoming, told: asyncio.Future[None]) -> None:
        """
        Hold a delivery until its publish is answered, or the delivery was requeued.

        There is no second publish: the first may still be confirmed, as when a broker's alarm is over.
        """
        while session.holds(incoming.delivery) and not told.done():
            blocked = self.outbox.blocked
            why = "the broker does not confirm" if blocked is None else _blocked(blocked)
            await self._hold(session, incoming, why, _FIRST_PAUSE, told)
        self.release(session, incoming)

    def lost(self, session: Session) -> GivenBack:
        """Why a delivery is not the session's any more."""
        why = self.problems.get(session.queue, "it was held too long")
        return lost(session) if session.ended.is_set() else GivenBack(why=why)

    async def leave_to_broker(self, session: Session, incoming: Incoming, why: str) -> Settlement | GivenBack:
        """No copy can be published: the broker's own dead-lettering parks it where that cannot lose it."""
        if self.routes.at_least_once:
            log.error("%s: parked by the broker, without a record: %s", session.queue, why)
            self.step("nack.before")
            done = session.give_back(incoming.delivery, requeue=False)
            self.step("nack.after")
            return LeaveToBroker(why=why) if done else lost(session)
        reason = f"a message cannot be copied, and this queue's own dead-lettering may lose it: {why}"
        while session.holds(incoming.delivery):
            await self._hold(session, incoming, reason, _LONGEST_PAUSE)
        self.release(session, incoming)
        return lost(session) if session.ended.is_set() else GivenBack(why=reason)

    async def _hold(
        self,
        session: Session,
        incoming: Incoming,
        why: str,
        wait: float | None = None,
        done: asyncio.Future[None] | None = None,
    ) -> None:
        """
        Keep a delivery unacked for `wait` seconds, half the consumer timeout at most; others are handled meanwhile.

        Returns early when `done` is, or when the session is over: what cannot be settled then is given back.
        """
        if session.ended.is_set():
            return  # the broker has it already, and the queue's problem is that of the next session
        if session.hold(incoming.delivery):
            self.events.emit(MessageHeld(**about(incoming), reason=why))
        self._say(session, why)
        clock = asyncio.get_running_loop().time
        half = self.half_timeout
        until = session.held_since(incoming.delivery) + half
        left = until - clock()
        over = asyncio.create_task(session.over.wait())
        waiting: list[asyncio.Future[Any]] = [over] if done is None else [over, done]
        try:
            timeout = max(0.0, left if wait is None else min(wait, left))
            await asyncio.wait(waiting, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            over.cancel()
        session.give_back_waiting(older_than=half)
        if done is not None and done.done():
            return
        if session.over.is_set():
            session.give_back(incoming.delivery)
        elif clock() >= until and session.give_back(incoming.delivery):
            log.error("%s: given back after half the consumer timeout: %s", session.queue, why)

    @property
    def half_timeout(self) -> float:
        """Seconds for which a delivery is held at most: half the consumer timeout."""
        return (self.routes.consumer_timeout_ms or DEFAULT_CONSUMER_TIMEOUT * 1000) / 2000

    def say_aside(self, session: Session) -> None:
        """Say how many suspects wait for others to end, unless there is another problem."""
        known = self.problems.get(session.queue, _ASIDE)
        if not known.endswith(_ASIDE):
            return
        if session.aside and not session.ended.is_set():
            messages = "a message that was" if session.aside == 1 else f"{session.aside} messages that were"
            self.problems[session.queue] = f"{messages} {_ASIDE}"
        else:
            self.problems.pop(session.queue, None)

    def release(self, session: Session, incoming: Incoming) -> None:
        """A delivery is not held any more."""
        session.let_go(incoming.delivery)
        if session.ended.is_set():
            self._paused = False  # the problem is another one now
        elif session.held_up:
            self._say(session, self._why)
        else:
            self._say_paused(session, "")
            if not session.is_in_outage:
                self.problems.pop(session.queue, None)

    def _say(self, session: Session, why: str) -> None:
        """Say what is held, and whether anything else is handled."""
        self._why, count, still = why, session.held_up, session.stands_still
        held = f"{count} message{'s' if count != 1 else ''} held"
        text = f"{why}: {held}, {'which is all that may be: nothing else is' if still else 'others are'} handled"
        self.problems[session.queue] = text
        self._say_paused(session, text if still else "")

    def _say_paused(self, session: Session, why: str) -> None:
        if why and not self._paused:
            self.events.emit(ConsumerPaused(queue=session.queue, reason=why))
        elif self._paused and not why:
            self.events.emit(ConsumerResumed(queue=session.queue))
        self._paused = bool(why)

    def ack(self, session: Session, incoming: Incoming) -> bool:
        """False when the delivery is no longer ours."""
        self.step("ack.before")
        done = session.ack(incoming.delivery)
        self.step("ack.after")
        return done

    def step(self, name: str) -> None:
        """Tell whoever wants to know that a broker operation is next, or done."""
        if self.on_step is not None:
            self.on_step(name)

    def circumstances(self, incoming: Incoming) -> Circumstances:
        """What decisions about a delivery depend on beside it."""
        return Circumstances(
            routes=self.routes,
            now=now(),
            choice=self.random.random(),
            new_root="" if incoming.message_id else str(uuid4()),
            frame_max=self.frame_max,
            host=self.host,
            version=self.version,
        )


def _blocked(reason: str) -> str:
    return f"the broker takes no publishes: {reason}"


def wake(waiting: asyncio.Future[None]) -> None:
    """End the wait for it, if it has not ended."""
    if not waiting.done():
        waiting.set_result(None)


def now() -> int:
    """ms since the epoch."""
    return time.time_ns() // 1_000_000
