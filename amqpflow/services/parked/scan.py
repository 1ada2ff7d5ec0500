"""Select parked messages, queue by queue, and leave in their place those that are not settled."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from amqpflow.parking.digest_multiset import DigestMultiset
from amqpflow.parking.identity import parked_digest
from amqpflow.parking.parked import ParkedMessage
from amqpflow.parking.sampling import Sampler
from amqpflow.parking.selection import Matcher, Selection
from amqpflow.services.reading.messages import ParkedMessages
from amqpflow.services.reading.reader import ParkingReader
from amqpflow.services.reading.target import ReadTarget

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueReading:
    """The reading of one parking queue."""

    parking_queue: str
    ready: int  #: messages when it began
    read: int
    other_consumers: int  #: the messages that they hold were not seen
    complete: bool  #: everything that was ready at the beginning was read, or as much as was requested
    ended_early: str | None  #: why not
    by_priority: bool = False  #: RabbitMQ delivers higher priorities first: the first messages need not be the oldest


@dataclass(frozen=True, slots=True, kw_only=True)
class Readings:
    """The readings that a result is based on."""

    queues: tuple[QueueReading, ...]
    notes: tuple[str, ...]  #: for people

    @property
    def complete(self) -> bool:
        """Tell whether every queue was read to its end, or as far as was requested."""
        return all(each.complete for each in self.queues)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan(Readings):
    """The result of a scan."""

    selected: int


async def scan(
    target: ReadTarget,
    selection: Selection,
    *,
    make: Callable[[ParkedMessage], T],
    emit: Callable[[T], None],
    settle: Callable[[ParkingReader, ParkedMessage], None] | None = None,
    after_batch: Callable[[ParkingReader], None] = lambda _: None,
    after_reading: Callable[[ParkingReader], None] = lambda _: None,
    window: int | None = None,
    only: DigestMultiset | None = None,
    certain: bool = False,
) -> Scan:
    """Read every message of the queues; for each that is selected `emit(make(message))` is called, in the order of
    delivery, which is not that of age where higher priorities are delivered first (`QueueReading.by_priority`).

    With `selection.sample` only what the sample keeps is emitted, at the end. Bodies are not held, unless `make`
    returns them. Raises as `ParkedMessages`.

    Args:
        settle: settles a selected message; without it all messages are requeued.
        after_batch, after_reading, window: as for `ParkedMessages`.
        only: of those that are selected, these alone, by `parked_digest`.
        certain: as for `Matcher`.
    """
    matcher = Matcher(selection, now=int(time.time() * 1000), routes=target.compiled.routes, certain=certain)
    sampler: Sampler[T] | None = Sampler(selection.sample, selection.seed) if selection.sample else None
    readings: list[QueueReading] = []
    notes: list[str] = []
    selected = 0
    for queue in target.queues:
        if target.is_stopped or selected == selection.limit:
            break
        reading = ParkedMessages(
            target, queue, window=window, in_parts=True, after_batch=after_batch, after_reading=after_reading
        )
        enough = False
        async with reading as messages:
            async for parked in messages:
                wanted = matcher(parked) and (only is None or only.take(parked_digest(parked.delivery)))
                if wanted and settle is not None:
                    settle(messages.reader, parked)
                else:
                    messages.keep(parked)
                if wanted and sampler is not None:
                    sampler.offer(make(parked))
                elif wanted:
                    selected += 1
                    emit(make(parked))
                    enough = selected == selection.limit
                target.progress(queue, messages.seen, messages.expected)
                if enough:
                    messages.finish()
        readings.append(
            QueueReading(
                parking_queue=queue,
                ready=messages.expected,
                read=messages.seen,
                other_consumers=messages.other_consumers,
                # messages that others took out meanwhile are not missing: the reading came to the end of the queue
                complete=messages.ended_early is None,
                ended_early=messages.ended_early,
                by_priority=messages.reader.by_priority,
            )
        )
        if enough and messages.reader.by_priority and messages.has_priorities and messages.seen < messages.expected:
            notes.append(f"{queue} delivers higher priorities first: the first in its order need not be the oldest")
        notes += [each for each in messages.reader.notes if each not in notes]
    if sampler is not None:
        selected = len(sampler.items)
        for item in sampler.items:
            emit(item)
    return Scan(selected=selected, queues=tuple(readings), notes=(*notes, *matcher.notes))
