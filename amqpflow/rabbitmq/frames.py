"""Take content frames off an aiormq channel before its own reader sees them.

aiormq matches a returned message to its publish by message id alone, adds a message id where there is none, and starts
a task for every delivery. amqpflow must never take a returned message for a confirmed one (design guarantee G1), so
deliveries, confirms and returns are read here, inside the connection's reader; every other frame goes on to aiormq.

The seam is `aiormq.Channel.frames`, the queue into which the connection puts a channel's frames: it is an attribute
without an underscore, but no documented API. `pyproject.toml` pins aiormq's major version and
`tests/integration/test_channel.py` fails when the seam moves. ADR 0003 has the reasons.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from pamqp.body import ContentBody
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from amqpflow.model.message import Properties, Publish
from amqpflow.model.wire import encode_content_header

DeliveryCallback = Callable[[Any, Any, bytes], None]  #: Basic.Deliver, Basic.Properties, body
ReturnCallback = Callable[[Any, Any], None]  #: Basic.Return, Basic.Properties
ConfirmCallback = Callable[[int, bool, bool], None]  #: delivery tag, multiple, acknowledged

_METHOD, _HEADER, _BODY, _END = 1, 2, 3, b"\xce"
_FRAME_OVERHEAD = 8


class ContentFrames:
    """Stands in for `aiormq.Channel.frames`. The callbacks run in the connection's reader and must not raise."""

    def __init__(
        self, inner: Any, *, delivered: DeliveryCallback, returned: ReturnCallback, confirmed: ConfirmCallback
    ) -> None:
        self._inner = inner
        self._delivered = delivered
        self._returned = returned
        self._confirmed = confirmed
        self._method: Any = None  # the Basic.Deliver or Basic.Return whose content is being read
        self._header: Any = None
        self._parts: list[bytes] = []
        self._missing = 0

    async def put(self, item: tuple[int, Any]) -> None:
        """Called by the connection's reader for each frame of the channel, in wire order."""
        frame = item[1]
        kind = type(frame)
        if kind is Basic.Deliver or kind is Basic.Return:
            self._method = frame
        elif self._method is not None and kind is ContentHeader:
            self._header = frame
            self._missing = frame.body_size
            self._complete_if_whole()
        elif self._method is not None and kind is ContentBody:
            self._parts.append(frame.value)
            self._missing -= len(frame.value)
            self._complete_if_whole()
        elif kind is Basic.Ack or kind is Basic.Nack:
            self._confirmed(frame.delivery_tag, bool(frame.multiple), kind is Basic.Ack)
        else:
            await self._inner.put(item)

    def _complete_if_whole(self) -> None:
        if self._missing > 0:
            return
        method, properties, body = self._method, self._header.properties, b"".join(self._parts)
        self._method = self._header = None
        self._parts = []
        if type(method) is Basic.Deliver:
            self._delivered(method, properties, body)
        else:
            self._returned(method, properties)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def properties_of(received: Any) -> Properties:
    """pamqp's Basic.Properties as ours; absent stays absent."""
    return Properties(
        content_type=received.content_type,
        content_encoding=received.content_encoding,
        headers=received.headers,
        delivery_mode=received.delivery_mode,
        priority=received.priority,
        correlation_id=received.correlation_id,
        reply_to=received.reply_to,
        expiration=received.expiration,
        message_id=received.message_id,
        timestamp=received.timestamp,
        type=received.message_type,
        user_id=received.user_id,
        app_id=received.app_id,
        cluster_id=received.cluster_id or None,  # pamqp says "" where there is none
    )


def header_frame_size(properties: Properties) -> int:
    """Bytes that the content header frame of a message with these properties takes on the wire."""
    return len(encode_content_header(properties, 0)) + _FRAME_OVERHEAD


def publish_frames(channel: int, message: Publish, frame_max: int) -> bytes:
    """
    A mandatory basic.publish with its content, ready for the socket.

    Raises:
        ValueError: the exchange or routing key is over 255 bytes, a property does not fit, or the header frame would
            be larger than `frame_max` (the broker closes the whole connection on such a frame).
        TypeError: a header value has no AMQP type.
    """
    method = struct.pack(">HHH", 60, 40, 0) + _short(message.exchange) + _short(message.routing_key) + b"\x01"
    header = encode_content_header(message.properties, len(message.body))
    if frame_max and len(header) + _FRAME_OVERHEAD > frame_max:
        raise ValueError(f"the headers take {len(header)} bytes, and a frame holds {frame_max - _FRAME_OVERHEAD}")
    parts = [_frame(_METHOD, channel, method), _frame(_HEADER, channel, header)]
    size = (frame_max or 131_072) - _FRAME_OVERHEAD
    parts.extend(_frame(_BODY, channel, message.body[at : at + size]) for at in range(0, len(message.body), size))
    return b"".join(parts)


def ack_frame(channel: int, delivery_tag: int, *, multiple: bool) -> bytes:
    """basic.ack."""
    return _frame(_METHOD, channel, struct.pack(">HHQB", 60, 80, delivery_tag, multiple))


def nack_frame(channel: int, delivery_tag: int, *, multiple: bool, requeue: bool) -> bytes:
    """basic.nack."""
    return _frame(_METHOD, channel, struct.pack(">HHQB", 60, 120, delivery_tag, multiple | requeue << 1))


def _frame(kind: int, channel: int, payload: bytes) -> bytes:
    return struct.pack(">BHI", kind, channel, len(payload)) + payload + _END


def _short(text: str) -> bytes:
    data = text.encode()
    if len(data) > 255:
        raise ValueError(f"{text[:40]!r}... is {len(data)} bytes long, AMQP allows 255")
    return bytes((len(data),)) + data
