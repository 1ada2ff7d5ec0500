"""The channels of a reading, and the deliveries that each holds.

RabbitMQ looks for a delivery that is acked among those that its channel holds, from the oldest on: an ack takes the
longer the more is held before it on the same channel (fact 6.18). So a long queue is held by several channels, each of
them a part of it without gaps, one after the other.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby

from amqpflow.rabbitmq.channel import Channel

from .tags import HeldTags, WindowConsumer

MAX_CONSUMERS = 30  #: of a channel; what more of them hold is requeued in the order of a hash table (fact 6.11)


@dataclass(slots=True, kw_only=True, eq=False)
class Holding:
    """The deliveries that one channel holds. The reading's tags are one sequence over all channels."""

    channel: Channel
    before: int  #: deliveries of the channels before it: the reading's tag less this is the channel's
    tags: HeldTags = field(default_factory=HeldTags)

    @property
    def kept(self) -> int:
        return sum(consumer.kept for consumer in self.tags.consumers)

    @property
    def has_room(self) -> bool:
        return len(self.tags.consumers) < MAX_CONSUMERS

    def keep(self, delivery_tag: int) -> None:
        """Hold a delivery until the end."""
        self.tags.consumer_of(delivery_tag - self.before).kept += 1
        self.channel.keep(delivery_tag - self.before)

    def ack(self, delivery_tags: Iterable[int]) -> None:
        gone, singly = self.tags.ack(tag - self.before for tag in delivery_tags)
        if gone:
            self.channel.ack(gone, multiple=True)
        for tag in singly:
            self.channel.ack(tag)

    def nack_all(self) -> None:
        """Requeue all that is held: one nack for each consumer's deliveries, oldest first."""
        for consumer in self.tags.consumers:
            if last := self.tags.last_held(consumer):
                self.channel.nack(last, multiple=True)


class Holdings:
    """The deliveries that a reading holds, channel by channel."""

    def __init__(self) -> None:
        self.all: list[Holding] = []

    def __iter__(self) -> Iterator[Holding]:
        return iter(self.all)

    @property
    def received(self) -> int:
        return self.all[-1].before + self.all[-1].tags.received if self.all else 0

    @property
    def latest(self) -> WindowConsumer | None:
        """Return the consumer that was started last."""
        return next((each.tags.consumers[-1] for each in reversed(self.all) if each.tags.consumers), None)

    def open(self, channel: Channel) -> Holding:
        """Add a channel, to which all that is delivered from now on comes."""
        self.all.append(Holding(channel=channel, before=self.received))
        return self.all[-1]

    def take(self, delivery_tag: int) -> None:
        latest = self.all[-1]
        latest.tags.take(delivery_tag - latest.before)

    def of(self, delivery_tag: int) -> Holding:
        """Return the channel that was given a delivery."""
        latest = self.all[-1]
        if latest.before < delivery_tag:
            return latest
        return self.all[bisect_right(self.all, delivery_tag - 1, key=lambda each: each.before) - 1]

    def ack(self, delivery_tags: Iterable[int]) -> None:
        for holding, tags in groupby(sorted(delivery_tags), key=self.of):
            holding.ack(tags)
