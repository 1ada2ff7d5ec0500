"""Publish messages so that the caller knows what became of each: persistent, mandatory, confirmed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any
from uuid import uuid4

from amqpflow.errors import AmqpflowError, PublishFailed, PublishUncertain, WrongUsage
from amqpflow.model.headers import PREFIX
from amqpflow.model.message import Properties, Publish
from amqpflow.rabbitmq.address import resolve_address
from amqpflow.rabbitmq.connection import connect

from .outbox import Outbox

MAX_OUTSTANDING = 1000  #: publishes without a confirm at one time


@dataclass(frozen=True, slots=True, kw_only=True)
class OutgoingMessage:
    """
    A message to publish. None means that the property is not set; a message id is always set.

    `expiration` is in milliseconds. An integer priority is written as it is: on quorum queues of RabbitMQ 4.3 an
    absent one counts as 4 (fact 12.4).
    """

    body: bytes
    exchange: str = ""  #: "" is the default exchange, where the routing key is a queue's name
    routing_key: str = ""
    headers: Mapping[str, Any] | None = None
    priority: int | None = None
    message_id: str | None = None
    correlation_id: str | None = None
    content_type: str | None = None
    content_encoding: str | None = None
    reply_to: str | None = None
    expiration: int | None = None
    timestamp: datetime | None = None
    type: str | None = None
    app_id: str | None = None


class Publisher:
    """
    Publishes over one connection, which is opened on first use and again after it was lost.

    Use it as an async context manager, or call `close`. Safe for many tasks of one event loop at once.

    Args:
        url: where RabbitMQ is; AMQPFLOW_URL when absent.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        ca_file: str | None = None,
        cert_file: str | None = None,
        key_file: str | None = None,
    ) -> None:
        self.address = resolve_address(url, ca_file=ca_file, cert_file=cert_file, key_file=key_file)
        self._outbox = Outbox(partial(connect, self.address, name="amqpflow publisher"))
        self._room = asyncio.Semaphore(MAX_OUTSTANDING)

    async def publish(
        self,
        body: bytes,
        *,
        exchange: str = "",
        routing_key: str = "",
        headers: Mapping[str, Any] | None = None,
        priority: int | None = None,
        message_id: str | None = None,
        correlation_id: str | None = None,
        content_type: str | None = None,
        content_encoding: str | None = None,
        reply_to: str | None = None,
        expiration: int | None = None,
        timestamp: datetime | None = None,
        type: str | None = None,  # noqa: A002 - AMQP's name
        app_id: str | None = None,
    ) -> str:
        """
        Publish one message and return its message id once the broker has confirmed it.

        amqpflow's own headers, when a handler passes on what it received, are removed.

        Raises:
            Unroutable: no queue is bound for the routing key, or the exchange does not exist; it is in no queue.
            PublishRefused: a queue that is full refused it; one that it was also routed to may have it (fact 9.4).
            Unpublishable: the broker closes the channel over this message, or it cannot be encoded.
            PublishUncertain: the connection was lost before the confirm; it may be in a queue. Publish it again with
                the same message id, which is the error's `message_id`.
            BrokerUnavailable and its kin: nothing was sent.
        """
        return await self._publish(
            OutgoingMessage(
                body=body,
                exchange=exchange,
                routing_key=routing_key,
                headers=headers,
                priority=priority,
                message_id=message_id,
                correlation_id=correlation_id,
                content_type=content_type,
                content_encoding=content_encoding,
                reply_to=reply_to,
                expiration=expiration,
                timestamp=timestamp,
                type=type,
                app_id=app_id,
            )
        )

    async def publish_many(self, messages: Iterable[OutgoingMessage]) -> Sequence[str | AmqpflowError]:
        """
        Publish many messages, pipelined and in their order, and return one result for each: its message id when it is
        confirmed, else the error that `publish` would raise. Nothing is raised for a single message.
        """
        with suppress(AmqpflowError):  # each message will say so
            await self._outbox.open()
        results = await asyncio.gather(*map(self._publish, messages), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, AmqpflowError):
                raise result
        return [result if isinstance(result, AmqpflowError) else str(result) for result in results]

    async def _publish(self, message: OutgoingMessage) -> str:
        if not isinstance(message.body, bytes | bytearray):
            raise WrongUsage(f"a message body is bytes, not {type(message.body).__name__}", hint="encode it first")
        message_id = message.message_id or str(uuid4())
        headers = {name: value for name, value in (message.headers or {}).items() if not name.startswith(PREFIX)}
        properties = Properties(
            content_type=message.content_type,
            content_encoding=message.content_encoding,
            headers=headers or None,
            delivery_mode=2,
            priority=message.priority,
            correlation_id=message.correlation_id,
            reply_to=message.reply_to,
            expiration=None if message.expiration is None else str(message.expiration),
            message_id=message_id,
            timestamp=message.timestamp,
            type=message.type,
            app_id=message.app_id,
        )
        async with self._room:
            try:
                await self._outbox.publish(
                    Publish(
                        exchange=message.exchange,
                        routing_key=message.routing_key,
                        properties=properties,
                        body=bytes(message.body),
                    )
                )
            except (PublishFailed, PublishUncertain) as error:
                error.message_id = message_id
                raise
        return message_id

    async def close(self) -> None:
        """Disconnect for good. What is not confirmed by now is uncertain."""
        await self._outbox.close()

    async def __aenter__(self) -> Publisher:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
