"""Decode what a producer put into a message's properties, whatever it is.

A producer can send invalid texts and dates: RabbitMQ stores and delivers them without a look. A decoder that raises
inside a connection's reader ends the connection, again and again. So nothing but a table that is cut short, or nested
without measure, is an error, and what was read is encoded to the same values again (`wire`).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from .properties import Properties
from .wire import MAX_DEPTH, PROPERTIES

LAST_SECOND = 253_402_300_799  #: the last second of the year 9999, the largest that a datetime can hold

_SCALARS = {
    ord("b"): struct.Struct(">b"),
    ord("B"): struct.Struct(">B"),
    ord("s"): struct.Struct(">h"),
    ord("u"): struct.Struct(">H"),
    ord("I"): struct.Struct(">i"),
    ord("i"): struct.Struct(">I"),
    ord("l"): struct.Struct(">q"),
    ord("L"): struct.Struct(">Q"),
    ord("f"): struct.Struct(">f"),
    ord("d"): struct.Struct(">d"),
}
_LENGTH = struct.Struct(">I")
_LONG = struct.Struct(">Q")


def decode_content_header(payload: bytes) -> Properties:
    """Read the properties in the payload of a content header frame; what is absent is None.

    Raises:
        ValueError: the header table is cut short, has a type that AMQP 0-9-1 does not know, or is nested too deeply.
    """
    return decode_properties(payload, _headers)


def decode_properties(payload: bytes, headers: Callable[[bytes, int], tuple[Any, int]]) -> Properties:
    """Read the properties, the header table by `headers`. Raises ValueError."""
    found: dict[str, Any] = {}
    at = 14
    try:
        (flags,) = struct.unpack_from(">H", payload, 12)
        for bit, name, decode in _PROPERTIES:
            if flags & bit:
                found[name], at = (headers if bit == _HEADERS else decode)(payload, at)
    except (struct.error, IndexError):
        raise ValueError("the properties are cut short") from None
    return Properties(**found)


def decode_short(data: bytes, at: int) -> tuple[str, int]:
    """Read a short string, and return where it ends. Bytes that are not UTF-8 become lone surrogates."""
    end = at + 1 + data[at]
    if end > len(data):
        raise ValueError("a short string is cut short")
    return data[at + 1 : end].decode("utf-8", "surrogateescape"), end


def decode_value(data: bytes, at: int) -> Any:
    """Read a field value, at its type octet. Raises ValueError."""
    if data[at] == _TEXT:  # most are
        return _text(data[at + 5 : skip_value(data, at)])
    decode = _DECODERS.get(data[at])
    if decode is None:
        raise ValueError(f"AMQP 0-9-1 has no type {chr(data[at])!r}")
    try:
        return decode(data, at + 1, 1)[0]
    except (struct.error, IndexError):
        raise ValueError("a value is cut short") from None


def _octet(data: bytes, at: int) -> tuple[int, int]:
    return data[at], at + 1


def _timestamp(data: bytes, at: int) -> tuple[datetime | int, int]:
    (seconds,) = _LONG.unpack_from(data, at)
    return seconds if seconds > LAST_SECOND else datetime.fromtimestamp(seconds, UTC), at + 8


def _headers(data: bytes, at: int) -> tuple[dict[str, Any], int]:
    return _table(data, at, 1)


_UNKNOWN, _SIZED = 255, 254
_SIZES = bytearray([_UNKNOWN] * 256)  # by type octet: bytes that a value takes, or that its length comes first
for _size, _kinds in {0: b"V", 1: b"tbB", 2: b"su", 4: b"Iif", 5: b"D", 8: b"lLdT", _SIZED: b"SxFA"}.items():
    for _kind in _kinds:
        _SIZES[_kind] = _size
_NAMES: dict[bytes, str] = {}  # header names that were read before; there are few different ones
_MOST_NAMES = 1024
_TEXT = ord("S")


def _table(data: bytes, at: int, depth: int) -> tuple[dict[str, Any], int]:
    at, end = _extent(data, at, depth)
    table: dict[str, Any] = {}
    names, length = _NAMES.get, _LENGTH.unpack_from
    while at < end:
        start = at + 1 + data[at]
        key = names(data[at + 1 : start]) or decode_name(data, at)
        kind = data[start]
        if kind == _TEXT:  # most are
            at = start + 5 + length(data, start + 1)[0]
            if at > len(data):
                raise ValueError("a table is cut short")
            raw = data[start + 5 : at]
            try:
                table[key] = raw.decode()
            except UnicodeDecodeError:
                table[key] = raw
            continue
        decode = _DECODERS.get(kind)
        if decode is None:
            raise ValueError(f"AMQP 0-9-1 has no type {chr(kind)!r}")
        table[key], at = decode(data, start + 1, depth)
    if at != end:
        raise ValueError("a table is cut short")
    return table, end


def scan_table(data: bytes, at: int) -> dict[str, int]:
    """Return where each entry of a field table begins, at its name, without decoding the values.

    Raises ValueError: it is cut short, or has a type that AMQP 0-9-1 does not know.
    """
    end = skip_table(data, at)
    at += 4
    begins: dict[str, int] = {}
    names, sizes, length = _NAMES.get, _SIZES, _LENGTH.unpack_from
    try:
        while at < end:
            value = at + 1 + data[at]
            begins[names(data[at + 1 : value]) or decode_name(data, at)] = at
            size = sizes[data[value]]
            if size < _SIZED:
                at = value + 1 + size
            elif size == _SIZED:
                at = value + 5 + length(data, value + 1)[0]
            else:
                raise ValueError(f"AMQP 0-9-1 has no type {chr(data[value])!r}")
    except (struct.error, IndexError):
        at = end + 1
    if at != end:
        raise ValueError("a table is cut short")
    return begins


def skip_table(data: bytes, at: int) -> int:
    """Return where the field table at `at` ends. Raises ValueError: it is cut short."""
    try:
        end = at + 4 + int(_LENGTH.unpack_from(data, at)[0])
    except struct.error:
        end = len(data) + 1
    if end > len(data):
        raise ValueError("a table is cut short")
    return end


def skip_value(data: bytes, at: int) -> int:
    """Return where the field value ends whose type octet is at `at`, in a table that was scanned."""
    size = _SIZES[data[at]]
    return at + 1 + size if size < _SIZED else at + 5 + int(_LENGTH.unpack_from(data, at + 1)[0])


def decode_name(data: bytes, at: int) -> str:
    """Read a header name, and remember it. Raises ValueError."""
    raw = data[at + 1 : at + 1 + data[at]]
    name = _NAMES.get(raw)
    if name is None:
        name, _ = decode_short(data, at)
        if len(_NAMES) < _MOST_NAMES:
            _NAMES[raw] = name
    return name


def _array(data: bytes, at: int, depth: int) -> tuple[list[Any], int]:
    at, end = _extent(data, at, depth)
    array: list[Any] = []
    while at < end:
        decode = _DECODERS.get(data[at])
        if decode is None:
            raise ValueError(f"AMQP 0-9-1 has no type {chr(data[at])!r}")
        value, at = decode(data, at + 1, depth)
        array.append(value)
    if at != end:
        raise ValueError("an array is cut short")
    return array, end


def _extent(data: bytes, at: int, depth: int) -> tuple[int, int]:
    if depth > MAX_DEPTH:
        raise ValueError(f"tables are nested more than {MAX_DEPTH} deep")
    end = at + 4 + int(_LENGTH.unpack_from(data, at)[0])
    if end > len(data):
        raise ValueError("a table is cut short")
    return at + 4, end


def _scalar(kind: struct.Struct) -> Callable[[bytes, int, int], tuple[Any, int]]:
    def decode(data: bytes, at: int, _: int) -> tuple[Any, int]:
        return kind.unpack_from(data, at)[0], at + kind.size

    return decode


def _long_string(data: bytes, at: int, depth: int) -> tuple[str | bytes, int]:
    start, end = _extent(data, at, depth)
    return _text(data[start:end]), end


def _byte_array(data: bytes, at: int, depth: int) -> tuple[bytearray, int]:
    start, end = _extent(data, at, depth)
    return bytearray(data[start:end]), end


def _bool(data: bytes, at: int, _: int) -> tuple[bool, int]:
    return data[at] != 0, at + 1


def _decimal(data: bytes, at: int, _: int) -> tuple[Decimal, int]:
    scale, unscaled = struct.unpack_from(">Bi", data, at)
    return Decimal((int(unscaled < 0), tuple(map(int, str(abs(unscaled)))), -scale)), at + 5


def _text(raw: bytes) -> str | bytes:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


_DECODERS: dict[int, Callable[[bytes, int, int], tuple[Any, int]]] = {
    **{kind: _scalar(layout) for kind, layout in _SCALARS.items()},
    ord("S"): _long_string,
    ord("x"): _byte_array,
    ord("t"): _bool,
    ord("F"): lambda data, at, depth: _table(data, at, depth + 1),
    ord("A"): lambda data, at, depth: _array(data, at, depth + 1),
    ord("T"): lambda data, at, _: _timestamp(data, at),
    ord("V"): lambda _, at, __: (None, at),
    ord("D"): _decimal,
}
_HEADERS = 1 << 13
_DECODERS_OF_PROPERTIES: dict[str, Callable[[bytes, int], tuple[Any, int]]] = {
    "headers": _headers,
    "delivery_mode": _octet,
    "priority": _octet,
    "timestamp": _timestamp,
}
_PROPERTIES = tuple((bit, name, _DECODERS_OF_PROPERTIES.get(name, decode_short)) for bit, name, _ in PROPERTIES)
