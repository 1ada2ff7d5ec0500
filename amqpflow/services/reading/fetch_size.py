"""How many messages the broker may be asked for at once: it fills a prefetch headers, bodies and all."""

from __future__ import annotations

from amqpflow.model.message import Delivery

MAX_PREFETCH = 65_535
AT_ONCE_BYTES = 256 * 1024 * 1024
"""What the broker may have to read into memory for us at once."""
AT_ONCE_UNKNOWN = 2_000  #: messages, when nothing is known of their size
LARGEST_HEADERS = 128 * 1024
"""Bytes of headers to expect of a message before any was seen: statistics count bodies alone; a frame holds no more."""


class FetchSize:
    """Learns the size of messages from those that arrive. `average_bytes`: of a body, when known."""

    def __init__(self, average_bytes: float | None) -> None:
        self._average_bytes = average_bytes
        self._count = self._body_bytes = self._header_bytes = 0

    def add(self, delivery: Delivery) -> None:
        self._count += 1
        self._body_bytes += len(delivery.body)
        self._header_bytes += len(delivery.header.payload)

    def messages(self) -> int:
        if self._count:
            body = max(self._average_bytes or 0, self._body_bytes / self._count)
            header = self._header_bytes / self._count
        elif self._average_bytes:
            body, header = self._average_bytes, LARGEST_HEADERS
        else:
            return AT_ONCE_UNKNOWN
        return max(1, min(MAX_PREFETCH, int(AT_ONCE_BYTES / (body + header))))
