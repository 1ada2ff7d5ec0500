"""A topology that is on a broker, with what tests do to it: publish, consume, look, break and mend."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aiormq.exceptions import ChannelNotFoundEntity

from amqpflow.model.headers import HOP
from amqpflow.model.message import Publish
from amqpflow.model.properties import Properties
from amqpflow.model.routes import CompiledTopology
from amqpflow.rabbitmq.address import BrokerAddress
from amqpflow.rabbitmq.connection import Connection
from amqpflow.services.consuming.consumer import Consumer
from amqpflow.services.loading.topology import Topology
from tests.brokers.management import Management
from tests.topologies import NAME, connected, declare, topology
from tests.waiting import until

RETRY, PARKING = f"{NAME}.retry", f"{NAME}.parking"


class Shop:
    """The topology `shop` in a virtual host of its own. Made by `shop`."""

    def __init__(self, address: BrokerAddress, compiled: CompiledTopology, connection: Connection) -> None:
        self.address = address
        self.compiled = compiled
        self.connection = connection
        self.management = Management(address)
        self.done: list[str] = []  #: message ids whose handler has finished with them, for handlers to fill

    # -- using it

    def consumer(
        self, *, concurrency: int = 10, prefetch: int | None = None, timeout: float | None = None, **handlers: Any
    ) -> Consumer:
        """A consumer with a handler for each queue that is named."""
        consumer = Consumer(Topology(compiled=self.compiled), self.address.url)
        for queue, function in handlers.items():
            consumer.add_handler(queue, function, concurrency=concurrency, prefetch=prefetch, timeout=timeout)
        return consumer

    async def publish(
        self, *ids: str, queue: str = "orders", exchange: str = "", body: bytes = b"{}", **properties: Any
    ) -> None:
        """Publish messages with these ids, in this order, persistent and confirmed."""
        channel = await self.connection.open_channel()
        properties.setdefault("delivery_mode", 2)
        await asyncio.gather(
            *(
                channel.publish(
                    Publish.of(
                        exchange=exchange,
                        routing_key=queue,
                        properties=Properties(message_id=each, **properties),
                        body=body,
                    )
                )
                for each in ids
            )
        )
        await channel.close()

    async def declare(self) -> None:
        """Put back what was deleted."""
        await declare(self.connection, self.compiled)

    # -- looking

    async def depth(self, queue: str) -> int:
        """Ready messages."""
        channel = await self.connection.open_channel()
        try:
            return (await channel.queue_counts(queue)).ready
        finally:
            await channel.close()

    async def holds(self, queue: str, count: int) -> None:
        """Wait for so many ready messages: a quorum queue counts those that it got back a little later."""

        async def as_many() -> bool:
            return await self.depth(queue) == count

        await until(as_many)

    async def take(self, queue: str) -> list[Any]:
        """Remove and return all ready messages, as aiormq's basic.get gives them: our own channel is not its judge."""
        channel = await self.connection.admin_channel()
        taken: list[Any] = []
        try:
            while (message := await channel.basic_get(queue, no_ack=True)).delivery.name == "Basic.GetOk":
                taken.append(message)
        except ChannelNotFoundEntity:
            return taken  # a queue that the test deleted holds nothing
        await channel.close()
        return taken

    async def take_one(self, queue: str) -> Any:
        """The one message of a queue, once it is there."""
        await until(lambda: self.depth(queue))
        (message,) = await self.take(queue)
        return message

    async def account(self) -> Counter[str]:
        """How often each message is there: in a queue (which this empties), or done."""
        found = Counter(self.done)

        def stage(queue: str) -> tuple[bool, bool]:
            return queue in self.compiled.parking_queues, queue in self.compiled.routes

        # the way that messages go, retry queues first: what moves meanwhile is found where it comes to
        for queue in sorted(self.compiled.desired.queues, key=stage):
            found.update(str(each.header.properties.message_id) for each in await self.take(queue))
        return found

    async def all_settled(self, ids: Sequence[str]) -> None:
        """Wait until each of these is done or parked, and no more than once."""

        async def where() -> bool:
            parked = sum([await self.depth(each) for each in self.compiled.parking_queues])
            return len(self.done) + parked >= len(ids)

        await until(where, timeout=30)
        assert await self.account() == Counter(ids)

    # -- breaking

    def retained(self, queue: str) -> int:
        """Messages that RabbitMQ keeps, since their dead-lettering did not succeed. Up to 10 s behind."""
        return int((self.management.get("queues", self.address.vhost, queue) or {}).get("messages_dlx") or 0)

    def delete(self, kind: str, name: str) -> None:
        """Delete a queue or an exchange: `delete("queues", "orders")`."""
        self.management.delete(kind, self.address.vhost, name)

    def unbind(self, exchange: str, queue: str) -> None:
        self.management.delete("bindings", self.address.vhost, "e", exchange, "q", queue, queue)

    def policy(self, name: str, pattern: str, definition: Mapping[str, Any], apply_to: str = "queues") -> None:
        body = {"pattern": pattern, "definition": definition, "apply-to": apply_to, "priority": 5}
        self.management.put("policies", self.address.vhost, name, body=body)

    async def close_connections(self, purpose: str) -> None:
        """Let the management API close the connections whose name begins so, once it knows of one."""

        def mine() -> list[str]:
            return [
                each["name"]
                for each in self.management.get("vhosts", self.address.vhost, "connections")
                if each.get("client_properties", {}).get("connection_name", "").startswith(purpose)
            ]

        for name in await until(mine):
            self.management.delete("connections", name)


def connections_of(consumer: Consumer) -> list[Connection]:
    """The connections that a consumer opens from now on, by and by."""
    opened: list[Connection] = []
    connect = consumer._connect

    async def remember(purpose: str = "consumer", beside: Connection | None = None) -> Connection:
        opened.append(await connect(purpose, beside))
        return opened[-1]

    consumer._connect = remember  # type: ignore[method-assign]
    return opened


def cut(connections: list[Connection]) -> None:
    """Break connections as a network does: without a word, in the middle of whatever is sent."""
    for connection in connections:
        connection._pika.content.abort()
    connections.clear()


@asynccontextmanager
async def shop(address: BrokerAddress, queues: Mapping[str, Any] | None = None, **options: Any) -> AsyncIterator[Shop]:
    """The topology of `tests.topologies.topology`, by default one queue `orders` with tiers of 50 and 100 ms."""
    compiled = topology(queues or {"orders": (50, 100)}, vhost=address.vhost, **options)
    connection = await connected(address, compiled)
    try:
        yield Shop(address, compiled, connection)
    finally:
        await connection.close()


def hop_of(message: Any) -> str:
    """The hop id of a message that `take` returned."""
    return str(message.header.properties.headers[HOP])


async def publish_plainly(channel: Any, publish: Publish) -> None:
    """On a channel without confirms, for what our own channel would not send: a message without an id."""
    from aiormq.abc import ChannelFrame

    from amqpflow.rabbitmq.frames import publish_frames

    data = publish_frames(channel.number, publish, 0)
    await channel.write_queue.put(ChannelFrame(payload=data, should_close=False, drain_future=None))
