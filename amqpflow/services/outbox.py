"""Publish on a connection of its own, opened on first use and again after it was lost.

Consumers never publish where they consume: a publish that closes its channel would take every unacked delivery with it,
and a broker short of memory or disk stops reading from connections that publish, acks included
(https://www.rabbitmq.com/docs/alarms).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from amqpflow.errors import (
    BrokerError,
    BrokerUnavailable,
    PermissionDenied,
    PublishRefused,
    PublishUncertain,
    Unpublishable,
    Unroutable,
)
from amqpflow.model.message import Publish
from amqpflow.rabbitmq.channel import Channel
from amqpflow.rabbitmq.connection import Connection


class Outbox:
    """Publishes, and knows what became of each message. Safe for many tasks of one event loop."""

    def __init__(self, connect: Callable[[], Awaitable[Connection]]) -> None:
        self._connect = connect
        self._connection: Connection | None = None
        self._channel: Channel | None = None
        self._refused = False
        self._opening = asyncio.Lock()
        self._one_at_a_time = asyncio.Lock()
        self._closed = asyncio.Event()

    async def open(self) -> None:
        """Connect now. Else the first publish does, and those made meanwhile may overtake it."""
        await self._open()

    async def publish(self, message: Publish) -> None:
        """
        Publish mandatory and return when it is confirmed.

        When another publish closed the channel before the confirm, this one is uncertain and is published again, one
        at a time, on a throw-away channel: then it is known which of them is the culprit. That may make a second copy
        with the same hop id (guarantee G2).

        Raises:
            Unroutable, PublishRefused: no queue has it, or one has an earlier copy of it with the same hop id.
            Unpublishable: this message is what closes the channel, or it cannot be encoded.
            PublishUncertain: the connection was lost before the confirm; a queue may have it.
            BrokerUnavailable and its kin: there is no connection; nothing was sent.
        """
        channel = await self._open()
        try:
            await channel.publish(message)
        except (ValueError, TypeError) as error:
            raise Unpublishable(f"it cannot be encoded: {error}") from error
        except PublishRefused:
            self._refused = True
            raise
        except PublishUncertain as error:
            if error.closed_by_publish is None:
                raise
            try:
                await self._publish_alone(message)
            except (BrokerUnavailable, BrokerError, PermissionDenied) as lost:
                raise PublishUncertain(f"{error}; and it could not be published again: {lost}") from lost

    async def _publish_alone(self, message: Publish) -> None:
        async with self._one_at_a_time:
            channel = await (await self._connected()).open_channel()
            try:
                await channel.publish(message)
            except PublishUncertain as error:
                blame = error.closed_by_publish
                if blame is None:
                    raise
                if blame.startswith("NOT_FOUND"):
                    raise Unroutable(f"exchange {message.exchange!r} does not exist") from error
                if blame.startswith("ACCESS_REFUSED"):
                    raise PublishRefused(f"no permission to publish to exchange {message.exchange!r}") from error
                raise Unpublishable(blame) from error
            finally:
                await channel.close()

    async def _open(self) -> Channel:
        if self._channel is not None and self._refused and self._channel.is_idle:
            # RabbitMQ 3.10 goes on to refuse on this channel after the queue's limit was lifted
            channel, self._channel, self._refused = self._channel, None, False
            await channel.close()
        if self._channel is not None and self._channel.is_closed:
            await self._channel.closed.wait()  # its number may be used again once aiormq has answered the close
        if self._channel is None or self._channel.is_closed:
            connection = await self._connected()
            async with self._opening:
                if self._channel is None or self._channel.is_closed:
                    self._channel = await connection.open_channel()
        return self._channel

    async def _connected(self) -> Connection:
        async with self._opening:
            if self._closed.is_set():
                raise BrokerUnavailable("it is closed")
            if self._connection is None or self._connection.is_closed:
                connection = await self._connect()
                if self._closed.is_set():
                    await connection.close()
                    raise BrokerUnavailable("it was closed while it connected")
                self._connection = connection
            return self._connection

    async def close(self) -> None:
        """Disconnect for good; publishes without a confirm become uncertain."""
        self._closed.set()
        if self._connection is not None:
            connection, self._connection = self._connection, None
            await connection.close()
