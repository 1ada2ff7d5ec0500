"""A channel for messages: publish and know what became of it, consume, ack, nack.

Success of a publish is its confirm and no return before it (fact 9.1). After the channel closed, every publish without
a confirm is uncertain, and so is every ack that was written: nothing is settled on a closed channel (facts 9.2, 12.2).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from amqpflow.errors import AmqpflowError, BrokerUnavailableError, PublishUncertainError
from amqpflow.model.closing import CLOSED_HERE, CloseReason, closed_by_broker
from amqpflow.model.message import Delivery, Publish
from amqpflow.model.queue_stats import QueueCounts

from .ack_batcher import AckBatcher
from .confirms import Confirms, Settled, Ticket
from .frames import ContentFrames, ack_frame, nack_frame, reject_frame
from .rpc import RpcChannel, answer_or_end, retrieve
from .subscriptions import Subscriptions
from .translate import translate

if TYPE_CHECKING:
    from .transport import ContentTransport

log = logging.getLogger("amqpflow.channel")

ANSWER_TIMEOUT = 30.0  #: seconds for the broker to answer when a consumer starts or stops, or the connection is closed
CLOSE_TIMEOUT = 5.0  #: seconds for writing out what is left and for the broker's answer

_LINGER = 0.3  #: seconds that a close waits for settlements to be applied; 0.02 was enough for 200


class Channel:
    """One AMQP channel in confirm mode. Made by `Connection.open_channel`."""

    def __init__(self, amqp: RpcChannel, frame_max: int, transport: ContentTransport) -> None:
        self._amqp = amqp
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self.frame_max = frame_max  #: bytes; 0 when the broker sets no limit
        self._confirms = Confirms(amqp.number, frame_max, self._send)
        self._acks = AckBatcher(amqp.number)
        self._subscriptions = Subscriptions(self._acks.delivered)
        self._out: list[bytes] = []
        self._flushing = False
        self._on_close: list[Callable[[], None]] = []
        self.close_reason: CloseReason | None = None  #: once it is closed: of the connection, when that was lost
        self.closed_by_publish: str | None = None  #: the broker's text, when an error of a publish made it close this
        self._ending = False
        self._closer: asyncio.Task[None] | None = None
        self._question: asyncio.Future[Any] | None = None
        self._take = ContentFrames(
            delivered=self._subscriptions.delivered,
            returned=self._confirms.returned,
            confirmed=self._confirms.confirmed,
            closing=self._closing,
        ).take
        transport.takers[amqp.number] = self._take
        amqp.on_consumer_cancel_callbacks.add(self._subscriptions.cancelled)
        self.closed: asyncio.Event = asyncio.Event()
        self._amqp_closing: asyncio.Future[Any] = amqp.closing
        self._amqp_closing.add_done_callback(self._channel_closed)

    # -- publishing

    async def publish(self, message: Publish, ticket: Ticket | None = None) -> None:
        """Publish mandatory, and return once the broker has confirmed it.

        Two publishes with one exchange, routing key and id are never in flight together: the broker's return names
        nothing else, and a returned one must not be taken for the confirmed one. The second waits for the first.

        Raises:
            UnroutableError: returned; it is in no queue.
            PublishRefusedError: nacked; it is in no queue, or at least not safely.
            PublishUncertainError: the channel closed first; it may be in a queue.
            BrokerUnavailableError: the channel was closed before; nothing was sent.
            ValueError: it cannot be sent; nothing was.
        """
        confirm: asyncio.Future[None] = self._loop.create_future()

        def settled(error: AmqpflowError | None) -> None:
            if confirm.done():
                return  # the publisher was cancelled while it waited
            if error is None:
                confirm.set_result(None)
            else:
                confirm.set_exception(error)

        self.post(message, settled, ticket)
        await confirm

    def post(self, message: Publish, settled: Settled, ticket: Ticket | None = None) -> None:
        """Publish one of many messages, without a future or a task for each. What is posted in one turn of the loop is
        written at once, in its order, together with the acks of that turn.

        `settled` is called once with what became of the message: None when it was confirmed, else the error that
        `publish` raises; `BrokerUnavailableError` when the channel has ended and nothing of it was sent. It runs in the
        connection's reader: it must be quick and must not raise; it may post and ack. Await `room` between some hundred
        messages, or the unsent ones pile up in memory.

        Raises:
            BrokerUnavailableError: the channel is closed. ValueError: a name is too long, or the headers are. Nothing
            was sent.
        """
        if self.is_closed:
            raise self._closed()
        self._confirms.post(message, settled, ticket)

    async def room(self) -> None:
        """Wait while the socket is behind with what was sent. Raises BrokerUnavailableError: the channel closed."""
        self._flush()
        await self._or_closed(self._transport.drain())

    @property
    def outstanding(self) -> int:
        """The number of publishes without a confirm, also those that wait for one before them with the same id."""
        return len(self._confirms)

    @property
    def is_idle(self) -> bool:
        """No publish waits for its confirm."""
        return not self._confirms

    async def idle(self, within: float) -> None:
        """Wait until no publish is without its confirm, the channel is closed, or `within` seconds are over."""
        done = asyncio.Event()
        self._confirms.on_idle = done.set
        self.on_close(done.set)
        if not self.is_idle:
            with suppress(TimeoutError):
                async with asyncio.timeout(within):
                    await done.wait()

    # -- a sign of life

    @property
    def oldest(self) -> int:
        """The number of the oldest publish without a confirm; 0 when there is none."""
        return self._confirms.oldest

    @property
    def is_asking(self) -> bool:
        """The broker has not answered `ask`."""
        return self._question is not None and not self._question.done()

    def ask(self) -> None:
        """Ask the broker for an answer, by a `confirm.select`: the second one on a channel changes nothing."""
        if not (self.is_closed or self.is_asking):
            self._question = asyncio.ensure_future(self._amqp.confirm_delivery())
            self._question.add_done_callback(retrieve)

    # -- consuming

    async def consume(
        self,
        queue: str,
        on_delivery: Callable[[Delivery], None],
        *,
        prefetch: int,
        on_cancel: Callable[[], None],
        tag: str | None = None,
        tags_from: int = 0,
        answer_within: float = ANSWER_TIMEOUT,
    ) -> str:
        """Start a consumer and return its tag. `prefetch` counts unacked messages of this consumer; 0 means no limit on
        a classic queue and 2,000 on a quorum queue. `tag` names the consumer where its name matters: what several
        consumers of a channel hold goes back to a quorum queue in the order of their tags. `tags_from` is added to the
        delivery tags, so that the tags of several channels are one sequence. `answer_within` is in seconds: a quorum
        queue answers when it has read a whole prefetch from the disk (fact 6.10).

        `on_delivery` runs in the connection's reader: it must be quick and must not raise. Nothing of the message's
        properties has been decoded then, and they may turn out not to be readable (`ContentHeader`). `on_cancel` is
        called when the server cancels the consumer (its queue was deleted, or the consumer timeout of RabbitMQ 4.3).

        A caller that is cancelled meanwhile may have started a consumer all the same: name a `tag`, and cancel that.

        Raises:
            BrokerError: the queue is missing or exclusive. PermissionDeniedError. BrokerUnavailableError: the channel
                is closed, or there was no answer in time, after which the connection is closed, too.
        """
        self._require_open()
        tag = tag or f"amqpflow-{uuid4().hex[:12]}"
        self._subscriptions.add(tag, queue, on_delivery, on_cancel, tags_from=tags_from)
        qos = self._amqp.basic_qos(prefetch_count=min(prefetch, 65_535))
        await answer_or_end(qos, answer_within, self._transport.abort)
        started = self._amqp.basic_consume(queue, _never, consumer_tag=tag)
        await answer_or_end(started, answer_within, self._transport.abort)
        return tag

    async def cancel(self, tag: str) -> None:
        """Stop a consumer. What the broker delivered before its answer has arrived at `on_delivery` by then.

        Raises:
            BrokerUnavailableError: the channel is closed, or the broker gave no answer.
        """
        self._require_open()
        await answer_or_end(self._amqp.basic_cancel(tag), ANSWER_TIMEOUT, self._transport.abort)
        self._subscriptions.remove(tag)

    def ack(self, delivery_tag: int, *, multiple: bool = False) -> bool:
        """Ack; return False when the channel is closed, since its deliveries are lost then. Acks are written at the end
        of this turn of the loop, together (`ack_batcher`).
        """
        if self.is_closed:
            return False
        if multiple:
            self._write_acks()
            self._acks.forget(delivery_tag, multiple=True)
            self._settle(ack_frame(self._amqp.number, delivery_tag, multiple=True))
        else:
            self._acks.ack(delivery_tag)
            if not self._flushing:
                self._flush_soon()
        return True

    def keep(self, delivery_tag: int) -> None:
        """Note that this delivery is held until all are requeued, so that it takes no memory."""
        self._acks.keep(delivery_tag)

    def nack(self, delivery_tag: int, *, multiple: bool = False, requeue: bool = True) -> bool:
        """Write a nack; return False when the channel is closed, since its deliveries are lost then."""
        if self.is_closed:
            return False
        if multiple:
            self._write_acks()  # else it would take back what was acked in this turn
        self._acks.forget(delivery_tag, multiple=multiple)
        self._settle(nack_frame(self._amqp.number, delivery_tag, multiple=multiple, requeue=requeue))
        return True

    def reject(self, delivery_tag: int) -> bool:
        """Write a basic.reject with requeue; return False when the channel is closed: its deliveries are lost then."""
        if self.is_closed:
            return False
        self._acks.forget(delivery_tag, multiple=False)
        self._settle(reject_frame(self._amqp.number, delivery_tag, requeue=True))
        return True

    def _settle(self, data: bytes, count: int = 1) -> None:
        self._acks.written(count, self._loop.time())
        self._send(data)

    def _write_acks(self) -> None:
        data, count = self._acks.frames()
        if count:
            self._settle(data, count)

    # -- asking

    async def queue_counts(self, queue: str) -> QueueCounts:
        """Count a queue's ready messages and its consumers. The broker has read all that was sent before.

        Raises:
            BrokerError: code 404, the queue does not exist; the channel is closed then. PermissionDeniedError.
        """
        self._require_open()
        return await self._amqp.queue_counts(queue)

    async def require_exchange(self, exchange: str) -> None:
        """Declare an exchange passively. Raises as `queue_counts` does."""
        self._require_open()
        with translate():
            await self._amqp.exchange_declare(exchange, passive=True)

    # -- writing and closing

    def _send(self, data: bytes) -> None:
        self._out.append(data)
        if not self._flushing:
            self._flush_soon()

    def _flush_soon(self) -> None:
        self._flushing = True
        self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        """Write what this turn of the loop has sent, in its order, and its acks behind the nacks among it."""
        self._flushing = True  # no other is wanted while this one adds the acks
        self._write_acks()
        self._flushing = False
        out, self._out = self._out, []
        if out and not self.is_closed and self._transport.write(b"".join(out)):
            self._confirms.written()

    @property
    def is_closed(self) -> bool:
        """Closed, or about to be: nothing may be settled on it any more."""
        return self._ending or self._amqp_closing.done()

    def _require_open(self) -> None:
        if self.is_closed:
            raise self._closed()

    def _closed(self) -> BrokerUnavailableError:
        return BrokerUnavailableError(f"the channel is closed{f': {self.close_reason}' if self.close_reason else ''}")

    def on_close(self, callback: Callable[[], None]) -> None:
        """Call back once when the channel is closed, for whatever reason."""
        if self.closed.is_set():
            callback()
        else:
            self._on_close.append(callback)

    def _closing(self, code: int, text: str) -> None:
        # what is written after aiormq's answer to the broker's close would end the whole connection
        self._ending = True
        self.close_reason = closed_by_broker("channel", code, text)
        self._out.clear()
        self._acks.clear()

    def _channel_closed(self, closing: asyncio.Future[Any]) -> None:
        error = None if closing.cancelled() else closing.exception()
        unknown = CloseReason(text=f"the client library closed it: {error!r}")
        self._end(self._transport.close_reason or (unknown if error and self._closer is None else CLOSED_HERE))
        if self._transport.takers.get(self._amqp.number) is self._take:
            del self._transport.takers[self._amqp.number]

    def _end(self, reason: CloseReason) -> None:
        if self.closed.is_set():
            return
        # a publish is to blame only for a close of the channel by the broker, not for a lost connection
        self.closed_by_publish = self.close_reason.reply_text if self.close_reason is not None else None
        self.close_reason = self.close_reason or reason
        self.closed.set()
        self._ending = True
        self._subscriptions.end()
        self._out.clear()
        self._acks.clear()
        text, blame = f"closed before the confirm: {self.close_reason}", self.closed_by_publish

        def uncertain(exchange: str, may_be_there: bool) -> PublishUncertainError:
            error = PublishUncertainError(text, closed_by_publish=blame)
            error.may_be_there = may_be_there or not _is_about(blame, exchange)
            return error

        self._confirms.end(uncertain)
        for callback in self._on_close:
            callback()
        self._on_close.clear()

    async def close(self) -> None:
        """Write out what is left and close the channel; what is unacked goes back to its queue. Waits for 0.3 s when
        many deliveries were settled just now, since a quorum queue would not learn of all of them.

        Requeue deliveries with `nack` first: on RabbitMQ 4.0 and before a close counts against the delivery limit
        like a nack, and on 4.3 more than one (fact 3.3).
        """
        if self._closer is not None or not self.is_closed:
            # a task: the broker must be told, also when the caller is cancelled or waits no longer
            self._closer = self._closer or asyncio.create_task(self._close(), name="amqpflow channel close")
            await asyncio.wait((self._closer,), timeout=CLOSE_TIMEOUT)
        self._end(CLOSED_HERE)

    async def _close(self) -> None:
        try:
            with translate():
                await self.drain()
                await self._linger()
                self._ending = True  # an ack from here on would not reach the broker
                await self._amqp.close()
        except AmqpflowError:
            pass  # the connection is lost or stuck, and its end requeues everything
        self._end(CLOSED_HERE)

    async def _linger(self) -> None:
        if self._acks.may_be_kept_back(self._loop.time()):
            await self._amqp.basic_qos(prefetch_count=0)  # once it is answered, the broker has read them all
            await asyncio.sleep(_LINGER)

    async def drain(self) -> None:
        """Hand everything sent so far to the socket. Raises BrokerUnavailableError when it cannot be."""
        self._require_open()
        self._flush()
        await self._or_closed(self._transport.drain())

    async def _or_closed(self, waiting: Coroutine[Any, Any, None]) -> None:
        written = asyncio.ensure_future(waiting)
        closed = asyncio.create_task(self.closed.wait())
        either: list[asyncio.Future[Any]] = [written, closed]
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in either:
                each.cancel()
            await asyncio.gather(*either, return_exceptions=True)
        if written.cancelled() or written.exception() is not None:
            raise BrokerUnavailableError("the connection to the broker was lost")


def _is_about(blame: str | None, exchange: str) -> bool:
    """Return whether the text with which RabbitMQ closed a channel names the exchange as missing or forbidden."""
    return blame is not None and f" exchange '{exchange or 'amq.default'}' in vhost " in blame


async def _never(message: Any) -> None:  # pragma: no cover - deliveries are taken by ContentFrames
    raise AssertionError(message)
