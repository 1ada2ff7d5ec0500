"""Publish the copies of a replay, and know of each what became of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from amqpflow.errors import AmqpflowError, BrokerUnavailable, PublishRefused, Unroutable
from amqpflow.model.message import Publish
from amqpflow.parking.journal import Key
from amqpflow.parking.parked import ParkedMessage
from amqpflow.rabbitmq.channel import CLOSE_TIMEOUT, Channel
from amqpflow.rabbitmq.connection import Connection

from .outbox import publish_alone


@dataclass(slots=True, kw_only=True, eq=False)
class Flight:
    """A message on its way."""

    number: int  #: in the journal
    parked: ParkedMessage
    copy: Publish
    key: Key
    sent_at: float = 0.0  #: seconds of the event loop

    @property
    def tag(self) -> int:
        return self.parked.delivery.delivery_tag


class ReplayOutbox:
    """
    One publishing connection, separate from the reading one: what closes it takes no delivery along, and a broker
    short of memory or disk, which stops reading from connections that publish, still reads acks.
    """

    def __init__(self, connect: Callable[[], Awaitable[Connection]], news: asyncio.Event) -> None:
        self._connect = connect
        self._news = news  # set when there is something new
        self._connection: Connection | None = None
        self._channel: Channel | None = None
        self._flying: dict[int, Flight] = {}  # by the number in the journal, in the order of sending
        self._returnable: set[tuple[str, str, str]] = set()  # of those, what a return names
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
        self._channel = await self._connection.open_channel()

    async def reopen(self) -> None:
        """
        Open another channel if no publish is without a confirm: RabbitMQ 3.10 continues to refuse on a channel after
        the limit of the queue was lifted.
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

    def is_flying(self, same: tuple[str, str, str]) -> bool:
        """Whether a copy with this `returned_as` is on its way."""
        return same in self._returnable

    async def send(self, flights: Sequence[Flight]) -> None:
        """
        Publish. What becomes of each is found in the lists; when the channel is closed, in `uncertain`.

        Returns when the socket has taken what was written; no two of `flights`, and none that is on its way, may be
        the same to a return (`is_flying`), or the second would wait for the confirm of the first.
        """
        channel, now = self._channel, asyncio.get_running_loop().time()
        if channel is None or channel.is_closed:
            self.uncertain += flights
            return
        for flight in flights:
            flight.sent_at = now
            self._flying[flight.number] = flight
            self._returnable.add(flight.copy.returned_as)
            channel.post(flight.copy, lambda error, flight=flight: self._settled(flight, error))  # type: ignore[misc]
        try:
            await channel.room()
        except BrokerUnavailable:
            pass  # `settled` is called for each of them

    def _settled(self, flight: Flight, error: AmqpflowError | None) -> None:
        if self._flying.get(flight.number) is not flight:
            return  # it is not waited for any more
        del self._flying[flight.number]
        self._returnable.discard(flight.copy.returned_as)
        match error:
            case None:
                self.confirmed.append(flight)
            case Unroutable():
                self.returned.append(flight)
            case PublishRefused():
                self.refused.append(flight)
            case _:
                self.uncertain.append(flight)
        self._news.set()

    async def send_alone(self, flight: Flight) -> None:
        """Publish on a channel of its own. Raises as `publish_alone`."""
        if self._connection is None or self._connection.is_closed:
            raise BrokerUnavailable("the publishing connection was lost")
        await publish_alone(self._connection, flight.copy)

    def give_up(self) -> list[Flight]:
        """Stop waiting for what is on its way, and return it."""
        left = list(self._flying.values())
        self._flying.clear()
        self._returnable.clear()
        return left

    async def close(self) -> None:
        """Disconnect for good."""
        if self._connection is not None:
            connection, self._connection = self._connection, None
            await connection.close()
