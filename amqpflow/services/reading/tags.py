"""The delivery tags that a reading holds: a byte for each delivery, and never the message.

A channel counts its deliveries from 1 without gaps, so a tag is a position.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(slots=True)
class WindowConsumer:
    prefetch: int
    tag: str = ""  #: the consumer's; empty once it was cancelled
    first: int = 0  #: the first delivery tag
    received: int = 0
    acked: int = 0
    kept: int = 0  #: of those held, how many stay until the end

    @property
    def held(self) -> int:
        return self.received - self.acked

    @property
    def is_full(self) -> bool:
        """Tell whether kept deliveries leave it little room."""
        return self.prefetch - self.kept <= self.prefetch // 4


class HeldTags:
    """The deliveries of one channel, consumer by consumer."""

    def __init__(self) -> None:
        self.consumers: list[WindowConsumer] = []
        self.received = 0
        self._acked = bytearray(1)  # by delivery tag; there is no tag 0
        self._low = 1  # the first tag that is not acked

    @property
    def held(self) -> int:
        return sum(consumer.held for consumer in self.consumers)

    def take(self, delivery_tag: int) -> None:
        consumer = self.consumers[-1]
        consumer.first = consumer.first or delivery_tag
        consumer.received += 1
        self.received += 1
        self._acked.append(0)

    def consumer_of(self, delivery_tag: int) -> WindowConsumer:
        latest = self.consumers[-1]
        if latest.first and latest.first <= delivery_tag:
            return latest
        consumers = [consumer for consumer in self.consumers if consumer.first]
        return consumers[bisect_right(consumers, delivery_tag, key=lambda consumer: consumer.first) - 1]

    def ack(self, delivery_tags: Iterable[int]) -> tuple[int, list[int]]:
        """Settle deliveries that are held.

        Returns:
            A tag up to which nothing is held any more, which one ack with `multiple` says; 0 when something before
            all of them is. It is one of those given: an ack for a tag that was acked closes the channel (fact 6.16).
            And the tags above it, which take an ack each, since something before them stays.
        """
        tags = sorted(delivery_tags)
        for tag in tags:
            self._acked[tag] = 1
            self.consumer_of(tag).acked += 1
        while self._low < len(self._acked) and self._acked[self._low]:
            self._low += 1
        below = bisect_right(tags, self._low - 1)
        return (tags[below - 1] if below else 0), tags[below:]

    def last_held(self, consumer: WindowConsumer) -> int:
        """Return the last unsettled tag of a consumer, or 0. An ack for a tag that was acked closes the channel."""
        tag = consumer.first + consumer.received - 1
        while tag >= consumer.first > 0 and self._acked[tag]:
            tag -= 1
        return tag if tag >= consumer.first > 0 else 0
