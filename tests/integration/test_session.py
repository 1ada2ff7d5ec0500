"""A consumer's session: what it held when it ended is the broker's again, and it settles nothing of it."""

from __future__ import annotations

import asyncio

import pytest

from amqpflow.model.message import Delivery
from amqpflow.rabbitmq.address import BrokerAddress
from amqpflow.services.consuming.session import Session
from tests.integration.test_channel import QUORUM, message, opened


@pytest.mark.parametrize("settle", ["ack", "requeue", "reject"])
def test_after_the_server_cancelled_the_consumer_a_session_settles_nothing(vhost: BrokerAddress, settle: str) -> None:
    """Its channel is open and takes the frame, which has no effect: the message comes again (fact 12.2)."""

    async def scenario() -> None:
        async with opened(vhost, here=QUORUM) as (connection, publishing):
            await publishing.publish(message("here"))
            channel = await connection.open_channel()
            session = Session(channel, "here", prefetch=1, first_prefetch=1)
            await session.start()
            delivery = await session.next()
            assert isinstance(delivery, Delivery)
            assert session.holds(delivery)
            admin = await connection.admin_channel()
            await admin.queue_delete("here")
            await asyncio.wait_for(session.ended.wait(), 30)
            assert session.cancelled_by_server
            assert not channel.is_closed
            assert not session.holds(delivery)
            assert getattr(session, settle)(delivery) is False
            await channel.close()

    asyncio.run(scenario())
