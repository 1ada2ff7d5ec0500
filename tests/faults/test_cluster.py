"""A three-node cluster that loses a node, under a consumer that knows all three: nothing is lost."""

from __future__ import annotations

import asyncio
import os
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from amqpflow import Consumer, Message, Park, Publisher, Retry, Topology, apply
from amqpflow.delivery.backoff import Backoff
from amqpflow.errors import AmqpflowError, BrokerError, BrokerUnavailableError
from amqpflow.node import create_virtual_host
from amqpflow.node.locate import Installation, locate
from amqpflow.rabbitmq.observe import open_broker
from amqpflow.services.consuming import connections as consuming
from amqpflow.services.parked.restore_targets import require_queues
from tests.brokers.management import Management
from tests.brokers.own_cluster import OwnCluster
from tests.shop import hop_of, shop
from tests.topology_files import compiled
from tests.waiting import until

MESSAGES = int(os.environ.get("AMQPFLOW_SOAK", "600"))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnCluster]:
    found = locate()
    if not isinstance(found, Installation) or found.epmd is None:
        pytest.skip("a cluster of our own needs a RabbitMQ installed here")
    own = OwnCluster(found, tmp_path_factory.mktemp("cluster"))
    try:
        own.start()
        yield own
    finally:
        own.stop()


def test_any_node_answers_for_the_cluster_and_so_does_its_management_api(cluster: OwnCluster) -> None:
    """As behind a load balancer: AMQP goes to one node, the management API to another."""

    async def scenario() -> None:
        for node in cluster.nodes:
            for other in cluster.nodes:
                address = replace(node.address, management_url=other.address.management_url)
                async with open_broker(address) as broker:
                    assert broker.management is not None
                    assert broker.source == other.address.management_url
        for number in range(len(cluster.nodes)):
            async with open_broker(cluster.address.starting_with(number)) as broker:
                assert broker.management is not None

    asyncio.run(scenario())


def test_a_queue_whose_node_is_down_is_not_reported_as_missing(cluster: OwnCluster) -> None:
    """RabbitMQ answers 404 for both; an apply would not bring the queue back."""
    file = Topology(compiled=compiled("queues: {orders: {type: classic, retry: none}}\nvhost: homes\n"))
    first, *_, last = cluster.nodes

    async def act(message: Message) -> None: ...

    async def start() -> AmqpflowError | None:
        consumer = Consumer(file, first.address.with_vhost("homes").url)
        consumer.add_handler("orders", act)
        try:
            await consumer.start()
        except AmqpflowError as error:
            return error
        await consumer.stop()
        return None

    def is_down() -> bool:
        """The others have noticed."""
        nodes = {each["name"]: each["running"] for each in Management(first.address).get("nodes")}
        return not nodes[last.directory.identity.name]

    async def scenario() -> None:
        await asyncio.to_thread(create_virtual_host, first.address, "homes")
        assert (await apply(file, last.address.with_vhost("homes"))).complete
        await asyncio.to_thread(last.kill)
        try:
            await until(lambda: asyncio.to_thread(is_down))
            error = await until(start)
            async with open_broker(first.address.with_vhost("homes"), use_management=False) as broker:
                with pytest.raises(BrokerError, match="orders"):  # a restore says it, too
                    await require_queues(broker, ["orders"])
        finally:
            last.start()
            await asyncio.to_thread(last.wait)
        assert isinstance(error, BrokerUnavailableError)
        assert "queue orders exists and cannot be reached: " in str(error)
        assert error.hint.startswith("start the node")

    asyncio.run(scenario())


def test_a_cluster_that_loses_its_nodes_one_by_one_loses_no_message(
    cluster: OwnCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consuming, "_BACKOFF", Backoff(0.5, 1.0))
    finished: dict[str, list[str]] = defaultdict(list)
    published: list[str] = []
    share = MESSAGES // 4
    released = asyncio.Semaphore(share)  # so that there is always something left to be published

    async def handle(message: Message) -> None:
        name = str(message.message_id)
        if int(name[1:]) % 10 == 3:
            raise Park("told so")
        if int(name[1:]) % 2 and message.attempt == 1:
            raise Retry
        await asyncio.sleep(0.02)
        finished[name].append(message.hop)

    async def publish(address: Any) -> None:
        """One after the other; what is uncertain is published again under its id."""
        async with Publisher(address) as publisher:
            for number in range(MESSAGES):
                await released.acquire()
                while True:
                    try:
                        await publisher.publish(b"{}", exchange="", routing_key="orders", message_id=f"m{number}")
                        break
                    except AmqpflowError:
                        await asyncio.sleep(0.2)
                published.append(f"m{number}")

    async def scenario() -> None:
        await asyncio.to_thread(create_virtual_host, cluster.nodes[0].address, "cluster")
        everywhere = cluster.address.with_vhost("cluster")
        async with shop(everywhere, {"orders": (50, 300)}, delivery_limit=1000) as scene:
            consumer = scene.consumer(orders=handle, concurrency=20, prefetch=100)
            consumer.address = everywhere
            async with consumer:
                publishing = asyncio.create_task(publish(",".join(node.url for node in everywhere.nodes)))
                for number, node in enumerate(cluster.nodes, 1):
                    enough = number * share - 20
                    await until(lambda enough=enough: len(published) >= enough, timeout=60 + MESSAGES / 20)  # type: ignore[misc]
                    await asyncio.to_thread(node.kill)
                    # two of three go on: publishing is confirmed, messages are consumed, retried and parked
                    before = consumer.totals["acked"]
                    for _ in range(share):
                        released.release()
                    await until(lambda before=before: consumer.totals["acked"] > before + 20, timeout=60)  # type: ignore[misc]
                    node.start()
                    await asyncio.to_thread(node.wait)
                await publishing
                parked = {f"m{number}" for number in range(MESSAGES) if number % 10 == 3}
                # what a tier was moving when the node died it moves again after 180 s, or when a policy changes
                scene.policy("touch", "^orders[.]retry", {"max-length": 1_000_000})
                await until(lambda: len(finished) == MESSAGES - len(parked), timeout=240)
                await until(lambda: consumer.healthy)
                rows: list[Any] = []
                async with shop(everywhere, {"orders": (50, 300)}, delivery_limit=1000) as anew:

                    async def all_parked() -> bool:
                        rows.extend(await anew.take("orders.parking"))
                        return parked <= {str(each.header.properties.message_id) for each in rows}

                    await until(all_parked)
        async with shop(everywhere, {"orders": (50, 300)}, delivery_limit=1000) as scene:
            rows += await scene.take("orders.parking")
        names = Counter(str(each.header.properties.message_id) for each in rows)
        assert names.keys() | finished.keys() == set(published)
        assert len({(each.header.properties.message_id, hop_of(each)) for each in rows}) == len(names)
        assert all(len(set(hops)) == 1 for hops in finished.values())
        again = sum(len(hops) - 1 for hops in finished.values()) + sum(names.values()) - len(names)
        print(f"cluster: {MESSAGES} messages, each node killed once, {again} duplicates, all recognised")

    asyncio.run(scenario())
