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
from uuid import uuid4

from amqpflow.delivery.backoff import Backoff, jittered
from amqpflow.delivery.hot_loop import Rejections
from amqpflow.delivery.incoming import Incoming
from amqpflow.delivery.settle import (
    Acknowledge,
    Circumstances,
    LeaveToBroker,
    Reject,
    Settlement,
    ToParking,
    ToTier,
    decide,
    decide_early,
    set_back,
)
from amqpflow.delivery.verdict import Verdict
from amqpflow.errors import AmqpflowError, PublishError, PublishForbiddenError, UnpublishableError
from amqpflow.model.headers import ParkReason
from amqpflow.model.message import Publish
from amqpflow.model.routes import QueueRoutes
from amqpflow.model.units import format_duration
from amqpflow.services.process.waiting import wake
from amqpflow.services.publishing.outbox import Outbox

from .events import Events
from .health import ConsumerHealth
from .log_limit import LogLimit
from .patience import CONFIRM_PATIENCE, Patience, Requeued, lost
from .session import Session

log = logging.getLogger("amqpflow.consumer")

_BACKOFF = Backoff(0.5)  #: between attempts to publish what is held
_REBINDING = 0.1  #: seconds; a key is without a queue for about a millisecond


_DONE = Acknowledge()


def _log_more_not_taken(queue: str, retry_queue: str, count: int, seconds: float) -> None:
    log.warning("%s: retry queue %s accepted none of %d more messages within %.0fs", queue, retry_queue, count, seconds)


@dataclass(kw_only=True)
class Settler:
    """Settles the deliveries of one work queue on one connection."""

    routes: QueueRoutes
    outbox: Outbox
    frame_max: int  #: bytes, 0 for no limit
    host: str
    version: str
    events: Events
    health: ConsumerHealth
    on_step: Callable[[str], None] | None = None  #: called before and after each broker operation
    rejections: Rejections | None = None  #: of a native queue
    random: random.Random = field(default_factory=random.Random)
    limit: LogLimit = field(default_factory=LogLimit)  #: of lines about messages
    patience: Patience = field(init=False)

    def __post_init__(self) -> None:
        self.patience = Patience(routes=self.routes, outbox=self.outbox, events=self.events, health=self.health)

    def acknowledge(
        self, session: Session, incoming: Incoming, settlement: Settlement = _DONE
    ) -> Settlement | Requeued:
        """Ack a delivery that its handler is done with, or whose copy is confirmed."""
        return settlement if self.ack(session, incoming) else lost(session)

    async def settle(
        self,
        session: Session,
        incoming: Incoming,
        verdict: Verdict,
        at: Circumstances,
        *,
        first: Settlement,
        failure: AmqpflowError | None = None,
    ) -> Settlement | Requeued:
        """Do what the verdict asks for, and return what was done.

        Args:
            at: the circumstances of every decision about it, so that each copy has the same hop.
            first: what was decided already.
            failure: the error that its publish ended with.
        """
        missing: frozenset[str] = frozenset()
        looked_again = False
        settlement, error = first, failure
        while True:
            match settlement:
                case Acknowledge():
                    return self.acknowledge(session, incoming, settlement)
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
        """Return why nothing delays what is rejected, "" when it is delayed. `arrived`: the loop's time."""
        native, rejections = self.routes.native, self.rejections
        if native is None or rejections is None:
            return ""
        away = rejections.too_soon(incoming, arrived)
        if away is None:
            return ""
        return (
            f"a rejected message is back after {away * 1000:.0f} ms instead of {format_duration(native.min_ms)}: "
            f"RabbitMQ does not delay retries of {self.routes.queue}, and consuming it further would loop"
        )

    async def set_back(self, session: Session, incoming: Incoming, lost: int) -> bool:
        """Put a message behind all others of its queue, so that RabbitMQ counts its deliveries from 0; False when that
        cannot be done now, as in an alarm: the delivery stays held.
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
            log.warning(
                "%s: cannot move a message that may kill its consumer to the end of the queue: %s", session.queue, error
            )
            return False
        self.step("publish.confirmed")
        if confirmed:
            self.ack(session, incoming)
        return True

    async def postpone(self, session: Session, incoming: Incoming) -> Settlement | Requeued | None:
        """Send a message that is back before it is due to a retry queue again, uncounted; None when it is due."""
        record = incoming.record
        if record is None or record.due_at is None or record.due_at <= now():
            return None
        at = self.circumstances(incoming)
        missing: frozenset[str] = frozenset()
        while (settlement := decide_early(incoming, at, missing=missing)) is not None:
            assert isinstance(settlement, ToTier)  # noqa: S101 - narrows the union for the type checker
            done = await self._to_tier(session, incoming, settlement)
            if done is not None:
                return done
            missing |= {settlement.tier.queue}
        return None

    def _reject(self, session: Session, incoming: Incoming, settlement: Reject) -> Settlement | Requeued:
        self.step("reject.before")
        done = session.reject(incoming.delivery)
        if done and self.rejections is not None:
            self.rejections.rejected(incoming, asyncio.get_running_loop().time())
        self.step("reject.after")
        return settlement if done else lost(session)

    async def _to_tier(
        self, session: Session, incoming: Incoming, settlement: ToTier, error: AmqpflowError | None = None
    ) -> Settlement | Requeued | None:
        """Publish to a retry queue; None when it does not take the message."""
        done = await self._publish(session, incoming, settlement.publish, error, until_taken=False)
        if done is False:
            names = session.queue, settlement.tier.queue
            if self.limit.admits(names, partial(_log_more_not_taken, *names)):  # one for each message that fails
                log.warning(
                    "%s: retry queue %s accepts no messages (missing, full or not bound): they take the next longer "
                    "delay or are parked",
                    *names,
                )
            return None
        return self.acknowledge(session, incoming, settlement) if done is True else done

    async def _park(
        self, session: Session, incoming: Incoming, settlement: ToParking, error: AmqpflowError | None
    ) -> Settlement | Requeued:
        done = await self._publish(session, incoming, settlement.publish, error, until_taken=True)
        if isinstance(done, bool):
            return self.acknowledge(session, incoming, settlement) if done else lost(session)
        return done

    async def _publish(
        self,
        session: Session,
        incoming: Incoming,
        publish: Publish,
        failure: AmqpflowError | None,
        *,
        until_taken: bool,
    ) -> bool | Settlement | Requeued:
        """Publish and await the confirm, for as long as the delivery is ours.

        An uncertain publish is made again, with the same hop id, while its source stays unacked. So is one without
        permission: that is an outage, and the message keeps its remaining retries. `failure`: how a first publish has
        ended already.

        Returns:
            True when confirmed, False when returned or refused and not `until_taken`, else what became of the delivery.
        """
        wait, held = _BACKOFF.first, False
        try:
            while session.holds(incoming.delivery):
                try:
                    if failure is not None:
                        error, failure = failure, None
                        raise error
                    if (blocked := self.outbox.blocked) is not None:
                        held = True
                        await self.patience.hold_for_publishes(session, incoming, blocked)
                        continue
                    self.step("publish.before")
                    if not await self._confirmed(session, incoming, publish):
                        return self.patience.lost(session)
                    self.step("publish.confirmed")
                    return True
                except UnpublishableError as error:
                    return await self.leave_to_broker(session, incoming, str(error))
                except PublishForbiddenError as error:
                    # the message and its queue are fine: another exchange would only hide the missing permission
                    why = f"cannot publish: {error}"
                except PublishError as error:
                    if not until_taken:
                        return False
                    why = f"cannot park: {error}"
                except AmqpflowError as error:  # uncertain, or there is no connection to publish on
                    why = f"cannot publish: {error}"
                held = True
                await self.patience.hold(session, incoming, why, jittered(wait, self.random.random()))
                wait = _BACKOFF.after(wait)
            return self.patience.lost(session)
        finally:
            if held:
                self.patience.release(session, incoming)

    async def _confirmed(self, session: Session, incoming: Incoming, publish: Publish) -> bool:
        """Await one publish, however long it takes; False when the delivery was requeued meanwhile."""
        answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        answers: list[AmqpflowError | None] = []

        def settled(error: AmqpflowError | None) -> None:
            answers.append(error)
            wake(answered)

        self.outbox.post(publish, settled)
        await asyncio.wait([answered], timeout=CONFIRM_PATIENCE)
        if not answers:
            await self.patience.wait_for_confirm(session, incoming, answered)
        if answers and answers[0] is not None:
            raise answers[0]
        return bool(answers)

    async def leave_to_broker(self, session: Session, incoming: Incoming, why: str) -> Settlement | Requeued:
        """Let the queue's own dead-lettering park what cannot be copied, where that cannot lose it."""
        if self.routes.at_least_once:
            log.error("%s: parked by the broker, without a failure record: %s", session.queue, why)
            self.step("nack.before")
            done = session.dead_letter(incoming.delivery)
            self.step("nack.after")
            return LeaveToBroker(why=why) if done else lost(session)
        reason = f"a message cannot be copied, and this queue's own dead-lettering may lose it: {why}"
        while session.holds(incoming.delivery):
            await self.patience.hold(session, incoming, reason, _BACKOFF.longest)
        self.patience.release(session, incoming)
        return lost(session) if session.ended.is_set() else Requeued(why=reason)

    def ack(self, session: Session, incoming: Incoming) -> bool:
        self.step("ack.before")
        done = session.ack(incoming.delivery)
        self.step("ack.after")
        return done

    def step(self, name: str) -> None:
        """Report that a broker operation is next, or done."""
        if self.on_step is not None:
            self.on_step(name)

    def circumstances(self, incoming: Incoming) -> Circumstances:
        """Return what decisions about a delivery depend on beside it."""
        return Circumstances(
            routes=self.routes,
            now=now(),
            choice=self.random.random(),
            new_root="" if incoming.message_id else str(uuid4()),
            frame_max=self.frame_max,
            host=self.host,
            version=self.version,
        )


def now() -> int:
    """Return the time in ms since the epoch."""
    return time.time_ns() // 1_000_000
