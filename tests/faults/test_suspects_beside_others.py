"""What is handled while a message is suspected of killing its consumers, and what the consumer says of it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from amqpflow import Message, Park, Retry
from amqpflow.delivery.backoff import Backoff
from amqpflow.model import headers as h
from amqpflow.rabbitmq.address import BrokerAddress
from amqpflow.services.consuming import connections as consuming
from amqpflow.services.consuming import isolation, settler
from tests.shop import connections_of, cut, shop
from tests.waiting import until

SUSPECT: dict[str, Any] = {h.QUEUE: "orders", h.LOST: 3, h.HOP: "m/0/0"}  #: headers of a copy that was lost before


def test_messages_of_lost_connections_are_still_handled_side_by_side(
    vhost: BrokerAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process lives through each loss, so that no message is its cause."""
    monkeypatch.setattr(consuming, "_BACKOFF", Backoff(0.1, 0.1))

    async def scenario() -> None:
        async with shop(vhost) as scene:
            ids = [f"m{number}" for number in range(5)]
            running, gates = set[str](), [asyncio.Event()]

            async def handle(message: Message) -> None:
                running.add(str(message.message_id))
                await gates[-1].wait()
                scene.done.append(str(message.message_id))

            consumer = scene.consumer(orders=handle, concurrency=5)
            connections = connections_of(consumer)
            async with consumer:
                await scene.publish(*ids)
                for _ in range(4):
                    await until(lambda: len(running) == 5)
                    closed = connections[0].closed
                    cut(connections)
                    await closed.wait()
                    running.clear()
                    gates.append(asyncio.Event())
                    gates[-2].set()
                await until(lambda: len(running) == 5)
                scene.done.clear()
                gates[-1].set()
                await until(lambda: sorted(scene.done) == ids)

    asyncio.run(scenario())


def test_a_suspect_is_handled_alone_however_often_this_process_lost_its_connection(
    vhost: BrokerAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None of those losses was of this message, which another process had: it kills what is handled beside it."""
    monkeypatch.setattr(consuming, "_BACKOFF", Backoff(0.1, 0.1))
    monkeypatch.setattr(isolation, "_PATIENCE", 0.3)

    async def scenario() -> None:
        async with shop(vhost) as scene:
            go_on = asyncio.Event()

            async def handle(message: Message) -> None:
                if message.message_id == "suspect":
                    await go_on.wait()
                scene.done.append(str(message.message_id))

            consumer = scene.consumer(orders=handle)
            connections = connections_of(consumer)
            async with consumer:
                for _ in range(4):
                    await until(lambda: connections and consumer.healthy)
                    closed = connections[0].closed
                    cut(connections)
                    await closed.wait()
                await until(lambda: consumer.healthy)
                await scene.publish("suspect", headers=SUSPECT)
                await until(lambda: consumer.problems.get("orders") == isolation._ALONE)
                await scene.publish("beside")
                await until(lambda: scene.depth("orders"))
                assert scene.done == []
                go_on.set()
                await until(lambda: scene.done == ["suspect", "beside"])

    asyncio.run(scenario())


def test_a_problem_ends_although_a_suspect_is_handled_alone(
    vhost: BrokerAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settler, "_BACKOFF", Backoff(0.2, 0.2))

    async def scenario() -> None:
        async with shop(vhost) as scene:
            alone, go_on = asyncio.Event(), asyncio.Event()

            async def handle(message: Message) -> None:
                if message.message_id == "bad":
                    raise Park("it is bad")
                if message.message_id == "suspect":
                    alone.set()
                    await go_on.wait()
                scene.done.append(str(message.message_id))

            scene.delete("queues", "orders.parking")
            consumer = scene.consumer(orders=handle)
            async with consumer:
                await scene.publish("bad")
                await until(lambda: consumer.problems)
                await scene.publish("suspect", headers=SUSPECT)
                await alone.wait()
                await scene.declare()
                await until(lambda: scene.depth("orders.parking"))
                await until(lambda: not consumer.problems)
                go_on.set()
                await until(lambda: scene.done == ["suspect"])

    asyncio.run(scenario())


def test_a_handler_that_does_not_end_keeps_a_suspect_waiting_and_nothing_else(
    vhost: BrokerAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With every number of places that are left, the key of the suspect stays its own, and it is alone in the end."""
    monkeypatch.setattr(isolation, "_PATIENCE", 0.3)

    async def scenario() -> None:
        async with shop(vhost) as scene:
            slow, go_on, running, beside = asyncio.Event(), asyncio.Event(), 0, list[int]()

            async def handle(message: Message) -> None:
                nonlocal running
                running += 1
                if message.message_id == "slow":
                    slow.set()
                    await go_on.wait()
                if message.message_id == "suspect":
                    beside.append(running)
                running -= 1
                scene.done.append(str(message.message_id))

            consumer = scene.consumer()
            consumer.add_handler("orders", handle, concurrency=2, prefetch=20, order_by="key")
            good = [f"good {number}" for number in range(8)]
            async with consumer:
                await scene.publish("slow", headers={"key": "a"})
                await slow.wait()
                await scene.publish("suspect", headers={**SUSPECT, "key": "b"})
                await scene.publish("behind it", headers={"key": "b"})
                await scene.publish(*good, headers={"key": "c"})
                await until(lambda: scene.done == good)
                await until(lambda: "suspected of killing its consumer" in consumer.problems.get("orders", ""))
                go_on.set()
                await until(lambda: len(scene.done) == 11)
                await until(lambda: not consumer.problems)
            assert beside == [1]
            assert scene.done.index("suspect") < scene.done.index("behind it")

    asyncio.run(scenario())


def test_a_suspect_that_waits_for_a_handler_is_requeued_when_the_consumer_stops(
    vhost: BrokerAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(isolation, "_PATIENCE", 0.1)

    async def scenario() -> None:
        async with shop(vhost) as scene:
            slow, go_on = asyncio.Event(), asyncio.Event()

            async def handle(message: Message) -> None:
                slow.set()
                await go_on.wait()
                scene.done.append(str(message.message_id))

            consumer = scene.consumer(orders=handle)
            await consumer.start()
            await scene.publish("slow")
            await slow.wait()
            await scene.publish("suspect", headers=SUSPECT)
            await until(lambda: consumer.problems)
            stopping = asyncio.create_task(consumer.stop())
            await scene.holds("orders", 1)
            go_on.set()
            await asyncio.wait_for(stopping, 20)
            assert scene.done == ["slow"]

    asyncio.run(scenario())


def test_a_suspect_that_is_handled_for_long_is_a_problem_of_each_queue_that_waits_for_it(
    vhost: BrokerAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(isolation, "_PATIENCE", 0.3)

    async def scenario() -> None:
        async with shop(vhost, {"orders": (50,), "audit": (50,)}) as scene:
            alone, go_on = asyncio.Event(), asyncio.Event()

            async def orders(message: Message) -> None:
                alone.set()
                await go_on.wait()
                scene.done.append(message.queue)

            async def audit(message: Message) -> None:
                scene.done.append(message.queue)

            consumer = scene.consumer(orders=orders, audit=audit)
            async with consumer:
                await scene.publish("suspect", headers=SUSPECT)
                await alone.wait()
                await until(lambda: "is handled alone" in consumer.problems.get("orders", ""))
                assert "audit" not in consumer.problems, "it has no suspect"
                await scene.publish("another", queue="audit", headers={**SUSPECT, h.QUEUE: "audit"})
                await until(lambda: "is handled alone" in consumer.problems.get("audit", ""))
                go_on.set()
                await until(lambda: sorted(scene.done) == ["audit", "orders"])
                await until(lambda: consumer.healthy)

    asyncio.run(scenario())


def test_a_message_that_others_looked_at_in_its_retry_queue_is_not_parked(vhost: BrokerAddress) -> None:
    """RabbitMQ counts it there, and the count may come with it."""

    async def scenario() -> None:
        async with shop(vhost, {"orders": (5000,)}) as scene:

            async def handle(message: Message) -> None:
                if message.attempt == 1:
                    raise Retry
                scene.done.append(str(message.message_id))

            async with scene.consumer(orders=handle):
                await scene.publish("m")
                for _ in range(5):
                    await scene.holds("orders.retry.5s", 1)
                    channel = await scene.connection.admin_channel()
                    await channel.basic_get("orders.retry.5s")
                    await channel.close()
                await scene.all_settled(["m"])
            assert scene.done == ["m"]

    asyncio.run(scenario())
