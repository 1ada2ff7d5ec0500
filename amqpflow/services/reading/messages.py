"""The messages of a parking queue, in as many readings as it takes.

No delivery is held for longer than the reader allows. When that time is over in the middle of a queue, all goes back to
its place, and the queue is read again from its head: a message that was seen before is known by its hash, and passed
over.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from amqpflow.model.message import Delivery
from amqpflow.parking.digest_multiset import DigestMultiset
from amqpflow.parking.parked import ParkedMessage, read_parked

from .open_reading import open_reading
from .reader import ParkingReader
from .target import ReadTarget


@dataclass
class ParkedMessages:
    """Reads one parking queue. Use as an async context manager, and iterate over it: it yields the messages in the
    order of delivery. `keep` or ack each; all others are requeued.

    Raises, when it is iterated over, as `open_reading`; BrokerError, BrokerUnavailableError: nothing is lost by that.
    """

    target: ReadTarget
    queue: str
    window: int | None = None  #: messages with the caller at once, when they are settled
    in_parts: bool = False  #: with a prefetch, read on where RabbitMQ delivers other messages next time
    after_batch: Callable[[ParkingReader], None] = lambda _: None  #: called when all that have arrived were yielded
    after_reading: Callable[[ParkingReader], None] = lambda _: None
    """Called when a reading has requeued the rest; `unproven` says whether acks are certain."""

    def __post_init__(self) -> None:
        self.reader: ParkingReader  #: the present one, or the last
        self.expected = 0  #: messages when the first reading began
        self.seen = 0  #: each counts once
        self.other_consumers = 0  #: what they hold is not seen
        self.has_priorities = False  #: a message had one
        self._known = DigestMultiset()
        self._again = False  # a further reading, in which known messages are delivered again
        self._reads_part = False  # the further reading is for messages that the prefetch kept away
        self._finished = False
        self._messages = self._read()

    async def __aenter__(self) -> ParkedMessages:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._messages.aclose()

    def __aiter__(self) -> AsyncGenerator[ParkedMessage, None]:
        return self._messages

    async def _read(self) -> AsyncGenerator[ParkedMessage, None]:
        reads_on = True
        while reads_on:
            before = self.seen
            async with open_reading(self.target, self.queue) as reader, aclosing(self._arrivals(reader)) as arrivals:
                async for deliveries in arrivals:
                    for parked in self._new(deliveries):
                        yield parked
                    self.after_batch(reader)
                    if self._finished:
                        break
                if self._reads_part and self.seen < self.expected and not self._is_over:
                    reader.end_of_room()  # the rest is behind messages that are delivered again and again
                has_parts = self.in_parts and reader.may_read_on and self.seen > before and not self._is_over
                # once all had their turn, the queue has its order again
                reader.is_part = has_parts or (self._reads_part and self.seen == self.expected)
            self.after_reading(reader)
            reader.raise_if_cancelled()
            reads_on = not self._is_over and (reader.held_too_long or has_parts) and self.seen > before
            self._reads_part = self._reads_part or has_parts
            self._again = True
            if reads_on:
                self._known.recall()

    def _arrivals(self, reader: ParkingReader) -> AsyncGenerator[list[Delivery], None]:
        self.reader = reader
        self.expected = max(self.expected, reader.ready)
        self.other_consumers = max(self.other_consumers, reader.other_consumers)
        at_most = reader.ready
        if self._reads_part:
            at_most = min(at_most, self.expected - self.seen)
        return reader.arrivals(at_most=at_most, window=self.window)

    def _new(self, deliveries: Sequence[Delivery]) -> Iterator[ParkedMessage]:
        reader, target = self.reader, self.target
        for delivery in deliveries:
            if self._finished or not reader.may_continue():
                return
            unreadable = reader.unreadable.get(delivery.delivery_tag)
            parked = read_parked(delivery, target.compiled.routes, unreadable=unreadable, origin=target.options.origin)
            if self._again and self._known.take(parked.digest):
                reader.keep(delivery)
                continue
            self.seen += 1
            self.has_priorities = self.has_priorities or parked.priority is not None
            yield parked

    def keep(self, parked: ParkedMessage) -> None:
        """Requeue this message at the end, and pass it over in further readings."""
        self.reader.keep(parked.delivery)
        self._known.add(parked.digest)

    def is_readable(self, parked: ParkedMessage) -> bool:
        return parked.delivery.delivery_tag not in self.reader.unreadable

    def finish(self) -> None:
        """End after the present message: no more are wanted."""
        self._finished = True

    @property
    def _is_over(self) -> bool:
        return self._finished or self.target.is_stopped

    @property
    def ended_early(self) -> str | None:
        """Say why not all was read that was there at the beginning; None: all was, or as much as was wanted."""
        return None if self._finished else self.reader.ended_early
