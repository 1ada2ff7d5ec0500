"""Parked messages for tests: made by the code that parks in a consumer, or by RabbitMQ itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from typing import Any

from amqpflow.delivery.incoming import Incoming
from amqpflow.delivery.settle import Circumstances, ToParking, decide
from amqpflow.delivery.verdict import Decided, ErrorRecord
from amqpflow.model.content_header import ContentHeader
from amqpflow.model.message import Delivery, Publish
from amqpflow.model.outcome import Park
from amqpflow.model.properties import Properties
from amqpflow.model.routes import CompiledTopology
from amqpflow.parking.parked import ParkedMessage
from amqpflow.parking.selection import Selection
from amqpflow.rabbitmq.address import BrokerAddress
from amqpflow.rabbitmq.channel import Channel
from amqpflow.rabbitmq.connection import Connection, connect
from amqpflow.rabbitmq.observe import Broker, open_broker
from amqpflow.services.parked import listing as parked_list
from amqpflow.services.parked.listing import ParkedListing
from amqpflow.services.reading.options import ReadOptions
from amqpflow.services.reading.reader import ParkingReader
from amqpflow.services.reading.target import read_target
from tests.topologies import declare
from tests.waiting import until

NOW = 1_790_000_000_000


def delivered(
    queue: str,
    *,
    message_id: str | None = "m",
    headers: Mapping[str, Any] | None = None,
    body: bytes = b"{}",
    exchange: str = "events",
    routing_key: str = "order.placed",
    **properties: Any,
) -> Delivery:
    """A delivery from a work queue, on its first attempt unless the headers say otherwise."""
    return Delivery(
        queue=queue,
        delivery_tag=1,
        redelivered=False,
        exchange=exchange,
        routing_key=routing_key,
        header=ContentHeader.of(Properties(message_id=message_id, headers=headers, **properties)),
        body=body,
    )


def parking_publish(
    compiled: CompiledTopology, delivery: Delivery, *, error: str = "ValueError", text: str = "no", now: int = NOW
) -> Publish:
    """What a consumer publishes when its handler parks the delivery because of an error."""
    settlement = decide(
        Incoming(delivery),
        Decided(
            outcome=Park("told so"),
            error=ErrorRecord(type=error, message=text, location="service.py:10", fingerprint="f" * 16),
        ),
        Circumstances(
            routes=compiled.routes[delivery.queue],
            now=now,
            choice=0.0,
            new_root="root",
            frame_max=131_072,
            host="testhost",
            version="0",
        ),
    )
    assert isinstance(settlement, ToParking)
    return settlement.publish


async def park(connection: Connection, compiled: CompiledTopology, deliveries: Sequence[Delivery]) -> None:
    """Park messages as a consumer does, in this order."""
    await _publish_all(connection, [parking_publish(compiled, each) for each in deliveries])


async def publish(connection: Connection, queue: str, *messages: Properties, body: bytes = b"{}") -> None:
    """Publish straight to a queue, in this order."""
    durable = (replace(each, delivery_mode=2) for each in messages)
    publishes = [Publish.of(exchange="", routing_key=queue, properties=each, body=body) for each in durable]
    await _publish_all(connection, publishes)


async def _publish_all(connection: Connection, publishes: Sequence[Publish]) -> None:
    """In this order, 1,000 at a time: else no heartbeat goes out meanwhile on a busy machine."""
    channel = await connection.open_channel()
    for start in range(0, len(publishes), 1000):
        await asyncio.gather(*map(channel.publish, publishes[start : start + 1000]))
    await channel.close()


async def publish_without_id(connection: Connection, queue: str, count: int, *, body: bytes = b"tick") -> None:
    """Publish messages that have no identity at all; a client library would give them a message id."""
    header = ContentHeader.of(Properties(delivery_mode=2), len(body)).payload
    channel = await connection.open_channel()
    for _ in range(count):
        await channel.publish(Publish(exchange="", routing_key=queue, header=header, body=body, identity="none"))
    await channel.close()


async def parked_by_broker(connection: Connection, compiled: CompiledTopology, queue: str, message_id: str) -> None:
    """A message that RabbitMQ parks because of the delivery limit: its consumer's channel is lost again and again."""
    await publish(connection, queue, Properties(message_id=message_id))
    before = await depth(connection, compiled.routes[queue].parking_queue)
    while await depth(connection, compiled.routes[queue].parking_queue) == before:
        channel = await connection.open_channel()
        got = asyncio.Event()
        await channel.consume(queue, lambda _, got=got: got.set(), prefetch=1, on_cancel=lambda: None)  # type: ignore[misc]
        try:
            async with asyncio.timeout(1):
                await got.wait()
        except TimeoutError:
            pass
        await channel.close()


async def depth(connection: Connection, queue: str) -> int:
    """Ready messages."""
    channel = await connection.open_channel()
    try:
        return (await channel.queue_counts(queue)).ready
    finally:
        await channel.close()


async def depth_becomes(connection: Connection, queue: str, wanted: int) -> None:
    """Return when the queue has so many ready messages."""

    async def has_become() -> bool:
        return await depth(connection, queue) == wanted

    await until(has_become, every=0.02)


async def drained(connection: Connection, queue: str, count: int) -> list[Delivery]:
    """Take so many messages out of a queue, in their order."""
    taken: list[Delivery] = []
    if not count:
        return taken
    channel: Channel = await connection.open_channel()
    enough = asyncio.Event()

    def take(delivery: Delivery) -> None:
        taken.append(delivery)
        if len(taken) == count:
            enough.set()

    tag = await channel.consume(queue, take, prefetch=0 if count > 60_000 else count, on_cancel=lambda: None)
    async with asyncio.timeout(30):
        await enough.wait()
    await channel.cancel(tag)
    channel.ack(taken[-1].delivery_tag, multiple=True)
    await channel.close()
    return taken


async def list_parked(
    broker: Broker,
    compiled: CompiledTopology,
    *,
    queue: str | None = None,
    unverified: bool = False,
    stop: asyncio.Event | None = None,
    on_progress: Any = None,
    on_wait: Any = None,
    **criteria: Any,
) -> ParkedListing:
    """List what is parked, as `amqpflow parked list` does."""
    selection = Selection(queues=(queue,) if queue else (), **criteria)
    options = ReadOptions(unverified=unverified, stop=stop or asyncio.Event(), on_progress=on_progress, on_wait=on_wait)
    return await parked_list.list_parked(read_target(broker, compiled, selection.queues, options), selection)


async def deliveries(
    reader: ParkingReader, *, at_most: int, busy: Callable[[], bool] = lambda: False
) -> AsyncGenerator[Delivery, None]:
    """Yield the messages of a parking queue one by one."""
    async with aclosing(reader.arrivals(at_most=at_most, busy=busy)) as arrivals:
        async for batch in arrivals:
            for delivery in batch:
                if not reader.may_continue():
                    return
                yield delivery


async def find_parked(broker: Broker, compiled: CompiledTopology, wanted: str) -> tuple[ParkedMessage, ...]:
    """Find a message, as `amqpflow parked show` does."""
    return await parked_list.find_parked(read_target(broker, compiled), wanted)


@asynccontextmanager
async def workplace(address: BrokerAddress, compiled: CompiledTopology, *, management: bool = True):  # type: ignore[no-untyped-def]
    """A broker that holds the topology, as `(Broker, Connection)`: one to work with, one to look with."""
    async with await connect(address, name="amqpflow test") as connection:
        await declare(connection, compiled)
        async with open_broker(address, use_management=management) as broker:
            yield broker, connection
