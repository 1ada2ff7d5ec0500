"""Publish messages and report what became of each: persistent, mandatory, confirmed."""

from __future__ import annotations

import asyncio
import logging
import os
from asyncio import AbstractEventLoop
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amqpflow.errors import AmqpflowError, UsageError
from amqpflow.model.outgoing import OutgoingMessage
from amqpflow.rabbitmq.address import resolve_address
from amqpflow.rabbitmq.connection import Connection, connect
from amqpflow.rabbitmq.url_source import UrlFunction

from .loop_publisher import CLOSE_TIMEOUT, LoopPublisher

if TYPE_CHECKING:
    from amqpflow.services.loading.topology import Topology

log = logging.getLogger("amqpflow.publisher")


class Publisher:
    """Publishes over a connection, which is opened on first use and again after it was lost.

    Use it as an async context manager, or call `close`. Safe for many tasks at once, and for several event loops, in
    threads or one after the other: each event loop has a connection of its own, which `asyncio.run` closes at its end.
    So `asyncio.run(publisher.publish(...))` connects each time; a program that publishes often keeps one event loop.
    After a fork the child process connects again, in an event loop of its own. A handler that is not async publishes
    with `Message.publish`.

    Args:
        url: of RabbitMQ; AMQPFLOW_URL when absent. A function that returns it, async or not, is called for each
            connection: for tokens that expire. So is AMQPFLOW_URL_FILE read.
        topology: a path, or a loaded `Topology`: its virtual host is used, as by `Consumer`. Without a topology, or if
            its file names no virtual host, the one in the URL is used.

    Raises:
        InvalidTopologyError: the file has errors. UsageError: the URL is not a URL.
    """

    def __init__(
        self,
        url: str | UrlFunction | None = None,
        *,
        topology: Topology | str | Path | None = None,
        ca_file: str | None = None,
        cert_file: str | None = None,
        key_file: str | None = None,
    ) -> None:
        address = resolve_address(url, ca_file=ca_file, cert_file=cert_file, key_file=key_file)
        if isinstance(topology, str | Path):
            from amqpflow.services.loading.topology import Topology

            topology = Topology.load(topology)
        self.address = address.with_vhost(topology.vhost) if topology is not None and topology.vhost else address
        self._loops: dict[AbstractEventLoop, LoopPublisher] = {}

    def _here(self) -> LoopPublisher:
        """Return the publisher of the running event loop.

        Raises:
            UsageError: no event loop runs here, or it was forked together with its connection.
        """
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise UsageError(
                "a Publisher publishes in a running event loop, and there is none in this thread and process",
                hint="asyncio.run(...); in a handler that is not async, message.publish(...)",
            ) from None
        here = self._loops.get(loop)
        if here is None:
            for each in [each for each in list(self._loops) if each.is_closed()]:
                self._loops.pop(each, None)
            here = self._loops[loop] = LoopPublisher(self._connect)
        elif here.process != os.getpid():
            # two processes would write to one socket, each in the middle of what the other writes
            raise UsageError(
                "the process was forked with this event loop and its connection: the child cannot publish in it",
                hint="use a new event loop in the child, such as that of asyncio.run(...)",
            )
        return here

    async def _connect(self) -> Connection:
        connection = await connect(self.address, name="amqpflow publisher")
        self.address = connection.cluster
        was_blocked, closed = False, connection.closed  # not the connection itself, which would be kept by its callback

        def blocked(reason: str | None) -> None:
            nonlocal was_blocked
            if reason is not None:
                log.error("publishes to %s are blocked and wait: %s", self.address, reason)
            elif was_blocked and not closed.is_set():
                log.warning("publishes to %s are unblocked", self.address)
            was_blocked = reason is not None

        connection.on_blocked(blocked)
        return connection

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
        timestamp: datetime | int | None = None,
        type: str | None = None,  # noqa: A002 - AMQP's name
        app_id: str | None = None,
    ) -> str:
        """Publish one message and return its message id once the broker has confirmed it.

        amqpflow's own headers, when a handler passes on what it received, are removed, and so are those that RabbitMQ
        writes, `x-death` and the delivery counts: RabbitMQ 3.x believes them, and drops messages over them. `CC`, `BCC`
        and `x-opt-delivery-time` are sent.

        When it is cancelled, as by `asyncio.timeout`, a message that was not written yet is not sent. One that was may
        be in a queue, and counts among the 1,000 without a confirm until that is known.

        Raises:
            UnroutableError: no queue is bound for the routing key, or the exchange does not exist; it is in no queue.
            PublishRefusedError: a queue that is full refused it; one that it was also routed to may have it (fact 9.4).
            UnpublishableError: an argument is wrong (`str` names every one), and nothing was sent; or the broker closes
                the channel over this message.
            PublishUncertainError: the connection was lost before the confirm; it may be in a queue. Publish it again
                with the same message id, which is the error's `message_id`.
            BrokerUnavailableError, or another error of the connection: nothing was sent.
        """
        return await self._here().publish(
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
        """Publish many messages, pipelined and in their order, and return one result for each: its message id when it
        is confirmed, else the error that `publish` would raise, with the id as its `message_id`. Nothing is raised for
        a single message: one that cannot be sent is `UnpublishableError`, and the others are published. What is
        `PublishUncertainError` may be in a queue: publish it again with that id.

        Messages are taken from the iterable as there is room: at most 1,000 are without a confirm at one time, and
        nothing more is sent while the broker does not read. When there is no connection, and none can be opened, the
        messages that are left have that error as their result.

        Raises:
            UsageError: `messages` is not an iterable of messages; nothing was sent.
            PartlyDoneError: the iterable raised an exception, which is its cause. `report` has the results of the
                messages before it, which were published and awaited.
        """
        return await self._here().publish_many(_iterated(messages))

    @property
    def blocked(self) -> str | None:
        """Return why RabbitMQ blocks publishes now, or None when it does not. An alarm of its memory or disk stops
        connections that publish (https://www.rabbitmq.com/docs/connection-blocked). Publishes wait meanwhile, unsent.
        """
        reasons = [each.outbox.blocked for each in list(self._loops.values())]
        return next((each for each in reasons if each is not None), None)

    async def close(self, *, timeout: float = CLOSE_TIMEOUT) -> None:
        """Disconnect in this event loop, as soon as what was published is confirmed.

        Publishes that begin later, or wait because 1,000 are without a confirm or the broker takes none, raise
        BrokerUnavailableError: nothing of them was sent. The connections of other event loops stay; entering the
        context manager again opens this one.

        Args:
            timeout: seconds to wait for confirms; what has none by then is uncertain. Of several closes at once the
                longest counts.
        """
        await self._here().close(timeout)

    async def __aenter__(self) -> Publisher:
        if self._here().is_closed:
            del self._loops[asyncio.get_running_loop()]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _iterated(messages: Any) -> Iterator[OutgoingMessage]:
    """Return an iterator of the messages. Raises UsageError."""
    if isinstance(messages, OutgoingMessage | str | bytes | bytearray | Mapping):
        raise UsageError(f"messages is of type {type(messages).__name__}, not a list of OutgoingMessage")
    try:
        return iter(messages)
    except TypeError:
        what = type(messages).__name__
    hint = "collect it first: [each async for each in messages]" if hasattr(messages, "__aiter__") else ""
    raise UsageError(f"messages is of type {what}, not an iterable of OutgoingMessage", hint=hint)
