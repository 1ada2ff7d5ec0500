"""The frames of messages as bytes: publishes, acks and nacks to write; deliveries, returns and confirms to read."""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import lru_cache

from amqpflow.model.message import Publish
from amqpflow.model.wire_decode import decode_short

DeliveryCallback = Callable[[str, int, bool, str, str, bytes, bytes], None]
"""Consumer tag, delivery tag, redelivered, exchange, routing key, payload of the content header, body."""
ReturnCallback = Callable[[str, str, str, bytes], None]
"""The broker's text, exchange, routing key, payload of the content header."""
ConfirmCallback = Callable[[int, bool, bool], None]
"""Delivery tag, multiple, acknowledged."""

_METHOD, HEADER, _BODY, _END = 1, 2, 3, b"\xce"
_DELIVER, _RETURN = b"\x00\x3c\x00\x3c", b"\x00\x3c\x00\x32"
_ACK, _NACK, _CLOSE = b"\x00\x3c\x00\x50", b"\x00\x3c\x00\x78", b"\x00\x14\x00\x28"
_CONTENT, _CONFIRM = (_DELIVER, _RETURN), (_ACK, _NACK)
_FRAME_OVERHEAD = 8
_MOST_ADDRESSES = 256  #: kept decoded at most: a producer may make up routing keys
_TAG_AND_BITS, _SIZE = struct.Struct(">QB"), struct.Struct(">Q")
_FRAME, _CODE = struct.Struct(">BHI"), struct.Struct(">H")
_SETTLE = struct.Struct(">BHIHHQBB")  # a whole frame of basic.ack or basic.nack


class ContentFrames:
    """Takes the frames of one channel that carry messages and confirms, in the order of the wire.

    The callbacks run in the connection's reader and must not raise. `closing` is called with code and text when the
    broker closes the channel: from then on it ignores what is written on it.
    """

    def __init__(
        self,
        *,
        delivered: DeliveryCallback,
        returned: ReturnCallback,
        confirmed: ConfirmCallback,
        closing: Callable[[int, str], None],
    ) -> None:
        self._delivered = delivered
        self._returned = returned
        self._confirmed = confirmed
        self._closing = closing
        self._method = b""  # the payload of basic.deliver or basic.return whose content is being read
        self._header = b""
        self._parts: list[bytes] = []
        self._missing = 0
        self._addresses: dict[bytes, tuple[str, str]] = {}  # exchange and routing key, as they stand in a delivery

    def take(self, kind: int, payload: bytes) -> bool:
        """Take a frame; return whether it was one of these."""
        if kind == _METHOD:
            method = payload[:4]
            if method in _CONTENT:
                self._method = payload
                return True
            if method in _CONFIRM:
                tag, bits = _TAG_AND_BITS.unpack_from(payload, 4)
                self._confirmed(tag, bool(bits & 1), method == _ACK)
                return True
            if method == _CLOSE:
                self._closing(*decode_close(payload))
            return False
        if not self._method:
            return False  # the content of a basic.get
        if kind == HEADER:
            self._header = payload
            (self._missing,) = _SIZE.unpack_from(payload, 4)
            if self._missing == 0:
                self._complete(b"")
        elif len(payload) == self._missing and not self._parts:
            self._complete(payload)  # nearly every body is one frame
        else:
            self._parts.append(payload)
            self._missing -= len(payload)
            if self._missing <= 0:
                body, self._parts = b"".join(self._parts), []
                self._complete(body)
        return True

    def _complete(self, body: bytes) -> None:
        method, self._method = self._method, b""
        if method[3] == 0x3C:
            consumer_tag, at = decode_short(method, 4)
            delivery_tag, redelivered = _TAG_AND_BITS.unpack_from(method, at)
            address = method[at + 9 :]
            exchange, routing_key = self._addresses.get(address) or self._read_address(address)
            self._delivered(consumer_tag, delivery_tag, redelivered & 1 == 1, exchange, routing_key, self._header, body)
        else:
            text, at = decode_short(method, 6)
            exchange, at = decode_short(method, at)
            self._returned(text, exchange, decode_short(method, at)[0], self._header)

    def _read_address(self, address: bytes) -> tuple[str, str]:
        exchange, at = decode_short(address, 0)
        found = exchange, decode_short(address, at)[0]
        if len(self._addresses) < _MOST_ADDRESSES:
            self._addresses[address] = found
        return found


def publish_frames(channel: int, message: Publish, frame_max: int) -> bytes:
    """Encode a mandatory basic.publish with its content, ready for the socket.

    Raises:
        ValueError: the exchange or routing key is over 255 bytes, or the header frame would be larger than `frame_max`
            (the broker closes the whole connection on such a frame).
    """
    header = message.header
    if frame_max and len(header) + _FRAME_OVERHEAD > frame_max:
        raise ValueError(f"the headers take {len(header)} bytes, and a frame holds {frame_max - _FRAME_OVERHEAD}")
    parts = [_publish_method(channel, message.exchange, message.routing_key), encode_frame(HEADER, channel, header)]
    size = (frame_max or 131_072) - _FRAME_OVERHEAD
    if 0 < len(message.body) <= size:
        parts += (_FRAME.pack(_BODY, channel, len(message.body)), message.body, _END)  # not copied once more
    else:
        parts += (
            encode_frame(_BODY, channel, message.body[at : at + size]) for at in range(0, len(message.body), size)
        )
    return b"".join(parts)


@lru_cache(maxsize=1024)
def _publish_method(channel: int, exchange: str, routing_key: str) -> bytes:
    """Encode a mandatory basic.publish. It is cached: most messages go to a few addresses."""
    return encode_frame(
        _METHOD, channel, b"\x00\x3c\x00\x28\x00\x00" + _short(exchange) + _short(routing_key) + b"\x01"
    )


def decode_close(payload: bytes) -> tuple[int, str]:
    """Return reply code and reply text of the method channel.close or connection.close."""
    (code,) = _CODE.unpack_from(payload, 4)
    return code, decode_short(payload, 6)[0]


def ack_frame(channel: int, delivery_tag: int, *, multiple: bool) -> bytes:
    """Encode a basic.ack."""
    return _SETTLE.pack(_METHOD, channel, 13, 60, 80, delivery_tag, multiple, 0xCE)


def reject_frame(channel: int, delivery_tag: int, *, requeue: bool) -> bytes:
    """Encode a basic.reject, which a quorum queue of RabbitMQ 4.3 counts, unlike basic.nack (facts 3.3, 8.4)."""
    return encode_frame(_METHOD, channel, struct.pack(">HHQB", 60, 90, delivery_tag, requeue))


def nack_frame(channel: int, delivery_tag: int, *, multiple: bool, requeue: bool) -> bytes:
    """Encode a basic.nack."""
    return _SETTLE.pack(_METHOD, channel, 13, 60, 120, delivery_tag, multiple | requeue << 1, 0xCE)


def encode_frame(kind: int, channel: int, payload: bytes) -> bytes:
    """Encode any frame."""
    return _FRAME.pack(kind, channel, len(payload)) + payload + _END


def _short(text: str) -> bytes:
    data = text.encode("utf-8", "surrogateescape")
    if len(data) > 255:
        raise ValueError(f"{text[:40]!r}... is {len(data)} bytes long, AMQP allows 255")
    return bytes((len(data),)) + data
