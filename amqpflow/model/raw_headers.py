"""Headers that are decoded when they are asked for, and copied as the bytes they came in.

Replaying a message takes a look at a few of its headers and hands on the others unchanged: most are never decoded, and
those that travel are not encoded again. That is a third of the work of a replay.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from .message import Properties
from .wire_decode import decode_name, decode_properties, decode_value

_LENGTH = struct.Struct(">I")
_SIZED = frozenset(b"SxFA")  # types whose value begins with its length
_NESTING = frozenset(b"FA")
_SIZES = {kind: size for size, kinds in {0: b"V", 1: b"tbB", 2: b"su", 4: b"Iif", 5: b"D", 8: b"lLdT"}.items()
          for kind in kinds}  # fmt: skip


class RawHeaders(Mapping[str, Any]):
    """A field table in the bytes it came in. Reading an entry decodes it, which nothing in it can hinder."""

    __slots__ = ("_data", "_read", "_spans")

    def __init__(self, data: bytes, spans: dict[str, tuple[int, int, int]], read: dict[str, Any]) -> None:
        self._data = data
        self._spans = spans  # name -> where its name begins, its value, and what follows
        self._read = read

    def __getitem__(self, name: str) -> Any:
        if name in self._read:
            return self._read[name]
        value = self._read[name] = decode_value(self._data, self._spans[name][1])
        return value

    def get(self, name: str, default: Any = None) -> Any:
        """As dict.get."""
        return self[name] if name in self._spans else default

    def __contains__(self, name: object) -> bool:
        return name in self._spans

    def __iter__(self) -> Iterator[str]:
        return iter(self._spans)

    def __len__(self) -> int:
        return len(self._spans)

    def encoded(self, *, without: Collection[str], prefix: str) -> bytes:
        """The entries as they came, as in a table without its length, but those named and those that begin so."""
        data = self._data
        return b"".join(
            [
                data[begin:end]
                for name, (begin, _, end) in self._spans.items()
                if name not in without and not name.startswith(prefix)
            ]
        )


def decode_content_header_lazily(payload: bytes) -> Properties:
    """
    As `decode_content_header`, with headers that are `RawHeaders`.

    Raises:
        ValueError: the header table is cut short, has a type that AMQP 0-9-1 does not know, or is nested too deeply.
    """
    return decode_properties(payload, _scan)


def _scan(data: bytes, at: int) -> tuple[RawHeaders, int]:
    end = at + 4 + _LENGTH.unpack_from(data, at)[0]
    if end > len(data):
        raise ValueError("a table is cut short")
    at += 4
    spans: dict[str, tuple[int, int, int]] = {}
    read: dict[str, Any] = {}
    while at < end:
        begin, value = at, at + 1 + data[at]
        name = decode_name(data, at)
        kind = data[value]
        if kind in _SIZED:
            at = value + 5 + _LENGTH.unpack_from(data, value + 1)[0]
        else:
            size = _SIZES.get(kind)
            if size is None:
                raise ValueError(f"AMQP 0-9-1 has no type {chr(kind)!r}")
            at = value + 1 + size
        if at > end:
            raise ValueError("a table is cut short")
        if kind in _NESTING:  # whether it can be decoded is known when it is; most of these are read anyway
            read[name] = decode_value(data, value)
        spans[name] = (begin, value, at)
    return RawHeaders(data, spans, read), end
