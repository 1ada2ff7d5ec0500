"""Why a channel or a connection ended, as a real broker and a real network end it."""

from __future__ import annotations

import asyncio

import pytest

from amqpflow.errors import BrokerError, BrokerUnavailableError, PublishUncertainError
from amqpflow.rabbitmq.address import BrokerAddress
from amqpflow.rabbitmq.channel import Channel
from amqpflow.rabbitmq.connection import Connection, connect
from tests.brokers.management import Management
from tests.faults.proxy import Proxy
from tests.integration.test_channel import QUORUM, fates, message, opened
from tests.waiting import until


async def ended(connection: Connection, channel: Channel, within: float = 30) -> tuple[str, str]:
    """The reasons of both, once they have ended."""
    async with asyncio.timeout(within):
        await connection.closed.wait()
        await channel.closed.wait()
    return str(connection.close_reason), str(channel.close_reason)


def test_an_operator_closes_the_connection(vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        async with opened(vhost) as (connection, channel):
            assert connection.close_reason is None
            assert channel.close_reason is None
            management = Management(vhost)
            names = await until(lambda: management.get("vhosts", vhost.vhost, "connections"))
            management.delete("connections", names[0]["name"])
            said, channels = await ended(connection, channel)
            closed = "an operator closed the connection in the management API"
            assert said == f"{closed} (320 CONNECTION_FORCED - Closed via management plugin)"
            assert channels == said, "a channel ends with its connection, and for its reason"
            with pytest.raises(BrokerUnavailableError, match="320 CONNECTION_FORCED"):
                await channel.publish(message("here"))

    asyncio.run(scenario())


def test_the_virtual_host_is_deleted(vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        async with opened(vhost) as (connection, channel):
            await asyncio.to_thread(Management(vhost).delete, "vhosts", vhost.vhost)
            said, channels = await ended(connection, channel)
            assert said.startswith("the virtual host was deleted or stopped (320 CONNECTION_FORCED - vhost ")
            assert channels == said

    asyncio.run(scenario())


def test_the_broker_closes_a_channel_and_not_its_connection(vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        async with opened(vhost, here=QUORUM) as (connection, channel):
            (fate,) = await fates(channel.publish(message("k", exchange="nowhere")))
            said = f"RabbitMQ closed the channel: 404 NOT_FOUND - no exchange 'nowhere' in vhost '{vhost.vhost}'"
            assert str(channel.close_reason) == said
            assert isinstance(fate, PublishUncertainError)
            assert said in str(fate)
            assert str(fate.closed_by_publish).startswith("NOT_FOUND")
            assert connection.close_reason is None
            other = await connection.open_channel()
            with pytest.raises(BrokerError):
                await other.queue_counts("missing")
            assert other.close_reason is not None
            assert other.close_reason.code == 404

    asyncio.run(scenario())


@pytest.mark.one_broker
def test_who_closes_a_channel_or_a_connection_is_told_apart_from_the_broker(vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        connection = await connect(vhost, name="amqpflow test closing")
        first, second = await connection.open_channel(), await connection.open_channel()
        await first.close()
        assert first.close_reason is not None
        assert first.close_reason.by_us
        await connection.close()
        said, channels = await ended(connection, second)
        assert said == channels == "amqpflow closed it"

    asyncio.run(scenario())


@pytest.mark.one_broker
def test_the_network_cuts_the_connection(vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        async with Proxy(vhost, heartbeat=None) as proxy, opened(proxy.address) as (connection, channel):
            proxy.cut()
            said, channels = await ended(connection, channel)
            assert said in (
                "the socket failed: connection reset by peer (ECONNRESET)",
                "RabbitMQ or the network closed the socket without a reason",
            )
            assert channels == said
            assert connection.close_reason is not None
            assert connection.close_reason.silent

    asyncio.run(scenario())


@pytest.mark.one_broker
def test_a_peer_that_falls_silent_is_said_to_have_missed_heartbeats(vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        async with Proxy(vhost) as proxy, opened(proxy.address) as (connection, channel):
            proxy.to_client.clear()
            said, channels = await ended(connection, channel)
            assert said.startswith("missed heartbeats: nothing was received for ")
            assert said.endswith(" (heartbeat 1s)")
            assert channels == said

    asyncio.run(scenario())
