"""Read a parking queue: consume it, hold what stays, and requeue that at the end (`requeueing`).

The messages are taken by as few consumers as the broker's memory allows: a prefetch is filled in one step, so that a
connection lost in the middle of it requeues all or nothing. A few messages of a long queue are taken first, to measure
them, and none is passed on before the others are held as well.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from math import inf

from amqpflow.model.message import Delivery
from amqpflow.rabbitmq.connection import Connection

from .consumers import QueueConsumers
from .fetch_size import MAX_PREFETCH
from .requeueing import Requeueing
from .tags import WindowConsumer

HOLD_MAX = 600.0  #: seconds a delivery is held at most; RabbitMQ's consumer timeout is 30 minutes by default
QUIET = 0.25  #: seconds without a delivery after which amqpflow asks whether the queue is empty
STALLED = 10.0  #: seconds without a delivery while the queue says that it is not empty
HELD_BY_A_CHANNEL = 4_000
"""Deliveries that one channel keeps while others are acked (fact 6.18)."""
HELD_BY_A_CHANNEL_QUORUM = 10_000  #: there a lost connection mixes up what the channels hold, so they are fewer
MAX_CHANNELS = 60
MEASURED = 100
"""Messages that are taken first from a queue that might be too large to be taken at once. Only if the process dies
before the next consumer is filled, some round trips later, are these put behind the rest of a quorum queue."""


@dataclass
class ParkingReader:
    """Reads one parking queue on one connection. Use as an async context manager: leaving it requeues everything."""

    connection: Connection
    queue: str
    quorum: bool
    average_bytes: float | None = None  #: of a body, when known
    consumer_timeout_ms: int | None = None  #: of the queue, when known; nothing is held for longer than half of it
    prefetch: int | None = None
    """Unacked messages at most; None: as many as are read. RabbitMQ delivers first what was requeued, so that with a
    limit no more than that are seen of messages that stay."""
    stop: asyncio.Event = field(default_factory=asyncio.Event)  #: set it to end the reading
    by_priority: bool = False  #: the queue delivers higher priorities before older messages

    def __post_init__(self) -> None:
        self.notes: list[str] = []  #: for people
        self.ready = 0  #: messages when the reading began
        self.ended_early: str | None = None  #: why not everything was read
        self.held_too_long = False  #: that is why: another reading can read the rest
        self.is_part = False  #: set by a caller who reads on in parts until all had its turn, which restores the order
        self.is_full = False  #: as many are held as may be
        self.limit = self.prefetch or MAX_PREFETCH * MAX_CHANNELS
        self.hold_max = min(HOLD_MAX, (self.consumer_timeout_ms or inf) / 2000)
        self._consumers = QueueConsumers(
            self.connection, self.queue, limit=self.limit, average_bytes=self.average_bytes
        )
        by_close = self.quorum and self.connection.version < (4,)
        self._requeueing = Requeueing(self._consumers, quorum=self.quorum, by_close=by_close, hold_max=self.hold_max)
        self.unreadable = self._consumers.unreadable
        """Delivery tag -> why its properties cannot be read; they are empty."""
        self._finished = False
        self._stopping: asyncio.Task[None] | None = None
        self._oldest_kept: float | None = None

    @property
    def other_consumers(self) -> int:
        return self._requeueing.other_consumers

    @property
    def ready_after(self) -> int | None:
        return self._requeueing.ready_after

    @property
    def unproven(self) -> str | None:
        return self._requeueing.unproven

    @property
    def order_kept(self) -> bool:
        return self._requeueing.order_kept

    @property
    def may_read_on(self) -> bool:
        """Tell whether a quorum queue delivers other messages next time: of those that were once requeued, the ones
        that are requeued now come last.
        """
        return self.is_full and self.quorum and self._consumers.returned_before

    @property
    def received(self) -> int:
        return self._consumers.holdings.received

    async def __aenter__(self) -> ParkingReader:
        await self._consumers.open_control()
        try:
            await self._look_first()
            if self.quorum and not self.ready and not await self._requeueing.prove_empty():
                await self._look_first()
            await self._consumers.open_channel()
        except BaseException:
            await self._consumers.close_channels()
            raise
        self._stopping = asyncio.create_task(self._wake_when_stopped(), name="amqpflow parking reader stop")
        return self

    async def _look_first(self) -> None:
        self.ready, self._requeueing.other_consumers = await self._consumers.look()

    async def __aexit__(self, *_: object) -> None:
        try:
            await self._requeueing.requeue_all(is_part=self.is_part)
        finally:
            if self._stopping is not None:
                self._stopping.cancel()
                await asyncio.gather(self._stopping, return_exceptions=True)

    async def _wake_when_stopped(self) -> None:
        await self.stop.wait()
        self._consumers.news.set()

    # -- reading

    async def arrivals(
        self, *, at_most: int, window: int | None = None, busy: Callable[[], bool] = lambda: False
    ) -> AsyncGenerator[list[Delivery], None]:
        """Yield the messages in the queue's order, as they arrive. The caller settles each by `ack_all` or `keep`.

        Ends after `at_most`, when the queue has no more to give, when stop is set, or when something was held for
        HOLD_MAX seconds, or half the consumer timeout; `ended_early` tells which of the last two it was. Ask
        `may_continue` before each message of a batch.

        Args:
            at_most: how many; the number that was ready at the beginning, so that what arrives meanwhile does not
                prolong the reading.
            window: messages with the caller at once, when they are acked. Those that are kept are not counted. None:
                all are kept.
            busy: asked when nothing arrives: are there deliveries that will yet be acked?

        Raises:
            BrokerError: the queue was deleted. BrokerUnavailableError: the channel or the connection was lost.
        """
        consumers, given = self._consumers, 0
        while given < at_most and self.may_continue():
            if consumers.holdings.latest is None and window is None:
                await self._measure(at_most)
            await self._start_if_needed(window, at_most - given, busy)
            if not consumers.arrived and not await self._wait(busy):
                return
            if consumers.arrived:
                batch, consumers.arrived = consumers.arrived[: at_most - given], consumers.arrived[at_most - given :]
                given += len(batch)
                yield batch

    def keep(self, delivery: Delivery) -> None:
        """Hold this delivery to the end, and requeue it then."""
        self._consumers.holdings.of(delivery.delivery_tag).keep(delivery.delivery_tag)
        if self._oldest_kept is None:
            self._oldest_kept = asyncio.get_running_loop().time()

    def ack_all(self, delivery_tags: Sequence[int]) -> bool:
        """Take messages out of the queue, as `QueueConsumers.ack_all`."""
        return self._consumers.ack_all(delivery_tags)

    async def parked_meanwhile(self) -> int:
        """Return how many messages came into the queue since the reading began, less those that others took out."""
        ready, _ = await self._consumers.look()
        return ready + self.received - self.ready

    async def prove(self) -> None:
        await self._consumers.prove()

    def raise_if_cancelled(self) -> None:
        self._consumers.raise_if_cancelled()

    def finish(self) -> None:
        """End the reading: nothing more is wanted."""
        self._finished = True
        self._consumers.news.set()

    def may_continue(self) -> bool:
        """Tell whether the caller of `arrivals` may look at the next message of a batch. Else the reading is over."""
        if self._finished:
            return False
        self._consumers.raise_if_closed()
        if self.stop.is_set():
            self.ended_early = "it was interrupted"
        elif self._oldest_kept is not None and asyncio.get_running_loop().time() > self._oldest_kept + self.hold_max:
            self.end_of_holding()
        return self.ended_early is None

    def end_of_holding(self) -> None:
        """End the reading: a message was held for as long as may be."""
        self.held_too_long = True
        self.ended_early = f"messages had been held for {self._hold_text()}"
        self._consumers.news.set()

    def end_of_room(self) -> None:
        """End the reading: as many are held as may be, and once requeued they come first again."""
        self.is_full = True
        self.ended_early = (
            f"{self.limit} messages are held, which is the prefetch, and RabbitMQ delivers them first again"
        )

    def _hold_text(self) -> str:
        if self.hold_max < HOLD_MAX:
            return f"{self.hold_max:g} seconds, half of the consumer timeout of the queue"
        return f"{HOLD_MAX / 60:.0f} minutes"

    async def _wait(self, busy: Callable[[], bool]) -> bool:
        loop = asyncio.get_running_loop()
        since, empty_before = loop.time(), False
        while not self._consumers.arrived and self.may_continue():
            if await self._arrives_within(QUIET):
                continue
            if busy():
                since = loop.time()
                continue
            if (latest := self._consumers.holdings.latest) is not None and latest.is_full:
                return True
            ready, _ = await self._consumers.look()
            if not ready and empty_before:
                return False
            # the latest deliveries may still be under way to us
            empty_before = not ready
            if loop.time() > since + STALLED:
                self.ended_early = f"the queue reports {ready} ready messages but does not deliver them"
        return bool(self._consumers.arrived)

    async def _arrives_within(self, seconds: float) -> bool:
        self._consumers.news.clear()
        if self._consumers.arrived or self.stop.is_set() or self._finished:
            return True
        return await self._news_within(seconds)

    async def _news_within(self, seconds: float) -> bool:
        self._consumers.news.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._consumers.news.wait()
        except TimeoutError:
            return False
        return True

    # -- consumers

    async def _measure(self, wanted: int) -> None:
        """Take a few messages of a queue that might be too large to be taken at once, and the others by their size.

        No caller has seen a message by then, so that this takes some round trips and nothing else.
        """
        consumers = self._consumers
        if min(wanted, self.ready, self.limit) <= consumers.size.messages():
            return
        await consumers.start(min(MEASURED, consumers.size.messages()))
        first = consumers.require_holding().tags.consumers[-1]
        while first.held < first.prefetch and self.may_continue() and await self._news_within(QUIET):
            pass
        await consumers.cancel()
        if self.may_continue() and wanted > first.received and consumers.room:
            await consumers.start(min(wanted - first.received, consumers.size.messages(), consumers.room))

    async def _start_if_needed(self, window: int | None, wanted: int, busy: Callable[[], bool]) -> None:
        consumers = self._consumers
        latest = consumers.holdings.latest
        if latest is not None and not (latest.is_full and not consumers.arrived):
            return
        if latest is not None:
            await self._end_of(latest)
        if not consumers.arrived:
            await consumers.cancel()
        if consumers.arrived or not self.may_continue():
            return
        size = consumers.size.messages()
        if window is not None:
            most = self._held_by_a_channel()
            size = min(size, max(window, min(most, latest.prefetch * 2) if latest is not None else 0))
            if consumers.require_holding().kept >= most * 3 // 4 and len(consumers.holdings.all) < MAX_CHANNELS:
                await consumers.open_channel()
        if not consumers.room:
            if busy():
                return  # acks make room
            self.end_of_room()
            return
        if not consumers.require_holding().has_room:
            self.ended_early = f"{self.received} messages are held, which is as many as can be requeued in order"
            return
        await consumers.start(min(size, wanted, consumers.room))

    def _held_by_a_channel(self) -> int:
        least = HELD_BY_A_CHANNEL_QUORUM if self.quorum else HELD_BY_A_CHANNEL
        return max(least, self.ready * 4 // 3 // (MAX_CHANNELS - 5))  # one is left when it keeps three quarters of it

    async def _end_of(self, consumer: WindowConsumer) -> None:
        """Wait for the next delivery that a consumer may get; acks, which would let more through, are held back.

        Deliveries are passed on before the broker is asked anything: its answer comes behind all that it has sent by
        then, which would be held in memory at once.
        """
        consumers = self._consumers
        while consumer.tag and consumer.held < consumer.prefetch and not consumers.arrived and self.may_continue():
            consumers.hold_acks_back()
            if not await self._arrives_within(QUIET):
                return
