"""A permission that is taken away for a while: nothing is wrong with the messages, so none is parked for it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from uuid import uuid4

import pytest

from amqpflow import Message, Park, Retry
from amqpflow.delivery.backoff import Backoff
from amqpflow.errors import PublishForbiddenError
from amqpflow.model.message import Publish
from amqpflow.model.properties import Properties
from amqpflow.rabbitmq.address import BrokerAddress
from amqpflow.rabbitmq.connection import connect
from amqpflow.services.consuming import settler
from amqpflow.services.publishing.outbox import Outbox
from tests.brokers.management import as_user
from tests.posting import posted
from tests.shop import PARKING, RETRY, Shop, shop
from tests.waiting import until

IDS = [f"m{number}" for number in range(6)]


class Rights:
    """What a user of its own may write in the shop's virtual host."""

    def __init__(self, scene: Shop) -> None:
        self._scene = scene
        self._user = f"amqpflow-test-narrow-{uuid4().hex[:8]}"  # other tests have one at the same time

    def may_write(self, pattern: str) -> None:
        rights = {"configure": "", "write": pattern, "read": ".*"}
        self._scene.management.put("permissions", self._scene.address.vhost, self._user, body=rights)

    @property
    def address(self) -> BrokerAddress:
        return replace(as_user(self._scene.address, self._user, "s3cret"), management_url=None)

    def __enter__(self) -> Rights:
        self._scene.management.put("users", self._user, body={"password": "s3cret", "tags": ""})
        return self

    def __exit__(self, *_: object) -> None:
        self._scene.management.delete("users", self._user)


@pytest.fixture(autouse=True)
def try_again_quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settler, "_BACKOFF", Backoff(0.5, 0.5))


@pytest.mark.parametrize("missing", [RETRY, PARKING])
def test_messages_wait_for_a_write_permission_that_comes_back(vhost: BrokerAddress, missing: str) -> None:
    """Half of the messages retry, half of them park. The exchange that may be written takes its half meanwhile."""

    async def scenario() -> None:
        async with shop(vhost) as scene:

            async def handle(message: Message) -> None:
                if int(str(message.message_id)[1:]) % 2:
                    raise Park("for good")
                if message.attempt == 1:
                    raise Retry
                scene.done.append(str(message.message_id))

            with Rights(scene) as rights:
                rights.may_write(f"^{PARKING if missing == RETRY else RETRY}$")
                consumer = scene.consumer(orders=handle)
                consumer.address = rights.address
                async with consumer:
                    await scene.publish(*IDS)
                    why = f"no permission to publish to exchange '{missing}'"
                    await until(lambda: why in consumer.problems.get("orders", ""))
                    other = "parked" if missing == RETRY else "retried"
                    await until(lambda: consumer.totals[other] == 3)
                    assert consumer.totals["retried" if missing == RETRY else "parked"] == 0
                    rights.may_write(f"^({PARKING}|{RETRY})$")
                    await until(lambda: len(set(scene.done)) == 3)
                    await until(lambda: consumer.totals["parked"] >= 3 and consumer.totals["retried"] >= 3)
                    await until(lambda: consumer.healthy)
                assert consumer.totals["parked"] == 3
                assert consumer.totals["retried"] == 3
            # what the first refusal made uncertain may be there twice (guarantee G2)
            assert set(await scene.account()) == set(IDS)

    asyncio.run(scenario())


@pytest.mark.one_broker
def test_what_may_not_be_published_closes_the_channel_of_other_messages_once(vhost: BrokerAddress) -> None:
    """Each close makes copies uncertain that are without a confirm, and so second copies."""

    async def scenario() -> None:
        async with shop(vhost) as scene:
            tier = message("retried", exchange=RETRY, routing_key="orders.retry.50ms")
            with Rights(scene) as rights:
                rights.may_write(f"^{PARKING}$")
                outbox = Outbox(partial(connect, rights.address, name="amqpflow test"))
                with pytest.raises(PublishForbiddenError):
                    await posted(outbox, tier)
                await posted(outbox, message("parked", exchange=PARKING, routing_key="orders.parking"))
                channel = outbox._channel
                assert channel is not None
                with pytest.raises(PublishForbiddenError):
                    await posted(outbox, tier)
                assert not channel.is_closed
                rights.may_write(f"^({PARKING}|{RETRY})$")
                await posted(outbox, tier)
                await posted(outbox, tier)
                assert outbox._channel is channel
                assert outbox.alone == set()
                await outbox.close()

    asyncio.run(scenario())


def message(name: str, *, exchange: str, routing_key: str) -> Publish:
    return Publish.of(
        exchange=exchange, routing_key=routing_key, properties=Properties(message_id=name, delivery_mode=2), body=b""
    )
