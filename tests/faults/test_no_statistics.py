"""A broker whose statistics are switched off: an unknown count is never taken for 0, and what can be counted is."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from amqpflow import api
from amqpflow.errors import AmqpflowError, Refused
from amqpflow.model.routes import CompiledTopology
from amqpflow.node import create_virtual_host
from amqpflow.planning.changes import Drain
from amqpflow.planning.observation import Depth
from amqpflow.rabbitmq.address import BrokerAddress
from amqpflow.rabbitmq.management import open_management
from amqpflow.rabbitmq.observe import Broker, open_broker
from amqpflow.services.status import StatusReader
from tests.brokers.own_node import OwnNode
from tests.topology_files import compiled
from tests.waiting import until

SHOP = """
version: 1
name: shop
vhost: {vhost}
settings: arguments
retry_policies: {{std: {{delays: [{delay}]}}}}
queues: {queues}
"""
CONFIGURATION = "management_agent.disable_metrics_collector = true"  # of `node`


@pytest.fixture
def vhost(node: OwnNode) -> BrokerAddress:
    name = f"own-{uuid4().hex[:8]}"
    create_virtual_host(node.address, name)
    return node.address.with_vhost(name)


def text(vhost: BrokerAddress, queues: str, delay: str = "1s") -> str:
    return SHOP.format(vhost=vhost.vhost, queues=queues, delay=delay)


def shop(vhost: BrokerAddress, queues: str, delay: str = "1s") -> CompiledTopology:
    return compiled(text(vhost, queues, delay))


@asynccontextmanager
async def broker_of(vhost: BrokerAddress) -> AsyncIterator[tuple[Broker, Any]]:
    async with open_broker(vhost) as broker:
        yield broker, await broker.connection.admin_channel()


async def counted(vhost: BrokerAddress, queue: str) -> Depth | None:
    async with await open_management(vhost) as management:
        await management.overview()
        return (await management.depths(vhost.vhost, [queue])).get(queue)


async def put(channel: Any, queue: str, count: int) -> None:
    """Publish, and wait until RabbitMQ has them."""
    for number in range(count):
        await channel.basic_publish(str(number).encode(), routing_key=queue)

    async def there() -> bool:
        return int((await channel.queue_declare(queue, passive=True)).message_count) == count

    await until(there)


def queues(vhost: BrokerAddress) -> set[str]:
    async def ask() -> set[str]:
        async with await open_management(vhost) as management:
            return {each.name for each in await management.queues(vhost.vhost)}

    return asyncio.run(ask())


def test_a_queue_whose_messages_are_all_unacked_is_not_removed(vhost: BrokerAddress) -> None:
    """Neither a passive declare nor a list of queues shows them: its consumer has cancelled, and holds them."""

    async def scene() -> None:
        await api.apply(shop(vhost, "{orders: {retry: std}, gone: {type: classic, retry: none}}"), vhost)
        async with broker_of(vhost) as (_, channel):
            await put(channel, "gone", 7)
            for _ in range(7):
                await channel.basic_get("gone")
            with pytest.raises(Refused) as refused:
                await api.apply(shop(vhost, "{orders: {retry: std}}"), vhost, prune=True, allow=["delete"])
            told = " ".join([str(refused.value), *refused.value.problems])
            assert "7 messages" in told

    asyncio.run(scene())
    assert "gone" in queues(vhost)


def test_a_retired_retry_queue_keeps_what_its_full_work_queue_does_not_take(vhost: BrokerAddress) -> None:
    full = "{orders: {retry: std, limits: {max_length: 3, overflow: reject-publish}}}"

    async def scene() -> None:
        await api.apply(shop(vhost, full), vhost)
        async with broker_of(vhost) as (_, channel):
            await put(channel, "orders", 3)
            for number in range(100):  # a quorum queue takes some more than its limit (fact 9.3)
                await channel.basic_publish(str(number).encode(), exchange="shop.retry", routing_key="orders.retry.1s")

            async def retained() -> bool:
                found = await counted(vhost, "orders.retry.1s")
                return found is not None and found.hidden == found.messages and bool(found.hidden)

            await until(retained, every=0.5)
            report = await api.apply(shop(vhost, full, "2s"), vhost, prune=True, allow=["delete"])
            held = {each.change.name: each.messages for each in report.postponed if isinstance(each.change, Drain)}
            assert held["orders.retry.1s"]

    asyncio.run(scene())
    assert "orders.retry.1s" in queues(vhost)


def test_a_policy_that_keeps_retained_messages_stays(vhost: BrokerAddress) -> None:
    """Totals show that something is neither ready nor unacked."""

    def file(queues: str) -> CompiledTopology:
        return compiled(text(vhost, queues).replace("settings: arguments\n", ""))

    legacy = "{orders: {retry: std}, legacy: {existing: true, retry: none}}"

    async def scene() -> None:
        async with broker_of(vhost) as (_, channel):
            await channel.queue_declare("legacy", durable=True, arguments={"x-queue-type": "quorum"})
            await api.apply(file(legacy), vhost)
            await put(channel, "legacy", 2)
            await channel.queue_delete("legacy.parking")
            for _ in range(2):
                got = await channel.basic_get("legacy")
                await channel.basic_reject(got.delivery.delivery_tag, requeue=False)
            with pytest.raises(AmqpflowError) as refused:
                await api.apply(file("{orders: {retry: std}}"), vhost)
            assert "2 messages that it retains" in str(refused.value) + str(getattr(refused.value, "problems", ""))
            found = await counted(vhost, "legacy")
            assert found is not None
            assert found.hidden == 2

    asyncio.run(scene())


def test_what_is_certainly_empty_is_removed(vhost: BrokerAddress) -> None:
    """Totals are there without statistics, so that a deploy does not need them switched on."""

    async def scene() -> None:
        await api.apply(shop(vhost, "{orders: {retry: std}, gone: {retry: std}}"), vhost)
        report = await api.apply(shop(vhost, "{orders: {retry: std}}"), vhost, prune=True, allow=["delete"])
        assert report.complete

    asyncio.run(scene())
    assert "gone" not in queues(vhost)


def test_a_status_shows_what_it_knows_and_says_what_it_does_not(vhost: BrokerAddress, tmp_path: Path) -> None:
    async def scene() -> None:
        await api.apply(shop(vhost, "{orders: {retry: std}}"), vhost)
        async with broker_of(vhost) as (broker, channel):
            await put(channel, "orders", 5)
            for _ in range(2):
                await channel.basic_get("orders")
            reader = StatusReader(broker, shop(vhost, "{orders: {retry: std}}"))
            try:

                async def caught_up() -> bool:
                    (work,) = (await reader.read()).queues
                    return work.numbers is not None and work.numbers.unacked == 2

                await until(caught_up, every=0.5)
                status = await reader.read()
            finally:
                await reader.close()
            (work,) = status.queues
            assert work.numbers is not None
            assert (work.numbers.ready, work.numbers.retained, work.retained) == (3, 0, 0)
            assert work.numbers.publish_rate is None
            assert "no-statistics" in {each.code for each in status.alerts}

    asyncio.run(scene())
    file = tmp_path / "shop.yaml"
    file.write_text(text(vhost, "{orders: {retry: std}}"))
    command = [sys.executable, "-m", "amqpflow", "status", str(file)]
    environment = {"AMQPFLOW_URL": vhost.url, "AMQPFLOW_MANAGEMENT_URL": vhost.management_url or ""}
    shown = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert "disable_metrics_collector" in shown.stdout, shown.stderr
