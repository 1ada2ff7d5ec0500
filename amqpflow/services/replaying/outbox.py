"""Publish the copies of a replay, and learn of each whether RabbitMQ has it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial

from amqpflow.errors import AmqpflowError, PublishUncertainError
from amqpflow.model.message import Publish
from amqpflow.parking.journal import Key
from amqpflow.parking.parked import ParkedMessage
from amqpflow.rabbitmq.connection import Connection
from amqpflow.services.publishing.outbox import Outbox

Address = tuple[str, str]
"""Exchange and routing key."""


@dataclass(slots=True, kw_only=True, eq=False)
class PendingReplay:
    number: int  #: in the journal
    parked: ParkedMessage
    copy: Publish
    key: Key
    sent_at: float = 0.0  #: seconds of the event loop
    is_uncertain: bool = False  #: an attempt to publish it ended without an answer

    @property
    def tag(self) -> int:
        return self.parked.delivery.delivery_tag

    @property
    def address(self) -> Address:
        return self.copy.exchange, self.copy.routing_key


class ReplayOutbox:
    """One publishing connection, separate from the reading one: what closes it takes no delivery along, and a broker
    short of memory or disk, which stops reading from connections that publish, still reads acks.
    """

    def __init__(self, connect: Callable[[], Awaitable[Connection]], news: asyncio.Event) -> None:
        self._outbox = Outbox(connect)
        self._news = news  # set when there is something new
        self._outstanding: dict[int, PendingReplay] = {}  # by the number in the journal, in the order of sending
        self._returnable: set[tuple[str, str, str]] = set()  # of those, what a return names
        self.confirmed: list[PendingReplay] = []
        self.failed: list[tuple[PendingReplay, AmqpflowError]] = []
        self.has_confirmed = False  #: something, ever

    async def open(self) -> None:
        await self._outbox.open()

    @property
    def blocked(self) -> str | None:
        """Say why the broker blocks publishes now; None when it does not, as far as is known."""
        return self._outbox.blocked

    @property
    def is_open(self) -> bool:
        """Tell whether what is sent now cannot overtake what is published again after its channel was closed."""
        return self._outbox.is_open

    @property
    def outstanding(self) -> int:
        return len(self._outstanding)

    @property
    def oldest_sent_at(self) -> float | None:
        """Return when the oldest outstanding copy was sent, in seconds of the event loop; None when there is none."""
        first = next(iter(self._outstanding.values()), None)
        return first.sent_at if first else None

    def is_outstanding(self, same: tuple[str, str, str]) -> bool:
        return same in self._returnable

    async def send(self, pendings: Sequence[PendingReplay]) -> None:
        """Publish. Each is in one of the lists later, with the error of `Outbox.post`.

        Return when the socket has taken what was written. No two of `pendings`, and none that is outstanding, may be
        the same to a return (`is_outstanding`), or the second would wait for the confirm of the first.
        """
        try:
            await self._outbox.open()  # those that found it closed would not keep their order
        except AmqpflowError as error:
            self.failed += [(each, error) for each in pendings]
            self._news.set()
            return
        now = asyncio.get_running_loop().time()
        for pending in pendings:
            pending.sent_at = now
            self._outstanding[pending.number] = pending
            self._returnable.add(pending.copy.returned_as)
            self._outbox.post(pending.copy, partial(self._settled, pending))
        await self._outbox.room()

    def _settled(self, pending: PendingReplay, error: AmqpflowError | None) -> None:
        if self._outstanding.get(pending.number) is not pending:
            return  # it is not waited for any more
        del self._outstanding[pending.number]
        self._returnable.discard(pending.copy.returned_as)
        if error is None:
            self.has_confirmed = True
            self.confirmed.append(pending)
        else:
            pending.is_uncertain = pending.is_uncertain or isinstance(error, PublishUncertainError)
            self.failed.append((pending, error))
        self._news.set()

    def give_up(self, sent_before: float) -> list[PendingReplay]:
        """Stop waiting for copies that were sent before that time of the event loop, and return them."""
        left = [each for each in self._outstanding.values() if each.sent_at <= sent_before]
        for pending in left:
            del self._outstanding[pending.number]
            self._returnable.discard(pending.copy.returned_as)
        return left

    async def close(self) -> None:
        await self._outbox.close()
