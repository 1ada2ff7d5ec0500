"""Open a parking queue for reading."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from functools import partial

from amqpflow.model.resources import Queue
from amqpflow.rabbitmq.observe import Broker

from .guard import require_readable
from .lock import reading_alone
from .reader import ParkingReader
from .target import ReadTarget


@asynccontextmanager
async def open_reading(target: ReadTarget, parking_queue: str) -> AsyncIterator[ParkingReader]:
    """Open a queue that may be read, keep other readers away, and hold what is taken until the end. Raises as
    `require_readable` and `reading_alone`.
    """
    broker, options = target.broker, target.options
    readable = await require_readable(broker, target.compiled, parking_queue, unverified=options.unverified)
    notes = list(readable.notes)
    waits = partial(options.on_wait, parking_queue) if options.on_wait is not None else None
    lock = (
        nullcontext(True)
        if target.locked
        else reading_alone(broker.connection, parking_queue, on_wait=waits, stop=target.stop)
    )
    async with lock as alone:
        if not alone:
            notes.append(
                f"no permission to lock {parking_queue}: if another command reads it too, its order may change"
            )
        reader = ParkingReader(
            broker.connection,
            parking_queue,
            quorum=readable.queue.type == "quorum",
            consumer_timeout_ms=readable.consumer_timeout_ms,
            prefetch=options.prefetch,
            average_bytes=await _average_bytes(broker, parking_queue),
            stop=target.stop,
            by_priority=_by_priority(readable.queue, broker),
        )
        reader.notes = notes
        async with reader:
            if reader.other_consumers:
                notes.append(
                    f"{parking_queue} has {reader.other_consumers} other consumers: their messages are not seen, "
                    "and may change the order when they are requeued"
                )
            yield reader
        if reader.unproven:
            notes.append(f"{parking_queue} was closed before RabbitMQ had requeued every message: {reader.unproven}")
        if not reader.order_kept:
            notes.append(
                f"{parking_queue} is too long to be requeued in order"
                f"{' with this prefetch' if options.prefetch is not None else ''}: its oldest messages are last now"
            )


def _by_priority(queue: Queue, broker: Broker) -> bool:
    """Tell whether RabbitMQ delivers higher priorities first (facts 12.4, 12.5)."""
    if queue.type == "quorum":
        return broker.connection.version >= (4,)
    return "x-max-priority" in queue.arguments


async def _average_bytes(broker: Broker, queue: str) -> float | None:
    """Return the size of a message, from statistics that lag behind; None when there are none."""
    if broker.management is None:
        return None
    found = await broker.management.queue_statistics(broker.address.vhost, queue) or {}
    total, count = found.get("message_bytes"), found.get("messages")
    if isinstance(total, int) and isinstance(count, int) and total > 0 and count > 0:
        return total / count
    return None
