"""Stopping a consumer, and losing its connection: started handlers finish, nothing is settled twice or lost."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter

import pytest

from amqpflow import Message, Park, Retry
from amqpflow.rabbitmq.address import BrokerAddress
from tests.shop import Shop, connections_of, cut, shop
from tests.waiting import until

both_types = pytest.mark.parametrize("queue_type", ["quorum", "classic"])
IDS = [f"m{number:02}" for number in range(50)]


async def ids_in(scene: Shop, queue: str = "orders") -> list[str]:
    return [each.header.properties.message_id for each in await scene.take(queue)]


@both_types
def test_started_handlers_finish_and_the_rest_is_back_in_order(vhost: BrokerAddress, queue_type: str) -> None:
    async def scenario() -> None:
        async with shop(vhost, queue_type=queue_type) as scene:
            started: list[str] = []
            release = asyncio.Event()

            async def handle(message: Message) -> None:
                started.append(str(message.message_id))
                await release.wait()
                scene.done.append(str(message.message_id))

            await scene.publish(*IDS)
            consumer = scene.consumer(orders=handle, concurrency=5, prefetch=40)
            await consumer.start()
            await until(lambda: len(started) == 5)
            stopping = asyncio.create_task(consumer.stop())
            await until(lambda: is_back(scene, len(IDS) - 5))
            assert not stopping.done()
            release.set()
            await stopping
            assert started == scene.done == IDS[:5]
            assert await ids_in(scene) == IDS[5:]

    asyncio.run(scenario())


@both_types
def test_what_waits_for_a_handler_is_back_while_the_started_ones_still_run(
    vhost: BrokerAddress, queue_type: str
) -> None:
    # a consumer holds little before its handlers have shown how fast they are
    fast, count = 200, 400
    ids = [f"m{number:03}" for number in range(count)]

    async def scenario() -> None:
        async with shop(vhost, queue_type=queue_type) as scene:
            started: list[str] = []
            release = asyncio.Event()

            async def handle(message: Message) -> None:
                if len(scene.done) < fast:
                    scene.done.append(str(message.message_id))
                    return
                started.append(str(message.message_id))
                await release.wait()

            await scene.publish(*ids)
            consumer = scene.consumer(orders=handle, concurrency=5, prefetch=40)
            await consumer.start()
            await until(lambda: len(started) == 5)
            await until(lambda: holds_more_than(scene, count - fast - 5))
            stopping = asyncio.create_task(consumer.stop())
            await until(lambda: is_back(scene, count - fast - 5))
            assert not stopping.done()
            release.set()
            await stopping
            assert await ids_in(scene) == [each for each in ids if each not in {*scene.done, *started}]

    asyncio.run(scenario())


async def holds_more_than(scene: Shop, not_started: int) -> bool:
    return await scene.depth("orders") < not_started


async def is_back(scene: Shop, count: int) -> bool:
    return await scene.depth("orders") == count


def test_handlers_that_do_not_finish_in_time_are_given_back(vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        async with shop(vhost) as scene:
            cancelled: list[str] = []

            async def handle(message: Message) -> None:
                try:
                    await asyncio.sleep(60)
                except asyncio.CancelledError:
                    cancelled.append(str(message.message_id))
                    raise

            await scene.publish(*IDS[:10])
            consumer = scene.consumer(orders=handle, concurrency=10)
            consumer.shutdown_timeout = 0.2
            await consumer.start()
            await until(lambda: consumer.totals["received"] == 10)
            began = time.monotonic()
            await consumer.stop()
            assert time.monotonic() - began < 20
            assert sorted(cancelled) == IDS[:10]
            await scene.holds("orders", 10)
            assert sorted(await ids_in(scene)) == IDS[:10]

    asyncio.run(scenario())


def test_retries_that_are_being_published_are_confirmed_and_acked_before_the_end(vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        async with shop(vhost, {"orders": (60_000,)}) as scene:

            async def handle(message: Message) -> None:
                raise Retry

            await scene.publish(*IDS)
            consumer = scene.consumer(orders=handle, concurrency=50)
            async with consumer:
                await until(lambda: consumer.totals["received"] > 10)
            in_tier = await ids_in(scene, "orders.retry.1m")
            await scene.holds("orders", len(IDS) - len(in_tier))
            assert Counter(in_tier + await ids_in(scene)) == Counter(IDS)
            assert len(in_tier) == consumer.totals["retried"]

    asyncio.run(scenario())


def test_handlers_in_threads_finish_too(vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        async with shop(vhost) as scene:
            release = threading.Event()

            def handle(message: Message) -> None:
                release.wait()
                scene.done.append(str(message.message_id))

            await scene.publish(*IDS[:4])
            consumer = scene.consumer(orders=handle, concurrency=2, prefetch=2)
            await consumer.start()
            await until(lambda: consumer.totals["received"] == 2)
            asyncio.get_running_loop().call_later(0.2, release.set)
            await consumer.stop()
            assert len(scene.done) == 2
            await scene.holds("orders", 2)  # given back, when the handlers ended before the consumer was cancelled
            assert await scene.account() == Counter(IDS[:4])

    asyncio.run(scenario())


# -- losing the connection


def test_a_connection_that_is_closed_while_handlers_run_settles_nothing_twice(vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        async with shop(vhost) as scene:
            first_time, release = asyncio.Event(), asyncio.Event()
            running = 0
            most = 0

            async def handle(message: Message) -> None:
                nonlocal running, most
                running += 1
                most = max(most, running)
                if not first_time.is_set():
                    await release.wait()
                await asyncio.sleep(0)
                running -= 1
                scene.done.append(str(message.message_id))

            consumer = scene.consumer(orders=handle, concurrency=10, prefetch=20)
            async with consumer:
                await scene.publish(*IDS)
                await until(lambda: running == 10)
                await scene.close_connections("amqpflow consumer")
                await until(lambda: not consumer.healthy)
                assert consumer.problems["orders"].startswith(
                    "the connection was lost: an operator closed the connection"
                )
                await until(lambda: consumer.healthy)
                assert running == 10, "concurrency is that of the handler, not of a connection"
                first_time.set()
                release.set()
                await until(lambda: set(scene.done) == set(IDS))
                await until(lambda: consumer.totals["acked"] == len(IDS))
                # those that ran when the connection was lost came again, and only they
                assert Counter(scene.done) == Counter(IDS) + Counter(IDS[:10])
                assert most == 10
            assert await ids_in(scene) == []

    asyncio.run(scenario())


def test_a_handler_that_fails_after_its_connection_was_lost_publishes_nothing(vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        async with shop(vhost) as scene:
            release = asyncio.Event()

            async def handle(message: Message) -> None:
                if not message.redelivered:
                    await release.wait()
                    raise Retry
                scene.done.append(str(message.message_id))

            consumer = scene.consumer(orders=handle, concurrency=20)
            connections = connections_of(consumer)
            async with consumer:
                await scene.publish(*IDS[:10])
                await until(lambda: consumer.totals["received"] == 10)
                cut(connections)
                await until(lambda: len(scene.done) == 10)
                release.set()
                await asyncio.sleep(0.3)  # longer than both tiers: a copy would be back
                assert consumer.totals["retried"] == 0
            assert await scene.account() == Counter(IDS[:10])

    asyncio.run(scenario())


def test_connections_are_cut_in_the_middle_of_everything(vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        async with shop(vhost) as scene:

            async def handle(message: Message) -> None:
                await asyncio.sleep(0.001)
                match message.attempt:
                    case 1:
                        raise Retry
                    case 2 if str(message.message_id).endswith("7"):
                        raise Park
                    case _:
                        scene.done.append(str(message.message_id))

            ids = [f"m{number}" for number in range(500)]
            consumer = scene.consumer(orders=handle, concurrency=10, prefetch=30)
            connections = connections_of(consumer)
            async with consumer:
                publishing = asyncio.create_task(scene.publish(*ids))
                for settled in (20, 150):
                    await until(lambda settled=settled: consumer.totals["retried"] > settled)  # type: ignore[misc]
                    cut(connections)
                await publishing
                await until(lambda: is_settled(scene, ids), timeout=30)
            found: set[str] = set()

            async def all_found() -> bool:
                # what was parked twice hides one that still goes round, and may be between two queues
                found.update(await scene.account())
                return found >= set(ids)

            await until(all_found)
            assert found == set(ids)
            assert consumer.totals["received"] > len(ids)

    asyncio.run(scenario())


async def is_settled(scene: Shop, ids: list[str]) -> bool:
    parked = await scene.depth("orders.parking")
    return len(set(scene.done)) == 450 and parked >= 50


def test_what_cannot_be_parked_while_the_consumer_stops_is_given_back(vhost: BrokerAddress) -> None:
    """At once: it is not published again and again until the time is over."""

    async def scenario() -> None:
        async with shop(vhost) as scene:
            started, release = asyncio.Event(), asyncio.Event()
            published: list[str] = []

            async def handle(message: Message) -> None:
                started.set()
                await release.wait()
                raise Park

            await scene.publish("m")
            consumer = scene.consumer(orders=handle)
            consumer._on_step = lambda step: published.append(step) if step == "publish.before" else None
            await consumer.start()
            await started.wait()
            scene.delete("queues", "orders.parking")
            stopping = asyncio.create_task(consumer.stop())
            await until(lambda: consumer.stopping)
            release.set()
            await asyncio.wait_for(stopping, 15)
            assert len(published) <= 2
            await until(lambda: is_back(scene, 1))

    asyncio.run(scenario())


@pytest.mark.releases(">=4.3")
def test_a_consumer_that_is_stopped_as_soon_as_it_started_counts_no_delivery(vhost: BrokerAddress) -> None:
    """Where a nack is not counted; the end of a connection is (fact 3.3)."""

    async def scenario() -> None:
        async with shop(vhost) as scene:

            async def handle(message: Message) -> None:
                await asyncio.sleep(0)

            await scene.publish(*IDS)
            consumer = scene.consumer(orders=handle, concurrency=20)
            await consumer.start()
            await consumer.stop()
            await until(lambda: is_back(scene, len(IDS)))
            counts = [
                (each.header.properties.headers or {}).get("x-delivery-count") for each in await scene.take("orders")
            ]
            assert counts == [None] * len(IDS)

    asyncio.run(scenario())
