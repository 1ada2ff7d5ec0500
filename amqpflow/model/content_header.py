"""The payload of a content header frame: class, weight, body size, flags, properties."""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType
from typing import Any

from .properties import Properties
from .raw_headers import RawHeaders
from .wire import encode_content_header, length_prefixed
from .wire_decode import decode_properties, decode_short, skip_table

_FLAGS = struct.Struct(">H")
_HEAD = struct.Struct(">HHQH")
_BEGIN = 14  #: where the first property is
_CLASS_BASIC = 60
_CONTENT_TYPE, _CONTENT_ENCODING, _HEADERS, _DELIVERY_MODE = 1 << 15, 1 << 14, 1 << 13, 1 << 12
_EXPIRATION, _MESSAGE_ID, _USER_ID = 1 << 8, 1 << 7, 1 << 4
_PERSISTENT = b"\x02"
_NONE: Mapping[str, Any] = MappingProxyType({})


class ContentHeader:
    """Decoded only as far as it is read, and copied as the bytes it came in.

    What cannot be read raises ValueError where it is asked for: a producer may write what cannot be decoded, and that
    must neither end a connection nor keep the message from a handler that does not look at it.
    """

    __slots__ = ("_headers", "_properties", "_where", "payload")

    def __init__(self, payload: bytes) -> None:
        self.payload = payload
        self._headers: Mapping[str, Any] | None = None
        self._properties: Properties | None = None
        self._where: tuple[int, int, int] | None = None

    @classmethod
    def of(cls, properties: Properties, body_size: int = 0) -> ContentHeader:
        """Encode it. Raises TypeError, ValueError: a property does not fit its AMQP type."""
        return cls(encode_content_header(properties, body_size))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ContentHeader) and self.payload == other.payload

    def __hash__(self) -> int:
        return hash(self.payload)

    def __repr__(self) -> str:
        return f"ContentHeader({self.payload!r})"

    @property
    def headers(self) -> Mapping[str, Any]:
        """The header table, empty when there is none. Raises ValueError: it is cut short, or has an unknown type."""
        if self._headers is None:
            _, begin, end = self._table()
            self._headers = RawHeaders(self.payload, begin) if begin < end else _NONE
        return self._headers

    @property
    def properties(self) -> Properties:
        """All properties; None means absent. Raises ValueError: they are cut short, or `headers` are."""
        if self._properties is None:
            self._properties = decode_properties(self.payload, lambda _, __: (self.headers, self._table()[2]))
        return self._properties

    @property
    def content_encoding(self) -> str | None:
        """The property content_encoding alone, which few messages have. Raises ValueError."""
        payload = self.payload
        return self.properties.content_encoding if len(payload) <= 12 or payload[12] & 0x40 else None

    @property
    def message_id(self) -> str | None:
        """The property message_id alone, which every failure needs. Raises ValueError."""
        if self._properties is not None:
            return self._properties.message_id
        flags, _, at = self._table()
        if not flags & _MESSAGE_ID:
            return None
        if flags & _DELIVERY_MODE:
            at += 1
        for bit, skip in _AFTER_THE_DELIVERY_MODE:
            if bit == _MESSAGE_ID:
                break
            if flags & bit:
                at = skip(self.payload, at)
        return _short(self.payload, at)[0]

    @property
    def acts_on_the_broker(self) -> bool:
        """Whether it has a property that a copy must not have: `expiration` or `user_id`. Raises ValueError."""
        return bool(self._table()[0] & (_EXPIRATION | _USER_ID))

    def unread(self) -> ContentHeader:
        """Return the same bytes, shown as if there were no properties in them: for what cannot be read."""
        bare = ContentHeader(self.payload)
        bare._headers, bare._properties = _NONE, Properties()
        return bare

    def as_readable(self) -> ContentHeader:
        """Return this header, made readable; or the same bytes `unread` when it is cut short."""
        try:
            self.make_readable()
        except ValueError:
            return self.unread()
        return self

    def make_readable(self) -> None:
        """Let no value raise: headers nested too deeply are shown as bytes. Raises ValueError: they are cut short."""
        if isinstance(headers := self.properties.headers, RawHeaders):
            headers.make_readable()

    def copy(self, table: bytes, body_size: int) -> bytes:
        """Encode the payload for a persistent copy with the headers in `table`, as `encode_table` gives them.

        `expiration` and `user_id`, which the broker would act on again, are left out; every other property is copied as
        it came. Raises ValueError: it is cut short.
        """
        flags, begin, at = self._table()
        dropped = flags & (_EXPIRATION | _USER_ID)
        rest = self._rest(at + 1 if flags & _DELIVERY_MODE else at, dropped)
        kept = (flags | _HEADERS | _DELIVERY_MODE) & ~dropped
        head = _HEAD.pack(_CLASS_BASIC, 0, body_size, kept)
        return b"".join((head, self.payload[_BEGIN:begin], table, _PERSISTENT, rest))

    def without(self, names: Collection[str]) -> bytes:
        """Encode the payload without these headers and `user_id`, all else as it came. It has to be readable."""
        payload = self.payload
        flags, begin, at = self._table()
        headers = self.headers
        table = (
            length_prefixed(headers.encoded(without=names)) if isinstance(headers, RawHeaders) else payload[begin:at]
        )
        mode = payload[at : at + 1] if flags & _DELIVERY_MODE else b""
        rest = self._rest(at + len(mode), flags & _USER_ID)
        head = payload[: _BEGIN - _FLAGS.size] + _FLAGS.pack(flags & ~_USER_ID)
        return b"".join((head, payload[_BEGIN:begin], table, mode, rest))

    def canonical(self, *, without: Collection[str]) -> bytes:
        """Return all properties, without these headers, as bytes that do not depend on the order of the others.

        Two messages that differ in any other byte have different ones. Raises ValueError: they are cut short.
        """
        payload = self.payload
        flags, begin, end = self._table()
        entries: list[bytes] = []
        if begin < end:
            scanned = self._headers
            headers = scanned if isinstance(scanned, RawHeaders) else RawHeaders(payload, begin)
            entries = headers.entries(without=without)
            entries.sort()
        # a queue that counts deliveries adds a table to a message that had none
        known = flags | _HEADERS if entries else flags & ~_HEADERS
        return b"".join((_FLAGS.pack(known), payload[_BEGIN:begin], length_prefixed(b"".join(entries)), payload[end:]))

    def _rest(self, at: int, dropped: int) -> bytes:
        """Return the properties behind the delivery mode, which begin there, but those. Raises ValueError."""
        payload, flags = self.payload, self._table()[0]
        parts = [] if dropped else [payload[at:]]  # nearly always all of them, without looking at any
        for bit, skip in _AFTER_THE_DELIVERY_MODE if dropped else ():
            if flags & bit:
                start, at = at, skip(payload, at)
                if not bit & dropped:
                    parts.append(payload[start:at])
        if at > len(payload):
            raise ValueError("the properties are cut short")
        return b"".join(parts)

    @property
    def size_without_headers(self) -> int:
        """Bytes of the payload that `copy` makes, without the table; or some more. Raises ValueError."""
        _, begin, end = self._table()
        return len(self.payload) - (end - begin) + len(_PERSISTENT)

    def _table(self) -> tuple[int, int, int]:
        """Return the flags, where the header table begins or would begin, and where it ends."""
        if self._where is None:
            payload = self.payload
            try:
                (flags,) = _FLAGS.unpack_from(payload, 12)
                at = _BEGIN
                if flags & _CONTENT_TYPE:
                    at += 1 + payload[at]
                if flags & _CONTENT_ENCODING:
                    at += 1 + payload[at]
            except (struct.error, IndexError):
                raise ValueError("the properties are cut short") from None
            self._where = flags, at, skip_table(payload, at) if flags & _HEADERS else at
        return self._where


def _short(data: bytes, at: int) -> tuple[str, int]:
    try:
        return decode_short(data, at)
    except IndexError:
        raise ValueError("the properties are cut short") from None


# in the order of the wire (https://www.rabbitmq.com/amqp-0-9-1-reference): priority, correlation_id, reply_to,
# expiration, message_id, timestamp, type, user_id, app_id, cluster_id
_SKIP: dict[int, Callable[[bytes, int], int]] = {11: lambda _, at: at + 1, 6: lambda _, at: at + 8}
_AFTER_THE_DELIVERY_MODE: tuple[tuple[int, Callable[[bytes, int], int]], ...] = tuple(
    (1 << bit, _SKIP.get(bit, lambda data, at: _short(data, at)[1])) for bit in range(11, 1, -1)
)
