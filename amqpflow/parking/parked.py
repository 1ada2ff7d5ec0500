"""A message in a parking queue: where it failed, why, and its attempts.

Our consumers write a failure record into the headers and send no x-death. A work queue of the topology in x-death
therefore means that RabbitMQ parked the message itself; a record on it is then that of the last failure before.
Every other message in a parking queue is shown as well, with the reason `unknown`. Nothing here raises, whatever the
headers hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b

from amqpflow.model.headers import ParkReason
from amqpflow.model.message import Delivery
from amqpflow.model.record import FailureRecord, read_record
from amqpflow.model.routes import QueueRoutes

from .deaths import Death, death_in
from .dialects import read_foreign
from .foreign import Foreign
from .identity import content_digest

UNKNOWN = "unknown"  #: the reason of a message that has no record, or none that we know
FOREIGN = "foreign"  #: the reason of a message that another framework parked; the detail names it
ID_LENGTH = 10  #: hex digits


@dataclass(frozen=True, slots=True, kw_only=True)
class ParkedMessage:
    """One parked message, as it is in its queue."""

    queue: str | None  #: the work queue it failed in; None when the message does not say, and no origin is asserted
    reason: str  #: a ParkReason, or unknown
    detail: str  #: free text; for reason `broker`: delivery_limit, maxlen, expired or rejected
    delivery: Delivery
    failed_at: int | None = None  #: when it was parked, ms since the epoch
    exchange: str | None = None  #: as first published, like the next
    routing_key: str | None = None
    record: FailureRecord | None = None  #: our headers; for reason `broker` the last known failure
    death: Death | None = None  #: why RabbitMQ parked it
    dialect: Foreign | None = None  #: what another framework wrote, when neither we nor RabbitMQ parked it
    _digest: bytes = field(default=b"", init=False, repr=False, compare=False)

    @property
    def parked_by(self) -> str | None:
        """Return amqpflow, rabbitmq, or the framework whose headers it has; None when it is not known."""
        if self.death:
            return "rabbitmq"
        return "amqpflow" if self.record else self.dialect.dialect if self.dialect else None

    @property
    def id(self) -> str:
        """Return a short id: the same for each look at the message, and for two copies of one settlement."""
        identity = self.hop or self.message_id
        name = repr((self.queue, identity)).encode("utf-8", "surrogatepass") if identity else self.digest
        return blake2b(name, digest_size=ID_LENGTH // 2).hexdigest()

    @property
    def digest(self) -> bytes:
        """Hash body, properties and headers, once; the same for each look at the message."""
        if not self._digest:
            object.__setattr__(self, "_digest", content_digest(self.delivery.header, self.delivery.body))
        return self._digest

    @property
    def attempts(self) -> int:
        """Count the attempts whose failure is recorded. One that a crash cut short is not among them."""
        source = self.record or self.dialect
        return source.attempts if source else 0

    @property
    def error_type(self) -> str | None:
        source = self.record or self.dialect
        return source.error_type if source else None

    @property
    def error_message(self) -> str | None:
        source = self.record or self.dialect
        return source.error_message if source else None

    @property
    def error_location(self) -> str | None:
        """Return the innermost line of the service's own code, such as service.py:10."""
        return self.record.error_location if self.record else None

    @property
    def error_stack(self) -> str | None:
        source = self.record or self.dialect
        return source.error_stack if source else None

    @property
    def fingerprint(self) -> str | None:
        """Return a hash of queue, error type and raising frame, to group by."""
        return self.record.fingerprint if self.record else None

    @property
    def first_failed_at(self) -> int | None:
        """Return ms since the epoch."""
        recorded = self.record.first_failed_at if self.record else None
        return self.failed_at if recorded is None else recorded

    @property
    def replays(self) -> int:
        """Count earlier replays."""
        return self.record.replay.count if self.record and self.record.replay else 0

    @property
    def hop(self) -> str | None:
        return self.record.hop if self.record else None

    @property
    def message_id(self) -> str | None:
        return self.delivery.properties.message_id

    @property
    def priority(self) -> int | None:
        return self.delivery.properties.priority


def read_parked(
    delivery: Delivery,
    routes: Mapping[str, QueueRoutes],
    *,
    unreadable: str | None = None,
    origin: str | None = None,
) -> ParkedMessage:
    """Read a delivery from a parking queue.

    Args:
        delivery: as it arrived; `delivery.queue` is the parking queue.
        routes: those of the topology, by work queue.
        unreadable: why its properties could not be read and are empty. It belongs to no work queue then, since a copy
            of it would lack them.
        origin: the work queue that an operator asserts for messages that do not say where they failed. It says
            nothing about a parking queue of the topology that is not this work queue's.
    """
    if unreadable is not None:
        detail = f"its headers cannot be read: {unreadable}"
        return ParkedMessage(queue=None, reason=UNKNOWN, detail=detail, delivery=delivery)
    headers = delivery.properties.headers
    record = read_record(headers)
    here = [queue for queue, each in routes.items() if each.parking_queue == delivery.queue]
    death = death_in(headers, routes, prefer=(record.queue if record else None, *here))
    if death is not None and record is not None and record.queue != death.queue:
        record = None  # a handler forwarded it to another queue, and RabbitMQ parked it from there
    foreign = read_foreign(delivery) if death is None and record is None else None
    if death is not None or record is not None:
        queue = death.queue if death else record.queue if record else None
    else:
        queue = (foreign.queue if foreign else None) or _asserted(origin, delivery.queue, routes)
    exchange, routing_key = _first_published(record, death, foreign)
    reason, detail = _reason(record, death, foreign)
    source = death.at if death else record.failed_at if record else foreign.failed_at if foreign else None
    return ParkedMessage(
        queue=queue,
        reason=reason,
        detail=detail,
        failed_at=source,
        exchange=exchange,
        routing_key=routing_key,
        record=record,
        death=death,
        delivery=delivery,
        dialect=foreign,
    )


_REASONS = frozenset(reason.value for reason in ParkReason)


def _asserted(origin: str | None, parking_queue: str, routes: Mapping[str, QueueRoutes]) -> str | None:
    """Return the origin of a message that does not say one.

    That one work queue of the file names a parking queue proves nothing: services that the file does not know may
    share it, and a replay would bring their messages to the wrong consumer.
    """
    owners = [name for name, each in routes.items() if each.parking_queue == parking_queue]
    return origin if not owners or origin in owners else None


def _reason(record: FailureRecord | None, death: Death | None, foreign: Foreign | None) -> tuple[str, str]:
    if death is not None:
        return ParkReason.BROKER.value, death.reason
    if foreign is not None:
        return (ParkReason.BROKER.value, foreign.died_of) if foreign.died_of else (FOREIGN, foreign.dialect)
    if record is None:
        return UNKNOWN, "no failure record"
    if record.reason in _REASONS:
        return record.reason or UNKNOWN, record.reason_detail or ""
    return UNKNOWN, record.reason or "no reason in its failure record"


def _first_published(
    record: FailureRecord | None, death: Death | None, foreign: Foreign | None
) -> tuple[str | None, str | None]:
    if record is not None and record.routing_key is not None:
        return record.exchange or "", record.routing_key
    if death is not None and death.routing_keys:
        return death.exchange or "", death.routing_keys[0]
    if foreign is not None and foreign.routing_key is not None:
        return foreign.exchange or "", foreign.routing_key
    return None, None
