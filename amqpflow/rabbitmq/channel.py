"""A channel for messages: publish and know what became of it, consume, ack, nack.

Success of a publish is its confirm and no return before it (fact 9.1). After the channel closed, every publish without
a confirm is uncertain, and so is every ack that was written: nothing is settled on a closed channel (facts 9.2, 12.2).
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import uuid4

from aiormq.abc import ChannelFrame
from aiormq.exceptions import ChannelClosed

from amqpflow.errors import AmqpflowError, BrokerUnavailable, PublishRefused, PublishUncertain, Unroutable
from amqpflow.model.headers import HOP
from amqpflow.model.message import Delivery, Properties, Publish
from amqpflow.model.record import text_of
from amqpflow.model.wire_decode import decode_content_header

from .frames import ContentFrames, ack_frame, nack_frame, publish_frames
from .translate import translate
from .transport import Take

log = logging.getLogger("amqpflow.channel")

ANSWER_TIMEOUT = 15.0  #: seconds for the broker to answer when a consumer starts or stops
CLOSE_TIMEOUT = 5.0  #: seconds for writing out what is left and for the broker's answer

# RabbitMQ hands a quorum queue 32 settlements of a channel at a time and keeps the others for when those are applied.
# What it keeps it forgets when the channel closes (measured on 3.10, 4.0 and 4.3): 200 acks and a close settle 33.
_KEPT_BACK_FROM = 32  #: settlements
_LATELY = 1.0  #: seconds in which so many may not be applied yet
_LINGER = 0.3  #: seconds that a close waits for them; 0.02 was enough for 200


@dataclass(slots=True)
class _Outstanding:
    """A publish that waits for its confirm."""

    key: tuple[str, str, str]
    confirm: asyncio.Future[None]
    returned: str | None = None


@dataclass(slots=True)
class _Subscription:
    queue: str
    on_delivery: Callable[[Delivery], None]
    on_cancel: Callable[[], None]
    on_unreadable: Callable[[Delivery, str], None] | None


class Channel:
    """One AMQP channel in confirm mode. Made by `Connection.open_channel`."""

    def __init__(self, amqp: Any, frame_max: int, takers: dict[int, Take]) -> None:
        self._amqp = amqp
        self._takers = takers
        self.frame_max = frame_max  #: bytes; 0 when the broker sets no limit
        self._next_tag = 0
        self._outstanding: dict[int, _Outstanding] = {}
        self._in_flight: dict[tuple[str, str, str], _Outstanding] = {}
        self._subscriptions: dict[str, _Subscription] = {}
        self._out: list[bytes] = []
        self._wake = asyncio.Event()
        self._drained: list[asyncio.Future[None]] = []
        self._on_close: list[Callable[[], None]] = []
        self.close_reason: BaseException | None = None
        self._ending = False
        self._settled_at: deque[float] = deque(maxlen=_KEPT_BACK_FROM)
        self._take = ContentFrames(
            delivered=self._delivered, returned=self._returned, confirmed=self._confirmed, closing=self._closing
        ).take
        takers[amqp.number] = self._take
        amqp.on_consumer_cancel_callbacks.add(self._cancelled)
        self.closed: asyncio.Event = asyncio.Event()
        amqp.closing.add_done_callback(self._channel_closed)
        self._writer = asyncio.create_task(self._write(), name="amqpflow channel writer")

    # -- publishing

    async def publish(self, message: Publish) -> None:
        """
        Publish mandatory, and return once the broker has confirmed it.

        Two publishes with one exchange, routing key and id are never in flight together: the broker's return names
        nothing else, and a returned one must not be taken for the confirmed one. The second waits for the first.

        Raises:
            Unroutable: returned; it is in no queue.
            PublishRefused: nacked; it is in no queue, or at least not safely.
            PublishUncertain: the channel closed first; it may be in a queue.
            BrokerUnavailable: the channel was closed before; nothing was sent.
            ValueError, TypeError: it cannot be encoded; nothing was sent.
        """
        key = _key(message.exchange, message.routing_key, message.properties)
        while (before := self._in_flight.get(key)) is not None:
            await asyncio.wait([before.confirm])
        self._require_open()
        data = publish_frames(self._amqp.number, message, self.frame_max)
        self._next_tag += 1
        outstanding = _Outstanding(key, asyncio.get_running_loop().create_future())
        # read once, so that asyncio does not complain when the publisher was cancelled while it waited
        outstanding.confirm.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._outstanding[self._next_tag] = self._in_flight[key] = outstanding
        self._send(data)
        await asyncio.shield(outstanding.confirm)

    @property
    def is_idle(self) -> bool:
        """No publish waits for its confirm."""
        return not self._outstanding

    def _returned(self, text: str, exchange: str, routing_key: str, header: bytes) -> None:
        try:
            key = _key(exchange, routing_key, decode_content_header(header))
        except ValueError:
            key = None
        found = self._in_flight.get(key) if key else None
        # one that cannot be recognised may be any for that address: better a second copy than none
        alike = [each for each in self._outstanding.values() if each.key[:2] == (exchange, routing_key)]
        for outstanding in alike if found is None else (found,):
            outstanding.returned = text

    def _confirmed(self, tag: int, multiple: bool, acknowledged: bool) -> None:
        if multiple:
            tags = [each for each in self._outstanding if each <= tag] if tag else list(self._outstanding)
        else:
            tags = [tag]
        for each in tags:
            outstanding = self._outstanding.pop(each, None)
            if outstanding is None:
                continue
            self._in_flight.pop(outstanding.key, None)
            if outstanding.confirm.done():
                continue
            exchange, routing_key, _ = outstanding.key
            if outstanding.returned is not None:
                outstanding.confirm.set_exception(
                    Unroutable(f"no queue for routing key {routing_key!r} on exchange {exchange!r}")
                )
            elif not acknowledged:
                outstanding.confirm.set_exception(
                    PublishRefused(f"the broker refused a message for {routing_key!r} on exchange {exchange!r}")
                )
            else:
                outstanding.confirm.set_result(None)

    # -- consuming

    async def consume(
        self,
        queue: str,
        on_delivery: Callable[[Delivery], None],
        *,
        prefetch: int,
        on_cancel: Callable[[], None],
        on_unreadable: Callable[[Delivery, str], None] | None = None,
        tag: str | None = None,
    ) -> str:
        """
        Start a consumer and return its tag. `prefetch` counts unacked messages of this consumer; 0 means no limit on a
        classic queue and 2,000 on a quorum queue. `tag` names the consumer where its name matters: what several
        consumers of a channel hold goes back to a quorum queue in the order of their tags.

        `on_delivery` runs in the connection's reader: it must be quick and must not raise. `on_cancel` is called when
        the server cancels the consumer (its queue was deleted, or the consumer timeout of RabbitMQ 4.3).
        `on_unreadable` is given a delivery without properties, and why they cannot be read; without it such a delivery
        stays unacked.

        Raises:
            BrokerError: the queue is missing or exclusive. PermissionDenied. BrokerUnavailable.
        """
        self._require_open()
        tag = tag or f"amqpflow-{uuid4().hex[:12]}"
        self._subscriptions[tag] = _Subscription(queue, on_delivery, on_cancel, on_unreadable)
        with translate():
            async with asyncio.timeout(ANSWER_TIMEOUT):
                await self._amqp.basic_qos(prefetch_count=min(prefetch, 65_535))
                await self._amqp.basic_consume(queue, _never, consumer_tag=tag)
        return tag

    async def cancel(self, tag: str) -> None:
        """Stop a consumer. What the broker delivered before its answer has arrived at `on_delivery` by then."""
        self._require_open()
        with translate():
            async with asyncio.timeout(ANSWER_TIMEOUT):
                await self._amqp.basic_cancel(tag)
        self._subscriptions.pop(tag, None)

    def ack(self, delivery_tag: int, *, multiple: bool = False) -> bool:
        """Write an ack; False when the channel is closed and the delivery is no longer ours."""
        return self._settle(ack_frame(self._amqp.number, delivery_tag, multiple=multiple))

    def nack(self, delivery_tag: int, *, multiple: bool = False, requeue: bool = True) -> bool:
        """Write a nack; False when the channel is closed and the delivery is no longer ours."""
        return self._settle(nack_frame(self._amqp.number, delivery_tag, multiple=multiple, requeue=requeue))

    def _settle(self, data: bytes) -> bool:
        if self.is_closed:
            return False
        self._settled_at.append(asyncio.get_running_loop().time())
        self._send(data)
        return True

    def _delivered(
        self,
        consumer_tag: str,
        delivery_tag: int,
        redelivered: bool,
        exchange: str,
        routing_key: str,
        header: bytes,
        body: bytes,
    ) -> None:
        subscription = self._subscriptions.get(consumer_tag)
        if subscription is None:
            log.error("a delivery for the unknown consumer %s stays unacked", consumer_tag)
            return
        try:
            properties, unreadable = decode_content_header(header), ""
        except ValueError as error:
            properties, unreadable = Properties(), str(error)
        delivery = Delivery(
            queue=subscription.queue,
            delivery_tag=delivery_tag,
            redelivered=redelivered,
            exchange=exchange,
            routing_key=routing_key,
            properties=properties,
            body=body,
        )
        try:
            if not unreadable:
                subscription.on_delivery(delivery)
            elif subscription.on_unreadable is not None:
                subscription.on_unreadable(delivery, unreadable)
            else:
                log.error("a delivery from %s stays unacked: %s", subscription.queue, unreadable)
        except Exception:
            # raising here would end the reader of the whole connection
            log.exception("a delivery from %s could not be taken and stays unacked", subscription.queue)

    def _cancelled(self, frame: Any) -> None:
        if (subscription := self._subscriptions.get(frame.consumer_tag)) is not None:
            subscription.on_cancel()

    # -- asking

    async def queue_depth(self, queue: str) -> int:
        """
        Ready messages of a queue, by a passive declare: not the unacked or retained ones (fact 11.7).

        Raises:
            BrokerError: code 404, the queue does not exist; the channel is closed then. PermissionDenied.
        """
        self._require_open()
        with translate():
            answer = await self._amqp.queue_declare(queue, passive=True)
        return int(answer.message_count)

    async def require_exchange(self, exchange: str) -> None:
        """Passive declare of an exchange. Raises as `queue_depth` does."""
        self._require_open()
        with translate():
            await self._amqp.exchange_declare(exchange, passive=True)

    # -- writing and closing

    def _send(self, data: bytes) -> None:
        self._out.append(data)
        self._wake.set()

    async def _write(self) -> None:
        # one writer keeps publishes in the order of their sequence numbers, and acks behind what precedes them
        while True:
            await self._wake.wait()
            self._wake.clear()
            data, self._out = b"".join(self._out), []
            waiting, self._drained = self._drained, []
            written: asyncio.Future[None] | None = None
            if waiting:
                written = asyncio.get_running_loop().create_future()
                written.add_done_callback(partial(_release, waiting))
            await self._amqp.write_queue.put(ChannelFrame(payload=data, should_close=False, drain_future=written))

    @property
    def is_closed(self) -> bool:
        """Closed, or about to be: nothing may be settled on it any more."""
        return self._ending or self.closed.is_set() or bool(self._amqp.is_closed)

    def _require_open(self) -> None:
        if self.is_closed:
            raise BrokerUnavailable("the channel is closed")

    def on_close(self, callback: Callable[[], None]) -> None:
        """Call back once when the channel is closed, for whatever reason."""
        if self.closed.is_set():
            callback()
        else:
            self._on_close.append(callback)

    def _closing(self) -> None:
        # what is written after aiormq's answer to the broker's close would end the whole connection
        self._ending = True
        self._out.clear()

    def _channel_closed(self, closing: asyncio.Future[Any]) -> None:
        self._end(None if closing.cancelled() else closing.exception())

    def _end(self, reason: BaseException | None) -> None:
        if self.closed.is_set():
            return
        self.close_reason = reason
        self.closed.set()
        if self._takers.get(self._amqp.number) is self._take:
            del self._takers[self._amqp.number]
        self._writer.cancel()
        # a publish is to blame only for a close of the channel by the broker, not for a lost connection
        blame = str(reason) if isinstance(reason, ChannelClosed) and reason.args and reason.args[0] else None
        for outstanding in self._outstanding.values():
            if not outstanding.confirm.done():
                outstanding.confirm.set_exception(
                    PublishUncertain(f"closed before the confirm: {reason!r}", closed_by_publish=blame)
                )
        self._outstanding.clear()
        self._in_flight.clear()
        for callback in self._on_close:
            callback()
        self._on_close.clear()

    async def close(self) -> None:
        """
        Write out what is left and close the channel; what is unacked goes back to its queue. Waits for 0.3 s when many
        deliveries were settled just now, since a quorum queue would not learn of all of them.

        Give deliveries back with `nack` first: on RabbitMQ 4.0 and before a close counts against the delivery limit
        like a nack, and on 4.3 more than one (fact 3.3).
        """
        if not self.is_closed:
            try:
                with translate():
                    async with asyncio.timeout(CLOSE_TIMEOUT):
                        await self.drain()
                        await self._linger()
                        self._ending = True  # an ack from here on would not reach the broker
                        await self._amqp.close()
            except AmqpflowError:
                pass  # the connection is lost or stuck, and its end gives everything back
        self._ending = True
        self._end(None)
        await asyncio.gather(self._writer, return_exceptions=True)

    async def _linger(self) -> None:
        if len(self._settled_at) < _KEPT_BACK_FROM:
            return
        if asyncio.get_running_loop().time() - self._settled_at[0] < _LATELY:
            await self._amqp.basic_qos(prefetch_count=0)  # once it is answered, the broker has read them all
            await asyncio.sleep(_LINGER)

    async def drain(self) -> None:
        """Return when everything sent so far was handed to the socket. Raises BrokerUnavailable when it cannot be."""
        if self.is_closed:
            raise BrokerUnavailable("the channel is closed")
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._drained.append(written)
        self._wake.set()
        closed = asyncio.create_task(self.closed.wait())
        either: list[asyncio.Future[Any]] = [written, closed]
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            closed.cancel()
        if not written.done():
            raise BrokerUnavailable("the connection was lost")


def _key(exchange: str, routing_key: str, properties: Properties) -> tuple[str, str, str]:
    """What a returned message can be recognised by: where it went, and its hop or message id."""
    identity = text_of((properties.headers or {}).get(HOP)) or properties.message_id
    if not identity:
        raise ValueError("a message without a hop header needs a message id: its return could not be recognised")
    return exchange, routing_key, identity


def _release(waiting: list[asyncio.Future[None]], _: asyncio.Future[None]) -> None:
    for each in waiting:
        if not each.done():
            each.set_result(None)


async def _never(message: Any) -> None:  # pragma: no cover - deliveries are taken by ContentFrames
    raise AssertionError(message)
