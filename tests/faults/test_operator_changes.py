"""What an operator takes away for a while: a consumer comes back by itself, and says meanwhile why it does not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from uuid import uuid4

import pytest

from amqpflow import Message
from amqpflow.rabbitmq.address import BrokerAddress
from amqpflow.services.consuming.consumer import Consumer
from tests.brokers.management import Management, as_user
from tests.shop import Shop, shop
from tests.waiting import until

EVERYTHING = {"configure": ".*", "write": ".*", "read": ".*"}


@pytest.fixture
def user(vhost: BrokerAddress) -> Iterator[BrokerAddress]:
    """A user that an operator may change; deleted after the test."""
    address = as_user(vhost, f"amqpflow-test-{uuid4().hex[:8]}", "p")
    make(vhost, address)
    try:
        yield address
    finally:
        Management(vhost).delete("users", address.user)


def make(vhost: BrokerAddress, user: BrokerAddress, **permissions: str) -> None:
    management = Management(vhost)
    management.put("users", user.user, body={"password": "p", "tags": ""})
    management.put("permissions", user.vhost, user.user, body={**EVERYTHING, **permissions})


@asynccontextmanager
async def consuming(vhost: BrokerAddress, user: BrokerAddress) -> AsyncIterator[tuple[Shop, Consumer]]:
    """A consumer of `user` that handles `good ...` and parks `bad ...`, and has done so once."""
    async with shop(vhost) as scene:
        scene.address = user

        async def handle(message: Message) -> None:
            if str(message.message_id).startswith("bad"):
                raise ValueError("bad")
            scene.done.append(str(message.message_id))

        consumer = scene.consumer(orders=handle)
        async with consumer:
            await scene.publish("good before", "bad before")
            await scene.take_one("orders.parking")
            await until(lambda: scene.done == ["good before"])
            yield scene, consumer


async def says(consumer: Consumer, *words: str) -> None:
    """Wait until health says one of these."""
    await until(lambda: any(word in each for word in words for each in consumer.problems.values()))


async def comes_back(scene: Shop, consumer: Consumer) -> None:
    """A good message is handled and a bad one parked, and it is healthy again."""
    await scene.publish("good after", "bad after")
    await until(lambda: "good after" in scene.done)
    await scene.take_one("orders.parking")
    await until(lambda: consumer.healthy)


def test_a_user_that_is_deleted_and_made_again(vhost: BrokerAddress, user: BrokerAddress) -> None:
    async def scenario() -> None:
        async with consuming(vhost, user) as (scene, consumer):
            scene.management.delete("users", user.user)
            await says(consumer, "cannot reconnect: ", "refused the user or the password")
            await says(consumer, "refused the user or the password")
            make(vhost, user)
            await comes_back(scene, consumer)

    asyncio.run(scenario())


def test_a_virtual_host_that_is_deleted_and_made_again(vhost: BrokerAddress, user: BrokerAddress) -> None:
    """Queues are gone with it: it waits for them as well, and names the command that makes them."""

    async def scenario() -> None:
        async with consuming(vhost, user) as (scene, consumer):
            management = Management(vhost)
            management.delete("vhosts", vhost.vhost)
            await says(consumer, f"there is no virtual host {vhost.vhost}")
            management.put("vhosts", vhost.vhost)
            management.put("permissions", vhost.vhost, vhost.user, body=EVERYTHING)
            await says(consumer, f"the user {user.user} has no access to the virtual host {vhost.vhost}")
            make(vhost, user)
            await says(consumer, "cannot consume: NOT_FOUND - no queue 'orders'")
            async with shop(vhost) as anew:
                anew.done = scene.done
                await comes_back(anew, consumer)

    asyncio.run(scenario())


def test_a_queue_that_is_deleted_and_made_again(vhost: BrokerAddress, user: BrokerAddress) -> None:
    async def scenario() -> None:
        async with consuming(vhost, user) as (scene, consumer):
            scene.delete("queues", "orders")
            await says(consumer, "cannot consume: NOT_FOUND - no queue 'orders'")
            await scene.declare()
            await comes_back(scene, consumer)

    asyncio.run(scenario())


def test_a_read_permission_that_is_taken_away_for_a_while(vhost: BrokerAddress, user: BrokerAddress) -> None:
    """It is looked at when the consumer begins: an operator closes the connection."""

    async def scenario() -> None:
        async with consuming(vhost, user) as (scene, consumer):
            make(vhost, user, read="^$")
            await scene.close_connections("amqpflow consumer")
            await says(consumer, "cannot consume: ACCESS_REFUSED")
            make(vhost, user)
            await comes_back(scene, consumer)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("of", "words"),
    [
        ("user connections", "has no connections left: the limit of 1 is reached"),
        ("vhost connections", "accepts no more connections: the limit of 2 is reached"),
        ("user channels", "has no channels left, its limit is 1"),
    ],
)
def test_a_limit_that_leaves_no_room_for_retries(
    vhost: BrokerAddress, user: BrokerAddress, of: str, words: str
) -> None:
    """The failed message is held, and parked once the limit is lifted; the test's own connection counts as well.

    The limit comes after the start: a channel that was closed there counts for a moment longer.
    """
    management = Management(vhost)

    def limit(value: int) -> None:
        if of.startswith("user"):
            management.put("user-limits", user.user, f"max-{of.split()[1]}", body={"value": value})
        else:
            management.put("vhost-limits", vhost.vhost, "max-connections", body={"value": value})

    async def scenario() -> None:
        async with shop(vhost) as scene:
            scene.address = user

            async def handle(message: Message) -> None:
                raise ValueError("bad")

            async with scene.consumer(orders=handle) as consumer:
                limit(2 if of.startswith("vhost") else 1)
                await scene.publish("bad")
                await says(consumer, words)
                limit(-1)
                parked = await scene.take_one("orders.parking")
                assert parked.header.properties.message_id == "bad"
                await until(lambda: consumer.healthy)

    asyncio.run(scenario())
