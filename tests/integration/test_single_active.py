"""A queue with a single active consumer: amqpflow does not hand it to another process in the middle of its work."""

from __future__ import annotations

import asyncio

import pytest

from amqpflow import Breaker, Message, Retry
from amqpflow.rabbitmq.address import BrokerAddress
from tests.shop import Shop, shop
from tests.waiting import until

SINGLE = {"x-single-active-consumer": True}


async def two(scene: Shop, fails: bool) -> tuple[list[str], list[str]]:
    """What two consumers of one queue handle while the first of them widens its prefetch or has an outage."""
    handled: tuple[list[str], list[str]] = ([], [])

    def consumer(into: list[str]) -> None:
        async def handle(message: Message) -> None:
            await asyncio.sleep(0.002)
            if fails and message.message_id == "m5" and message.attempt == 1:
                raise Retry
            into.append(str(message.message_id))

        made = scene.consumer()
        breaker = Breaker(minimum=1, failure_ratio=0.01, open_for=0.1) if fails else None
        made.add_handler("orders", handle, concurrency=2, prefetch=10, breaker=breaker)
        consumers.append(made)

    consumers: list[object] = []
    for into in handled:
        consumer(into)
    first, second = consumers
    async with first, second:  # type: ignore[attr-defined]
        ids = [f"m{number}" for number in range(100)]
        await scene.publish(*ids)
        await until(lambda: len(handled[0]) + len(handled[1]) == len(ids))
    return handled


@pytest.mark.parametrize("queue_type", ["quorum", "classic"])
@pytest.mark.parametrize("fails", [False, True], ids=["widening", "outage"])
def test_the_active_consumer_stays_the_active_one(vhost: BrokerAddress, queue_type: str, fails: bool) -> None:
    """basic.cancel would hand the queue over at once, whatever is unacked (fact 12.12)."""

    async def scenario() -> None:
        async with shop(vhost, queue_type=queue_type, arguments=SINGLE) as scene:
            first, second = await two(scene, fails)
            assert second == []
            assert len(first) == 100

    asyncio.run(scenario())
