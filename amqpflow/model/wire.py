"""Encode properties and field tables as AMQP 0-9-1 bytes, without loss of what was received.

pamqp's encoder narrows every float to single precision, truncates header names at 128 bytes and refuses byte
strings that are not UTF-8; aiormq adds a message id where there was none. A copy of a message must be equal to the
message, so copies are encoded here. Types on the wire follow RabbitMQ's errata
(https://www.rabbitmq.com/amqp-0-9-1-errata.html).
"""

from __future__ import annotations

import struct
from calendar import timegm
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from operator import attrgetter
from typing import Any

from .properties import Properties

_CLASS_BASIC = 60
MAX_DEPTH = 64  #: tables and arrays within one another; RabbitMQ sets no limit
_INT_RANGES = tuple(
    (struct.Struct(layout), ord(kind), -(1 << bits), (1 << bits) - 1)
    for layout, kind, bits in ((">Bb", "b", 7), (">Bh", "s", 15), (">Bi", "I", 31), (">Bq", "l", 63))
)
_LENGTH = struct.Struct(">I")
_TEXT, _TEXT_HEAD = ord("S"), struct.Struct(">BI")
_HEADER = struct.Struct(">HHQH")
_MOST_NAMES = 1024  #: header names that are kept encoded: a producer may make them up
_NAMES: dict[Any, bytes] = {}


def encode_table(table: Mapping[str, Any], depth: int = 1) -> bytes:
    """Encode a field table with its length prefix; `len()` of the result is what it takes of a header frame.

    Raises:
        TypeError: a value has no AMQP type; the message names the key.
        ValueError: a key is longer than 255 bytes, a number is out of range, or tables are nested more than 64 deep.
    """
    if depth > MAX_DEPTH:
        raise ValueError(f"tables are nested more than {MAX_DEPTH} deep")
    parts = []
    for key, value in table.items():
        parts.append(_NAMES.get(key) or _name(key))
        if type(value) is str:  # most are
            data = value.encode("utf-8", "surrogateescape")
            parts.append(_TEXT_HEAD.pack(_TEXT, len(data)))
            parts.append(data)
            continue
        try:
            parts.append(_ENCODERS.get(type(value), _encode_kind_of)(value, depth))
        except TypeError as error:
            raise TypeError(f"{key}: {error}") from None
    return length_prefixed(b"".join(parts))


def encode_value(value: Any, depth: int = 0) -> bytes:
    """Encode one field value with its type octet. Raises as `encode_table` does."""
    return _ENCODERS.get(type(value), _encode_kind_of)(value, depth)


def _name(key: Any) -> bytes:
    if not isinstance(key, str):
        raise TypeError(f"a header name is text, not {type(key).__name__}")
    name = key.encode("utf-8", "surrogateescape")  # bytes that are not UTF-8 were read as surrogates (`wire_decode`)
    if len(name) > 255:
        raise ValueError(f"header name {key[:40]!r}... is {len(name)} bytes long, AMQP allows 255")
    encoded = bytes((len(name),)) + name
    if len(_NAMES) < _MOST_NAMES:
        _NAMES[key] = encoded
    return encoded


def _encode_kind_of(value: Any, depth: int) -> bytes:
    """Encode subclasses, and what else behaves like a table or an array."""
    for kind, encode in _KINDS:
        if isinstance(value, kind):
            return encode(value, depth)
    raise TypeError(f"AMQP has no type for {type(value).__name__}")


def _text(value: str, _: int) -> bytes:
    data = value.encode("utf-8", "surrogateescape")
    return b"S" + _LENGTH.pack(len(data)) + data


def _int(value: int, _: int) -> bytes:
    for layout, kind, least, most in _INT_RANGES:
        if least <= value <= most:
            return layout.pack(kind, value)
    if 0 < value < 1 << 64:
        return b"L" + struct.pack(">Q", value)
    raise ValueError(f"{value} does not fit 64 bits")


def _array(value: Sequence[Any], depth: int) -> bytes:
    if depth >= MAX_DEPTH:
        raise ValueError(f"arrays are nested more than {MAX_DEPTH} deep")
    return b"A" + length_prefixed(b"".join([encode_value(item, depth + 1) for item in value]))


def encode_content_header(properties: Properties, body_size: int) -> bytes:
    """Encode the payload of a content header frame: class, weight, body size, flags, properties.

    Raises:
        TypeError, ValueError: a property does not fit its AMQP type; the message names it.
    """
    flags, parts, name = 0, [], ""
    try:
        for (bit, name, encode), value in zip(PROPERTIES, _values_of(properties)):  # noqa: B007,B905 - every message
            if value is not None:
                flags |= bit
                parts.append(encode(value))
    except (TypeError, ValueError, AttributeError, struct.error) as error:
        raise ValueError(f"property {name}: {error}") from None
    return _HEADER.pack(_CLASS_BASIC, 0, body_size, flags) + b"".join(parts)


def length_prefixed(data: bytes) -> bytes:
    """Put the length before a long string, or before a table of these entries."""
    return _LENGTH.pack(len(data)) + data


def _short(text: str) -> bytes:
    data = text.encode("utf-8", "surrogateescape")
    if len(data) > 255:
        raise ValueError(f"{len(data)} bytes long, AMQP allows 255")
    return bytes((len(data),)) + data


def _octet(value: int) -> bytes:
    return struct.pack(">B", value)


def _timestamp(value: datetime | int) -> bytes:
    """Encode a timestamp in whole seconds; a number is encoded as the producer sent it."""
    seconds = value if isinstance(value, int) else timegm(value.utctimetuple())
    if not 0 <= seconds < 1 << 64:
        raise ValueError(f"{value} is before 1970 or does not fit 64 bits")
    return struct.pack(">Q", seconds)


def _decimal(value: Decimal) -> bytes:
    sign, digits, exponent = value.as_tuple()
    if not isinstance(exponent, int):
        raise TypeError(f"{value} is not a number")
    scale = max(0, -exponent)
    unscaled = int("".join(map(str, digits)) or "0") * (-1 if sign else 1)
    if scale > 255 or exponent > 10 or not -(1 << 31) <= unscaled * 10 ** max(0, exponent) < 1 << 31:
        raise ValueError(f"the decimal {value} does not fit 32 bits and 255 places")
    return struct.pack(">Bi", scale, unscaled * 10 ** max(0, exponent))


_KINDS: tuple[tuple[type, Callable[[Any, int], bytes]], ...] = (
    (bool, lambda value, _: b"t\x01" if value else b"t\x00"),
    (str, _text),
    (int, _int),
    (float, lambda value, _: b"d" + struct.pack(">d", value)),
    (bytearray, lambda value, _: b"x" + length_prefixed(bytes(value))),
    (bytes, lambda value, _: b"S" + length_prefixed(value)),
    (datetime, lambda value, _: b"T" + _timestamp(value)),
    (Decimal, lambda value, _: b"D" + _decimal(value)),
    (Mapping, lambda value, depth: b"F" + encode_table(value, depth + 1)),
    (list, _array),
    (tuple, _array),
)
_ENCODERS: dict[type, Callable[[Any, int], bytes]] = {
    type(None): lambda _, __: b"V",
    dict: lambda value, depth: b"F" + encode_table(value, depth + 1),
    **dict(_KINDS),
}
PROPERTIES: tuple[tuple[int, str, Callable[[Any], bytes]], ...] = (
    (1 << 15, "content_type", _short),
    (1 << 14, "content_encoding", _short),
    (1 << 13, "headers", encode_table),
    (1 << 12, "delivery_mode", _octet),
    (1 << 11, "priority", _octet),
    (1 << 10, "correlation_id", _short),
    (1 << 9, "reply_to", _short),
    (1 << 8, "expiration", _short),
    (1 << 7, "message_id", _short),
    (1 << 6, "timestamp", _timestamp),
    (1 << 5, "type", _short),
    (1 << 4, "user_id", _short),
    (1 << 3, "app_id", _short),
    (1 << 2, "cluster_id", _short),
)
_values_of = attrgetter(*(name for _, name, _ in PROPERTIES))
