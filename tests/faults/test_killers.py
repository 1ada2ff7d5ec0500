"""Messages that kill their process are parked by the consumer, and nothing that was beside them."""

from __future__ import annotations

import asyncio
import re
import signal
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from amqpflow import Message, Topology
from amqpflow.delivery.backoff import Backoff
from amqpflow.model import headers as h
from amqpflow.model.message import Delivery
from amqpflow.rabbitmq.address import BrokerAddress
from amqpflow.services.consuming import connections as consuming
from tests.cli.service_runs import Run, environment, running
from tests.shop import Shop, connections_of, cut, shop
from tests.topologies import connected
from tests.waiting import until

SHOP = """\
version: 1
name: shop
vhost: ${AMQPFLOW_VHOST}
retry_policies:
  quick: {delays: [100ms]}
  native: {engine: native, delay: {min: 50ms, max: 50ms}, retries: 1}
queues:
"""

SERVICE = """\
import asyncio
import os
import signal

from amqpflow import Consumer, Message

consumer = Consumer("shop.yaml")


async def handle(message: Message) -> None:
    if message.message_id.startswith(f"kills {message.queue}"):
        await asyncio.sleep(0.05)
        os.kill(os.getpid(), signal.SIGKILL)
    await asyncio.sleep(0.3)
    print(message.queue, message.message_id, flush=True)


for queue in consumer.compiled.routes:
    consumer.add_handler(queue, handle, concurrency=5, prefetch=10)
"""


class Place:
    """Workers of a service, and what they have done."""

    def __init__(self, scene: Shop, run: Run) -> None:
        self.scene, self.run = scene, run

    @property
    def done(self) -> Counter[str]:
        return Counter(line.strip() for line in self.run.out)

    async def parked(self, queue: str) -> dict[str, Any]:
        return {
            str(each.header.properties.message_id): each.header.properties.headers
            for each in await self.scene.take(f"{queue}.parking")
        }

    async def deaths(self) -> list[str]:
        return [line for line in self.run.err if "ended (" in line]


def watched(vhost: BrokerAddress, directory: Path, queues: str, messages: dict[str, Sequence[str]], check: Any) -> None:
    """Let two workers handle these messages of these queues until all are done or parked, and check the rest."""
    (directory / "shop.yaml").write_text(SHOP + queues)
    (directory / "service.py").write_text(SERVICE)

    async def scenario() -> None:
        compiled = Topology.load(directory / "shop.yaml", environ=environment(vhost)).compiled
        scene = Shop(vhost, compiled, await connected(vhost, compiled))
        for queue, ids in messages.items():
            await scene.publish(*ids, queue=queue)
        expected = sum(map(len, messages.values()))

        with running(directory, vhost, "service:consumer", "--workers", "2") as run:
            place = Place(scene, run)

            async def all_settled() -> bool:
                parked = sum([await scene.depth(each) for each in compiled.parking_queues])
                return len(place.done) + parked >= expected

            await until(all_settled, timeout=180, every=0.2)
            run.process.send_signal(signal.SIGTERM)
            assert await run.ends(within=60) == 0
            await check(place)
        assert not sum([await scene.depth(each) for each in compiled.routes]), "nothing comes again"
        await scene.connection.close()

    asyncio.run(scenario())


def test_killers_are_parked_and_what_was_beside_them_is_not(vhost: BrokerAddress, tmp_path: Path) -> None:
    """They die faster than their neighbours are done, so that those are counted with them at every death until they are
    handled alone: RabbitMQ has the same count of all.
    """
    killers = ["kills orders 1", "kills orders 2"]
    good = [f"good {number}" for number in range(20)]

    async def check(place: Place) -> None:
        parked = await place.parked("orders")
        assert set(parked) == set(killers)
        assert {headers[h.REASON] for headers in parked.values()} == {"crashed"}
        counts = {headers[h.REASON_DETAIL] for headers in parked.values()}
        assert counts <= {
            f"{count} deliveries ended without an ack: the consumer crashed or lost its connection"
            for count in (5, 6, 7)
        }
        assert not any(h.LOST in headers for headers in parked.values())
        assert set(place.done) == {f"orders {each}" for each in good}
        deaths = await place.deaths()
        # each is the cause of 5 deaths at most, before RabbitMQ 4.3 of 7; when both are in hand one is enough
        assert 5 < len(deaths) <= 14
        assert {number for line in deaths for number in re.findall("kills orders (\\d)", line)} == {"1", "2"}
        assert any("delivered 4 times before without an ack, alone" in line for line in deaths)
        assert not any(re.search("again in (8|16|30)s", line) for line in deaths), "the pause does not grow"

    ids = [*good[:3], killers[0], good[3], killers[1], *good[4:]]
    watched(vhost, tmp_path, "  orders: {retry: quick}\n", {"orders": ids}, check)


def test_a_killer_in_one_queue_parks_nothing_of_another_one(vhost: BrokerAddress, tmp_path: Path) -> None:
    """A process dies with what it has of all its queues, and at a fan-out it has the same message of both."""
    killer = "kills orders"

    async def check(place: Place) -> None:
        assert set(await place.parked("orders")) == {killer}
        assert not await place.parked("audit")
        assert set(place.done) == {f"audit {killer}", *(f"audit good {number}" for number in range(6))}

    queues = "  orders: {retry: quick, crash_limit: 4}\n  audit: {retry: quick, crash_limit: 4}\n"
    audit = [killer, *(f"good {number}" for number in range(6))]
    watched(vhost, tmp_path, queues, {"orders": [killer], "audit": audit}, check)


def test_a_killer_of_a_single_active_consumer_parks_nothing_that_waits_behind_it(
    vhost: BrokerAddress, tmp_path: Path
) -> None:
    """It holds what waits, for the sake of the order: all of it has the killer's count when that is parked."""
    killer, good = "kills orders", [f"good {number}" for number in range(6)]

    async def check(place: Place) -> None:
        assert set(await place.parked("orders")) == {killer}
        assert set(place.done) == {f"orders {each}" for each in good}

    queues = "  orders: {retry: quick, crash_limit: 4, single_active_consumer: true}\n"
    watched(vhost, tmp_path, queues, {"orders": [*good[:2], killer, *good[2:]]}, check)


@pytest.mark.releases(">=4.3")
def test_a_killer_of_a_native_queue_is_parked_after_its_retries_and_the_limit(
    vhost: BrokerAddress, tmp_path: Path
) -> None:
    async def check(place: Place) -> None:
        (headers,) = (await place.parked("orders")).values()
        assert headers[h.REASON] == "crashed"
        assert len(await place.deaths()) == 1 + 3

    queues = "  orders: {retry: native, crash_limit: 3}\n"
    watched(vhost, tmp_path, "".join(queues), {"orders": ["kills orders", "good"]}, check)


# -- counts that are not of killers


async def given_back(scene: Shop, queue: str, *, times: int, how: str) -> None:
    """Take the one message of a queue and give it back: by `nack`, or by `close` of the channel, which is a loss."""
    for _ in range(times):
        channel = await scene.connection.open_channel()
        got: list[Delivery] = []
        await channel.consume(queue, got.append, prefetch=1, on_cancel=lambda: None, tag="gives back")
        (delivery,) = await until(lambda got=got: got)  # type: ignore[misc]
        await channel.cancel("gives back")  # else it gets it once more at once
        if how == "reject":
            channel.reject(delivery.delivery_tag)
        elif how == "nack":
            channel.nack(delivery.delivery_tag)
        await channel.close()
        await until(lambda: scene.depth(queue))


@pytest.mark.parametrize("forged", [{"x-delivery-count": 50}, {"x-delivery-count": 50, "x-acquired-count": 60}])
def test_a_count_that_a_producer_wrote_parks_nothing(vhost: BrokerAddress, forged: dict[str, Any]) -> None:
    async def scenario() -> None:
        async with shop(vhost) as scene:

            async def handle(message: Message) -> None:
                scene.done.append(str(message.message_id))

            await scene.publish("forged", headers=forged)
            await given_back(scene, "orders", times=1, how="nack")
            ours = {h.QUEUE: "orders", h.LOST: 50, h.HOP: "m/0/0"}
            await scene.publish("forged ours", headers={**forged, **ours})
            async with scene.consumer(orders=handle):
                await scene.all_settled(["forged", "forged ours"])
            assert sorted(scene.done) == ["forged", "forged ours"]

    asyncio.run(scenario())


@pytest.mark.parametrize("how", ["reject", "expire"])
def test_a_count_of_the_queue_before_parks_nothing(vhost: BrokerAddress, how: str) -> None:
    """RabbitMQ 4.3 goes on counting where the queue that dead-lettered it had stopped."""

    async def scenario() -> None:
        async with shop(vhost) as scene:
            seen: list[tuple[int, Any, bool]] = []

            async def handle(message: Message) -> None:
                seen.append((message.attempt, message.retry, "x-death" in message.headers))
                scene.done.append(str(message.message_id))

            admin = await scene.connection.admin_channel()
            arguments = {
                "x-queue-type": "quorum",
                "x-delivery-limit": 6 if how == "reject" else 50,
                "x-dead-letter-exchange": "",
                "x-dead-letter-routing-key": "orders",
                **({"x-message-ttl": 6000} if how == "expire" else {}),  # longer than it takes to be lost six times
            }
            await admin.queue_declare("theirs", durable=True, arguments=arguments)
            await admin.close()
            await scene.publish("theirs", queue="theirs")
            if how == "reject":
                await asyncio.wait_for(_until_gone(scene, "theirs"), 60)
            else:
                await given_back(scene, "theirs", times=6, how="close")
            await until(lambda: scene.depth("orders"))
            async with scene.consumer(orders=handle):
                await scene.all_settled(["theirs"])
            assert seen == [(1, None, True)]

    asyncio.run(scenario())


async def _until_gone(scene: Shop, queue: str) -> None:
    while not await scene.depth("orders"):
        channel = await scene.connection.open_channel()
        got: list[Delivery] = []
        await channel.consume(queue, got.append, prefetch=1, on_cancel=lambda: None)

        async def there(got: list[Delivery] = got) -> bool:
            return bool(got or await scene.depth("orders"))

        await until(there)
        for each in got:
            channel.reject(each.delivery_tag)
        await channel.close()


def test_losses_that_the_process_lives_through_park_nothing(
    vhost: BrokerAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its connection is cut again and again while the handler of one message runs: it kills nothing."""
    monkeypatch.setattr(consuming, "_BACKOFF", Backoff(0.1, 0.1))

    async def scenario() -> None:
        async with shop(vhost, crash_limit=3) as scene:
            starts = 0

            async def handle(message: Message) -> None:
                nonlocal starts
                starts += 1
                if starts <= 6:
                    await asyncio.sleep(0.2)
                    return
                scene.done.append(str(message.message_id))

            await scene.publish("slow")
            consumer = scene.consumer(orders=handle)
            connections = connections_of(consumer)
            async with consumer:
                for number in range(1, 7):
                    await until(lambda number=number: starts == number, every=0.01)  # type: ignore[misc]
                    cut(connections)
                await scene.all_settled(["slow"])
            assert scene.done == ["slow"]

    asyncio.run(scenario())
