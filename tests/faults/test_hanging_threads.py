"""Handlers in threads that never return: the queue goes on in fresh threads, and is stuck where that is bounded."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator

import pytest

from amqpflow import Consumer, Message
from amqpflow.rabbitmq.address import BrokerAddress
from amqpflow.services.handling import thread_pool as threads
from amqpflow.services.loading.topology import Topology
from amqpflow.services.process.serving import health_of
from tests.shop import shop
from tests.waiting import until


class Hanging:
    """Calls for messages that begin with "hang" last until `end`."""

    def __init__(self, done: list[str]) -> None:
        self.end = threading.Event()
        self.done = done

    def __call__(self, message: Message) -> None:
        name = str(message.message_id)
        if name.startswith("hang"):
            self.end.wait(60)
        self.done.append(name)


@pytest.fixture
def end() -> Iterator[list[threading.Event]]:
    events: list[threading.Event] = []
    yield events
    for each in events:
        each.set()


def test_threads_that_hang_are_named_and_replaced_and_in_the_end_the_consumer_stands_still(
    vhost: BrokerAddress,
    end: list[threading.Event],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(threads, "SPARE", 1)

    async def scenario() -> None:
        async with shop(vhost, {"orders": ()}) as scene:
            handler = Hanging(scene.done)
            end.append(handler.end)
            consumer = scene.consumer(orders=handler, concurrency=2, prefetch=4, timeout=1.0)
            clock = asyncio.get_running_loop().time
            async with consumer:
                # two hang, two fresh threads take over: the queue is consumed as before, and each one is named
                await scene.publish("hang1", "hang2")
                await until(lambda: consumer.totals["parked"] == 2)
                began = clock()
                await scene.publish("good1")
                await until(lambda: scene.done == ["good1"])
                assert clock() - began < 20, "they hang for longer"
                assert "orders" not in consumer.problems
                problem = consumer.problems["orders threads"]
                assert f"2 of at most 4 threads of {__name__}.Hanging are overdue" in problem
                assert "hang1 since 20" in problem
                assert "hang2 since 20" in problem
                assert not consumer.healthy
                assert consumer.live

                # two more, and nothing can be called: what waits is another process's
                await scene.publish("hang3", "hang4", "good2", "good3")
                await until(lambda: not consumer.live)
                await until(lambda: consumer.totals["parked"] == 4)
                assert consumer.problems["orders"].startswith("stuck: all 4 threads of ")
                assert not health_of(consumer).live
                assert not health_of(consumer).ready
                other = Consumer(Topology(compiled=scene.compiled), scene.address.url)

                async def take(message: Message) -> None:
                    scene.done.append(f"{message.message_id} by the other")

                other.add_handler("orders", take)
                async with other:
                    await until(lambda: len(scene.done) == 3)
                assert sorted(scene.done[1:]) == ["good2 by the other", "good3 by the other"]

                # they end after all
                handler.end.set()
                await scene.publish("good4")
                await until(lambda: "good4" in scene.done)
                await until(lambda: consumer.healthy)
                assert consumer.live
                assert sorted(scene.done[3:]) == ["good4", "hang1", "hang2", "hang3", "hang4"]

    with caplog.at_level(logging.WARNING, "amqpflow.consumer"):
        asyncio.run(scenario())
    text = caplog.text
    assert "orders: a handler still runs in its thread: message hang1 since 20" in text
    assert "orders: no handler can be called: stuck: all 4 threads of " in text
    assert "orders: an overdue handler ended after" in text


@pytest.mark.one_broker
@pytest.mark.parametrize("hanging", [1, 3])
def test_a_consumer_stops_at_once_although_threads_hang(
    vhost: BrokerAddress, end: list[threading.Event], monkeypatch: pytest.MonkeyPatch, hanging: int
) -> None:
    monkeypatch.setattr(threads, "SPARE", 1)

    async def scenario() -> None:
        async with shop(vhost, {"orders": ()}) as scene:
            handler = Hanging(scene.done)
            end.append(handler.end)
            consumer = scene.consumer(orders=handler, concurrency=1, timeout=0.1)
            await scene.publish(*(f"hang{number}" for number in range(hanging)))
            async with consumer:
                await until(lambda: consumer.totals["parked"] == min(hanging, 2))
                began = asyncio.get_running_loop().time()
            assert asyncio.get_running_loop().time() - began < 10
            assert "orders threads" not in consumer.problems
            await scene.holds("orders", hanging - min(hanging, 2))

    asyncio.run(scenario())


@pytest.mark.one_broker
def test_a_consumer_that_stands_still_stands_still_after_a_reconnect_too(
    vhost: BrokerAddress, end: list[threading.Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "SPARE", 0)

    async def scenario() -> None:
        async with shop(vhost, {"orders": ()}) as scene:
            handler = Hanging(scene.done)
            end.append(handler.end)
            consumer = scene.consumer(orders=handler, concurrency=1, timeout=0.1)
            reconnected = asyncio.Event()
            consumer.on("connection.recovered")(lambda _: reconnected.set())
            async with consumer:
                await scene.publish("hang1", "hang2")
                await until(lambda: not consumer.live)
                await until(lambda: consumer.totals["parked"] == 2)
                await scene.close_connections("amqpflow consumer")
                await asyncio.wait_for(reconnected.wait(), 30)
                await until(lambda: str(consumer.problems.get("orders")).startswith("stuck"))
                await scene.publish("good")
                handler.end.set()
                await until(lambda: "good" in scene.done)

    asyncio.run(scenario())
