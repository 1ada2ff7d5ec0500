"""Hold what is in a parking queue, and give it back where it was.

On a classic queue each message goes back to its place, whatever is done. A quorum queue puts what it gets back behind
what it got back earlier, and ahead of what was never delivered. What keeps its order was measured on 3.10, 4.0 and 4.3:

* All that was ever given back is taken before anything is given back again: to the end, or to the first message that
  was never delivered before.
* It is taken by as few consumers as the broker's memory allows: a prefetch is filled in one step, so that a connection
  lost in the middle of it requeues all or nothing. A few messages of a long queue are taken first, to measure them,
  and no message is looked at before the others are held as well.
* RabbitMQ 4: one nack for each consumer's deliveries, oldest first; a nack over all mixes consumers up. What is still
  on its way to a consumer that is cancelled goes back at once, so nothing may be.
* RabbitMQ 3: closing the channel. A nack of more than 32 messages there gives them back in the order of a hash table.
* A closed channel, or a lost connection, gives back in the order of the consumer tags, so tags ascend; the deliveries
  of more than 32 consumers come back in the order of a hash table, so there are fewer.
* Several channels give back in order when each waits for the one before. A lost connection gives the parts back in any
  order, so there is one channel, except where acks behind much that is held would take too long (`parking_holdings`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from math import inf
from typing import Any

from amqpflow.errors import AmqpflowError, BrokerError, BrokerUnavailableError
from amqpflow.model.message import Delivery
from amqpflow.model.queue_stats import QueueCounts
from amqpflow.rabbitmq.channel import Channel
from amqpflow.rabbitmq.connection import Connection
from amqpflow.rabbitmq.translate import translate

from .holdings import Holding, Holdings
from .tags import Lane

HOLD_MAX = 600.0  #: seconds a delivery is held at most; RabbitMQ's consumer timeout is 30 minutes by default
QUIET = 0.25  #: seconds without a delivery after which the queue is asked whether it is empty
STALLED = 10.0  #: seconds without a delivery while the queue says that it is not empty
RETURN_TIMEOUT = 5.0  #: seconds to wait until the queue counts again what was given back
MAX_PREFETCH = 65_535
FILLED_WITHIN = (
    120.0  #: seconds for a busy broker to read a prefetch from its disk; a lost connection is noticed earlier
)
HELD_BY_A_CHANNEL = 4_000
"""Deliveries that one channel keeps while others are acked (fact 6.18)."""
HELD_BY_A_CHANNEL_QUORUM = 10_000  #: there a lost connection mixes up what the channels hold, so they are fewer
MAX_CHANNELS = 60
AT_ONCE_BYTES = 256 * 1024 * 1024
"""What the broker may have to read into memory for us at once: it fills a prefetch headers, bodies and all."""
AT_ONCE_UNKNOWN = 2_000  #: messages, when nothing is known of their size
LARGEST_HEADERS = 128 * 1024
"""Bytes of headers to expect of a message before any was seen: statistics count bodies alone; a frame holds no more."""
MEASURED = 100
"""Messages that are taken first from a queue that might be too large to be taken at once. Only if the process dies
before the next consumer is filled, some round trips later, are these put behind the rest of a quorum queue."""


class ParkingReader:
    """
    Reads one parking queue on one connection. Use as an async context manager: leaving it gives everything back.

    Args:
        connection: where to read.
        queue: the parking queue.
        quorum: it is a quorum queue.
        average_bytes: of a body, when known.
        consumer_timeout_ms: of the queue, when known. Nothing is held for longer than half of it.
        prefetch: unacked messages at most; None: as many as are read. RabbitMQ delivers again first what it was given
            back, so that with a limit no more than that are seen of messages that stay.
        stop: set it to end the reading.
    """

    def __init__(
        self,
        connection: Connection,
        queue: str,
        *,
        quorum: bool,
        average_bytes: float | None = None,
        consumer_timeout_ms: int | None = None,
        prefetch: int | None = None,
        stop: asyncio.Event | None = None,
    ) -> None:
        self.queue = queue
        self.ready = 0  #: messages when the reading began
        self.other_consumers = 0  #: of the queue when the reading began; what they hold is not seen
        self.ended_early: str | None = None  #: why not everything was read
        self.held_too_long = False  #: that is why: a reading that begins anew goes on
        self.ready_after: int | None = None  #: messages once everything was given back
        self.unproven: str | None = None  #: why it is not known that the broker has taken every ack and nack
        self.order_kept = True
        self.is_part = False  #: set by a caller who reads on in parts until all had its turn: the order is his
        self.is_full = False  #: as many are held as may be
        self.limit = prefetch or MAX_PREFETCH * MAX_CHANNELS
        self.unreadable: dict[int, str] = {}  #: delivery tag -> why its properties cannot be read; they are empty
        self._connection = connection
        self._quorum = quorum
        self._by_close = quorum and connection.version < (4,)
        self._average_bytes = average_bytes
        self.hold_max = min(HOLD_MAX, (consumer_timeout_ms or inf) / 2000)
        self._stop = stop or asyncio.Event()
        self._control: Any = None
        self._holdings = Holdings()
        self._lost: Channel | None = None
        self._returned_before = False  # the latest delivery had been given back before
        self._body_bytes = 0
        self._header_bytes = 0
        self._only_taking = False  # deliveries are held, and not looked at
        self._arrived: list[Delivery] = []
        self._news = asyncio.Event()
        self._cancelled_by_server = False
        self._finished = False
        self._stopping: asyncio.Task[None] | None = None
        self._acks_held_back: list[int] | None = None  # not None while a consumer comes to its end
        self._acks_pass = asyncio.Event()  # they are not held back
        self._acks_pass.set()
        self._oldest_kept: float | None = None

    @property
    def may_read_on(self) -> bool:
        """
        Whether a quorum queue delivers other messages next time: of those that were once given back, what is given
        back now comes last.
        """
        return self.is_full and self._quorum and self._returned_before

    @property
    def received(self) -> int:
        """Deliveries so far."""
        return self._holdings.received

    async def __aenter__(self) -> ParkingReader:
        self._control = await self._connection.admin_channel()
        try:
            self.ready, self.other_consumers = await self._look()
            if self._quorum and not self.ready:
                await self._prove_empty()
            await self._open_channel()
        except BaseException:
            await self._close_channels()
            raise
        self._stopping = asyncio.create_task(self._wake_when_stopped(), name="amqpflow parking reader stop")
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            await self._give_back()
        finally:
            if self._stopping is not None:
                self._stopping.cancel()
                await asyncio.gather(self._stopping, return_exceptions=True)

    async def _wake_when_stopped(self) -> None:
        await self._stop.wait()
        self._news.set()

    # -- reading

    async def deliveries(
        self, *, at_most: int, window: int | None = None, busy: Callable[[], bool] = lambda: False
    ) -> AsyncGenerator[Delivery, None]:
        """
        The messages in the queue's order, each of which the caller settles with `ack` or declares `keep`.

        Ends after `at_most`, when the queue has no more to give, when stop is set, or when something was held for
        HOLD_MAX seconds, or half the consumer timeout; `ended_early` tells which of the last two it was.

        Args:
            at_most: how many; the number that was ready at the beginning, so that what arrives meanwhile does not
                prolong the reading.
            window: how many may be with the caller at once, when he acks them. What he keeps is not counted. None:
                he keeps them all.
            busy: asked when nothing arrives: are there deliveries that will yet be acked?

        Raises:
            BrokerError: the queue was deleted. BrokerUnavailableError: the channel or the connection was lost.
        """
        async with aclosing(self.arrivals(at_most=at_most, window=window, busy=busy)) as arrivals:
            async for batch in arrivals:
                for delivery in batch:
                    if not self._may_go_on():
                        return
                    yield delivery

    async def arrivals(
        self, *, at_most: int, window: int | None = None, busy: Callable[[], bool] = lambda: False
    ) -> AsyncGenerator[list[Delivery], None]:
        """The same in batches: whatever has arrived, at least one."""
        given = 0
        while given < at_most and self._may_go_on():
            if self._holdings.latest is None and window is None:
                await self._measure(at_most)
            await self._open_lane_if_needed(window, at_most - given, busy)
            if not self._arrived and not await self._wait(busy):
                return
            if self._arrived:
                batch, self._arrived = self._arrived[: at_most - given], self._arrived[at_most - given :]
                given += len(batch)
                yield batch

    def keep(self, delivery: Delivery) -> None:
        """This delivery is held to the end, and then given back."""
        self._holdings.of(delivery.delivery_tag).keep(delivery.delivery_tag)
        if self._oldest_kept is None:
            self._oldest_kept = asyncio.get_running_loop().time()

    def ack(self, delivery: Delivery) -> bool:
        """Take this message out of the queue; as `ack_all`."""
        return self.ack_all((delivery.delivery_tag,))

    def ack_all(self, delivery_tags: Sequence[int]) -> bool:
        """
        Take messages out of the queue; False when they are not ours any more: the channel is closed, or the server
        cancelled the consumer, after which an ack is void (fact 12.2).
        """
        self._require_holding()
        if self._cancelled_by_server or self._lost is not None:
            return False
        if self._acks_held_back is not None:
            self._acks_held_back += delivery_tags
            return True
        self._holdings.ack(delivery_tags)
        return True

    async def parked_meanwhile(self) -> int:
        """How many messages came into the queue since the reading began, less what others took out of it."""
        ready, _ = await self._look()
        return ready + self.received - self.ready

    async def prove(self) -> None:
        """Return when RabbitMQ has read every ack that was given so far. Raises BrokerError, BrokerUnavailableError."""
        await self._acks_pass.wait()
        self._require_holding()
        for holding in tuple(self._holdings):
            await holding.channel.queue_counts(self.queue)

    def finish(self) -> None:
        """End `deliveries`: nothing more is wanted."""
        self._finished = True
        self._news.set()

    def may_go_on(self) -> bool:
        """For callers of `arrivals`: may the next of a batch be looked at? Else the reading is over."""
        return self._may_go_on()

    def _may_go_on(self) -> bool:
        if self._finished:
            return False
        self._raise_if_closed()
        if self._stop.is_set():
            self.ended_early = "it was interrupted"
        elif self._oldest_kept is not None and asyncio.get_running_loop().time() > self._oldest_kept + self.hold_max:
            self.end_of_holding()
        return self.ended_early is None

    def end_of_holding(self) -> None:
        """End `deliveries`: something was held for as long as may be."""
        self.held_too_long = True
        self.ended_early = f"messages had been held for {self._hold_text()}"
        self._news.set()

    def end_of_room(self) -> None:
        """End `deliveries`: as many are held as may be, and once given back they come first again."""
        self.is_full = True
        self.ended_early = (
            f"{self.limit} messages are held, which is the prefetch, and RabbitMQ delivers them first again"
        )

    def _hold_text(self) -> str:
        if self.hold_max < HOLD_MAX:
            return f"{self.hold_max:g} seconds, half of the consumer timeout of the queue"
        return f"{HOLD_MAX / 60:.0f} minutes"

    async def _wait(self, busy: Callable[[], bool]) -> bool:
        """Wait for a delivery; False when there will be none."""
        loop = asyncio.get_running_loop()
        since, empty_before = loop.time(), False
        while not self._arrived and self._may_go_on():
            if await self._arrives_within(QUIET):
                continue
            if busy():
                since = loop.time()
                continue
            if (latest := self._holdings.latest) is not None and latest.is_full:
                return True
            ready, _ = await self._look()
            if not ready and empty_before:
                return False
            # what the queue has just handed out may still be on its way to us
            empty_before = not ready
            if loop.time() > since + STALLED:
                self.ended_early = f"the queue says that {ready} messages are ready, and does not deliver them"
        return bool(self._arrived)

    async def _arrives_within(self, seconds: float) -> bool:
        self._news.clear()
        if self._arrived or self._stop.is_set() or self._finished:
            return True
        return await self._news_within(seconds)

    async def _news_within(self, seconds: float) -> bool:
        self._news.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._news.wait()
        except TimeoutError:
            return False
        return True

    # -- consumers

    async def _measure(self, wanted: int) -> None:
        """
        Take a few messages of a queue that might be too large to be taken at once, and the others by their size.

        No caller has seen a message by then, so that this takes some round trips and nothing else.
        """
        if min(wanted, self.ready, self.limit) <= self._at_once():
            return
        await self._open_lane(min(MEASURED, self._at_once()))
        lane = self._holdings.all[-1].tags.lanes[-1]
        while lane.held < lane.prefetch and self._may_go_on() and await self._news_within(QUIET):
            pass
        await self._close_lane()
        if self._may_go_on() and wanted > lane.received and self._room:
            await self._open_lane(min(wanted - lane.received, self._at_once(), self._room))

    @property
    def _room(self) -> int:
        """How many more may be held, when no consumer gets any more."""
        return max(0, self.limit - sum(each.tags.held for each in self._holdings))

    async def _open_lane_if_needed(self, window: int | None, wanted: int, busy: Callable[[], bool]) -> None:
        latest = self._holdings.latest
        if latest is not None and not (latest.is_full and not self._arrived):
            return
        if latest is not None:
            await self._end_of_lane(latest)
        if not self._arrived:
            await self._close_lane()
        if self._arrived or not self._may_go_on():
            return
        size = self._at_once()
        if window is not None:
            most = self._held_by_a_channel()
            size = min(size, max(window, min(most, latest.prefetch * 2) if latest is not None else 0))
            if self._require_holding().kept >= most * 3 // 4 and len(self._holdings.all) < MAX_CHANNELS:
                await self._open_channel()
        if not self._room:
            if busy():
                return  # what is acked makes room
            self.end_of_room()
            return
        if not self._require_holding().has_room:
            self.ended_early = f"{self.received} messages are held, which is as many as can be given back in order"
            return
        await self._open_lane(min(size, wanted, self._room))

    def _held_by_a_channel(self) -> int:
        least = HELD_BY_A_CHANNEL_QUORUM if self._quorum else HELD_BY_A_CHANNEL
        return max(least, self.ready * 4 // 3 // (MAX_CHANNELS - 5))  # one is left when it keeps three quarters of it

    async def _open_channel(self) -> Holding:
        channel = await self._connection.open_channel()

        def closed() -> None:
            if any(each.channel is channel for each in self._holdings):
                self._lost = self._lost or channel
            self._news.set()

        channel.on_close(closed)
        return self._holdings.open(channel)

    async def _end_of_lane(self, lane: Lane) -> None:
        """
        Wait for the next of what a consumer may yet be given; acks, which would let more through, are held back.

        What arrives is looked at before the broker is asked anything: its answer comes behind all that it has sent by
        then, which would be held in memory at once.
        """
        while lane.tag and lane.held < lane.prefetch and not self._arrived and self._may_go_on():
            self._hold_acks_back()
            if not await self._arrives_within(QUIET):
                return

    async def _open_lane(self, prefetch: int) -> None:
        holding = self._require_holding()
        lanes = holding.tags.lanes
        # it has its tag before the broker answers: a caller that is cancelled meanwhile leaves a consumer behind
        tag = f"amqpflow-parking-{len(lanes) + 1:03d}"
        lanes.append(Lane(prefetch=prefetch, tag=tag))
        await holding.channel.consume(
            self.queue,
            self._take,
            prefetch=prefetch,
            on_cancel=self._server_cancelled,
            tag=tag,
            tags_from=holding.before,
            answer_within=FILLED_WITHIN,
        )

    def _at_once(self) -> int:
        """How many messages the broker may be asked for at once."""
        if self.received:
            body = max(self._average_bytes or 0, self._body_bytes / self.received)
            header = self._header_bytes / self.received
        elif self._average_bytes:
            body, header = self._average_bytes, LARGEST_HEADERS
        else:
            return AT_ONCE_UNKNOWN
        return max(1, min(MAX_PREFETCH, int(AT_ONCE_BYTES / (body + header))))

    async def _close_lane(self) -> None:
        """
        No more deliveries to the present consumer.

        RabbitMQ 4 gives back at once what is on its way to a consumer that is cancelled, ahead of what it holds. So
        nothing may be on its way: acks, which would let more through, are held back meanwhile.
        """
        lane = self._holdings.latest
        if lane is None or not lane.tag:
            return
        self._hold_acks_back()
        try:
            await self._nothing_on_its_way(lane)
            tag, lane.tag = lane.tag, ""
            await self._require_holding().channel.cancel(tag)
        finally:
            held_back, self._acks_held_back = self._acks_held_back, None
            if held_back:
                self.ack_all(held_back)
            self._acks_pass.set()

    def _hold_acks_back(self) -> None:
        self._acks_held_back = self._acks_held_back or []
        self._acks_pass.clear()

    async def _nothing_on_its_way(self, lane: Lane) -> None:
        """Return when the consumer holds all it may, or the queue has no more and the last of it has come."""
        loop = asyncio.get_running_loop()
        since, seen, empty_before = loop.time(), self.received, False
        while lane.held < lane.prefetch and loop.time() < since + RETURN_TIMEOUT:
            self._raise_if_closed()
            ready, _ = await self._look()
            if not ready and empty_before and seen == self.received:
                return
            empty_before = not ready
            if seen != self.received:
                since, seen = loop.time(), self.received
            await asyncio.sleep(0.02)

    def _take(self, delivery: Delivery) -> None:
        try:
            delivery.header.make_readable()
        except ValueError as error:
            self.unreadable[delivery.delivery_tag] = str(error)
            delivery = replace(delivery, header=delivery.header.unread())
        self._holdings.take(delivery.delivery_tag)
        self._body_bytes += len(delivery.body)
        self._header_bytes += len(delivery.header.payload)
        self._returned_before = delivery.redelivered
        if self._only_taking:
            holding = self._require_holding()
            holding.channel.keep(delivery.delivery_tag - holding.before)
        else:
            self._arrived.append(delivery)
        self._news.set()

    def _server_cancelled(self) -> None:
        self._cancelled_by_server = True
        self._news.set()

    # -- giving back

    async def _give_back(self) -> None:
        try:
            if not self._holdings.all or self._lost is not None:
                if self._holdings.latest is not None:
                    self.unproven = self._close_text()
                return
            self.raise_if_cancelled()  # everything is in the queue again, and a nack would do nothing
            self._only_taking = True
            self._arrived.clear()
            await self._close_lane()
            await self._requeue(await self._take_the_rest())
        except AmqpflowError as error:
            self.unproven = str(error)
        finally:
            self._arrived.clear()
            await self._close_channels()

    async def _close_channels(self) -> None:
        for holding in self._holdings:
            await holding.channel.close()
        await _close(self._control)

    async def _requeue(self, ready: int) -> None:
        """Requeue all that is held behind what is ready, and was requeued just now, and ahead of what is fresh."""
        counted = True
        for holding in self._holdings:
            ready += holding.tags.held
            if not self._by_close:
                holding.nack_all()
            # one question on the same channel: once it is answered, all that was sent before has been taken
            await holding.channel.queue_counts(self.queue)
            await holding.channel.close()
            # what the next channel holds has to come behind it
            counted = counted and await self._wait_until_returned(ready)
        if not counted:
            self.ready_after, _ = await self._look()

    async def _take_the_rest(self) -> int:
        """
        Hold all that was ever given back, so that it stays together. Returns what is ready then, never delivered yet.
        """
        ready, _ = await self._look()
        since = asyncio.get_running_loop().time()
        while self._quorum and ready and self._returned_before and not self.is_part:
            if (
                not self._room
                or not self._require_holding().has_room
                or asyncio.get_running_loop().time() > since + self.hold_max
            ):
                self.order_kept = False
                break
            await self._open_lane(min(ready, self._at_once(), self._room))
            await self._close_lane()
            ready, _ = await self._look()
        return ready

    async def _wait_until_returned(self, expected: int) -> bool:
        """False when the queue does not count so many in time, be it that somebody else took some."""
        deadline = asyncio.get_running_loop().time() + RETURN_TIMEOUT
        while True:
            self.ready_after, consumers = await self._look()
            if self.ready_after >= expected:
                return True
            others = self.other_consumers and consumers  # who may have taken it already
            if others or asyncio.get_running_loop().time() > deadline:
                return False
            await asyncio.sleep(0.01)

    # -- asking

    async def _prove_empty(self) -> None:
        """
        Count again if the queue is not empty after all.

        A passive declare counts 0 while a quorum queue has no leader (fact 6.15). A basic.get is answered by a leader
        alone, which has read its log by then, or it fails. A message that it brings is requeued ahead of those that
        were delivered before, which are all held meanwhile.
        """
        try:
            with translate():
                got = await self._control.basic_get(self.queue)
        except BrokerError as error:
            if error.code != 405:
                raise
            # refused for a queue with a single active consumer, of which no more can be known than the count
            self._control = await self._connection.admin_channel()
            return
        if got.delivery_tag is None:
            return
        await self._open_channel()
        self._only_taking, self._returned_before = True, bool(got.redelivered)
        ready = await self._take_the_rest()
        with translate():
            await self._control.basic_nack(got.delivery_tag)
        await self._wait_until_returned(ready + 1)
        await self._requeue(ready + 1)
        self._holdings, self._lost = Holdings(), None
        self._only_taking = self._returned_before = False
        self._body_bytes = self._header_bytes = 0
        self.unreadable.clear()  # the next channel counts its tags from 1 again
        self.ready, self.other_consumers = await self._look()

    async def _look(self) -> QueueCounts:
        counts: QueueCounts = await self._control.queue_counts(self.queue)
        return counts

    def _require_holding(self) -> Holding:
        """The latest: what is delivered comes to it."""
        if not self._holdings.all:
            raise BrokerUnavailableError("nothing is being read")
        return self._holdings.all[-1]

    def raise_if_cancelled(self) -> None:
        """Raise BrokerError when RabbitMQ cancelled the consumer, which it does when the queue is deleted."""
        if self._cancelled_by_server:
            raise BrokerError(f"RabbitMQ ended the reading of {self.queue}: deleted, or a consumer timeout of its own?")

    def _raise_if_closed(self) -> None:
        self.raise_if_cancelled()
        self._require_holding()
        if self._lost is not None:
            raise BrokerUnavailableError(f"{self.queue} was not read to its end: {self._close_text()}")

    def _close_text(self) -> str:
        reason = self._lost.close_reason if self._lost is not None else None
        return f"the channel or the connection was closed: {reason}" if reason else "the connection was lost"


async def _close(channel: Any) -> None:
    if channel is not None and not channel.is_closed:
        try:
            with translate():
                await channel.close()
        except AmqpflowError:
            pass
