"""Where messages are: what lies in each parking queue, and what came to the work queues."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from amqpflow.errors import BrokerError
from amqpflow.model import headers as h
from amqpflow.model.message import Delivery, Publish
from amqpflow.model.properties import Properties
from amqpflow.rabbitmq.connection import Connection
from amqpflow.rabbitmq.translate import translate

PATIENCE = 60.0  #: seconds
MARKER = "marker"  #: the type of messages that are none of anybody's


@dataclass(frozen=True, kw_only=True)
class Content:
    """What a handler would see of a message: two with the same content are two all the same."""

    message_id: str | None
    body: bytes
    number: int | None = None  #: a header of its own, by which messages differ that have all else in common

    def __repr__(self) -> str:
        return f"<{self.message_id} {self.body.decode()!r} {self.number}>"


@dataclass(frozen=True, kw_only=True)
class Copy:
    """A message in a queue."""

    place: str  #: the queue it lies in
    origin: str | None  #: the work queue it failed in; in a work queue that queue
    content: Content
    hop: str | None
    error_type: str | None = None
    delivery: Delivery = field(repr=False, compare=False)


def copy_of(place: str, delivery: Delivery) -> Copy:
    headers = delivery.properties.headers or {}
    deaths = [each for each in headers.get("x-death", ()) if not each["queue"].endswith("parking")]
    origin = headers.get(h.QUEUE) or (deaths[0]["queue"] if deaths else None)
    return Copy(
        place=place,
        origin=origin,
        content=Content(message_id=delivery.properties.message_id, body=delivery.body, number=headers.get("number")),
        hop=headers.get(h.HOP),
        error_type=headers.get(h.ERROR_TYPE),
        delivery=delivery,
    )


class Places:
    """Looks at queues, on one connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._asking: Any = None

    async def counts(self, queue: str) -> tuple[int, int]:
        """Ready messages and consumers."""
        if self._asking is None:
            self._asking = await self._connection.admin_channel()
        answer = await self._asking.queue_declare(queue, passive=True)
        return int(answer.message_count), int(answer.consumer_count)

    async def becomes(self, queue: str, ready: int) -> None:
        """Return when the queue has so many ready messages."""
        async with asyncio.timeout(PATIENCE):
            while (await self.counts(queue))[0] != ready:
                await asyncio.sleep(0.005)

    async def look(self, queues: Iterable[str]) -> list[Copy]:
        """What is ready in some queues, which keep all of it, in its order."""
        found = await asyncio.gather(*(self._held(queue, keep=True) for queue in queues))
        return [copy for each in found for copy in each]

    async def take(self, queues: Iterable[str]) -> list[Copy]:
        """What is ready in some queues, which are empty then."""
        found = await asyncio.gather(*(self._held(queue, keep=False) for queue in queues))
        return [copy for each in found for copy in each]

    async def _held(self, queue: str, *, keep: bool) -> list[Copy]:
        count, _ = await self.counts(queue)
        if not count:
            return []
        channel = await self._connection.open_channel()
        found: list[Delivery] = []
        enough = asyncio.Event()

        def take(delivery: Delivery) -> None:
            found.append(delivery)
            if len(found) == count:
                enough.set()

        tag = await channel.consume(queue, take, prefetch=count, on_cancel=lambda: None)
        async with asyncio.timeout(PATIENCE):
            await enough.wait()
        await channel.cancel(tag)
        copies = [each for each in found if each.properties.type != MARKER]
        for each in found:
            if not keep or each.properties.type == MARKER:
                channel.ack(each.delivery_tag)
        await channel.drain()
        if copies and keep and self._connection.version >= (4,):
            channel.nack(copies[-1].delivery_tag, multiple=True)
        await channel.close()  # RabbitMQ 3 requeues in order when the channel closes (fact 6.8)
        async with asyncio.timeout(PATIENCE):
            while await self.counts(queue) != (len(copies) if keep else 0, 0):
                await asyncio.sleep(0.005)
        return [copy_of(queue, each) for each in copies]

    async def empty(self, queues: Iterable[str]) -> None:
        channel = await self._connection.admin_channel()
        for queue in queues:
            if (await self.counts(queue))[0]:
                await channel.queue_purge(queue)
        await channel.close()

    async def gone(self, operator: str, connections: int) -> None:
        """Return when the broker has ended the connections of a process, of which there may have been so many."""
        async with asyncio.timeout(PATIENCE):
            for number in range(connections):
                while await self._exists(f"{operator}.{number}"):
                    await asyncio.sleep(0.005)

    async def settled(self, queues: Iterable[str]) -> None:
        """Return when quorum queues have done what they were told so far.

        They learn later than others that the connection of a consumer has ended, and requeue then: what is confirmed
        now comes behind that in their log. Each holds a marker then, which `look` and `take` remove.
        """
        channel = await self._connection.open_channel()
        marker = Properties(type=MARKER, message_id=MARKER, delivery_mode=2)
        await asyncio.gather(
            *(
                channel.publish(Publish.of(exchange="", routing_key=queue, properties=marker, body=b""))
                for queue in queues
            )
        )
        await channel.close()

    async def _exists(self, exclusive_queue: str) -> bool:
        channel = await self._connection.admin_channel()
        try:
            with translate():
                await channel.queue_declare(exclusive_queue, passive=True)
        except BrokerError as error:
            if error.code not in (404, 405):
                raise
            return error.code == 405
        await channel.close()
        return True
