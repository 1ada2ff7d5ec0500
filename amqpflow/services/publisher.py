"""Publish messages so that the caller knows what became of each: persistent, mandatory, confirmed."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from datetime import datetime
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from amqpflow.errors import AmqpflowError, PartlyDone, PublishRefused, Unpublishable, Unroutable, WrongUsage
from amqpflow.model.message import Publish
from amqpflow.model.outgoing import OutgoingMessage, encode_outgoing
from amqpflow.rabbitmq.address import resolve_address
from amqpflow.rabbitmq.connection import Connection, connect
from amqpflow.rabbitmq.url_source import UrlFunction

from .outbox import Outbox

if TYPE_CHECKING:
    from .topology import Topology

log = logging.getLogger("amqpflow.publisher")

MAX_OUTSTANDING = 1000  #: publishes without a confirm at one time
_CHUNK = 100  #: messages that are sent together


class Publisher:
    """
    Publishes over one connection, which is opened on first use and again after it was lost.

    Use it as an async context manager, or call `close`. Safe for many tasks of one event loop at once.

    Args:
        url: where RabbitMQ is; AMQPFLOW_URL when absent. A function that returns it, async or not, is called for each
            connection: for tokens that expire. AMQPFLOW_URL_FILE is read for each as well.
        topology: a path, or a loaded `Topology`: its virtual host is used, as by `Consumer`. Without a topology, or if
            its file names no virtual host, the one in the URL is used.

    Raises:
        TopologyInvalid: the file has errors. WrongUsage: the URL is not a URL.
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
            from .topology import Topology

            topology = Topology.load(topology)
        self.address = address.with_vhost(topology.vhost) if topology is not None and topology.vhost else address
        self._outbox = Outbox(self._connect)
        self._was_blocked = False
        self._outstanding = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def _connect(self) -> Connection:
        connection = await connect(self.address, name="amqpflow publisher")
        self.address = connection.cluster
        connection.on_blocked(self._told_blocked)
        return connection

    def _told_blocked(self, reason: str | None) -> None:
        if reason is not None:
            log.error("%s takes no messages, publishes wait: %s", self.address, reason)
        elif self._was_blocked:
            log.warning("%s takes messages again", self.address)
        self._was_blocked = reason is not None

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
        """
        Publish one message and return its message id once the broker has confirmed it.

        amqpflow's own headers, when a handler passes on what it received, are removed, and so are those that RabbitMQ
        writes, `x-death` and the delivery counts: RabbitMQ 3.x believes them, and drops messages over them. `CC`, `BCC`
        and `x-opt-delivery-time` are sent.

        Raises:
            Unroutable: no queue is bound for the routing key, or the exchange does not exist; it is in no queue.
            PublishRefused: a queue that is full refused it; one that it was also routed to may have it (fact 9.4).
            Unpublishable: an argument is wrong (`str` names every one), and nothing was sent; or the broker closes the
                channel over this message.
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
        confirmed, else the error that `publish` would raise, with the id as its `message_id`. Nothing is raised for a
        single message: one that cannot be sent is `Unpublishable`, and the others are published. What is
        `PublishUncertain` may be in a queue: publish it again with that id.

        Messages are taken from the iterable as there is room: at most 1,000 are without a confirm at one time, and
        nothing more is sent while the broker does not read. When there is no connection, and none can be opened, the
        messages that are left have that error as their result.

        Raises:
            WrongUsage: `messages` is not an iterable of messages; nothing was sent.
            PartlyDone: the iterable raised an exception, which is its cause. `report` has the results of the messages
                before it, which were published and awaited.
        """
        iterator = _iterated(messages)
        results: list[str | AmqpflowError] = []
        unsettled = _Unsettled()
        failure: Exception | None = None
        cannot_connect: AmqpflowError | None = None
        for at in count():
            try:
                message = next(iterator)
            except StopIteration:
                break
            except Exception as error:
                failure = error
                break
            message_id = _id_of(message)
            results.append(message_id)
            try:
                publish = _outgoing(message, message_id)
            except Unpublishable as error:
                results[at] = _with_id(error, message_id)
                continue
            if cannot_connect is None and not self._outbox.is_open:
                try:
                    await self._outbox.open()
                except AmqpflowError as error:
                    cannot_connect = error
            if cannot_connect is not None:
                results[at] = _with_id(copy(cannot_connect), message_id)
                continue
            while self._outstanding >= MAX_OUTSTANDING:
                await self._below(MAX_OUTSTANDING - _CHUNK)
            if at % _CHUNK == 0:
                await self._outbox.room()
            self._outstanding += 1
            unsettled.count += 1
            self._outbox.post(publish, partial(self._settled, results, at, unsettled))
        await unsettled.none()
        if failure is not None:
            raise PartlyDone(
                f"the messages raised {type(failure).__name__} after {len(results)} of them: {failure}",
                hint="the results of those before it are the error's `report`",
                report=results,
            ) from failure
        return results

    def _settled(
        self, results: list[str | AmqpflowError], at: int, unsettled: _Unsettled, error: AmqpflowError | None
    ) -> None:
        if error is not None:
            results[at] = _with_id(self._located(error), str(results[at]))
        self._leave()
        unsettled.one_less()

    async def _publish(self, message: OutgoingMessage) -> str:
        message_id = _id_of(message)
        try:
            publish = _outgoing(message, message_id)
            while self._outstanding >= MAX_OUTSTANDING:
                await self._below(MAX_OUTSTANDING)
            self._outstanding += 1
            try:
                await self._outbox.publish(publish)
            finally:
                self._leave()
        except AmqpflowError as error:
            _with_id(self._located(error), message_id)
            raise
        return message_id

    def _located(self, error: AmqpflowError) -> AmqpflowError:
        """Name the virtual host: a missing queue or exchange often exists in another one."""
        if isinstance(error, Unroutable | PublishRefused):
            error.args = (f"{error}, in virtual host {self.address.vhost}",)
        return error

    def _leave(self) -> None:
        self._outstanding -= 1
        while self._waiting and self._waiting[0][0] > self._outstanding:
            _, waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)

    async def _below(self, limit: int) -> None:
        """Wait until fewer than `limit` publishes are without a confirm, after everyone who waits already."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((limit, waiter))
        await waiter

    @property
    def blocked(self) -> str | None:
        """
        Why RabbitMQ takes no messages now: an alarm, of its memory or disk, stops connections that publish
        (https://www.rabbitmq.com/docs/connection-blocked). None when it takes them. Publishes wait meanwhile.
        """
        return self._outbox.blocked

    async def close(self) -> None:
        """Disconnect for good. What is not confirmed by now is uncertain."""
        await self._outbox.close()

    async def __aenter__(self) -> Publisher:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class _Unsettled:
    """How many messages of one call have no result yet."""

    __slots__ = ("_waiter", "count")

    def __init__(self) -> None:
        self.count = 0
        self._waiter: asyncio.Future[None] | None = None

    def one_less(self) -> None:
        self.count -= 1
        if self.count == 0 and self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def none(self) -> None:
        """Wait until there is none."""
        if self.count:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter


def _iterated(messages: Any) -> Iterator[OutgoingMessage]:
    """Raises WrongUsage."""
    if isinstance(messages, OutgoingMessage | str | bytes | bytearray | Mapping):
        raise WrongUsage(f"messages is of type {type(messages).__name__}, not a list of OutgoingMessage")
    try:
        return iter(messages)
    except TypeError:
        what = type(messages).__name__
    hint = "collect it first: [each async for each in messages]" if hasattr(messages, "__aiter__") else ""
    raise WrongUsage(f"messages is of type {what}, not an iterable of OutgoingMessage", hint=hint)


def _outgoing(message: OutgoingMessage, message_id: str) -> Publish:
    """Raises Unpublishable, whatever is wrong with it: the program's own mappings may raise anything."""
    try:
        return encode_outgoing(message, message_id)
    except ValueError as error:
        raise Unpublishable(f"the message cannot be sent: {error}") from None
    except Exception as error:
        raise Unpublishable(f"the message cannot be encoded: {error!r}") from error


def _id_of(message: object) -> str:
    """The message id that it was given, if that is text, else a new one."""
    given = getattr(message, "message_id", None)
    return given if isinstance(given, str) and given else str(uuid4())


def _with_id(error: AmqpflowError, message_id: str) -> AmqpflowError:
    error.message_id = message_id
    return error
