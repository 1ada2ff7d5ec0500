"""An outage meets everything else that stops a consumer: the next outage, parking that is impossible, a poison message.

Whatever happens together, the queue is consumed again when nothing is wrong any more.
"""

from __future__ import annotations

import asyncio

import pytest

from amqpflow import Breaker, Message, Park, Pause
from amqpflow.rabbitmq.address import BrokerAddress
from tests.shop import shop
from tests.waiting import until


def test_an_outage_begins_while_the_one_before_ends(vhost: BrokerAddress) -> None:
    """What waits is handled before the broker has answered that it is consumed again."""

    async def scenario() -> None:
        async with shop(vhost, {"orders": (100,)}) as scene:

            async def handle(message: Message) -> None:
                if message.attempt == 1 and message.message_id != "m1":
                    raise Pause(for_=0.05)
                scene.done.append(str(message.message_id))

            ids = [f"m{number}" for number in range(12)]
            await scene.publish(*ids)
            consumer = scene.consumer(orders=handle, concurrency=2, prefetch=10)
            async with consumer:
                await until(lambda: len(scene.done) == len(ids))
                await until(lambda: consumer.healthy)

    asyncio.run(scenario())


@pytest.mark.one_broker
def test_a_message_is_tried_although_another_could_not_be_parked_meanwhile(vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        async with shop(vhost) as scene:
            down, states = asyncio.Event(), list[str]()

            async def handle(message: Message) -> None:
                if message.message_id == "bad":
                    raise Park
                if message.message_id == "slow" and message.attempt == 1:
                    await down.wait()
                    raise ConnectionError
                scene.done.append(str(message.message_id))

            consumer = scene.consumer()
            breaker = Breaker(trip_on=(ConnectionError,), open_for=0.1)
            consumer.add_handler("orders", handle, concurrency=2, prefetch=2, breaker=breaker)
            consumer.subscribe(lambda event: states.append(event.name), "breaker.half_open")
            async with consumer:
                scene.delete("queues", "orders.parking")
                await scene.publish("slow", "bad")
                await until(lambda: consumer.problems)
                down.set()
                await until(lambda: states)
                await scene.publish("good")
                await scene.declare()
                await until(lambda: set(scene.done) == {"slow", "good"})
                await until(lambda: consumer.healthy)
                await scene.take_one("orders.parking")

    asyncio.run(scenario())


@pytest.mark.parametrize("poison", [1, 3])
def test_a_poison_message_is_the_one_that_is_tried(vhost: BrokerAddress, poison: int) -> None:
    """It was in three crashes, so it is handled alone; neither waits for the other for ever."""

    async def scenario() -> None:
        async with shop(vhost, {"orders": (60_000,)}) as scene:

            async def handle(message: Message) -> None:
                if message.message_id == "trip":
                    await asyncio.sleep(0.1)  # the poison messages are known by then
                    raise ConnectionError
                scene.done.append(str(message.message_id))

            ids = [f"poison{number}" for number in range(poison)]
            await scene.publish("trip", *ids)
            channel = await scene.connection.admin_channel()
            await channel.basic_get("orders")
            for _ in range(3):
                crashing = await scene.connection.admin_channel()
                for _ in ids:
                    assert (await crashing.basic_get("orders")).delivery.name == "Basic.GetOk"
                await crashing.close()
                await until(lambda: _ready(scene, poison))
            await channel.close()
            await until(lambda: _ready(scene, 1 + poison))
            await scene.publish("good")
            consumer = scene.consumer()
            breaker = Breaker(trip_on=(ConnectionError,), open_for=0.2)
            consumer.add_handler("orders", handle, concurrency=10, prefetch=10, breaker=breaker)
            async with consumer:
                await until(lambda: set(scene.done) == {"good", *ids})
                await until(lambda: consumer.healthy)

    async def _ready(scene: object, count: int) -> bool:
        return bool(await scene.depth("orders") >= count)  # type: ignore[attr-defined]

    asyncio.run(scenario())


@pytest.mark.one_broker
def test_a_cancelled_call_is_a_failure_to_the_breaker(vhost: BrokerAddress) -> None:
    """What a handler awaits was cancelled, and not the handler by a consumer that stops."""

    async def scenario() -> None:
        async with shop(vhost, {"orders": (60_000,)}) as scene:
            opened: list[object] = []

            async def handle(message: Message) -> None:
                raise asyncio.CancelledError

            await scene.publish(*(f"m{number}" for number in range(30)))
            consumer = scene.consumer()
            consumer.add_handler("orders", handle, concurrency=1, breaker=Breaker(minimum=3, open_for=30))
            consumer.subscribe(opened.append, "breaker.opened")
            async with consumer:
                await until(lambda: opened)
                assert consumer.totals["retried"] <= 3

    asyncio.run(scenario())
