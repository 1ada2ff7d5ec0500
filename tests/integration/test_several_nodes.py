"""Several broker addresses: the first that takes a connection is used."""

from __future__ import annotations

import asyncio

import pytest

from amqpflow import Message
from amqpflow.errors import AuthenticationError, BrokerUnavailableError
from amqpflow.rabbitmq.address import BrokerAddress, resolve_address
from amqpflow.rabbitmq.connection import connect
from tests.shop import shop
from tests.waiting import until

NOBODY = "amqp://guest:guest@127.0.0.1:1/"


def several(*urls: str) -> BrokerAddress:
    return resolve_address(",".join(urls), environ={})


@pytest.mark.one_broker
def test_a_node_that_is_down_is_passed_over(vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        async with await connect(several(NOBODY, vhost.url), name="amqpflow test") as connection:
            assert connection.address.port == vhost.port

    asyncio.run(scenario())


@pytest.mark.one_broker
def test_when_no_node_answers_each_is_named(vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        with pytest.raises(BrokerUnavailableError, match=r"127\.0\.0\.1:1/.*127\.0\.0\.1:2/"):
            await connect(several(NOBODY, "amqp://guest:guest@127.0.0.1:2/"), name="amqpflow test")
        wrong = f"amqp://guest:wrong@{vhost.host}:{vhost.port}/"
        with pytest.raises(AuthenticationError):
            await connect(several(NOBODY, wrong), name="amqpflow test")

    asyncio.run(scenario())


@pytest.mark.one_broker
def test_a_consumer_begins_with_any_node_and_comes_to_one_that_is_there(vhost: BrokerAddress) -> None:
    done: list[str | None] = []

    async def note(message: Message) -> None:
        done.append(message.message_id)

    async def scenario() -> None:
        async with shop(vhost) as scene:
            for number in range(3):
                consumer = scene.consumer(orders=note)
                consumer.address = several(NOBODY, vhost.url).starting_with(number).with_vhost(vhost.vhost)
                async with consumer:
                    await scene.publish(str(number))
                    await until(lambda number=number: len(done) == number + 1)  # type: ignore[misc]

    asyncio.run(scenario())
