"""Publish copies in bulk, and know of each what became of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from amqpflow.errors import BrokerUnavailable
from amqpflow.model.content_header import ContentHeader
from amqpflow.model.headers import HOP
from amqpflow.model.message import Publish
from amqpflow.model.record import text_of
from amqpflow.parking.journal import Key
from amqpflow.parking.parked import ParkedMessage
from amqpflow.rabbitmq.bulk import CLOSE_TIMEOUT, BulkChannel
from amqpflow.rabbitmq.connection import Connection

from .outbox import publish_alone


@dataclass(slots=True, kw_only=True)
class Flight:
    """A message on its way."""

    number: int  #: in the journal
    parked: ParkedMessage
    copy: Publish
    key: Key
    sent_at: float = 0.0  #: seconds of the event loop
    returned: str | None = None  #: what the broker said

    @property
    def tag(self) -> int:
        return self.parked.delivery.delivery_tag


class ReplayOutbox:
    """
    One publishing connection, separate from the reading one: what closes it takes no delivery along, and a broker
    short of memory or disk, which stops reading from connections that publish, still reads acks.

    Two copies with one hop id are never on their way together: a return names nothing else.
    """

    def __init__(self, connect: Callable[[], Awaitable[Connection]], news: asyncio.Event) -> None:
        self._connect = connect
        self._news = news  # set when there is something new
        self._connection: Connection | None = None
        self._channel: BulkChannel | None = None
        self._flying: dict[int, Flight] = {}  # by the channel's number, in their order
        self._hops: dict[str, Flight] = {}
        self._low = 1
        self.confirmed: list[Flight] = []
        self.refused: list[Flight] = []
        self.returned: list[Flight] = []
        self.uncertain: list[Flight] = []  #: the channel closed before their confirm

    async def open(self) -> None:
        """Connect. Raises BrokerUnavailable and its kin."""
        self._connection = await self._connect()
        await self._open_channel()

    async def _open_channel(self) -> None:
        if self._connection is None or self._connection.is_closed:
            raise BrokerUnavailable("the publishing connection was lost")
        self._low = 1
        self._channel = await self._connection.open_bulk_channel(
            on_confirm=self._on_confirm, on_return=self._on_return, on_close=self._on_close
        )

    async def reopen(self) -> None:
        """
        A new channel, when nothing is on its way: RabbitMQ 3.10 goes on to refuse on a channel after the limit of the
        queue was lifted.
        """
        if self._channel is not None and not self._flying:
            await self._channel.close()
            await self._open_channel()

    @property
    def in_flight(self) -> int:
        return len(self._flying)

    @property
    def oldest_sent_at(self) -> float | None:
        """Seconds of the event loop; None when nothing is on its way."""
        first = next(iter(self._flying.values()), None)
        return first.sent_at if first else None

    async def closed_by_publish(self) -> str | None:
        """What the broker said, when a publish made it close the channel; None when the connection was lost."""
        if self._channel is None:
            return None
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await self._channel.closed.wait()
        except TimeoutError:
            return None
        return self._channel.closed_by_publish

    def is_flying(self, hop: str) -> bool:
        """A copy with this hop id is on its way."""
        return hop in self._hops

    async def send(self, flights: Sequence[Flight]) -> None:
        """Publish. What becomes of each is found in the lists; when the channel is closed, in `uncertain`."""
        channel, now = self._channel, asyncio.get_running_loop().time()
        if channel is None or channel.is_closed:
            self.uncertain += flights
            return
        for number, flight in enumerate(flights, channel.published + 1):
            flight.sent_at = now
            flight.returned = None
            self._flying[number] = self._hops[flight.copy.identity] = flight
        await channel.publish([flight.copy for flight in flights])

    async def send_alone(self, flight: Flight) -> None:
        """Publish on a channel of its own. Raises as `publish_alone`."""
        if self._connection is None or self._connection.is_closed:
            raise BrokerUnavailable("the publishing connection was lost")
        await publish_alone(self._connection, flight.copy)

    def give_up(self) -> list[Flight]:
        """What is on its way, and is not waited for any more."""
        left = list(self._flying.values())
        self._flying.clear()
        self._hops.clear()
        return left

    def _on_confirm(self, tag: int, multiple: bool, acknowledged: bool) -> None:
        if multiple:
            numbers = range(self._low, tag + 1) if tag else range(self._low, self._low + len(self._flying))
            self._low = max(self._low, tag + 1)
        else:
            numbers = range(tag, tag + 1)
        for number in numbers:
            flight = self._flying.pop(number, None)
            if flight is None:
                continue
            self._hops.pop(flight.copy.identity, None)
            if flight.returned is not None:
                self.returned.append(flight)
            elif acknowledged:
                self.confirmed.append(flight)
            else:
                self.refused.append(flight)
        self._news.set()

    def _on_return(self, text: str, _exchange: str, _key: str, header: bytes) -> None:
        try:
            hop = text_of(ContentHeader(header).headers.get(HOP))
        except ValueError:
            hop = None
        found = self._hops.get(hop) if hop else None
        # one that cannot be recognised may be any of them: better a second copy than none
        for flight in self._flying.values() if found is None else (found,):
            flight.returned = text

    def _on_close(self) -> None:
        self.uncertain += self.give_up()
        self._news.set()

    async def close(self) -> None:
        """Disconnect for good."""
        if self._connection is not None:
            connection, self._connection = self._connection, None
            await connection.close()
