"""How fast, in which order and how many at once handlers are called."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from amqpflow import Consumer, InvalidHandlerError, Message, Retry
from amqpflow.rabbitmq.address import BrokerAddress
from amqpflow.services.loading.topology import Topology
from tests.shop import Shop, shop
from tests.waiting import until

pytestmark = pytest.mark.one_broker


def test_a_rate_is_kept_evenly_and_no_burst_follows_an_idle_time(vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        async with shop(vhost) as scene:
            times: list[float] = []
            clock = asyncio.get_running_loop().time

            async def handle(message: Message) -> None:
                times.append(clock())

            consumer = scene.consumer()
            consumer.add_handler("orders", handle, concurrency=10, prefetch=50, rate="50/s")
            async with consumer:
                await asyncio.sleep(0.5)
                await scene.publish(*(f"m{number}" for number in range(40)))
                await until(lambda: len(times) == 40)
            assert 39 / 50 - 0.15 <= times[-1] - times[0] < 3.5
            within = max(sum(1 for each in times if at <= each < at + 0.2) for at in times)
            assert within <= 10 + 6, "what a late event loop missed is caught up with, no more"

    asyncio.run(scenario())


def test_what_waits_for_its_turn_is_given_back_when_the_consumer_stops(vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        async with shop(vhost) as scene:

            async def handle(message: Message) -> None:
                scene.done.append(str(message.message_id))

            ids = [f"m{number}" for number in range(20)]
            await scene.publish(*ids)
            consumer = scene.consumer()
            consumer.add_handler("orders", handle, concurrency=5, prefetch=10, rate="10/m")
            async with consumer:
                await until(lambda: scene.done)
                began = asyncio.get_running_loop().time()
            assert asyncio.get_running_loop().time() - began < 5, "the next turn would be after 6 s"
            assert scene.done == ["m0"]
            await scene.holds("orders", 19)
            assert consumer.totals["requeued"] == consumer.totals["received"] - 1

    asyncio.run(scenario())


def test_messages_of_one_key_are_handled_one_after_the_other_and_others_meanwhile(vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        async with shop(vhost) as scene:
            running: Counter[Any] = Counter()
            order: dict[Any, list[str]] = {}
            most_together = 0

            async def handle(message: Message) -> None:
                nonlocal most_together
                key = message.headers.get("customer")
                running[key] += 1
                assert key is None or running[key] == 1
                most_together = max(most_together, running.total())
                order.setdefault(key, []).append(str(message.message_id))
                await asyncio.sleep(0.03)  # so that the others arrive while the hot key is at work
                running[key] -= 1
                scene.done.append(str(message.message_id))

            # one hot key in front of the others, and messages without a key
            ids = [f"hot{number}" for number in range(20)]
            await scene.publish(*ids, headers={"customer": "hot"})
            for key in range(4):
                more = [f"{key}-{number}" for number in range(10)]
                ids += more
                await scene.publish(*more, headers={"customer": key})
            await scene.publish("none1", "none2")
            consumer = scene.consumer()
            consumer.add_handler("orders", handle, concurrency=5, prefetch=80, order_by="customer")
            async with consumer:
                await until(lambda: consumer.totals["acked"] == len(ids) + 2)
            assert len(scene.done) == len(ids) + 2
            for key, handled in order.items():
                if key is not None:
                    assert handled == sorted(handled, key=lambda each: int(each.strip("hot").rpartition("-")[2]))
            assert most_together == 5, "a hot key does not take the slots of others"

    asyncio.run(scenario())


def test_a_key_that_cannot_be_told_fails_its_message_alone(vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        async with shop(vhost, {"orders": ()}) as scene:

            async def handle(message: Message) -> None:
                scene.done.append(str(message.message_id))

            consumer = scene.consumer()
            consumer.add_handler("orders", handle, order_by=lambda message: message.json()["customer"])
            async with consumer:
                await scene.publish("bad")
                await scene.publish("good", body=b'{"customer": 1}')
                await until(lambda: scene.done == ["good"])
                parked = await scene.take_one("orders.parking")
            assert parked.header.properties.headers["x-amqpflow-error-type"] == "KeyError"

    asyncio.run(scenario())


def test_a_retried_message_of_a_key_lets_the_next_one_pass(vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        async with shop(vhost, {"orders": (300,)}) as scene:

            async def handle(message: Message) -> None:
                if message.attempt == 1 and message.message_id == "first":
                    raise Retry
                scene.done.append(str(message.message_id))

            consumer = scene.consumer()
            consumer.add_handler("orders", handle, order_by="customer")
            async with consumer:
                await scene.publish("first", "second", headers={"customer": 1})
                await until(lambda: len(scene.done) == 2)
            assert scene.done == ["second", "first"]

    asyncio.run(scenario())


def test_a_queue_that_is_full_of_slow_work_does_not_starve_another(vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        async with shop(vhost, {"orders": (), "mails": ()}) as scene:
            go_on = asyncio.Event()
            running: Counter[str] = Counter()

            async def slow(message: Message) -> None:
                running["orders"] += 1
                await go_on.wait()
                scene.done.append(str(message.message_id))

            async def quick(message: Message) -> None:
                scene.done.append(str(message.message_id))

            await scene.publish(*(f"slow{number}" for number in range(20)))
            consumer = Consumer(Topology(compiled=scene.compiled), scene.address.url, concurrency=5)
            consumer.add_handler("orders", slow, concurrency=10)
            consumer.add_handler("mails", quick, concurrency=10)
            async with consumer:
                await until(lambda: running["orders"] == 4)
                await scene.publish(*(f"mail{number}" for number in range(10)), queue="mails")
                await until(lambda: len(scene.done) == 10)
                assert running["orders"] == 4, "one slot is kept for the other queue"
                go_on.set()
                await until(lambda: len(scene.done) == 30)

    asyncio.run(scenario())


def test_slots_are_shared_by_weight(vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        async with shop(vhost, {"orders": (), "mails": ()}) as scene:
            running: Counter[str] = Counter()
            seen: list[tuple[int, int]] = []

            async def handle(message: Message) -> None:
                running[message.queue] += 1
                if min(await depths(scene)) > 10:
                    seen.append((running["orders"], running["mails"]))
                await asyncio.sleep(0.01)
                running[message.queue] -= 1
                scene.done.append(str(message.message_id))

            for queue in ("orders", "mails"):
                await scene.publish(*(f"{queue}{number}" for number in range(100)), queue=queue)
            consumer = Consumer(Topology(compiled=scene.compiled), scene.address.url, concurrency=8)
            consumer.add_handler("orders", handle, concurrency=20, weight=3)
            consumer.add_handler("mails", handle, concurrency=20)
            async with consumer:
                await until(lambda: len(scene.done) == 200, timeout=30)
            assert max(orders + mails for orders, mails in seen) <= 8
            assert (6, 2) in seen

    asyncio.run(scenario())


async def depths(scene: Shop) -> list[int]:
    return [await scene.depth("orders"), await scene.depth("mails")]


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"rate": "fast"}, "'fast' is not a rate"),
        ({"rate": "0/s"}, "is not a rate"),
        ({"rate": "1/h"}, "longer than half the consumer timeout"),
        ({"rate": "10/m", "prefetch": 500}, "prefetch=500 at this rate"),
        ({"order_by": 5}, "give a header's name"),
        ({"weight": 0}, "must be a number above 0"),
        ({"retry_policy": "patient"}, "has no retry policy 'patient'"),
    ],
)
def test_options_that_cannot_be_are_refused(vhost: BrokerAddress, options: Any, what: str) -> None:
    async def scenario() -> None:
        async with shop(vhost) as scene:

            async def handle(message: Message) -> None: ...

            with pytest.raises(InvalidHandlerError, match=what):
                scene.consumer().add_handler("orders", handle, **options)

    asyncio.run(scenario())


def test_a_budget_has_a_slot_for_each_handler(vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        async with shop(vhost, {"orders": (), "mails": ()}) as scene:

            async def handle(message: Message) -> None: ...

            consumer = Consumer(Topology(compiled=scene.compiled), scene.address.url, concurrency=1)
            consumer.add_handler("orders", handle)
            consumer.add_handler("mails", handle)
            with pytest.raises(InvalidHandlerError, match="less than one slot for each of 2 handlers"):
                await consumer.start()

    asyncio.run(scenario())
