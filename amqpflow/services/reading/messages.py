"""The messages of a parking queue, in as many readings as it takes.

No delivery is held for longer than the reader allows. When that time is over in the middle of a queue, all goes back to
its place, and the queue is read again from its head: a message that comes by once more is known by its hash and passed
over.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing

from amqpflow.model.message import Delivery
from amqpflow.parking.digest_multiset import DigestMultiset
from amqpflow.parking.parked import ParkedMessage, read_parked

from .reader import ParkingReader
from .reading import open_reading
from .target import ReadTarget


class ParkedMessages:
    """
    Reads one parking queue. Everything that the caller does not settle is requeued.

    Args:
        target: what to read, and how.
        queue: the parking queue, one of the target's.
        window: messages with the caller at once, when they are settled.
        in_parts: with a prefetch, read on where RabbitMQ delivers other messages next time.
        after_reading: called when a reading has requeued what is left; `unproven` says whether acks are certain.
    """

    def __init__(
        self,
        target: ReadTarget,
        queue: str,
        *,
        window: int | None = None,
        in_parts: bool = False,
        after_reading: Callable[[ParkingReader], None] | None = None,
    ) -> None:
        self.reader: ParkingReader  #: the present one, or the last
        self.notes: list[str] = []  #: for people, of the last reading
        self.by_priority = False  #: higher priorities are delivered before older messages
        self.expected = 0  #: messages when the first reading began
        self.seen = 0  #: each counts once
        self.other_consumers = 0  #: what they hold is not seen
        self.has_priorities = False  #: a message had one
        self._target = target
        self._queue = queue
        self._window = window
        self._in_parts = in_parts
        self._after_reading = after_reading
        self._known = DigestMultiset()
        self._again = False  # a further reading: known messages come by
        self._finished = False

    async def batches(self) -> AsyncGenerator[Iterator[ParkedMessage], None]:
        """
        Yield the messages in the order of delivery, as they arrive. Close it, as with `aclosing`.

        Take each message of a batch, and `keep` it or ack it by the `reader`.

        Raises:
            NotAppliedError, RefusedError, StoppedError: as `open_reading`.
            BrokerError, BrokerUnavailableError: reading failed; nothing is lost by that.
        """
        in_parts = reads_on = False
        while True:
            before = self.seen
            async with open_reading(self._target, self._queue) as reading:
                self.reader, self.notes, self.by_priority = reading.reader, reading.notes, reading.by_priority
                reader = reading.reader
                self.expected = max(self.expected, reader.ready)
                self.other_consumers = max(self.other_consumers, reader.other_consumers)
                at_most = min(reader.ready, self.expected - self.seen) if in_parts else reader.ready
                async with aclosing(reader.arrivals(at_most=at_most, window=self._window)) as arrivals:
                    async for deliveries in arrivals:
                        yield self._new(deliveries)
                        if self._finished:
                            break
                is_over = self._finished or self._target.is_stopped
                if in_parts and self.seen < self.expected and not is_over:
                    reader.end_of_room()  # the rest lies behind what comes again and again
                reads_on = self._in_parts and reader.may_read_on and self.seen > before and not is_over
                # once all had its turn, the queue has its order again
                reader.is_part = reads_on or (in_parts and self.seen == self.expected)
            if self._after_reading is not None:
                self._after_reading(reader)
            reader.raise_if_cancelled()
            is_over = self._finished or self._target.is_stopped
            if is_over or not (reader.held_too_long or reads_on) or self.seen == before:
                return
            in_parts = in_parts or reads_on
            self._known.recall()
            self._again = True

    def keep(self, parked: ParkedMessage) -> None:
        """Requeue this message at the end, and pass it over when it comes by again."""
        self.reader.keep(parked.delivery)
        self._known.add(parked.digest)

    def is_readable(self, parked: ParkedMessage) -> bool:
        """Tell whether its properties could be read."""
        return parked.delivery.delivery_tag not in self.reader.unreadable

    def finish(self) -> None:
        """End after the present message: no more are wanted."""
        self._finished = True

    @property
    def ended_early(self) -> str | None:
        """Say why not all was read that was there at the beginning; None: all was, or as much as was wanted."""
        return None if self._finished else self.reader.ended_early

    def _new(self, deliveries: Sequence[Delivery]) -> Iterator[ParkedMessage]:
        reader, target = self.reader, self._target
        for delivery in deliveries:
            if not reader.may_go_on():
                return
            unreadable = reader.unreadable.get(delivery.delivery_tag)
            parked = read_parked(delivery, target.compiled.routes, unreadable=unreadable, origin=target.options.origin)
            if self._again and self._known.take(parked.digest):
                reader.keep(delivery)
                continue
            self.seen += 1
            self.has_priorities = self.has_priorities or parked.priority is not None
            yield parked
