"""The consumers of one reading, their channels, and the deliveries that they hold."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from amqpflow.errors import AmqpflowError, BrokerError, BrokerUnavailableError
from amqpflow.model.message import Delivery
from amqpflow.model.queue_stats import QueueCounts
from amqpflow.rabbitmq.channel import Channel
from amqpflow.rabbitmq.connection import Connection
from amqpflow.rabbitmq.translate import translate

from .fetch_size import FetchSize
from .holdings import Holding, Holdings
from .tags import WindowConsumer

RETURN_TIMEOUT = 5.0  #: seconds to wait until the queue counts again what was requeued
FILLED_WITHIN = 120.0
"""Seconds for a busy broker to read a prefetch from its disk; a lost connection is noticed earlier."""


class QueueConsumers:
    """Consumes one queue, by one consumer after another, and holds up to `limit` deliveries until they are settled."""

    def __init__(self, connection: Connection, queue: str, *, limit: int, average_bytes: float | None) -> None:
        self.queue = queue
        self.arrived: list[Delivery] = []  #: deliveries that the reader has not passed on yet
        self.news = asyncio.Event()  #: set when something arrived or ended
        self.unreadable: dict[int, str] = {}  #: delivery tag -> why its properties cannot be read; they are empty
        self.returned_before = False  #: the latest delivery had been requeued before
        self.only_taking = False  #: deliveries are held, and not passed on
        self.lost: Channel | None = None
        self.control: Any = None  #: the channel for passive declares
        self._connection = connection
        self._limit = limit
        self._average_bytes = average_bytes
        self._cancelled_by_server = False
        self._acks_held_back: list[int] | None = None  # not None while a consumer comes to its end
        self._acks_pass = asyncio.Event()  # they are not held back
        self._acks_pass.set()
        self.reset()

    def reset(self) -> None:
        """Forget all deliveries: they were requeued, and the next channel counts its tags from 1 again."""
        self.holdings = Holdings()
        self.size = FetchSize(self._average_bytes)
        self.lost = None
        self.only_taking = self.returned_before = False
        self.unreadable.clear()

    # -- channels

    async def open_control(self) -> None:
        self.control = await self._connection.admin_channel()

    async def look(self) -> QueueCounts:
        counts: QueueCounts = await self.control.queue_counts(self.queue)
        return counts

    async def open_channel(self) -> Holding:
        """Open a further channel, for the consumers from now on."""
        channel = await self._connection.open_channel()

        def closed() -> None:
            if any(each.channel is channel for each in self.holdings):
                self.lost = self.lost or channel
            self.news.set()

        channel.on_close(closed)
        return self.holdings.open(channel)

    async def close_channels(self) -> None:
        for holding in self.holdings:
            await holding.channel.close()
        if self.control is not None and not self.control.is_closed:
            try:
                with translate():
                    await self.control.close()
            except AmqpflowError:
                pass

    # -- consumers

    @property
    def room(self) -> int:
        """Count the messages that may be held besides those that are, when no consumer gets any more."""
        return max(0, self._limit - sum(each.tags.held for each in self.holdings))

    async def start(self, prefetch: int) -> None:
        holding = self.require_holding()
        consumers = holding.tags.consumers
        # it has its tag before the broker answers: a caller that is cancelled meanwhile leaves a consumer behind
        tag = f"amqpflow-parking-{len(consumers) + 1:03d}"
        consumers.append(WindowConsumer(prefetch=prefetch, tag=tag))
        await holding.channel.consume(
            self.queue,
            self._take,
            prefetch=prefetch,
            on_cancel=self._server_cancelled,
            tag=tag,
            tags_from=holding.before,
            answer_within=FILLED_WITHIN,
        )

    async def cancel(self) -> None:
        """End the deliveries to the present consumer.

        RabbitMQ 4 requeues deliveries that are under way to a cancelled consumer at once, ahead of those that it holds.
        So none may be under way: acks, which would let more through, are held back meanwhile.
        """
        consumer = self.holdings.latest
        if consumer is None or not consumer.tag:
            return
        self.hold_acks_back()
        try:
            await self._nothing_on_its_way(consumer)
            tag, consumer.tag = consumer.tag, ""
            await self.require_holding().channel.cancel(tag)
        finally:
            held_back, self._acks_held_back = self._acks_held_back, None
            if held_back:
                self.ack_all(held_back)
            self._acks_pass.set()

    def hold_acks_back(self) -> None:
        """Hold acks back until the present consumer is cancelled: each would let another message through."""
        self._acks_held_back = self._acks_held_back or []
        self._acks_pass.clear()

    async def _nothing_on_its_way(self, consumer: WindowConsumer) -> None:
        """Return when the consumer holds all it may, or the queue has no more and the last of it has come."""
        loop = asyncio.get_running_loop()
        since, seen, empty_before = loop.time(), self.holdings.received, False
        while consumer.held < consumer.prefetch and loop.time() < since + RETURN_TIMEOUT:
            self.raise_if_closed()
            ready, _ = await self.look()
            if not ready and empty_before and seen == self.holdings.received:
                return
            empty_before = not ready
            if seen != self.holdings.received:
                since, seen = loop.time(), self.holdings.received
            await asyncio.sleep(0.02)

    def _take(self, delivery: Delivery) -> None:
        try:
            delivery.header.make_readable()
        except ValueError as error:
            self.unreadable[delivery.delivery_tag] = str(error)
            delivery = replace(delivery, header=delivery.header.unread())
        self.holdings.take(delivery.delivery_tag)
        self.size.add(delivery)
        self.returned_before = delivery.redelivered
        if self.only_taking:
            holding = self.require_holding()
            holding.channel.keep(delivery.delivery_tag - holding.before)
        else:
            self.arrived.append(delivery)
        self.news.set()

    def _server_cancelled(self) -> None:
        self._cancelled_by_server = True
        self.news.set()

    # -- settling

    def ack_all(self, delivery_tags: Sequence[int]) -> bool:
        """Ack deliveries; False when they are not ours any more: the channel is closed, or the server cancelled the
        consumer, after which an ack is void (fact 12.2).
        """
        self.require_holding()
        if self._cancelled_by_server or self.lost is not None:
            return False
        if self._acks_held_back is not None:
            self._acks_held_back += delivery_tags
            return True
        self.holdings.ack(delivery_tags)
        return True

    async def prove(self) -> None:
        """Return when RabbitMQ has read every ack that was given so far. Raises BrokerError, BrokerUnavailableError."""
        await self._acks_pass.wait()
        self.require_holding()
        for holding in tuple(self.holdings):
            await holding.channel.queue_counts(self.queue)

    # -- what went wrong

    def require_holding(self) -> Holding:
        """Return the latest channel, to which deliveries come. Raises BrokerUnavailableError: there is none."""
        if not self.holdings.all:
            raise BrokerUnavailableError("nothing is being read")
        return self.holdings.all[-1]

    def raise_if_cancelled(self) -> None:
        """Raise BrokerError when RabbitMQ cancelled the consumer, which it does when the queue is deleted."""
        if self._cancelled_by_server:
            raise BrokerError(
                f"RabbitMQ cancelled the reading of {self.queue}: it was deleted, or its consumer timeout is too short"
            )

    def raise_if_closed(self) -> None:
        """Raise BrokerUnavailableError when a channel was closed or lost; else as `raise_if_cancelled`."""
        self.raise_if_cancelled()
        self.require_holding()
        if self.lost is not None:
            raise BrokerUnavailableError(f"{self.queue} was not read to its end: {self.close_text()}")

    def close_text(self) -> str:
        reason = self.lost.close_reason if self.lost is not None else None
        return f"the channel or the connection was closed: {reason}" if reason else "the connection was lost"
