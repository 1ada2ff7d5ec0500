"""What RabbitMQ takes for the heartbeat of our connections."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from amqpflow.rabbitmq.address import BrokerAddress
from amqpflow.rabbitmq.connection import IDENTITY, connect
from amqpflow.rabbitmq.observe import open_broker
from tests.brokers.management import Management
from tests.waiting import until


@pytest.mark.one_broker
@pytest.mark.parametrize(("query", "seconds"), [("", 5), ("?heartbeat=20", 20)])
def test_rabbitmq_takes_the_heartbeat_that_the_client_names(vhost: BrokerAddress, query: str, seconds: int) -> None:
    """Its own, 60 by default, is a proposal."""

    async def scenario() -> None:
        address = replace(vhost, url=vhost.url + query)
        async with await connect(address, name="amqpflow test") as connection:
            assert connection.heartbeat == seconds

            def known() -> list[int]:
                return [
                    each["timeout"]
                    for each in Management(vhost).get("vhosts", vhost.vhost, "connections")
                    if each.get("client_properties", {}).get(IDENTITY) == connection.identity and "timeout" in each
                ]

            assert await until(known) == [seconds]

    asyncio.run(scenario())


@pytest.mark.one_broker
def test_commands_have_a_longer_heartbeat_unless_the_url_names_one(vhost: BrokerAddress) -> None:
    async def heartbeat(query: str) -> int:
        async with open_broker(replace(vhost, url=vhost.url + query), use_management=False) as broker:
            async with await connect(broker.address, name="amqpflow test") as second:
                assert second.heartbeat == broker.connection.heartbeat
            return broker.connection.heartbeat

    assert asyncio.run(heartbeat("")) == 20
    assert asyncio.run(heartbeat("?heartbeat=7")) == 7
