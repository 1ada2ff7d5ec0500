"""Look at parked messages: every one is shown, and every one is afterwards where it was."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from functools import partial

from amqpflow.errors import Interrupted, Refused, WrongUsage
from amqpflow.model.message import Delivery
from amqpflow.model.routes import CompiledTopology
from amqpflow.parking.parked import ID_LENGTH, ParkedMessage, read_parked
from amqpflow.rabbitmq.observe import Broker

from .parking_guard import require_readable
from .parking_lock import reading_alone
from .parking_reader import ParkingReader

SHOWN_AT_MOST = 20  #: messages with their bodies that are held for one id
_SHORTEST_ID = 4
_ERROR_LENGTH = 256

Progress = Callable[[str, int, int], None]  #: parking queue, messages seen, messages expected


@dataclass(frozen=True, slots=True, kw_only=True)
class ParkedRow:
    """A parked message in one line: what a list shows, without its body."""

    id: str
    queue: str | None  #: the work queue it failed in
    parking_queue: str
    reason: str
    detail: str
    attempts: int
    error_type: str | None
    error_message: str | None  #: the first 256 characters
    first_failed_at: int | None  #: ms since the epoch, like the next
    failed_at: int | None
    exchange: str | None  #: as first published, like the next
    routing_key: str | None
    message_id: str | None
    replays: int
    content_type: str | None
    body_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueReading:
    """How the reading of one parking queue went."""

    parking_queue: str
    ready: int  #: messages when it began
    read: int
    other_consumers: int  #: what they hold was not seen
    complete: bool  #: everything that was ready at the beginning was read, or as much as was asked for
    ended_early: str | None  #: why not


@dataclass(frozen=True, slots=True, kw_only=True)
class ParkedListing:
    """What lies in the parking queues of a topology."""

    topology: str
    messages: tuple[ParkedRow, ...]  #: by parking queue, in its order
    queues: tuple[QueueReading, ...]
    notes: tuple[str, ...]  #: what a person should know of it

    @property
    def complete(self) -> bool:
        return all(each.complete for each in self.queues)


@dataclass(slots=True, kw_only=True)
class Reading:
    """A reading under way."""

    reader: ParkingReader
    notes: list[str]


@asynccontextmanager
async def open_reading(
    broker: Broker,
    compiled: CompiledTopology,
    parking_queue: str,
    *,
    unverified: bool,
    stop: asyncio.Event,
    on_wait: Callable[[str], None] | None,
    lazy: bool = False,
) -> AsyncIterator[Reading]:
    """
    Make sure that the queue may be read, that nobody else reads it, and hold what is taken until the end.

    Raises:
        NotApplied, Refused, Interrupted: as `require_readable` and `reading_alone` do.
    """
    readable = await require_readable(broker, compiled, parking_queue, unverified=unverified)
    notes = list(readable.notes)
    waits = partial(on_wait, parking_queue) if on_wait is not None else None
    async with reading_alone(broker.connection, parking_queue, on_wait=waits, stop=stop) as alone:
        if not alone:
            notes.append(
                f"no permission to keep other readers off {parking_queue}: with two at a time its order may change"
            )
        reader = ParkingReader(
            broker.connection,
            parking_queue,
            quorum=readable.queue.type == "quorum",
            consumer_timeout_ms=readable.consumer_timeout_ms,
            average_bytes=await _average_bytes(broker, parking_queue),
            stop=stop,
            lazy=lazy,
        )
        async with reader:
            if reader.other_consumers:
                notes.append(
                    f"{parking_queue} has {reader.other_consumers} other consumers: what they hold is not seen, "
                    "and what they give back may change the order"
                )
            yield Reading(reader=reader, notes=notes)
        if reader.unproven:
            notes.append(
                f"{parking_queue} was left before it had everything back, which RabbitMQ sees to: {reader.unproven}"
            )
        if not reader.order_kept:
            notes.append(f"{parking_queue} is too long to be given back in order: its oldest messages are last now")


async def _average_bytes(broker: Broker, queue: str) -> float | None:
    """The size of a message, from statistics that lag behind; None when there are none."""
    if broker.management is None:
        return None
    found = await broker.management.queue_statistics(broker.address.vhost, queue) or {}
    total, count = found.get("message_bytes"), found.get("messages")
    if isinstance(total, int) and isinstance(count, int) and total > 0 and count > 0:
        return total / count
    return None


async def list_parked(
    broker: Broker,
    compiled: CompiledTopology,
    *,
    queue: str | None = None,
    limit: int | None = None,
    unverified: bool = False,
    stop: asyncio.Event | None = None,
    on_progress: Progress | None = None,
    on_wait: Callable[[str], None] | None = None,
) -> ParkedListing:
    """
    Read the parking queues, and give everything back.

    Args:
        broker: where to read.
        compiled: the topology.
        queue: a work queue or a parking queue; all parking queues when absent.
        limit: how many messages to list at most.
        unverified: read also where it cannot be found out whether it is safe.
        stop: set it to end the reading; what was seen so far is returned.
        on_progress: told now and then.
        on_wait: told once when another command is reading the queue, with its name.

    Raises:
        WrongUsage: no such queue in the file. NotApplied, Refused: the queue is missing or may not be read.
        Interrupted: stop was set while another command was reading.
        BrokerError, BrokerUnavailable: reading failed; nothing is lost by that.
    """
    stop = stop or asyncio.Event()
    rows: list[ParkedRow] = []
    readings: list[QueueReading] = []
    notes: list[str] = []
    for parking_queue in parking_queues_of(compiled, queue):
        left = None if limit is None else limit - len(rows)
        if left == 0 or stop.is_set():
            break
        async with open_reading(
            broker, compiled, parking_queue, unverified=unverified, stop=stop, on_wait=on_wait
        ) as reading:
            reader = reading.reader
            seen = found = 0
            async with aclosing(reader.deliveries(at_most=reader.ready)) as deliveries:
                async for delivery in deliveries:
                    reader.keep(delivery)
                    seen += 1
                    parked = read_parked(
                        delivery, compiled.routes, unreadable=reader.unreadable.get(delivery.delivery_tag)
                    )
                    if _wanted(parked, compiled, queue):
                        rows.append(_row(parked))
                        found += 1
                    if on_progress is not None:
                        on_progress(parking_queue, seen, reader.ready)
                    if found == left:
                        break
        reader.raise_if_cancelled()
        readings.append(_reading(reader, seen, enough=found == left))
        notes += reading.notes
    return ParkedListing(topology=compiled.name, messages=tuple(rows), queues=tuple(readings), notes=tuple(notes))


async def find_parked(
    broker: Broker,
    compiled: CompiledTopology,
    wanted: str,
    *,
    queue: str | None = None,
    unverified: bool = False,
    stop: asyncio.Event | None = None,
    on_progress: Progress | None = None,
    on_wait: Callable[[str], None] | None = None,
) -> tuple[ParkedMessage, ...]:
    """
    Find parked messages by id, by its beginning (four digits or more), by message id or by hop; all is given back.

    Returns:
        Every match, at most 20: two copies of one settlement have one id, and a producer may use a message id twice.

    Raises:
        WrongUsage: the beginning of an id that several messages share. Interrupted: stop was set before there was a
            match. Else as `list_parked`.
    """
    stop = stop or asyncio.Event()
    matches: list[ParkedMessage] = []
    for parking_queue in parking_queues_of(compiled, queue):
        async with open_reading(
            broker, compiled, parking_queue, unverified=unverified, stop=stop, on_wait=on_wait
        ) as reading:
            reader, seen = reading.reader, 0
            async with aclosing(reader.deliveries(at_most=reader.ready)) as deliveries:
                async for delivery in deliveries:
                    reader.keep(delivery)
                    parked = read_parked(
                        delivery, compiled.routes, unreadable=reader.unreadable.get(delivery.delivery_tag)
                    )
                    if _matches(parked, wanted) and len(matches) < SHOWN_AT_MOST:
                        matches.append(parked)
                    seen += 1
                    if on_progress is not None:
                        on_progress(parking_queue, seen, reader.ready)
        reader.raise_if_cancelled()
        if stop.is_set():
            break
        if reader.ended_early and not matches:
            raise Refused(f"{parking_queue} was not read to its end: {reader.ended_early}")
    if stop.is_set() and not matches:
        raise Interrupted(f"interrupted before {wanted!r} was found")
    exact = [each for each in matches if wanted in (each.id, each.message_id, each.hop)]
    if exact:
        return tuple(exact)
    ids = sorted({each.id for each in matches})
    if len(ids) > 1:
        raise WrongUsage(f"{wanted!r} is the beginning of {len(ids)} ids: {', '.join(ids)}")
    return tuple(matches)


def parking_queues_of(compiled: CompiledTopology, queue: str | None) -> Sequence[str]:
    """
    The parking queues to read for a work queue, for a parking queue, or (None) for the whole topology.

    Raises:
        WrongUsage: the file has no such queue.
    """
    if queue is None:
        return compiled.parking_queues
    if queue in compiled.routes:
        return (compiled.routes[queue].parking_queue,)
    if queue in compiled.parking_queues:
        return (queue,)
    raise unknown_queue(compiled, queue, (*compiled.routes, *compiled.parking_queues))


def unknown_queue(compiled: CompiledTopology, queue: str, known: Sequence[str]) -> WrongUsage:
    """The error for a queue that the file does not have, with the nearest that it has."""
    from difflib import get_close_matches

    close = get_close_matches(queue, known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"its work queues are {', '.join(compiled.routes)}"
    return WrongUsage(f"{compiled.file} has no queue {queue}", hint=hint)


def _wanted(parked: ParkedMessage, compiled: CompiledTopology, queue: str | None) -> bool:
    parking_queue = parked.delivery.queue
    if queue is None or queue in (parked.queue, parking_queue):
        return True
    owners = [name for name, each in compiled.routes.items() if each.parking_queue == parking_queue]
    return parked.queue is None and owners == [queue]  # what cannot be read is not hidden either


def _matches(parked: ParkedMessage, wanted: str) -> bool:
    if wanted in (parked.message_id, parked.hop):
        return True
    return _SHORTEST_ID <= len(wanted) <= ID_LENGTH and parked.id.startswith(wanted.lower())


def _row(parked: ParkedMessage) -> ParkedRow:
    message = parked.error_message
    delivery: Delivery = parked.delivery
    return ParkedRow(
        id=parked.id,
        queue=parked.queue,
        parking_queue=delivery.queue,
        reason=parked.reason,
        detail=parked.detail[:_ERROR_LENGTH],
        attempts=parked.attempts,
        error_type=parked.error_type,
        error_message=message[:_ERROR_LENGTH] if message else None,
        first_failed_at=parked.first_failed_at,
        failed_at=parked.failed_at,
        exchange=parked.exchange,
        routing_key=parked.routing_key,
        message_id=parked.message_id,
        replays=parked.replays,
        content_type=delivery.properties.content_type,
        body_bytes=len(delivery.body),
    )


def _reading(reader: ParkingReader, seen: int, *, enough: bool) -> QueueReading:
    # what was taken out by others meanwhile is not missing: nothing ended the reading but the queue's own end
    return QueueReading(
        parking_queue=reader.queue,
        ready=reader.ready,
        read=seen,
        other_consumers=reader.other_consumers,
        complete=enough or reader.ended_early is None,
        ended_early=reader.ended_early,
    )
