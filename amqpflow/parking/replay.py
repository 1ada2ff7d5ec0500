"""A parked message -> the publish that brings it back to its work queue.

The copy goes through the retry exchange, whose keys are queue names, so that it reaches the queue it failed in and no
other. It is the message its handler saw: what would act on the broker again stays out and is kept in the record, and
the hop is a function of the parked copy alone, so that replaying that copy twice can be recognised.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from amqpflow.model import headers as h
from amqpflow.model.budget import fit_into_frame
from amqpflow.model.message import Publish
from amqpflow.model.raw_headers import RawHeaders
from amqpflow.model.record import FailureRecord, PastAttempt, ReplayMark, hop_id
from amqpflow.model.routes import QueueRoutes
from amqpflow.model.wire import encode_table

from .deaths import deaths_elsewhere
from .parked import ParkedMessage


@dataclass(frozen=True, kw_only=True)
class ReplayContext:
    """What all messages of one replay have in common."""

    id: str
    at: int  #: ms since the epoch
    host: str
    version: str
    frame_max: int  #: bytes, 0 for no limit
    our_queues: Collection[str]  #: every queue of the topology
    keep_attempts: bool = False  #: continue the count of attempts, instead of beginning with the first
    set_headers: Mapping[str, Any] = field(default_factory=dict)  #: of the message itself, never ours
    drop_headers: Collection[str] = ()

    @cached_property
    def not_copied(self) -> frozenset[str]:
        """Return the headers of the message that its copy does not have as they were."""
        return h.NEVER_TRAVELS.union(self.drop_headers, self.set_headers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """Where copies are published to."""

    exchange: str
    routing_key: str
    queue: str | None = None  #: the queue they get into, when it is known; else what our headers said stays
    label: str = ""  #: for people

    @classmethod
    def of(cls, routes: QueueRoutes) -> Destination:
        """Return the work queue, through the retry exchange."""
        return cls(exchange=routes.retry_exchange, routing_key=routes.queue, queue=routes.queue, label=routes.queue)


def replay_publish(
    parked: ParkedMessage, destination: Destination | QueueRoutes, run: ReplayContext, *, ordinal: int = 0
) -> Publish | None:
    """Return the publish that replays a message, or None when its own headers leave no room for a record in a frame.

    Args:
        parked: the message.
        destination: where to; the routes of a work queue are that queue.
        run: the replay.
        ordinal: how many messages of this run were equal to it in everything. It tells apart messages that have
            neither a message id nor a record, which are known by a hash of what they hold.

    Raises:
        ValueError, TypeError, RecursionError: it cannot be encoded.
    """
    where = Destination.of(destination) if isinstance(destination, QueueRoutes) else destination
    hop = replayed_hop(parked, run, ordinal)
    header = parked.delivery.header
    table = fit_into_frame(
        _encoded_theirs(parked, run),
        _record(parked, where, run, hop),
        others=header.size_without_headers,
        frame_max=run.frame_max,
    )
    return None if table is None else _publish(parked, where, table, hop)


def replayed_hop(parked: ParkedMessage, run: ReplayContext, ordinal: int = 0) -> str:
    """Return the hop id of the copy: a function of the parked message alone."""
    return hop_id(_root(parked, ordinal), parked.replays + 1, parked.attempts if run.keep_attempts else 0)


def is_anonymous(parked: ParkedMessage) -> bool:
    """Tell whether it has neither a message id nor a record, and is known by a hash of its content."""
    return not ((parked.record.root if parked.record else None) or parked.message_id)


def _publish(parked: ParkedMessage, destination: Destination, table: bytes, hop: str) -> Publish:
    header, body = parked.delivery.header, parked.delivery.body
    return Publish(
        exchange=destination.exchange,
        routing_key=destination.routing_key,
        header=header.copy(table, len(body)),
        body=body,
        identity=hop,
    )


def _encoded_theirs(parked: ParkedMessage, run: ReplayContext) -> bytes:
    headers = parked.delivery.headers
    kept = headers.encoded(without=run.not_copied, prefix=h.PREFIX) if isinstance(headers, RawHeaders) else b""
    return kept + encode_table(run.set_headers)[4:] if run.set_headers else kept


def _record(parked: ParkedMessage, where: Destination, run: ReplayContext, hop: str) -> FailureRecord:
    """Return our headers of a message that is replayed."""
    before = parked.record
    known = parked.routing_key is not None
    return FailureRecord(
        queue=where.queue or parked.queue or "",
        attempts=parked.attempts if run.keep_attempts else 0,
        hop=hop,
        exchange=(parked.exchange or "") if known else None,
        routing_key=parked.routing_key,
        original=_original(parked, run),
        first_failed_at=before.first_failed_at if before and run.keep_attempts else None,
        failed_at=before.failed_at if before else None,
        error_type=before.error_type if before else None,
        error_message=before.error_message if before else None,
        error_location=before.error_location if before else None,
        error_stack=before.error_stack if before else None,
        fingerprint=before.fingerprint if before else None,
        history=_history(parked),
        replay=ReplayMark(id=run.id, count=parked.replays + 1, at=run.at),
        host=run.host,
        version=run.version,
    )


def _root(parked: ParkedMessage, ordinal: int) -> str:
    root = (parked.record.root if parked.record else None) or parked.message_id
    if root:
        return root
    return parked.digest.hex() + (f"-{ordinal}" if ordinal else "")


def _original(parked: ParkedMessage, run: ReplayContext) -> dict[str, Any]:
    """Return what must not travel, for the consumer to show to the handler."""
    if parked.record is not None:
        return dict(parked.record.original)
    received = parked.delivery.properties
    kept = deaths_elsewhere(received.headers, run.our_queues)
    headers = received.headers or {}
    kept |= {name: headers[name] for name in h.KEPT - h.BROKER_OWNED if name in headers}
    expiration = received.expiration or (parked.death.original_expiration if parked.death else None)
    kept |= {
        name: value for name, value in (("expiration", expiration), ("user_id", received.user_id)) if value is not None
    }
    return kept


def _history(parked: ParkedMessage) -> tuple[PastAttempt, ...]:
    history = parked.record.history if parked.record else ()
    if parked.death is None:
        return history
    # of what RabbitMQ did itself nothing is left when x-death goes, so it becomes a line of the history
    return (*history, PastAttempt(at=parked.death.at, tier="parking", error_type=f"broker: {parked.death.reason}"))
