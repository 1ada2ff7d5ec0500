"""Publish the copies of one connection, on a channel of their own.

Consumers never publish on the channel they consume from: a publish that closes its channel would take every unacked
delivery with it.
"""

from __future__ import annotations

import asyncio

from amqpflow.errors import PublishRefused, PublishUncertain, Unpublishable, Unroutable
from amqpflow.model.message import Publish
from amqpflow.rabbitmq.channel import Channel
from amqpflow.rabbitmq.connection import Connection


class Outbox:
    """The publishing side of a consumer's connection. It lives and dies with the connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._channel: Channel | None = None
        self._opening = asyncio.Lock()
        self._one_at_a_time = asyncio.Lock()

    @property
    def frame_max(self) -> int:
        return self._connection.frame_max

    async def publish(self, message: Publish) -> None:
        """
        Publish mandatory and return when it is confirmed.

        When another publish closed the channel before the confirm, this one is uncertain and is published again, one
        at a time, on a throw-away channel: then it is known which of them is the culprit. That may make a second copy
        with the same hop id (guarantee G2).

        Raises:
            Unroutable, PublishRefused: no queue has it.
            Unpublishable: this message is what closes the channel.
            PublishUncertain, BrokerUnavailable: the connection is lost.
        """
        try:
            await (await self._open()).publish(message)
        except (ValueError, TypeError) as error:
            raise Unpublishable(f"it cannot be encoded: {error}") from error
        except PublishUncertain as error:
            if error.closed_by_publish is None:
                raise
            await self._publish_alone(message)

    async def _publish_alone(self, message: Publish) -> None:
        async with self._one_at_a_time:
            channel = await self._connection.open_channel()
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
        if self._channel is None or self._channel.is_closed:
            async with self._opening:
                if self._channel is None or self._channel.is_closed:
                    self._channel = await self._connection.open_channel()
        return self._channel

    async def close(self) -> None:
        """Close the channel; publishes without a confirm become uncertain."""
        if self._channel is not None:
            await self._channel.close()
