"""Messages that kill their process, and other faults at the same time."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from amqpflow import Message, Retry, replay
from amqpflow.delivery.backoff import Backoff
from amqpflow.model import headers as h
from amqpflow.rabbitmq import connection_monitor
from amqpflow.rabbitmq.address import BrokerAddress
from amqpflow.services.consuming import pending as in_flight
from amqpflow.services.consuming import session, settler
from tests.faults.proxy import Proxy
from tests.faults.test_killers import given_back
from tests.faults.test_permission_away import Rights
from tests.shop import RETRY, Shop, shop
from tests.waiting import until

PUBLISHING = 1  # the second connection that a consumer opens


def lost_before(times: int, queue: str = "orders") -> dict[str, Any]:
    """Headers of a copy that the consumer made of a message that was lost."""
    return {h.QUEUE: queue, h.LOST: times, h.HOP: "m/0/0"}


@pytest.fixture(autouse=True)
def try_again_quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settler, "_BACKOFF", Backoff(0.5, 0.5))


def finishes(scene: Shop) -> Any:
    async def handle(message: Message) -> None:
        scene.done.append(str(message.message_id))

    return handle


def test_a_killer_that_cannot_be_parked_takes_up_no_slot(vhost: BrokerAddress) -> None:
    """There is a single slot, and no permission to write to parking."""

    async def scenario() -> None:
        async with shop(vhost) as scene:
            await scene.publish("kills", headers=lost_before(5))
            await given_back(scene, "orders", times=1, how="close")
            with Rights(scene) as rights:
                rights.may_write(f"^{RETRY}$")
                consumer = scene.consumer(orders=finishes(scene), concurrency=1, prefetch=5)
                consumer.address = rights.address
                async with consumer:
                    await until(lambda: "no permission to publish" in consumer.problems.get("orders", ""))
                    await scene.publish("good")
                    await until(lambda: scene.done == ["good"])
                    rights.may_write(".*")
                    await until(lambda: consumer.totals["parked"] == 1)
                    await until(lambda: consumer.healthy)
            (parked,) = await scene.take("orders.parking")
            assert parked.header.properties.headers[h.REASON] == "crashed"

    asyncio.run(scenario())


def test_a_suspect_that_cannot_be_moved_keeps_nothing_else_waiting(
    vhost: BrokerAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker does not confirm its copy. It is held, and the one that is handled alone is handled."""
    monkeypatch.setattr(settler, "CONFIRM_PATIENCE", 0.5)
    monkeypatch.setattr(in_flight, "CONFIRM_PATIENCE", 0.5)
    # else the connection is given up, and nothing waits for it
    monkeypatch.setattr(connection_monitor, "CONFIRM_PATIENCE", 300.0)

    async def scenario() -> None:
        async with shop(vhost) as scene, Proxy(vhost, heartbeat=0) as proxy:
            begun, go_on = asyncio.Event(), asyncio.Event()

            async def handle(message: Message) -> None:
                if message.message_id == "first":
                    if message.attempt == 1:
                        raise Retry  # opens the connection for publishing
                    begun.set()
                    await go_on.wait()
                scene.done.append(str(message.message_id))

            consumer = scene.consumer(orders=handle, concurrency=3)
            consumer.address = proxy.address
            async with consumer:
                await scene.publish("first")
                await begun.wait()
                proxy.freeze(PUBLISHING)
                # the first of them waits until it is alone, and the others are moved for it before RabbitMQ 4.3
                await scene.publish("suspect 1", "suspect 2", headers=lost_before(3))
                await asyncio.sleep(1)
                go_on.set()
                await scene.publish("good")
                await until(lambda: "good" in scene.done)
                await until(lambda: set(scene.done) & {"suspect 1", "suspect 2"})

    asyncio.run(scenario())


def test_a_suspect_of_another_queue_is_not_held_beside_one_that_is_handled_alone(vhost: BrokerAddress) -> None:
    """It waits for a slot when the other one begins, and would be counted for what that one does to the process."""

    async def scenario() -> None:
        async with shop(vhost, {"orders": (50,), "audit": (50,)}) as scene:
            began, go_on, beside = asyncio.Event(), asyncio.Event(), list[int]()

            async def audit(message: Message) -> None:
                if message.message_id == "slow":
                    began.set()
                    await go_on.wait()
                scene.done.append(str(message.message_id))

            async def orders(message: Message) -> None:
                beside.append(await until(lambda: scene.depth("audit")))  # RabbitMQ counts it a little later
                go_on.set()
                scene.done.append(str(message.message_id))

            consumer = scene.consumer(orders=orders)
            consumer.add_handler("audit", audit, concurrency=1, prefetch=5)
            async with consumer:
                await scene.publish("widens the prefetch", queue="audit")
                await until(lambda: scene.done)
                await scene.publish("slow", queue="audit")
                await began.wait()
                await scene.publish("of audit", queue="audit", headers=lost_before(3, "audit"))
                await scene.holds("audit", 0)
                await asyncio.sleep(0.2)
                await scene.publish("of orders", headers=lost_before(3))
                await until(lambda: len(scene.done) == 4)
            assert beside == [1]
            assert sorted(scene.done) == ["of audit", "of orders", "slow", "widens the prefetch"]

    asyncio.run(scenario())


ORDERS: dict[str, dict[str, Any]] = {"any": {}, "single active": {"arguments": {"x-single-active-consumer": True}}}


@pytest.mark.parametrize("kind", ORDERS)
def test_a_message_that_was_only_given_back_is_handled(vhost: BrokerAddress, kind: str) -> None:
    """As by many consumers that stop one after the other: before 4.3 RabbitMQ counts that like a death."""

    async def scenario() -> None:
        async with shop(vhost, **ORDERS[kind]) as scene:
            await scene.publish("innocent")
            await given_back(scene, "orders", times=7, how="nack")
            async with scene.consumer(orders=finishes(scene)) as consumer:
                await until(lambda: consumer.totals["acked"] or consumer.totals["parked"])
            assert scene.done == ["innocent"]

    asyncio.run(scenario())


@pytest.mark.parametrize("kind", ORDERS)
def test_consumers_that_stop_park_no_suspect(vhost: BrokerAddress, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each takes both messages, and is stopped while it handles one of them, which takes longer than the stop may."""
    monkeypatch.setattr(session, "_LEAVING", 20.0)  # however slow the broker confirms what is moved

    async def scenario() -> None:
        async with shop(vhost, **ORDERS[kind]) as scene:
            began, stops = asyncio.Event(), 0

            async def handle(message: Message) -> None:
                if stops < 4:
                    began.set()
                    await asyncio.sleep(60)
                scene.done.append(str(message.message_id))

            await scene.publish("first", "second", headers=lost_before(3))
            for stops in range(5):
                began.clear()
                consumer = scene.consumer(orders=handle)
                consumer.shutdown_timeout = 0.3
                async with consumer:
                    if stops < 4:
                        await began.wait()
                    else:
                        await until(lambda consumer=consumer: consumer.totals["acked"] + consumer.totals["parked"] == 2)
            assert sorted(scene.done) == ["first", "second"]

    asyncio.run(scenario())


def test_a_suspect_that_arrives_while_another_queue_handles_one_alone_is_not_held(vhost: BrokerAddress) -> None:
    """It is a copy, which RabbitMQ does not call redelivered, and would wait for a slot."""

    async def scenario() -> None:
        async with shop(vhost, {"orders": (50,), "audit": (50,)}) as scene:
            slow, alone, go_on = asyncio.Event(), asyncio.Event(), asyncio.Event()

            async def audit(message: Message) -> None:
                if message.message_id == "slow":
                    slow.set()
                    await go_on.wait()
                scene.done.append(str(message.message_id))

            async def orders(message: Message) -> None:
                alone.set()
                await go_on.wait()
                scene.done.append(str(message.message_id))

            consumer = scene.consumer(orders=orders)
            consumer.add_handler("audit", audit, concurrency=1, prefetch=5)
            async with consumer:
                await scene.publish("widens the prefetch", queue="audit")
                await until(lambda: scene.done)
                await scene.publish("slow", queue="audit")
                await slow.wait()
                await scene.publish("of orders", headers=lost_before(3))
                await alone.wait()
                await scene.publish("of audit", queue="audit", headers=lost_before(3, "audit"))
                await asyncio.sleep(0.5)
                await scene.holds("audit", 1)
                go_on.set()
                await until(lambda: len(scene.done) == 4)

    asyncio.run(scenario())


@pytest.mark.releases("<4.3")
@pytest.mark.parametrize("why", ["full", "not bound"])
def test_a_suspect_that_its_queue_does_not_take_is_handled_alone_and_once(vhost: BrokerAddress, why: str) -> None:
    """It would be moved to the end of its queue first."""

    async def scenario() -> None:
        async with shop(vhost) as scene:
            await scene.publish("suspect")
            await given_back(scene, "orders", times=7, how="nack")
            await scene.publish("other")
            if why == "full":
                scene.policy("full", "^orders$", {"max-length": 1})
                await asyncio.sleep(0.5)
            else:
                scene.unbind(RETRY, "orders")
            async with scene.consumer(orders=finishes(scene), concurrency=1, prefetch=1):
                await until(lambda: len(scene.done) == 2)
            assert await scene.account() == {"suspect": 1, "other": 1}

    asyncio.run(scenario())


def test_a_killer_that_is_replayed_is_counted_from_0(vhost: BrokerAddress, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with shop(vhost) as scene:
            await scene.publish("kills", headers=lost_before(5))
            await given_back(scene, "orders", times=1, how="close")
            async with scene.consumer(orders=finishes(scene)) as consumer:
                await until(lambda: consumer.totals["parked"] == 1)
            await scene.holds("orders.parking", 1)
            await replay(scene.compiled, scene.address, journal=tmp_path / "journal")
            await scene.holds("orders", 1)
            await given_back(scene, "orders", times=2, how="close")
            async with scene.consumer(orders=finishes(scene)):
                await until(lambda: scene.done == ["kills"])

    asyncio.run(scenario())
