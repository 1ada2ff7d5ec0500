"""Go through parking queues, message by message, and give everything back.

No delivery is held for longer than the reader allows. When that time is over in the middle of a queue, all goes back to
its place, and the queue is read again from its head: what comes by once more is known by its hash and passed over.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from amqpflow.errors import UsageError
from amqpflow.model.message import Delivery
from amqpflow.model.routes import CompiledTopology
from amqpflow.parking.digest_multiset import DigestMultiset
from amqpflow.parking.identity import parked_digest
from amqpflow.parking.parked import ParkedMessage, read_parked
from amqpflow.parking.sampling import Sampler
from amqpflow.parking.selection import Matcher, Selection
from amqpflow.rabbitmq.observe import Broker
from amqpflow.services.reading.reader import ParkingReader
from amqpflow.services.reading.reading import Progress, Reading, open_reading, parking_queues_of

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where to look."""

    broker: Broker
    compiled: CompiledTopology  #: that of no file has neither queues nor routes
    queues: tuple[str, ...]  #: parking queues, in the order in which they are read
    origin: str | None = None  #: the work queue of messages that do not tell
    unverified: bool = False  #: read also where it cannot be found out whether that is safe
    prefetch: int | None = None  #: hold at most so many messages at once; None: all that are read
    locked: bool = False  #: the caller has the reading lock of the queues


@dataclass(slots=True, kw_only=True)
class Watch:
    """Who looks on, and may say stop."""

    stop: asyncio.Event = field(default_factory=asyncio.Event)
    on_progress: Progress | None = None  #: told the parking queue, messages seen, messages expected
    on_wait: Callable[[str], None] | None = None  #: told the parking queue while another command reads it

    @classmethod
    def of(
        cls, stop: asyncio.Event | None, on_progress: Progress | None, on_wait: Callable[[str], None] | None
    ) -> Watch:
        """From the arguments of a function of the api."""
        return cls(stop=stop or asyncio.Event(), on_progress=on_progress, on_wait=on_wait)

    def progress(self, queue: str, seen: int, expected: int) -> None:
        if self.on_progress is not None:
            self.on_progress(queue, seen, expected)


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueReading:
    """How the reading of one parking queue went."""

    parking_queue: str
    ready: int  #: messages when it began
    read: int
    other_consumers: int  #: what they hold was not seen
    complete: bool  #: everything that was ready at the beginning was read, or as much as was asked for
    ended_early: str | None  #: why not
    by_priority: bool = False  #: RabbitMQ delivers higher priorities first: the first messages need not be the oldest


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """What became of a scan."""

    selected: int
    queues: tuple[QueueReading, ...]
    notes: tuple[str, ...]  #: what a person should know of it

    @property
    def complete(self) -> bool:
        return all(each.complete for each in self.queues)


async def scan(
    place: Place,
    selection: Selection,
    watch: Watch,
    *,
    make: Callable[[ParkedMessage], T],
    emit: Callable[[T], None],
    settle: Callable[[ParkingReader, ParkedMessage], None] | None = None,
    after_batch: Callable[[ParkingReader], None] | None = None,
    after_reading: Callable[[ParkingReader], None] | None = None,
    window: int | None = None,
    only: DigestMultiset | None = None,
    certain: bool = False,
) -> Scan:
    """
    Read every message of the queues; for each that is selected `emit(make(message))` is called, in the order of
    delivery, which is not that of age where higher priorities are delivered first (`QueueReading.by_priority`).

    With `selection.sample` only what the sample keeps is emitted, at the end. Bodies are not held, unless `make`
    returns them.

    Args:
        place: where to look.
        selection: which messages are meant.
        watch: who looks on.
        make: what to keep of a message.
        emit: told what was kept.
        settle: does away with a selected message; without it all messages are given back.
        after_batch: called when all that has arrived was looked at.
        after_reading: called when the reader has requeued what is left; its `unproven` says whether acks are certain.
        window: how many messages may be with us at once, when they are settled.
        only: of those that are selected, these alone, by `parked_digest`.
        certain: as for `Matcher`.

    Raises:
        NotAppliedError, RefusedError, StoppedError: as `open_reading`.
        BrokerError, BrokerUnavailableError: reading failed; nothing is lost by that.
    """
    matcher = Matcher(selection, now=int(time.time() * 1000), routes=place.compiled.routes, certain=certain)
    sampler: Sampler[T] | None = Sampler(selection.sample, selection.seed) if selection.sample else None
    readings: list[QueueReading] = []
    notes: list[str] = []
    selected = 0
    for queue in place.queues:
        if watch.stop.is_set() or selected == selection.limit:
            break
        known, expected, seen, others = DigestMultiset(), 0, 0, 0
        enough = prioritised = in_parts = False
        while True:
            before = seen
            async with _opened(place, queue, watch) as reading:
                reader = reading.reader
                expected, others = max(expected, reader.ready), max(others, reader.other_consumers)
                at_most = min(reader.ready, expected - seen) if in_parts else reader.ready
                async with aclosing(reader.arrivals(at_most=at_most, window=window)) as arrivals:
                    async for batch in arrivals:
                        for delivery in batch:
                            if not reader.may_go_on():
                                break
                            parked = _read(place, reader, delivery)
                            if known.take(parked.digest):
                                reader.keep(delivery)
                                continue
                            seen += 1
                            prioritised = prioritised or parked.priority is not None
                            wanted = matcher(parked) and (only is None or only.take(parked_digest(delivery)))
                            if wanted and settle is not None:
                                settle(reader, parked)
                            else:
                                reader.keep(delivery)
                                known.add(parked.digest)
                            if wanted and sampler is not None:
                                sampler.offer(make(parked))
                            elif wanted:
                                selected += 1
                                emit(make(parked))
                                enough = selected == selection.limit
                            watch.progress(queue, seen, expected)
                            if enough:
                                break
                        if after_batch is not None:
                            after_batch(reader)
                        if enough:
                            break
                may_go_on = not (enough or watch.stop.is_set())
                if in_parts and seen < expected and may_go_on:
                    reader.end_of_room()  # the rest lies behind what comes again and again
                reads_on = reader.may_read_on and seen > before and may_go_on
                # once all had its turn, the queue has its order again
                reader.is_part = reads_on or (in_parts and seen == expected)
            if after_reading is not None:
                after_reading(reader)
            reader.raise_if_cancelled()
            if enough or not (reader.held_too_long or reads_on) or watch.stop.is_set() or seen == before:
                break
            in_parts = in_parts or reads_on
            known.recall()
        readings.append(
            QueueReading(
                parking_queue=queue,
                ready=expected,
                read=seen,
                other_consumers=others,
                # what was taken out by others meanwhile is not missing: nothing but the queue's own end ended it
                complete=enough or reader.ended_early is None,
                ended_early=None if enough else reader.ended_early,
                by_priority=reading.by_priority,
            )
        )
        if enough and reading.by_priority and prioritised and seen < expected:
            notes.append(f"{queue} delivers higher priorities first: the first in its order need not be the oldest")
        notes += [each for each in reading.notes if each not in notes]
    if sampler is not None:
        selected = len(sampler.items)
        for item in sampler.items:
            emit(item)
    return Scan(selected=selected, queues=tuple(readings), notes=(*notes, *matcher.notes))


@asynccontextmanager
async def _opened(place: Place, queue: str, watch: Watch) -> AsyncIterator[Reading]:
    async with open_reading(
        place.broker,
        place.compiled,
        queue,
        unverified=place.unverified,
        prefetch=place.prefetch,
        stop=watch.stop,
        on_wait=watch.on_wait,
        locked=place.locked,
    ) as reading:
        yield reading


def place_of(
    broker: Broker,
    compiled: CompiledTopology,
    queues: Sequence[str],
    *,
    from_queues: Sequence[str] = (),
    origin: str | None = None,
    unverified: bool = False,
    prefetch: int | None = None,
) -> Place:
    """
    Where to look for messages of these work queues or parking queues.

    Args:
        broker: the broker.
        compiled: the topology, which may be that of no file.
        queues: work queues or parking queues; all parking queues of the topology when empty.
        from_queues: read these queues instead, which need not be in any file.
        origin, unverified, prefetch: see `Place`.

    Raises:
        UsageError: the file has no such queue; or there is neither a file nor a queue.
    """
    if from_queues:
        read = tuple(dict.fromkeys(from_queues))
    elif not compiled.name:
        raise UsageError("no queue to read", hint="name a topology file, or a queue with --from")
    else:
        wanted: list[str] = []
        for queue in queues or (None,):
            wanted += parking_queues_of(compiled, queue)
        read = tuple(dict.fromkeys(wanted))
    return Place(broker=broker, compiled=compiled, queues=read, origin=origin, unverified=unverified, prefetch=prefetch)


def _read(place: Place, reader: ParkingReader, delivery: Delivery) -> ParkedMessage:
    unreadable = reader.unreadable.get(delivery.delivery_tag)
    return read_parked(delivery, place.compiled.routes, unreadable=unreadable, origin=place.origin)
