"""Open a parking queue for reading, and know which parking queues are meant."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from functools import partial

from amqpflow.errors import UsageError
from amqpflow.model.resources import Queue
from amqpflow.model.routes import CompiledTopology
from amqpflow.rabbitmq.observe import Broker

from .guard import require_readable
from .lock import reading_alone
from .reader import ParkingReader

Progress = Callable[[str, int, int], None]  #: parking queue, messages seen, messages expected


@dataclass(slots=True, kw_only=True)
class Reading:
    """A reading under way."""

    reader: ParkingReader
    notes: list[str]
    by_priority: bool  #: higher priorities are delivered before older messages


@asynccontextmanager
async def open_reading(
    broker: Broker,
    compiled: CompiledTopology,
    parking_queue: str,
    *,
    unverified: bool,
    prefetch: int | None,
    stop: asyncio.Event,
    on_wait: Callable[[str], None] | None,
    locked: bool = False,
) -> AsyncIterator[Reading]:
    """
    Make sure that the queue may be read, that nobody else reads it, and hold what is taken until the end.

    `prefetch`: hold at most so many messages. `locked`: the caller has the queue's reading lock.

    Raises:
        NotAppliedError, RefusedError, StoppedError: as `require_readable` and `reading_alone` do.
    """
    readable = await require_readable(broker, compiled, parking_queue, unverified=unverified)
    notes = list(readable.notes)
    waits = partial(on_wait, parking_queue) if on_wait is not None else None
    lock = nullcontext(True) if locked else reading_alone(broker.connection, parking_queue, on_wait=waits, stop=stop)
    async with lock as alone:
        if not alone:
            notes.append(
                f"no permission to keep other readers off {parking_queue}: with two at a time its order may change"
            )
        reader = ParkingReader(
            broker.connection,
            parking_queue,
            quorum=readable.queue.type == "quorum",
            consumer_timeout_ms=readable.consumer_timeout_ms,
            prefetch=prefetch,
            average_bytes=await _average_bytes(broker, parking_queue),
            stop=stop,
        )
        async with reader:
            if reader.other_consumers:
                notes.append(
                    f"{parking_queue} has {reader.other_consumers} other consumers: what they hold is not seen, "
                    "and what they give back may change the order"
                )
            yield Reading(reader=reader, notes=notes, by_priority=_by_priority(readable.queue, broker))
        if reader.unproven:
            notes.append(
                f"{parking_queue} was left before it had everything back, which RabbitMQ sees to: {reader.unproven}"
            )
        if not reader.order_kept:
            notes.append(
                f"{parking_queue} is too long to be given back in order"
                f"{' with this prefetch' if prefetch is not None else ''}: its oldest messages are last now"
            )


def _by_priority(queue: Queue, broker: Broker) -> bool:
    """Whether RabbitMQ delivers higher priorities first (facts 12.4, 12.5)."""
    if queue.type == "quorum":
        return broker.connection.version >= (4,)
    return "x-max-priority" in queue.arguments


async def _average_bytes(broker: Broker, queue: str) -> float | None:
    """The size of a message, from statistics that lag behind; None when there are none."""
    if broker.management is None:
        return None
    found = await broker.management.queue_statistics(broker.address.vhost, queue) or {}
    total, count = found.get("message_bytes"), found.get("messages")
    if isinstance(total, int) and isinstance(count, int) and total > 0 and count > 0:
        return total / count
    return None


def parking_queues_of(compiled: CompiledTopology, queue: str | None) -> Sequence[str]:
    """
    The parking queues to read for a work queue, for a parking queue, or (None) for the whole topology.

    Raises:
        UsageError: the file has no such queue.
    """
    if queue is None:
        return compiled.parking_queues
    if queue in compiled.routes:
        return (compiled.routes[queue].parking_queue,)
    if queue in compiled.parking_queues:
        return (queue,)
    raise unknown_queue(compiled, queue, (*compiled.routes, *compiled.parking_queues))


def unknown_queue(compiled: CompiledTopology, queue: str, known: Sequence[str]) -> UsageError:
    """The error for a queue that the file does not have, with the nearest that it has."""
    from difflib import get_close_matches

    close = get_close_matches(queue, known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"its work queues are {', '.join(compiled.routes)}"
    return UsageError(f"{compiled.file} has no queue {queue}", hint=hint)
