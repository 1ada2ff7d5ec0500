"""A platform's policy for everything, on a real RabbitMQ: what is parked under it stays parked."""

from __future__ import annotations

import asyncio

import pytest

from amqpflow import Consumer, apply, destroy, parked, plan
from amqpflow.errors import NotAppliedError
from amqpflow.rabbitmq.address import BrokerAddress
from amqpflow.rabbitmq.connection import connect
from tests.brokers.management import Management
from tests.integration.test_brownfield import declare, fail_retry_park_replay, publish, topology
from tests.parked import delivered, park
from tests.waiting import until

FILE = "name: shop\nversion: 1\nretry_policies: {fast: {delays: [100ms]}}\nqueues: {orders: {retry: fast}}\n"


def everything(vhost: BrokerAddress, priority: int = 0, **definition: object) -> None:
    keys = {key.replace("_", "-"): value for key, value in definition.items()}
    body = {"pattern": ".*", "definition": keys, "apply-to": "all", "priority": priority}
    Management(vhost).put("policies", vhost.vhost, "everything", body=body)


def test_what_is_parked_outlives_a_ttl_that_a_platform_gives_to_everything(vhost: BrokerAddress) -> None:
    file, management = topology(FILE, vhost), Management(vhost)

    async def scenario() -> None:
        everything(vhost, message_ttl=300)
        await declare(vhost, {"other": {"x-queue-type": "classic"}})
        planned = await plan(file, vhost)
        assert {each.code for each in planned.warnings} == {"policy-displaces"}
        assert (await apply(planned)).complete
        assert (await plan(file, vhost)).nothing_to_do
        connection = await connect(vhost, name="application")
        await park(connection, file.compiled, [delivered("orders", message_id="kept")])
        await publish(vhost, ("other",))
        channel = await connection.admin_channel()

        async def expired() -> bool:
            return (await channel.queue_declare("other", passive=True)).message_count == 0

        await until(expired)
        assert [each.message_id for each in (await parked(file, vhost)).messages] == ["kept"]
        await connection.close()
        left = await destroy(file, vhost, allow=("delete", "delete:orders.parking"))
        assert left.complete
        assert [each["name"] for each in management.get("policies", vhost.vhost)] == ["everything"]

    asyncio.run(scenario())


def test_a_consumer_starts_under_a_shield_and_not_without_it(vhost: BrokerAddress) -> None:
    """Its retries, parking and replay work; a policy that comes later is named with the command that shields."""
    file, management = topology(FILE, vhost), Management(vhost)

    def works(policy: str) -> bool:
        """On every queue: it does a moment after it was put."""
        listed = management.get("queues", vhost.vhost, query="disable_stats=true")
        return all((each.get("policy") or "").startswith(policy) for each in listed if not each["exclusive"])

    async def scenario() -> None:
        await apply(file, vhost)
        everything(vhost, message_ttl=50, max_length=1000)
        await until(lambda: works("everything"))
        consumer = Consumer(file, vhost.url, management_url=vhost.management_url)
        consumer.add_handler("orders", lambda _: None)
        with pytest.raises(NotAppliedError) as refused:
            await consumer.start()
        assert any("policy amqpflow.shop.quorum-shield-" in each for each in refused.value.problems)
        assert refused.value.hint.startswith("amqpflow apply")
        assert (await apply(file, vhost)).complete
        await until(lambda: works("amqpflow.shop."))
        await fail_retry_park_replay(file, vhost, ("orders",))

    asyncio.run(scenario())
