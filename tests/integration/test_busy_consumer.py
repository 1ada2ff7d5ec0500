"""A consumer with much to do: the loop goes on, nothing waits for its neighbours, and acks are written together."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from amqpflow import Retry
from amqpflow.rabbitmq.address import BrokerAddress
from tests.shop import connections_of, shop
from tests.waiting import until

IDS = [f"m{number:03}" for number in range(300)]


@pytest.mark.one_broker
@pytest.mark.timing
@pytest.mark.parametrize("fails", [False, True])
def test_handlers_that_never_wait_do_not_hold_up_the_loop_or_the_acks(vhost: BrokerAddress, fails: bool) -> None:
    async def scenario() -> None:
        async with shop(vhost, {"orders": (60_000,)}) as scene:
            turns: list[float] = []  # in CPU time: a machine that is busy with something else slows none of this

            async def tick() -> None:
                while True:
                    turns.append(time.process_time())
                    await asyncio.sleep(0)

            async def orders(message: Any) -> None:
                busy_until = time.process_time() + 0.002
                while time.process_time() < busy_until:
                    pass
                scene.done.append(message.message_id)
                if fails:
                    raise Retry

            await scene.publish(*IDS)
            ticking = asyncio.create_task(tick())
            async with scene.consumer(orders=orders, concurrency=300 if fails else 50, prefetch=300):
                await until(lambda: len(scene.done) == len(IDS))
                between = len([each for each in turns if each > turns[-1] - 0.5])
            ticking.cancel()
            # 300 messages of 2 ms: without giving way it would be a handful of turns
            assert between > 30
            assert scene.done == IDS

    asyncio.run(scenario())


@pytest.mark.one_broker
def test_a_handler_that_waits_leaves_the_others_to_go_on(vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        async with shop(vhost) as scene:
            release = asyncio.Event()

            async def orders(message: Any) -> None:
                if message.message_id in IDS[:4]:
                    await release.wait()
                scene.done.append(message.message_id)

            await scene.publish(*IDS)
            consumer = scene.consumer(orders=orders, concurrency=5, prefetch=20)
            async with consumer:
                # four wait; the fifth does the work of all others, whose acks must not wait for the four
                await until(lambda: len(scene.done) == len(IDS) - 4)
                release.set()
                await until(lambda: len(scene.done) == len(IDS))
            assert await scene.account() == dict.fromkeys(IDS, 1)

    asyncio.run(scenario())


@pytest.mark.one_broker
def test_all_slots_are_used(vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        async with shop(vhost) as scene:
            release, running = asyncio.Event(), 0

            async def orders(message: Any) -> None:
                nonlocal running
                running += 1
                await release.wait()
                scene.done.append(message.message_id)

            async with scene.consumer(orders=orders, concurrency=30, prefetch=100):
                await scene.publish(*IDS)
                await until(lambda: running == 30)
                release.set()
                await until(lambda: len(scene.done) == len(IDS))

    asyncio.run(scenario())


@pytest.mark.one_broker
def test_acks_of_one_turn_leave_together(vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        async with shop(vhost) as scene:
            await scene.publish(*IDS)
            consumer = scene.consumer(orders=that_appends_to(scene.done), concurrency=100, prefetch=100)
            connections = connections_of(consumer)
            async with consumer:
                transport = connections[0]._pika.content
                write, sizes = transport.write, []
                transport.write = lambda data: (sizes.append(len(data)), write(data))
                await until(lambda: len(scene.done) == len(IDS))
                await until(lambda: consumer.totals["acked"] == len(IDS))
            assert await scene.account() == dict.fromkeys(IDS, 1)
            assert sum(sizes) < len(IDS) * 21 / 2, "most acks stand for many"

    asyncio.run(scenario())


def that_appends_to(done: list[str]) -> Any:
    async def orders(message: Any) -> None:
        done.append(message.message_id)

    return orders
