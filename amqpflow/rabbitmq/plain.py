"""The same channel on aiormq's plain API, for when it no longer reads and writes through our transport.

`Channel` speaks in frames. Here the frames that it writes become calls of aiormq, and what aiormq tells becomes frames
for the channel to take. Everything that `Channel` keeps account of stays true; what is lost is what ADR 0003 and
ADR 0014 name: pamqp reads and writes the properties, so a message that it cannot read ends the connection, one that it
reads and cannot write has headers that nobody can read, a double loses precision in a copy, and there is a task for
every publish.

Two publishes with one message id are never in flight together, since aiormq matches returns by message id alone.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

import pamqp.frame
from aiormq.exceptions import DeliveryError, PublishError
from pamqp.body import ContentBody
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from amqpflow.model.message import Publish
from amqpflow.model.properties import Properties
from amqpflow.model.wire import encode_content_header

from .frames import HEADER, encode_frame

log = logging.getLogger("amqpflow.channel")

_FRAME_HEAD = 7  # bytes before the payload of a frame
_FLAG_OF_A_TABLE = b"\x20\x00"
_UNROUTED = Basic.Return(312, "NO_ROUTE", "", "")


class PlainTransport:
    """What `ContentTransport` is to a channel, over the methods of aiormq's channels."""

    def __init__(self, amqp: Any) -> None:
        self._amqp = amqp
        self.takers: dict[int, Callable[[int, bytes], bool]] = {}
        self.blocked: str | None = None  #: not known here
        self.on_blocked: list[Callable[[str | None], None]] = []
        self._channels: dict[int, _PlainChannel] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def abort(self) -> None:
        """Close the connection without waiting for an answer."""
        self._run(self._amqp.close(ConnectionError("aborted")))

    def attach(self, channel: Any) -> None:
        """Tell it of an aiormq channel before a `Channel` is made of it."""
        self._channels[channel.number] = _PlainChannel(channel, self.takers, self._run)

    def consumer_callback(self, number: int) -> Callable[[Any], Coroutine[Any, Any, None]]:
        """What aiormq calls with each message."""
        return self._channels[number].delivered

    def check(self, message: Publish) -> None:
        """Raise ValueError when pamqp could not write a message."""
        what = "its exchange or routing key"
        try:
            pamqp.frame.marshal(Basic.Publish(exchange=message.exchange, routing_key=message.routing_key), 1)
            what = "its properties"
            _, _, read = pamqp.frame.unmarshal(encode_frame(HEADER, 1, message.header))
            pamqp.frame.marshal(read, 1)
        except Exception as error:
            raise ValueError(f"pamqp cannot encode {what}: {error!r}") from error

    def write(self, data: bytes) -> None:
        """Frames of one channel, in the order in which they are to have their effect."""
        try:
            while data:
                size, number, read = pamqp.frame.unmarshal(data)
                data = data[size:]
                self._channels[number].write(read)
        except Exception:
            log.exception("pamqp cannot read what was to be sent; the connection is closed")
            # what has been counted as sent and was not would put every later confirm off by one: none is heard
            self.takers.clear()
            self.abort()

    async def drain(self) -> None:
        """Wait until the calls made so far have returned, publishes excepted."""
        await asyncio.gather(*(each.written() for each in self._channels.values()))

    def _run(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.debug("a call ended with the channel: %r", error)


class _PlainChannel:
    def __init__(
        self,
        channel: Any,
        takers: dict[int, Callable[[int, bytes], bool]],
        run: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
    ) -> None:
        self._channel = channel
        self._takers = takers
        self._run = run
        self._sequence = 0
        self._content: list[Any] = []  # frames of a publish that is not whole yet
        self._calls: deque[Coroutine[Any, Any, None]] = deque()
        self._calling: asyncio.Task[None] | None = None
        self._in_flight: dict[str, asyncio.Event] = {}

    # -- what the channel writes

    def write(self, frame: Any) -> None:
        match frame:
            case Basic.Ack():
                self._call(self._channel.basic_ack(frame.delivery_tag, multiple=frame.multiple, wait=False))
            case Basic.Nack():
                self._call(
                    self._channel.basic_nack(
                        frame.delivery_tag, multiple=frame.multiple, requeue=frame.requeue, wait=False
                    )
                )
            case Basic.Reject():
                self._call(self._channel.basic_reject(frame.delivery_tag, requeue=frame.requeue, wait=False))
            case _:
                self._content.append(frame)
                self._publish_if_whole()

    def _publish_if_whole(self) -> None:
        if len(self._content) < 2:
            return
        method, header, *bodies = self._content
        body = b"".join(each.value for each in bodies)
        if len(body) < header.body_size:
            return
        self._content = []
        self._sequence += 1
        self._run(self._publish(self._sequence, method, header, body))

    async def _publish(self, number: int, method: Any, header: Any, body: bytes) -> None:
        message_id = header.properties.message_id
        while (before := self._in_flight.get(message_id)) is not None:
            await before.wait()
        self._in_flight[message_id] = over = asyncio.Event()
        answer: Any = Basic.Ack(number, False)
        try:
            await self._channel.basic_publish(
                body,
                exchange=method.exchange,
                routing_key=method.routing_key,
                properties=header.properties,
                mandatory=True,
                wait=False,
            )
        except PublishError:
            _UNROUTED.exchange, _UNROUTED.routing_key = method.exchange, method.routing_key
            self._tell(_UNROUTED, ContentHeader(body_size=0, properties=header.properties))
        except DeliveryError:
            answer = Basic.Nack(number, False)
        except Exception:
            if self._channel.is_closed:
                raise  # what is without an answer then is uncertain, and told so
            log.exception("a publish failed in aiormq")
            answer = Basic.Nack(number, False)
        finally:
            del self._in_flight[message_id]
            over.set()
        self._tell(answer)

    def _call(self, call: Coroutine[Any, Any, None]) -> None:
        self._calls.append(call)
        if self._calling is None or self._calling.done():
            self._calling = self._run(self._make_calls())

    async def _make_calls(self) -> None:
        try:
            while self._calls:
                await self._calls.popleft()
        finally:
            for call in self._calls:
                call.close()
            self._calls.clear()

    async def written(self) -> None:
        if self._calling is not None:
            await asyncio.gather(self._calling, return_exceptions=True)

    # -- what the channel is told

    async def delivered(self, message: Any) -> None:
        """aiormq has read a delivery."""
        try:
            header = self._payload(message.header)
        except Exception as error:
            log.error("pamqp cannot write the properties of a message that it has read: %r", error)
            # that it has headers, and none behind it
            bare = encode_content_header(Properties(), len(message.body))
            header = HEADER, bare[: -len(_FLAG_OF_A_TABLE)] + _FLAG_OF_A_TABLE
        self._take(self._payload(message.delivery), header)
        if message.body:
            self._tell(ContentBody(message.body))

    def _tell(self, *frames: Any) -> None:
        self._take(*map(self._payload, frames))

    def _take(self, *frames: tuple[int, bytes]) -> None:
        take = self._takers.get(self._channel.number)
        if take is not None:
            for kind, payload in frames:
                take(kind, payload)

    def _payload(self, frame: Any) -> tuple[int, bytes]:
        """Its type, and what it consists of."""
        data = pamqp.frame.marshal(frame, self._channel.number)
        return data[0], data[_FRAME_HEAD:-1]
