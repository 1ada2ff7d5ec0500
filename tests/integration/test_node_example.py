"""The consumer in JavaScript and a Python consumer on one queue: either goes on with what the other failed."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import amqpflow
from amqpflow import Consumer, Message, Topology
from amqpflow.rabbitmq.address import BrokerAddress
from amqpflow.rabbitmq.connection import connect
from tests.shop import Shop
from tests.waiting import until

EXAMPLES = Path(__file__).parents[2] / "examples"
FILE = EXAMPLES / "orders" / "topology.yaml"

pytestmark = pytest.mark.one_broker


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example with amqplib beside it."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("the example in JavaScript needs node and npm")
    directory = tmp_path_factory.mktemp("node") / "example"
    shutil.copytree(EXAMPLES / "node", directory, ignore=shutil.ignore_patterns("node_modules"))
    command = ["npm", "install", "--no-audit", "--no-fund", "--loglevel=error"]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        pytest.skip(f"amqplib cannot be installed here: {done.stderr[-300:]}")
    return directory


class Service:
    def __init__(self, directory: Path, url: str) -> None:
        self.process = subprocess.Popen(
            ["node", "consumer.js"],
            cwd=directory,
            env={**os.environ, "AMQPFLOW_URL": url},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert self.process.stdout is not None
        os.set_blocking(self.process.stdout.fileno(), False)
        self.said = ""

    def complains(self, start: str) -> None:
        """Wait for a line on standard error that starts so."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if line.decode().startswith(start):
                return
        raise AssertionError(start)

    @property
    def lines(self) -> list[str]:
        """What it has said so far."""
        assert self.process.stdout is not None
        self.said += (self.process.stdout.read() or b"").decode()
        assert self.process.poll() is None, self.said
        return self.said.splitlines()

    def says(self, line: str, times: int = 1) -> bool:
        return self.lines.count(line) >= times


@pytest.fixture
def node(installed: Path, vhost: BrokerAddress) -> Iterator[Service]:
    asyncio.run(amqpflow.apply(Topology.load(FILE), vhost))
    service = Service(installed, vhost.url)
    try:
        yield service
    finally:
        service.process.kill()
        service.process.communicate()


def orders(address: BrokerAddress, failing: set[int]) -> tuple[Consumer, list[tuple[str, Message]]]:
    """A Python consumer of the same queue, which fails these attempts."""
    consumer, seen = Consumer(Topology.load(FILE), address.url), list[tuple[str, Message]]()

    @consumer.handler("orders.payment")
    async def pay(message: Message) -> None:
        seen.append((str(message.message_id), message))
        if message.attempt in failing:
            raise TimeoutError("gateway")

    return consumer, seen


@asynccontextmanager
async def consumed(node: Service, address: BrokerAddress) -> AsyncIterator[Shop]:
    """The topology, once the service in JavaScript consumes it."""
    async with await connect(address, name="amqpflow test") as connection:
        await until(lambda: node.says("consuming orders.payment"))
        yield Shop(address, Topology.load(FILE).compiled, connection)


async def publish(shop: Shop, order: dict[str, Any], *ids: str, **properties: Any) -> None:
    body = json.dumps(order).encode()
    await shop.publish(*ids, queue="order.placed", exchange="orders.events", body=body, **properties)


def test_what_node_failed_python_retries_and_sees_as_first_published(node: Service, vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        async with consumed(node, vhost) as shop:
            headers = {"tenant": "acme", "x-opt-delivery-time": 1}
            properties = {"headers": headers, "priority": 3, "expiration": "60000"}
            await publish(shop, {"total": 1, "failures": 9}, "m", **properties)
            await until(lambda: node.says("failed m attempt 1"))
            node.process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(node.process.wait, 60) == 0
            consumer, seen = orders(vhost, failing=set())
            async with consumer:
                await until(lambda: consumer.totals["acked"])
        ((_, message),) = seen
        assert (message.attempt, message.hop) == (2, "m/0/1")
        assert (message.exchange, message.routing_key) == ("orders.events", "order.placed")
        assert (message.headers, message.priority) == (headers, 3)
        assert "x-opt-delivery-time" not in message._incoming.delivery.headers
        assert message.properties.expiration == "60000"
        assert message.retry is not None
        assert message.retry.error_type == "Error"
        assert message.retry.error_message == "the payment gateway did not answer"
        assert str(message.retry.error_location).startswith("consumer.js:")

    asyncio.run(scenario())


def test_both_consume_one_queue_and_each_goes_on_where_the_other_failed(node: Service, vhost: BrokerAddress) -> None:
    """RabbitMQ hands messages out in turn, so that all of a batch may come back to the one that failed them."""

    async def scenario() -> None:
        consumer, seen = orders(vhost, failing={1})
        consumer.subscribe(lambda event: acked.append(event.message_id), "message.acked")
        ids: set[str] = set()
        async with consumed(node, vhost) as shop, consumer:
            while not crossed(seen) and len(ids) < 400:
                batch = {f"m{len(ids) + number}" for number in range(13)}
                ids.update(batch)
                await publish(shop, {"total": 1, "failures": 1}, *batch)
                await until(lambda: ids <= set(done()))
            assert await shop.depth("orders.payment.parking") == 0
        assert len(done()) == len(ids), "each was finished once"
        assert crossed(seen), "none that Node failed came to Python"

    def crossed(seen: list[tuple[str, Message]]) -> list[str]:
        mine = [(name, message.attempt) for name, message in seen]
        return [name for name, attempt in mine if attempt == 2 and (name, 1) not in mine]

    def done() -> list[str]:
        return [*(line.split()[1] for line in node.lines if line.startswith("acked")), *acked]

    acked: list[str] = []
    asyncio.run(scenario())


def test_what_node_parked_is_listed_and_replayed(node: Service, vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        async with consumed(node, vhost) as shop:
            topology = Topology.load(FILE)
            await publish(shop, {"total": -1}, "negative")
            await until(lambda: node.says("parked negative attempt 1"))
            (row,) = (await amqpflow.parked(topology, vhost)).messages
            assert (row.message_id, row.reason, row.queue) == ("negative", "permanent", "orders.payment")
            assert (row.error_type, row.detail) == ("RangeError", "invalid order")
            assert str(row.error_location).startswith("consumer.js:")
            assert (await amqpflow.replay(topology, vhost, queue="orders.payment")).replayed == 1
            await until(lambda: node.says("parked negative attempt 1", times=2))
            again = await shop.take_one("orders.payment.parking")
            headers = again.header.properties.headers
            assert headers["x-amqpflow-hop"] == "negative/1/1"
            assert headers["x-amqpflow-replay"]["count"] == 1

    asyncio.run(scenario())


def test_a_missing_retry_queue_and_a_missing_parking_queue_lose_nothing(node: Service, vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        async with consumed(node, vhost) as shop:
            shop.delete("queues", "orders.payment.retry.1s")
            await publish(shop, {"total": 1, "failures": 1}, "m")
            await until(lambda: shop.depth("orders.payment.retry.5s"))
            shop.delete("queues", "orders.payment.parking")
            await publish(shop, {"total": -1}, "held")
            await asyncio.to_thread(node.complains, "cannot park")
            await shop.declare()
            parked = await shop.take_one("orders.payment.parking")
            assert parked.header.properties.message_id == "held"

    asyncio.run(scenario())
