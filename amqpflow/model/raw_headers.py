"""Headers that are decoded when they are asked for, and copied as the bytes they came in.

Most of what travels with a message is never looked at: an ack needs none of it, a retry and a replay a few of our own
headers.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from .wire_decode import decode_value, scan_table, skip_table, skip_value

_NESTING = frozenset(b"FA")


class RawHeaders(Mapping[str, Any]):
    """A field table in the bytes it came in.

    Asking for a value decodes it, and raises ValueError when it cannot be: the table's own entries are known to be
    whole; nested values are not checked before.
    """

    __slots__ = ("_at", "_begins", "_data", "_decoded")

    def __init__(self, data: bytes, at: int) -> None:
        """Scan the field table whose length is at `at`. Raises ValueError as `scan_table` does."""
        self._data = data
        self._at = at
        self._begins = scan_table(data, at)
        self._decoded: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        decoded = self._decoded
        if name in decoded:
            return decoded[name]
        begin = self._begins[name]
        value = decoded[name] = decode_value(self._data, begin + 1 + self._data[begin])
        return value

    def get(self, name: str, default: Any = None) -> Any:
        """Get a value as dict.get does."""
        return self[name] if name in self._begins else default

    def __contains__(self, name: object) -> bool:
        return name in self._begins

    def __iter__(self) -> Iterator[str]:
        return iter(self._begins)

    def __len__(self) -> int:
        return len(self._begins)

    def __repr__(self) -> str:
        return f"RawHeaders({list(self._begins)})"

    def make_readable(self) -> None:
        """Replace values that cannot be decoded, which are nested ones, by the bytes that they came in."""
        data = self._data
        for name, begin in self._begins.items():
            value = begin + 1 + data[begin]
            if data[value] in _NESTING:
                try:
                    self[name]
                except ValueError:
                    self._decoded[name] = bytearray(data[value : skip_value(data, value)])

    def encoded(self, *, without: Collection[str], prefix: str | tuple[str, ...] = ()) -> bytes:
        """Encode the entries as they came, without a length, but those named and those that begin with `prefix`."""
        data = self._data
        return b"".join(
            [
                data[begin : skip_value(data, begin + 1 + data[begin])]
                for name, begin in self._begins.items()
                if name not in without and not name.startswith(prefix)
            ]
        )

    def entries(self, *, without: Collection[str]) -> list[bytes]:
        """Return all other entries, as bytes. Where a name comes twice, the first is part of the entry before it."""
        data, begins = self._data, self._begins
        if not begins:
            return []
        end = skip_table(data, self._at)
        skipped = {begins[name] for name in without if name in begins}
        starts = sorted(begins.values())
        found = [data[self._at + 4 : starts[0]]] if starts[0] > self._at + 4 else []
        for begin, until in zip(starts, [*starts[1:], end], strict=True):
            at = skip_value(data, begin + 1 + data[begin]) if begin in skipped else begin
            if at < until:
                found.append(data[at:until])
        return found
