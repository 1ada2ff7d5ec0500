"""List parked messages, and find one. All stay where they are, in their order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby

from amqpflow.errors import RefusedError, StoppedError, UsageError
from amqpflow.model.message import Delivery
from amqpflow.parking.age_order import AgeOrder
from amqpflow.parking.parked import ParkedMessage
from amqpflow.parking.selection import Selection, is_named, parked_at
from amqpflow.services.reading.target import ReadTarget

from .scan import QueueReading, Readings, Scan, scan

SHOWN_AT_MOST = 20  #: messages with their bodies that are held for one id
_ERROR_LENGTH = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class ParkedRow:
    """A parked message in one line: what a list shows, without its body."""

    id: str
    queue: str | None  #: the work queue it failed in
    parking_queue: str
    parked_by: str | None  #: amqpflow, rabbitmq, or the framework whose headers it has
    reason: str
    detail: str
    attempts: int
    error_type: str | None
    error_message: str | None  #: the first 256 characters
    fingerprint: str | None
    first_failed_at: int | None  #: ms since the epoch, like the next
    failed_at: int | None
    exchange: str | None  #: as first published, like the next
    routing_key: str | None
    message_id: str | None
    replays: int
    content_type: str | None
    body_bytes: int
    priority: int | None = None
    error_location: str | None = None  #: such as service.py:10


@dataclass(frozen=True, slots=True, kw_only=True)
class ParkedListing(Readings):
    """The messages in the parking queues of a topology."""

    topology: str
    messages: tuple[ParkedRow, ...]  #: by parking queue, the oldest first


async def list_parked(
    target: ReadTarget, selection: Selection, *, on_row: Callable[[ParkedRow], None] | None = None
) -> ParkedListing:
    """List the messages of the parking queues, and requeue everything. Errors as `scan`.

    `on_row` is given each row, in the order of delivery, and `messages` stays empty: a million rows fill the memory.
    """
    rows: list[ParkedRow] = []
    done = await scan(target, selection, make=row_of, emit=on_row or rows.append)
    return ParkedListing(
        topology=target.compiled.name, messages=_oldest_first(rows, done.queues), queues=done.queues, notes=done.notes
    )


def _oldest_first(rows: list[ParkedRow], queues: tuple[QueueReading, ...]) -> tuple[ParkedRow, ...]:
    """Sort the rows of a queue that delivers by priority by age."""
    mixed = {each.parking_queue for each in queues if each.by_priority}
    ordered: list[ParkedRow] = []
    for queue, group in groupby(rows, key=lambda row: row.parking_queue):
        each, age = list(group), AgeOrder()
        for row in each:
            age.add(row.priority, row.failed_at)
        order = age.order() if queue in mixed else None
        ordered += each if order is None else [each[number] for number in order]
    return tuple(ordered)


async def find_parked(target: ReadTarget, wanted: str) -> tuple[ParkedMessage, ...]:
    """Find parked messages by id, id prefix (four digits or more), message id or hop, and requeue everything.

    Return every match, at most 20: two copies of one settlement have one id, and a producer may use a message id twice.

    Raises:
        UsageError: several ids begin with the prefix. StoppedError: stop was set before there was a match. Else as
            `scan`.
    """
    matches: list[ParkedMessage] = []

    def keep(parked: ParkedMessage) -> None:
        if len(matches) < SHOWN_AT_MOST:
            matches.append(parked)

    done: Scan = await scan(target, Selection(ids=(wanted,)), make=lambda parked: parked, emit=keep)
    if target.is_stopped and not matches:
        raise StoppedError(f"interrupted before {wanted!r} was found")
    for each in done.queues:
        if each.ended_early and not matches:
            raise RefusedError(f"{each.parking_queue} was not read to its end: {each.ended_early}")
    exact = [each for each in matches if wanted in (each.id, each.message_id, each.hop)]
    if exact:
        return tuple(exact)
    ids = sorted({each.id for each in matches if is_named(each, wanted)})
    if len(ids) > 1:
        raise UsageError(f"{len(ids)} ids begin with {wanted!r}: {', '.join(ids)}")
    return tuple(matches)


def row_of(parked: ParkedMessage) -> ParkedRow:
    message = parked.error_message
    delivery: Delivery = parked.delivery
    return ParkedRow(
        id=parked.id,
        queue=parked.queue,
        parking_queue=delivery.queue,
        parked_by=parked.parked_by,
        reason=parked.reason,
        detail=parked.detail[:_ERROR_LENGTH],
        attempts=parked.attempts,
        error_type=parked.error_type,
        error_message=message[:_ERROR_LENGTH] if message else None,
        error_location=parked.error_location,
        fingerprint=parked.fingerprint,
        first_failed_at=parked.first_failed_at,
        failed_at=parked_at(parked),
        exchange=parked.exchange,
        routing_key=parked.routing_key,
        message_id=parked.message_id,
        replays=parked.replays,
        content_type=delivery.properties.content_type,
        body_bytes=len(delivery.body),
        priority=parked.priority,
    )
