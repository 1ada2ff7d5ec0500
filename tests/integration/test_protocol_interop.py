"""A consumer that knows docs/protocol.md and nothing of amqpflow, on the same queue as amqpflow's own.

It is written with aio-pika alone and takes every name and value from the document.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import aio_pika
from aio_pika.abc import AbstractIncomingMessage

from amqpflow import Consumer, Message, Publisher, Topology
from amqpflow.model.routes import CompiledTopology
from amqpflow.parking.parked import read_parked
from amqpflow.rabbitmq.address import BrokerAddress
from amqpflow.rabbitmq.channel import Channel
from tests.topologies import connected, topology

NEVER = {"CC", "BCC", "x-death", "x-delivery-count", "x-acquired-count", "x-stream-offset"}
NEVER |= {"x-opt-delivery-time", "x-opt-delivery-delay"}


class ForeignConsumer:
    """Fails every message once, by the protocol: to `tier`, or with `tier=None` to parking as exhausted."""

    def __init__(self, url: str, *, tier: str | None) -> None:
        self.url = url
        self.tier = tier
        self.attempts: list[int] = []

    async def fail_one(self) -> None:
        connection = await aio_pika.connect(self.url)
        async with connection:
            consuming = await connection.channel()
            publishing = await connection.channel(publisher_confirms=True, on_return_raises=True)
            await consuming.set_qos(prefetch_count=1)
            queue = await consuming.get_queue("orders")
            async with queue.iterator() as deliveries:
                async for message in deliveries:
                    await self.settle(publishing, message)
                    return

    async def settle(self, channel: aio_pika.abc.AbstractChannel, message: AbstractIncomingMessage) -> None:
        headers = dict(message.headers)
        in_scope = headers.get("x-amqpflow-queue") == "orders"
        made = int(headers.get("x-amqpflow-attempt", 0)) if in_scope else 0  # type: ignore[call-overload]
        self.attempts.append(made + 1)
        copy = aio_pika.Message(
            message.body,
            headers={**_traveling(headers), **self.ours(message, headers if in_scope else {}, made + 1)},
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            content_type=message.content_type,
            message_id=message.message_id,
        )
        exchange = await channel.get_exchange("shop.parking" if self.tier is None else "shop.retry", ensure=False)
        await exchange.publish(copy, self.tier or "orders.parking", mandatory=True)
        await message.ack()

    def ours(self, message: AbstractIncomingMessage, before: Mapping[str, Any], attempt: int) -> dict[str, Any]:
        now = time.time_ns() // 1_000_000
        root = str(before["x-amqpflow-hop"]).rsplit("/", 2)[0] if before else message.message_id
        original = before.get("x-amqpflow-original") or ({"expiration": "60000"} if message.expiration else {})
        entry = {"at": now, "tier": self.tier or "parking", "error-type": "foreign.Error"}
        headers = {
            "x-amqpflow-queue": "orders",
            "x-amqpflow-attempt": attempt,
            "x-amqpflow-hop": f"{root}/0/{attempt}",
            "x-amqpflow-exchange": before.get("x-amqpflow-exchange", message.exchange),
            "x-amqpflow-routing-key": before.get("x-amqpflow-routing-key", message.routing_key),
            "x-amqpflow-original": original,
            "x-amqpflow-first-failed-at": before.get("x-amqpflow-first-failed-at", now),
            "x-amqpflow-failed-at": now,
            "x-amqpflow-error-type": "foreign.Error",
            "x-amqpflow-error-message": "it failed elsewhere",
            "x-amqpflow-history": [*before.get("x-amqpflow-history", []), entry],
            "x-amqpflow-host": "elsewhere",
            "x-amqpflow-version": "foreign/1.0",
        }
        if self.tier is None:
            headers["x-amqpflow-reason"] = "exhausted"
        else:
            headers["x-amqpflow-due-at"] = now + 300
        return headers


def _traveling(headers: Mapping[str, Any]) -> dict[str, Any]:
    broker = ("x-first-death-", "x-last-death-")
    return {k: v for k, v in headers.items() if k not in NEVER and not k.startswith(("x-amqpflow-", *broker))}


async def publish(address: BrokerAddress, routing_key: str = "orders") -> None:
    async with Publisher(address.url) as publisher:
        await publisher.publish(
            b'{"total": 1}', routing_key=routing_key, message_id="m-1", expiration=60_000, headers={"tenant": "acme"}
        )


def test_a_message_that_another_consumer_retried_is_a_second_attempt_here(vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        compiled = topology({"orders": [300, 600]}, vhost=vhost.vhost)
        connection = await connected(vhost, compiled)
        await publish(vhost)
        foreign = ForeignConsumer(vhost.url, tier="orders.retry.300ms")
        await foreign.fail_one()
        assert foreign.attempts == [1]
        message = await handled(compiled, vhost)
        assert message.attempt == 2
        assert message.hop == "m-1/0/1"
        assert (message.exchange, message.routing_key) == ("", "orders")
        assert message.headers == {"tenant": "acme"}
        assert message.properties.expiration == "60000"
        assert message.retry is not None
        assert message.retry.error_type == "foreign.Error"
        assert [each.tier for each in message.retry.history] == ["orders.retry.300ms"]
        await connection.close()

    asyncio.run(scenario())


def test_another_consumer_goes_on_counting_and_what_it_parks_is_read_here(vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        compiled = topology({"orders": [300, 600]}, vhost=vhost.vhost)
        connection = await connected(vhost, compiled)
        await publish(vhost)
        await handled(compiled, vhost, fail=True)
        foreign = ForeignConsumer(vhost.url, tier=None)
        await foreign.fail_one()
        assert foreign.attempts == [2]
        parked = read_parked(await one_delivery(await connection.open_channel(), "orders.parking"), compiled.routes)
        assert (parked.queue, parked.reason, parked.attempts) == ("orders", "exhausted", 2)
        assert parked.hop == "m-1/0/2"
        assert parked.record is not None
        assert [each.error_type for each in parked.record.history] == ["TimeoutError", "foreign.Error"]
        assert parked.record.original == {"expiration": "60000"}
        await connection.close()

    asyncio.run(scenario())


async def handled(compiled: CompiledTopology, address: BrokerAddress, *, fail: bool = False) -> Message:
    """The next message that an amqpflow consumer handles, or fails with a TimeoutError."""
    consumer = Consumer(Topology(compiled=compiled), address.url)
    seen: asyncio.Future[Message] = asyncio.get_running_loop().create_future()

    @consumer.handler("orders", concurrency=1)
    async def handle(message: Message) -> None:
        if not seen.done():
            seen.set_result(message)
        if fail:
            raise TimeoutError("no answer")

    async with consumer, asyncio.timeout(20):
        return await seen


async def one_delivery(channel: Channel, queue: str) -> Any:
    deliveries: asyncio.Queue[Any] = asyncio.Queue()
    await channel.consume(queue, deliveries.put_nowait, prefetch=1, on_cancel=lambda: None)
    async with asyncio.timeout(20):
        delivery = await deliveries.get()
    channel.nack(delivery.delivery_tag)
    await channel.close()
    return delivery
