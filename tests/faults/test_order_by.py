"""The order of first attempts of one key, through stops, lost connections, outages and messages that may kill."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from amqpflow import Breaker, Consumer, Message
from amqpflow.rabbitmq.address import BrokerAddress
from amqpflow.services.consuming import session
from tests.shop import Shop, connections_of, cut, shop
from tests.waiting import until


def ordered(scene: Shop, handle: Any, *, concurrency: int = 5, prefetch: int = 30, **options: Any) -> Consumer:
    consumer = scene.consumer()
    consumer.add_handler("orders", handle, concurrency=concurrency, prefetch=prefetch, order_by="customer", **options)
    return consumer


def first_attempts(seen: list[str]) -> list[str]:
    return list(dict.fromkeys(seen))


@pytest.mark.parametrize("how", ["stopped", "cut"])
@pytest.mark.parametrize("concurrency", [1, 5])
def test_a_key_keeps_its_order_when_its_consumer_ends_in_the_middle(
    vhost: BrokerAddress, how: str, concurrency: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_ON_ITS_WAY", "_LONGEST_ARRIVAL"):
        monkeypatch.setattr(session, name, 20.0)  # however slow the broker is here: so many wait that it ends early

    async def scenario() -> None:
        async with shop(vhost, {"orders": (60_000,)}) as scene:
            seen: list[str] = []
            again = asyncio.Event()

            async def handle(message: Message) -> None:
                await asyncio.sleep(0.01)
                seen.append(str(message.message_id))
                again.set()

            async def right_behind_the_ack_of(number: int) -> None:
                """The broker assigns the next one for it."""
                while len(seen) < number:
                    again.clear()
                    await again.wait()
                await asyncio.sleep(0)

            ids = [f"m{number:03}" for number in range(150)]
            await scene.publish(*ids, headers={"customer": "c"})
            if how == "stopped":
                for enough in (11, 32, 53, 74):
                    async with ordered(scene, handle, concurrency=concurrency):
                        await right_behind_the_ack_of(enough)
            consumer = ordered(scene, handle, concurrency=concurrency)
            connections = connections_of(consumer)
            async with consumer:
                if how == "cut":
                    for enough in (11, 32):
                        await right_behind_the_ack_of(enough)
                        cut(connections)
                        await until(lambda: consumer.problems)
                await until(lambda: set(seen) == set(ids))
                monkeypatch.setattr(session, "_ON_ITS_WAY", 0.0)
            assert first_attempts(seen) == ids

    asyncio.run(scenario())


@pytest.mark.parametrize("consumer_timeout_ms", [None, 4000])
def test_a_key_keeps_its_order_in_an_outage(vhost: BrokerAddress, consumer_timeout_ms: int | None) -> None:
    """With a short consumer timeout what waits has to go back meanwhile: all of it, or the younger ones would pass."""

    async def scenario() -> None:
        options = {} if consumer_timeout_ms is None else {"consumer_timeout_ms": consumer_timeout_ms}
        async with shop(vhost, {"orders": (60_000,)}, **options) as scene:
            seen: list[str] = []

            async def handle(message: Message) -> None:
                if message.message_id == "m1":
                    await asyncio.sleep(1.4)
                    raise ConnectionError
                seen.append(str(message.message_id))
                await asyncio.sleep(0.01)

            breaker = Breaker(trip_on=(ConnectionError,), open_for=1.5)
            async with ordered(scene, handle, breaker=breaker):
                await scene.publish("m1", "m2", "m3", headers={"customer": "c"})
                await asyncio.sleep(1.2)
                await scene.publish("m4", "m5", "m6", headers={"customer": "c"})
                await until(lambda: len(seen) >= 5)
            assert seen == ["m2", "m3", "m4", "m5", "m6"]

    asyncio.run(scenario())


@pytest.mark.one_broker
def test_a_message_whose_turn_an_outage_ended_is_not_passed_by_the_next_of_its_key(vhost: BrokerAddress) -> None:
    """It waited for the rate, and has not begun."""

    async def scenario() -> None:
        async with shop(vhost, {"orders": (60_000,)}) as scene:
            seen: list[str] = []

            async def handle(message: Message) -> None:
                if message.message_id == "down":
                    await asyncio.sleep(0.2)
                    raise ConnectionError
                seen.append(str(message.message_id))

            breaker = Breaker(trip_on=(ConnectionError,), open_for=0.5)
            async with ordered(scene, handle, breaker=breaker, rate="1/s"):
                await scene.publish("down", headers={"customer": "other"})
                await scene.publish("m1", "m2", "m3", headers={"customer": "c"})
                await until(lambda: len(seen) >= 3)
            assert seen == ["m1", "m2", "m3"]

    asyncio.run(scenario())


def test_messages_that_may_kill_keep_the_order_of_their_key(vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        async with shop(vhost) as scene:
            seen: list[str] = []

            async def handle(message: Message) -> None:
                seen.append(str(message.message_id))
                await asyncio.sleep(0.01)

            ids = [f"m{number}" for number in range(1, 10)]
            await scene.publish(*ids[:5], headers={"customer": "c"})
            for _ in range(3):
                channel = await scene.connection.admin_channel()
                for _ in range(5):
                    await channel.basic_get("orders")
                await channel.close()
                await scene.holds("orders", 5)
            await scene.publish(*ids[5:], headers={"customer": "c"})
            async with ordered(scene, handle):
                await until(lambda: len(seen) >= len(ids))
            assert seen == ids

    asyncio.run(scenario())
