"""Headers that a producer made up: an `x-death` where RabbitMQ believes it, and a due time of ours."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Any

import pytest

from amqpflow import Message, Publisher
from amqpflow.model.message import Delivery
from amqpflow.rabbitmq.address import BrokerAddress
from tests.shop import Shop, shop
from tests.waiting import until

PARKING = "orders.parking"
DIED_IN_PARKING: dict[str, Any] = {
    "x-death": [
        {
            "queue": PARKING,
            "reason": "expired",
            "count": 1,
            "exchange": "",
            "routing-keys": [PARKING],
            "time": datetime(2026, 1, 1, tzinfo=UTC),
        }
    ]
}


async def given_up_by_rabbitmq(scene: Shop) -> None:
    """The consumers of what is in `orders` are lost until the delivery limit is passed."""
    while await scene.depth("orders"):
        channel = await scene.connection.open_channel()
        got: list[Delivery] = []
        await channel.consume("orders", got.append, prefetch=2, on_cancel=lambda: None)
        await until(lambda got=got: got)  # type: ignore[misc]
        await channel.close()
        await until(lambda: settled(scene))


async def settled(scene: Shop) -> bool:
    return bool(await scene.depth("orders") or await scene.depth(PARKING))


async def ids(scene: Shop) -> set[str]:
    return {str(each.header.properties.message_id) for each in await scene.take(PARKING)}


@pytest.mark.parametrize("how", ["expires", "delivery limit"])
@pytest.mark.parametrize(
    "parked",
    [
        pytest.param({"plain", "forged"}, marks=pytest.mark.releases(">=4.0"), id="kept"),
        pytest.param({"plain"}, marks=pytest.mark.releases("<4.0"), id="dropped by RabbitMQ 3"),
    ],
)
def test_rabbitmq_before_4_drops_what_says_that_it_died_in_the_parking_queue(
    vhost: BrokerAddress, how: str, parked: set[str]
) -> None:
    """It takes it for a cycle of dead-lettering, whoever wrote the header; the guarantees name this limit."""

    async def scenario() -> None:
        async with shop(vhost, delivery_limit=1) as scene:
            more = {"expiration": "200"} if how == "expires" else {}
            await scene.publish("forged", headers=DIED_IN_PARKING, **more)
            await scene.publish("plain", **more)  # behind it: parked when the other has been dealt with
            if how == "delivery limit":
                await given_up_by_rabbitmq(scene)

            async def dealt_with() -> bool:
                return not await scene.depth("orders") and await scene.depth(PARKING) >= len(parked)

            await until(dealt_with)
            assert await ids(scene) == parked

    asyncio.run(scenario())


def test_a_forged_death_harms_no_retry_and_no_parking_by_a_consumer(vhost: BrokerAddress) -> None:
    """The copies do not have it, so that RabbitMQ's own dead-lettering does not see it from the first failure on."""

    async def scenario() -> None:
        async with shop(vhost, delivery_limit=1) as scene:

            async def fail(message: Message) -> None:
                assert message.headers["x-death"][0]["queue"] == PARKING, "the producer's header is shown"
                raise OSError

            async with scene.consumer(orders=fail):
                await scene.publish("forged", headers=DIED_IN_PARKING)
                await until(lambda: scene.depth(PARKING))
            assert await ids(scene) == {"forged"}

    asyncio.run(scenario())


def test_a_publisher_does_not_send_one(vhost: BrokerAddress) -> None:
    """A handler that publishes with all headers it was shown would, and RabbitMQ 3 would drop the message."""

    async def scenario() -> None:
        async with shop(vhost) as scene, Publisher(vhost.url) as publisher:
            await publisher.publish(
                b"{}", routing_key="orders", message_id="m", headers=DIED_IN_PARKING | {"their": 1}, expiration=200
            )
            await until(lambda: scene.depth(PARKING))
            (message,) = await scene.take(PARKING)
            assert [each["queue"] for each in message.header.properties.headers["x-death"]] == ["orders"]
            assert message.header.properties.headers["their"] == 1

    asyncio.run(scenario())


@pytest.mark.one_broker
def test_a_forged_due_time_does_not_keep_a_message_from_its_handler(vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        async with shop(vhost, {"orders": (300,)}) as scene:

            async def handle(message: Message) -> None:
                scene.done.append(str(message.message_id))

            now = time.time_ns() // 1_000_000
            ours = {"x-amqpflow-queue": "orders", "x-amqpflow-hop": "m/0/1", "x-amqpflow-attempt": 1}
            forged: dict[str, dict[str, Any]] = {
                "for ever": {"x-amqpflow-failed-at": 1, "x-amqpflow-due-at": 2**53 - 1},
                "from the future": {"x-amqpflow-failed-at": 2**53 - 9999, "x-amqpflow-due-at": 2**53 - 1},
                "longer than a message may go round": {"x-amqpflow-due-at": now + 300 * 10_001},
            }
            for name, headers in forged.items():
                await scene.publish(name, headers={**ours, "x-amqpflow-failed-at": now, **headers})
            consumer = scene.consumer(orders=handle)
            async with consumer:
                await until(lambda: len(scene.done) == len(forged))
            assert sorted(scene.done) == sorted(forged)
            assert not consumer.totals["postponed"]

    asyncio.run(scenario())
