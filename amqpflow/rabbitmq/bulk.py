"""A channel that publishes thousands of messages a second: no future and no task for any of them.

The caller numbers what he publishes as RabbitMQ does, from 1 on each channel, and is told numbers. Everything is
mandatory and confirmed; what a confirm, a return and a close mean is as for `Channel`.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Iterable
from typing import Any

from aiormq.abc import ChannelFrame
from aiormq.exceptions import ChannelClosed

from amqpflow.errors import AmqpflowError
from amqpflow.model.message import Publish

from .frames import ContentFrames
from .translate import translate
from .transport import Take

CLOSE_TIMEOUT = 5.0  #: seconds for the broker's answer
_METHOD, _HEADER, _BODY, _END = 1, 2, 3, b"\xce"
_FRAME = struct.Struct(">BHI")
_OVERHEAD = 8


class BulkChannel:
    """One channel in confirm mode for publishing alone. Made by `Connection.open_bulk_channel`."""

    def __init__(
        self,
        amqp: Any,
        frame_max: int,
        takers: dict[int, Take],
        *,
        on_confirm: Callable[[int, bool, bool], None],
        on_return: Callable[[str, str, str, bytes], None],
        on_close: Callable[[], None],
    ) -> None:
        """
        The callbacks run in the connection's reader and must not raise.

        Args:
            amqp: the aiormq channel.
            frame_max: bytes; 0 when the broker sets no limit.
            takers: of the connection.
            on_confirm: number, all up to it, acknowledged.
            on_return: what the broker says, exchange, routing key, payload of the content header. It comes before the
                confirm of the same message.
            on_close: what is not confirmed by then is uncertain.
        """
        self._amqp = amqp
        self._number = amqp.number
        self._takers = takers
        self._piece = (frame_max or 131_072) - _OVERHEAD
        self._on_close = on_close
        self._methods: dict[tuple[str, str], bytes] = {}
        self.published = 0  #: the number of the latest publish
        self.is_closed = False
        self.closed_by_publish: str | None = None  #: what the broker said, when a publish made it close the channel
        self.closed = asyncio.Event()  #: only then it is known who closed it
        self._take = ContentFrames(
            delivered=_never, returned=on_return, confirmed=on_confirm, closing=self._closing
        ).take
        takers[amqp.number] = self._take
        amqp.closing.add_done_callback(self._closed)

    async def publish(self, messages: Iterable[Publish]) -> None:
        """
        Write messages, which get the next numbers. Returns when they were handed to the connection's writer, at once
        and without a write when the channel is closed.
        """
        parts: list[bytes] = []
        count = 0
        for message in messages:
            parts += self._frames(message)
            count += 1
        if not self.is_closed:
            self.published += count
            await self._amqp.write_queue.put(
                ChannelFrame(payload=b"".join(parts), should_close=False, drain_future=None)
            )

    def _frames(self, message: Publish) -> list[bytes]:
        number, header, body = self._number, message.header, message.body
        parts = [
            self._method(message.exchange, message.routing_key),
            _FRAME.pack(_HEADER, number, len(header)),
            header,
            _END,
        ]
        for at in range(0, len(body), self._piece):
            piece = body if len(body) <= self._piece else body[at : at + self._piece]
            parts += (_FRAME.pack(_BODY, number, len(piece)), piece, _END)
        return parts

    def _method(self, exchange: str, routing_key: str) -> bytes:
        found = self._methods.get((exchange, routing_key))
        if found is None:
            payload = struct.pack(">HHH", 60, 40, 0) + _short(exchange) + _short(routing_key) + b"\x01"
            found = _FRAME.pack(_METHOD, self._number, len(payload)) + payload + _END
            self._methods[exchange, routing_key] = found
        return found

    def _closing(self) -> None:
        # what is written after aiormq's answer to the broker's close would end the whole connection
        self.is_closed = True

    def _closed(self, closing: asyncio.Future[Any]) -> None:
        self.is_closed = True
        reason = None if closing.cancelled() else closing.exception()
        # a publish is to blame only for a close of the channel by the broker, not for a lost connection
        self.closed_by_publish = (
            str(reason) if isinstance(reason, ChannelClosed) and reason.args and reason.args[0] else None
        )
        if self._takers.get(self._number) is self._take:
            del self._takers[self._number]
        self.closed.set()
        self._on_close()

    async def close(self) -> None:
        """Close it, telling the broker. Never raises."""
        if not self.is_closed:
            self.is_closed = True
            try:
                with translate():
                    async with asyncio.timeout(CLOSE_TIMEOUT):
                        await self._amqp.close()
            except AmqpflowError:
                pass  # the connection is lost or stuck


def _short(text: str) -> bytes:
    data = text.encode("utf-8", "surrogateescape")
    if len(data) > 255:
        raise ValueError(f"{text[:40]!r}... is {len(data)} bytes long, AMQP allows 255")
    return bytes((len(data),)) + data


def _never(*_: object) -> None:  # pragma: no cover - nothing is consumed here
    raise AssertionError("a delivery on a channel that consumes nothing")
