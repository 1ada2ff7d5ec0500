"""The message as a handler sees it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any

from amqpflow.delivery.incoming import Incoming
from amqpflow.errors import UndecodableError, UsageError
from amqpflow.model.decompression import LARGE, decompress, may_take_long
from amqpflow.model.message import Delivery
from amqpflow.model.outgoing import OutgoingMessage
from amqpflow.model.properties import Properties
from amqpflow.model.record import FailureRecord as RetryState
from amqpflow.model.record import hop_id
from amqpflow.services.publishing.loop_publisher import Lateness

if TYPE_CHECKING:
    from amqpflow.services.publishing.loop_publisher import LoopPublisher

__all__ = ["MAX_BODY_BYTES", "Message", "RetryState"]

MAX_BODY_BYTES = 64 * 1024 * 1024  #: what a compressed body may grow to


class Message:
    """A message, the same on every attempt: body, properties, headers, and the exchange and routing key it was first
    published with (guarantee G4). amqpflow's own headers are not among `headers`; what they say is in `retry`.
    """

    __slots__ = ("_body", "_holds", "_incoming", "_late", "_properties", "_publisher", "max_body_bytes")

    def __init__(
        self,
        incoming: Incoming,
        *,
        max_body_bytes: int = MAX_BODY_BYTES,
        holds: Callable[[Delivery], bool] | None = None,
        publisher: LoopPublisher | None = None,
    ) -> None:
        self._incoming = incoming
        self._publisher = publisher
        self._late = Lateness()
        self._properties: Properties | None = None
        self._body: bytes | UndecodableError | None = None
        self._holds = holds
        self.max_body_bytes = max_body_bytes

    @property
    def body(self) -> bytes:
        """Return the body, with the content encodings gzip and deflate undone.

        Raises:
            UndecodableError: it is not what its content encoding says, or grows past `max_body_bytes`.
        """
        if self._body is None:
            delivery = self._incoming.delivery
            try:
                encoding = delivery.header.content_encoding
                self._body = decompress(delivery.body, encoding, self.max_body_bytes) if encoding else delivery.body
            except ValueError as error:
                self._body = UndecodableError(str(error))
                self._body.__cause__ = error
        if isinstance(self._body, UndecodableError):
            raise self._body
        return self._body

    def json(self) -> Any:
        """Return the body as JSON, in UTF-8, UTF-16 or UTF-32. Raises UndecodableError, which parks the message.

        That takes 20 to 60 ms for each MiB: `await asyncio.to_thread(message.json)` keeps a large body out of the event
        loop.
        """
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError) as error:
            raise UndecodableError(f"the body is not JSON: {error}") from error

    @property
    def properties(self) -> Properties:
        """Return all basic properties; None means that the producer did not set it.

        Raises:
            UndecodableError: a header cannot be decoded, as one that is nested more than 64 deep.
        """
        if self._properties is None:
            try:
                self._properties = self._incoming.properties
            except ValueError as error:
                raise UndecodableError(str(error)) from error
        return self._properties

    @property
    def headers(self) -> Mapping[str, Any]:
        """Return the producer's headers, without amqpflow's own and those that RabbitMQ counts a delivery with.

        Raises:
            UndecodableError: as `properties`.
        """
        return self.properties.headers or {}

    @property
    def delivery_tag(self) -> int:
        """Return the tag of this delivery, on its channel."""
        return self._incoming.delivery.delivery_tag

    @property
    def exchange(self) -> str:
        """Return the exchange it was first published to; "" is the default exchange."""
        return self._incoming.exchange

    @property
    def routing_key(self) -> str:
        """Return the routing key it was first published with."""
        return self._incoming.routing_key

    @property
    def queue(self) -> str:
        """Return the work queue it was consumed from."""
        return self._incoming.delivery.queue

    @property
    def attempt(self) -> int:
        """Return which attempt this is, from 1. A crash does not count: the broker delivers the same attempt again."""
        return self._incoming.attempts_made + 1

    @property
    def retry(self) -> RetryState | None:
        """Return what is known of earlier attempts; None on a first one."""
        record = self._incoming.record
        # one without a failure only says that the consumer moved the message (protocol, section 8)
        return record if record is not None and (record.failed_at or record.attempts or record.replay) else None

    @property
    def hop(self) -> str:
        """Return ROOT/REPLAY/ATTEMPT, equal on two copies of one attempt (guarantee G2); "" without a message id."""
        record = self._incoming.record
        if record is not None and record.hop:
            return record.hop
        root = self._incoming.message_id
        return hop_id(root, 0, 0) if root else ""

    @property
    def message_id(self) -> str | None:
        return self._incoming.message_id

    @property
    def correlation_id(self) -> str | None:
        return self._incoming.correlation_id

    @property
    def priority(self) -> int | None:
        """Return the priority; None, which is not 0 (fact 12.4), if the producer set none. Raises as `properties`."""
        return self.properties.priority

    @property
    def redelivered(self) -> bool:
        """Return RabbitMQ's flag for this delivery, which says nothing about attempts (fact 1.5)."""
        return self._incoming.delivery.redelivered

    def publish(
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
    ) -> Any:
        """Publish another message as `Publisher.publish` does, and return its message id once it is confirmed.

        A handler that is not async calls it and waits: `message.publish(...)`. An async one awaits it:
        `await message.publish(...)`; without `await` nothing is published. All handlers of a consumer publish over one
        connection, which is not the one that consumes.

        Without `correlation_id` the new message has that of this one, else this one's message id. It has a new message
        id unless one is given: a handler that fails after it published publishes again on its retry, so give an id that
        follows from this message.

        Raises:
            UnroutableError, PublishRefusedError, UnpublishableError, PublishUncertainError, BrokerUnavailableError and
                others: as `Publisher.publish`; uncaught, they fail this message like any exception.
            TimeoutError: the handler ran into its timeout, and this message is retried. Nothing was published, unless
                the text says that it may be in a queue.
            UsageError: the message was not handed to a handler by a `Consumer`.
        """
        publisher = self._publisher
        if publisher is None:
            raise UsageError(
                "this message was not handed to a handler by a Consumer, and has no connection to publish on",
                hint="publish with a Publisher",
            )
        late = self._late
        late.require_in_time()
        outgoing = OutgoingMessage(
            body=body,
            exchange=exchange,
            routing_key=routing_key,
            headers=headers,
            priority=priority,
            message_id=message_id,
            correlation_id=self.correlation_id or self.message_id if correlation_id is None else correlation_id,
            content_type=content_type,
            content_encoding=content_encoding,
            reply_to=reply_to,
            expiration=expiration,
            timestamp=timestamp,
            type=type,
            app_id=app_id,
        )
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            return publisher.publish_and_wait(outgoing, late)
        if running is publisher.loop:
            return publisher.publish(outgoing)
        return asyncio.to_thread(publisher.publish_and_wait, outgoing, late)

    def __repr__(self) -> str:
        return f"<Message {self.message_id!r} from {self.queue!r}, attempt {self.attempt}>"


def is_held(message: Message) -> bool:
    """Return whether the consumer can still settle the delivery: its channel is open, and it was not requeued."""
    return message._holds is None or message._holds(message._incoming.delivery)


def takes_long_to_unpack(message: Message) -> bool:
    """Return whether to ask for `body` in a thread first, because it undoes the encoding of a large body."""
    delivery = message._incoming.delivery
    if len(delivery.body) <= LARGE or message._body is not None:
        return False
    try:
        return may_take_long(delivery.body, delivery.header.content_encoding)
    except ValueError:
        return False  # `body` raises the same


def unpack(message: Message) -> None:
    with suppress(UndecodableError):
        _ = message.body


def call_late(message: Message) -> None:
    """Let a thread whose handler ran into the timeout wait for no confirm, and publish nothing more."""
    message._late.end()
