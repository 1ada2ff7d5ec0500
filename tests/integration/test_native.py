"""Retries that RabbitMQ 4.3 makes itself, from the file to parking and back; and everywhere else a refusal."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from amqpflow import Consumer, Message, NotAppliedError, RefusedError, Topology
from amqpflow.api import functions as api
from amqpflow.model import headers as h
from amqpflow.rabbitmq.address import BrokerAddress
from amqpflow.rabbitmq.connection import connect
from tests.shop import Shop
from tests.waiting import until

FILE = """
version: 1
name: shop
retry_policies:
  broker:
    engine: native
    delay: {min: %(min)s, max: %(max)s}
    retries: %(retries)s
queues:
  orders: {retry: broker}
"""
NATIVE = pytest.mark.releases(">=4.3")


def native(path: Path, *, min: str = "200ms", max: str = "300ms", retries: int = 2) -> Topology:  # noqa: A002
    file = path / "shop.yaml"
    file.write_text(FILE % {"min": min, "max": max, "retries": retries})
    return Topology.load(file)


@asynccontextmanager
async def applied(topology: Topology, address: BrokerAddress) -> AsyncIterator[Shop]:
    await api.apply(topology, address)
    connection = await connect(address, name="amqpflow test")
    try:
        yield Shop(address, replace(topology.compiled, vhost=address.vhost), connection)
    finally:
        await connection.close()


@NATIVE
def test_a_failed_message_waits_in_its_queue_and_is_parked_with_its_record(
    vhost: BrokerAddress, tmp_path: Path
) -> None:
    tries: list[tuple[float, int]] = []

    async def scenario() -> None:
        loop = asyncio.get_running_loop()

        async def fail(message: Message) -> None:
            tries.append((loop.time(), message.attempt))
            assert message.retry is None or message.retry.attempts == message.attempt - 1
            raise OSError("down")

        topology = native(tmp_path)
        async with applied(topology, vhost) as shop, shop.consumer(orders=fail):
            assert (await api.plan(topology, vhost)).nothing_to_do
            await shop.publish("m", headers={"kept": 1})
            parked = await shop.take_one("orders.parking")
        assert [attempt for _, attempt in tries] == [1, 2, 3]
        waits = [after - before for (before, _), (after, _) in pairwise(tries)]
        for wait, delay in zip(waits, (0.2, 0.3), strict=True):
            assert delay - 0.09 <= wait < delay + 3, "a machine that is busy is late"
        headers = parked.header.properties.headers
        assert (headers[h.REASON], headers[h.ATTEMPT], headers["kept"]) == ("exhausted", 3, 1)
        assert headers[h.ERROR_TYPE] == "OSError"

    asyncio.run(scenario())


@NATIVE
def test_a_replayed_message_has_all_its_retries_again(vhost: BrokerAddress, tmp_path: Path) -> None:
    attempts: list[int] = []

    async def scenario() -> None:
        async def fail(message: Message) -> None:
            attempts.append(message.attempt)
            raise OSError("down")

        topology = native(tmp_path, min="20ms", max="20ms", retries=1)
        async with applied(topology, vhost) as shop:
            async with shop.consumer(orders=fail):
                await shop.publish("m")
                await until(lambda: shop.depth("orders.parking"))
            assert (await api.replay(topology, vhost, queue="orders")).replayed == 1
            async with shop.consumer(orders=fail):
                parked = await shop.take_one("orders.parking")
        assert attempts == [1, 2, 1, 2]
        assert parked.header.properties.headers[h.REPLAY]["count"] == 1

    asyncio.run(scenario())


@NATIVE
def test_deliveries_handed_back_at_a_stop_are_not_counted(vhost: BrokerAddress, tmp_path: Path) -> None:
    async def scenario() -> None:
        started, attempts = asyncio.Event(), list[int]()

        async def hold(message: Message) -> None:
            started.set()
            await asyncio.sleep(60)

        async def note(message: Message) -> None:
            attempts.append(message.attempt)

        async with applied(native(tmp_path), vhost) as shop:
            await shop.publish("a", "b", "c")
            for _ in range(4):
                consumer = shop.consumer(orders=hold, concurrency=1, prefetch=3)
                consumer.shutdown_timeout = 0.01
                started.clear()
                async with consumer:
                    await started.wait()
            async with shop.consumer(orders=note):
                await until(lambda: len(attempts) == 3)
        assert attempts == [1, 1, 1]

    asyncio.run(scenario())


@NATIVE
def test_a_delivery_count_that_a_producer_sent_costs_no_retries_after_a_give_back(
    vhost: BrokerAddress, tmp_path: Path
) -> None:
    async def scenario() -> None:
        started, attempts, keys = asyncio.Event(), list[int](), list[int]()

        async def hold(message: Message) -> None:
            started.set()
            await asyncio.sleep(60)

        async def fail(message: Message) -> None:
            attempts.append(message.attempt)
            raise OSError

        async with applied(native(tmp_path, min="50ms", max="50ms", retries=3), vhost) as shop:
            await shop.publish("m", headers={"x-delivery-count": 50})
            consumer = shop.consumer(orders=hold)
            consumer.shutdown_timeout = 0.01
            async with consumer:
                await started.wait()
            consumer = shop.consumer()
            consumer.add_handler("orders", fail, order_by=lambda message: keys.append(message.attempt))
            async with consumer:
                await until(lambda: consumer.totals["parked"] == 1)
        assert attempts == [2, 2, 3, 4], "the give-back counts as long as RabbitMQ has counted nothing"
        assert set(attempts) <= set(keys), "what orders messages sees the same attempts"

    asyncio.run(scenario())


@NATIVE
def test_a_consumer_whose_rejected_messages_come_back_at_once_stops_and_says_why(
    vhost: BrokerAddress, tmp_path: Path
) -> None:
    attempts: list[int] = []

    async def fail(message: Message) -> None:
        attempts.append(message.attempt)
        raise OSError("down")

    async def scenario() -> None:
        topology = native(tmp_path, min="5s", max="5s", retries=1000)
        async with applied(topology, vhost) as shop:
            body = {"pattern": "^orders$", "definition": {"max-length": 1000}, "apply-to": "queues", "priority": 99}
            shop.management.put("policies", vhost.vhost, "foreign", body=body)
            await until(lambda: not _delays(shop))
            consumer = shop.consumer(orders=fail, concurrency=1)
            async with consumer:
                await shop.publish("m")
                await until(lambda: "orders" in consumer.problems)
                assert "is back after" in consumer.problems["orders"]
                assert not consumer.healthy
                await until(lambda: shop.depth("orders"))
                handled = len(attempts)
                await shop.close_connections("amqpflow consumer")
                await until(lambda: consumer.problems["orders"].startswith("a rejected message"))
                assert len(attempts) == handled < 20, "three in a row were back at once: the first ones, or later ones"
            refused = await api.plan(topology, vhost)
            assert [each.code for each in refused.refusals] == ["native-hidden"]
            checked = Consumer(topology, vhost.url, management_url=vhost.management_url)
            checked.add_handler("orders", fail)
            with pytest.raises(NotAppliedError, match="does not start") as error:
                await checked.start()
            assert any("foreign" in each for each in error.value.problems)

    def _delays(shop: Shop) -> bool:
        queue = shop.management.get("queues", vhost.vhost, "orders")
        return bool((queue or {}).get("effective_policy_definition", {}).get("delayed-retry-type"))

    asyncio.run(scenario())


@NATIVE
def test_a_consumer_without_the_marker_does_not_start(vhost: BrokerAddress, tmp_path: Path) -> None:
    async def nothing(message: Message) -> None:
        raise AssertionError

    async def scenario() -> None:
        async with applied(native(tmp_path), vhost) as shop:
            shop.delete("exchanges", "shop.native")
            with pytest.raises(NotAppliedError, match=r"exchange shop\.native is missing") as error:
                await shop.consumer(orders=nothing).start()
            assert "amqpflow apply" in error.value.hint

    asyncio.run(scenario())


@NATIVE
def test_retries_and_delays_are_changed_in_place_while_messages_wait(vhost: BrokerAddress, tmp_path: Path) -> None:
    attempts: list[int] = []

    async def scenario() -> None:
        async def fail_twice(message: Message) -> None:
            attempts.append(message.attempt)
            if message.attempt < 3:
                raise OSError("down")

        async with applied(native(tmp_path, min="100ms", max="100ms", retries=1), vhost) as shop:
            await shop.publish("m")
            report = await api.apply(native(tmp_path, min="50ms", max="60ms", retries=5), vhost)
            assert {change.kind for change in report.done} <= {"policy", "manifest"}
            consumer = Consumer(native(tmp_path, min="50ms", max="60ms", retries=5), vhost.url)
            consumer.add_handler("orders", fail_twice)
            async with consumer:
                await until(lambda: consumer.totals["acked"])
        assert attempts == [1, 2, 3]

    asyncio.run(scenario())


@pytest.mark.releases("<4.3")
def test_a_release_without_delayed_retry_is_refused_by_apply_and_by_the_consumer(
    vhost: BrokerAddress, tmp_path: Path
) -> None:
    async def nothing(message: Message) -> None:
        raise AssertionError

    async def scenario() -> None:
        topology = native(tmp_path)
        with pytest.raises(RefusedError) as error:
            await api.apply(topology, vhost)
        assert any("engine: native needs RabbitMQ 4.3" in each for each in error.value.problems)
        consumer = Consumer(topology, vhost.url)
        consumer.add_handler("orders", nothing)
        connection = await connect(vhost, name="amqpflow test")
        channel = await connection.admin_channel()
        await channel.queue_declare("orders", durable=True)
        with pytest.raises(RefusedError, match=r"needs RabbitMQ 4\.3"):
            await consumer.start()
        await connection.close()

    asyncio.run(scenario())
