"""A broker that restarts, is killed, runs out of memory or gets a smaller limit, under a running consumer."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from amqpflow import ConnectionEvent, Message, OutgoingMessage, Park, Publisher, Retry
from amqpflow.errors import PublishRefusedError
from amqpflow.model import headers as h
from amqpflow.node import create_virtual_host
from amqpflow.services.consuming import pending as in_flight
from tests.brokers.own_node import OwnNode
from tests.shop import Shop, shop
from tests.topologies import connected
from tests.waiting import until

both_types = pytest.mark.parametrize("queue_type", ["quorum", "classic"])
IDS = [f"m{number}" for number in range(40)]


@asynccontextmanager
async def own_shop(node: OwnNode, vhost: str, *delays: int, **options: Any) -> AsyncIterator[Shop]:
    await asyncio.to_thread(create_virtual_host, node.address, vhost)
    async with shop(node.address.with_vhost(vhost), {"orders": delays or (50, 100)}, **options) as scene:
        yield scene


def fails_once(scene: Shop) -> Any:
    async def handle(message: Message) -> None:
        if message.attempt == 1:
            raise Retry
        if str(message.message_id).endswith("5"):
            raise Park
        scene.done.append(str(message.message_id))

    return handle


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_a_broker_that_comes_back_is_consumed_from_again_and_nothing_is_lost(node: OwnNode, how: str) -> None:
    async def scenario() -> None:
        async with own_shop(node, f"restart-{how}", 50, 300) as scene:
            hops: dict[tuple[str | None, int], set[str]] = {}
            parked: dict[str, Any] = {}

            async def handle(message: Message) -> None:
                hops.setdefault((message.message_id, message.attempt), set()).add(message.hop)
                if message.attempt < 3:
                    raise Retry
                await fails_once(scene)(message)

            consumer = scene.consumer(orders=handle, concurrency=5, prefetch=20)
            async with consumer:
                # RabbitMQ 3.10 does not find the quorum queue again that was declared last, right before it is killed
                admin = await scene.connection.admin_channel()
                await admin.queue_declare("last", durable=True, arguments={"x-queue-type": "quorum"})
                # some are in the queue, some in either tier when it happens
                await scene.publish(*IDS)
                await until(lambda: consumer.totals["retried"] > 1.2 * len(IDS))
                await asyncio.to_thread(getattr(node, how))
                await until(lambda: not consumer.healthy)
                await asyncio.to_thread(node.start)
                await until(lambda: consumer.healthy, timeout=60)
                scene.connection = await connected(scene.address, scene.compiled)
                await until(lambda: all_settled(scene, parked), timeout=60)
            assert {*parked, *await scene.account()} == set(IDS)
            # acks that the broker had not written when it was killed make second copies, which can be told
            assert [each for each in hops.values() if len(each) > 1] == []
            await scene.connection.close()

    asyncio.run(scenario())


async def all_settled(scene: Shop, parked: dict[str, Any]) -> bool:
    """Whether each of IDS is done or parked; what is parked is taken. Some may be there twice."""
    await take_parked(scene, parked)
    return {*scene.done, *parked} >= set(IDS)


async def take_parked(scene: Shop, parked: dict[str, Any]) -> None:
    parked |= {str(each.header.properties.message_id): each for each in await scene.take("orders.parking")}


@both_types
def test_retries_arrive_in_a_full_queue_once_there_is_room(node: OwnNode, queue_type: str) -> None:
    """RabbitMQ's dead-lettering tries again every 180 s, here every half second."""

    async def scenario() -> None:
        await asyncio.to_thread(node.set, "dead_letter_worker_publisher_confirm_timeout", "500")
        full = {"x-overflow": "reject-publish"}
        async with own_shop(node, f"full-{queue_type}", 300, queue_type=queue_type, arguments=full) as scene:

            async def handle(message: Message) -> None:
                if message.attempt == 1 and message.message_id in IDS:
                    raise Retry
                scene.done.append(str(message.message_id))

            consumer = scene.consumer(orders=handle)
            async with consumer:
                await scene.publish(*IDS)
                await until(lambda: consumer.totals["retried"] == len(IDS))
            scene.policy("full", "^orders$", {"max-length": 5})
            fillers: list[str] = []
            try:
                while True:
                    await scene.publish(f"filler{len(fillers)}")
                    fillers.append(f"filler{len(fillers)}")
            except PublishRefusedError:
                pass
            assert len(fillers) < 10 * len(IDS)  # the policy is applied a little late
            async with scene.consumer(orders=handle):
                await until(lambda: set(scene.done) == {*IDS, *fillers}, timeout=60)
            # RabbitMQ's dead-lettering sends once more what is not confirmed within half a second
            assert set(await scene.account()) == {*IDS, *fillers}

    asyncio.run(scenario())


@both_types
def test_a_copy_that_the_broker_does_not_take_any_more_takes_no_other_along(node: OwnNode, queue_type: str) -> None:
    """The limit on message sizes was lowered since: the copy closes the channel in the middle of a window."""

    async def scenario() -> None:
        async with own_shop(node, f"large-{queue_type}", queue_type=queue_type) as scene:
            await scene.publish("large", body=b"x" * 200_000)
            await scene.publish(*IDS)
            await asyncio.to_thread(node.set, "max_message_size", "100000")
            parked: dict[str, Any] = {}
            try:
                consumer = scene.consumer(orders=fails_once(scene), concurrency=50)
                async with consumer:
                    if queue_type == "quorum":
                        await until(lambda: large_is_parked(scene, parked))
                    else:
                        problem = await until(
                            lambda: "copied" in consumer.problems.get("orders", "") and consumer.problems
                        )
                        assert "larger than" in problem["orders"]
                    await until(lambda: consumer.totals["retried"] == len(IDS))
                    if queue_type == "quorum":
                        await until(lambda: all_settled(scene, parked))
                        await until(lambda: consumer.healthy)
            finally:
                await asyncio.to_thread(node.set, "max_message_size", "134217728")
            if queue_type == "quorum":
                large = parked["large"]
                assert len(large.body) == 200_000
                assert h.ATTEMPT not in large.header.properties.headers
                assert large.header.properties.headers["x-death"][0]["reason"] == "rejected"
            else:
                # given back, and handled as usual now that it can be copied
                async with scene.consumer(orders=fails_once(scene)):
                    await until(lambda: "large" in scene.done)
                    await until(lambda: all_settled(scene, parked))
                assert {*parked, *await scene.account()} == {*IDS, "large"}

    asyncio.run(scenario())


async def large_is_parked(scene: Shop, parked: dict[str, Any]) -> bool:
    await take_parked(scene, parked)
    return "large" in parked


def test_a_broker_out_of_memory_takes_acks_and_the_consumer_says_that_it_cannot_retry(
    node: OwnNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(in_flight, "CONFIRM_PATIENCE", 0.3)

    async def scenario() -> None:
        async with own_shop(node, "alarm", 100) as scene:
            release = asyncio.Event()

            async def handle(message: Message) -> None:
                await release.wait()
                if message.message_id == "retry" and message.attempt == 1:
                    raise Retry
                scene.done.append(str(message.message_id))

            consumer = scene.consumer(orders=handle, concurrency=3)
            said: list[str] = []
            consumer.subscribe(lambda event: said.append(f"{event.name} {event.purpose}"), ConnectionEvent)
            async with consumer:
                await scene.publish("a", "b", "retry")
                await until(lambda: consumer.totals["received"] == 3)
                await asyncio.to_thread(node.ctl, "set_vm_memory_high_watermark", "0.00001")
                try:
                    release.set()
                    await until(lambda: consumer.totals["acked"] == 2)
                    problem = await until(lambda: consumer.problems.get("publishing"))
                    assert problem == "the broker blocks publishes: low on memory"
                    assert not consumer.healthy
                    held = f"{problem}: 1 message held, others are handled"
                    await until(lambda: consumer.problems.get("orders") == held)
                    assert consumer.totals["retried"] == 0
                finally:
                    await asyncio.to_thread(node.ctl, "set_vm_memory_high_watermark", "0.4")
                await until(lambda: consumer.healthy)
                await until(lambda: len(scene.done) == 3)
            assert said == ["connection.blocked retries", "connection.unblocked retries"]
            assert await scene.account() == Counter(["a", "b", "retry"])

    asyncio.run(scenario())


def test_a_retry_without_a_confirm_is_published_again_when_its_connection_is_lost(
    node: OwnNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker takes nothing, and holds messages for that, when the connection goes."""
    monkeypatch.setattr(in_flight, "CONFIRM_PATIENCE", 0.2)

    async def scenario() -> None:
        async with own_shop(node, "alarm-lost", 100) as scene:
            release = asyncio.Event()

            async def handle(message: Message) -> None:
                if message.attempt == 1:
                    if message.message_id != "first":
                        await release.wait()
                    raise Retry
                scene.done.append(str(message.message_id))

            consumer = scene.consumer(orders=handle, concurrency=3)
            async with consumer:
                await scene.publish("first", "second", "third")
                await until(lambda: scene.done == ["first"])  # there is a connection for retries
                await asyncio.to_thread(node.ctl, "set_vm_memory_high_watermark", "0.00001")
                try:
                    release.set()
                    await until(lambda: "blocks publishes" in consumer.problems.get("orders", ""))
                    await scene.close_connections("amqpflow retries")
                    await until(lambda: "closed before the confirm" in consumer.problems.get("orders", ""))
                finally:
                    await asyncio.to_thread(node.ctl, "set_vm_memory_high_watermark", "0.4")
                await until(lambda: consumer.healthy)
                await until(lambda: len(scene.done) == 3)
                assert consumer.totals["retried"] == 3
            assert await scene.account() == Counter(["first", "second", "third"])

    asyncio.run(scenario())


def test_a_publisher_that_the_broker_blocks_says_so_and_loses_nothing(node: OwnNode) -> None:
    async def scenario() -> None:
        async with own_shop(node, "blocked", 100) as scene, Publisher(scene.address.url) as publisher:
            first = await publisher.publish(b"", routing_key="orders", message_id="first")
            assert publisher.blocked is None
            await asyncio.to_thread(node.ctl, "set_vm_memory_high_watermark", "0.00001")
            try:
                # RabbitMQ stops to read from a connection, and says so, once something is published on it
                waiting = asyncio.create_task(
                    publisher.publish_many(
                        OutgoingMessage(body=b"x" * 100_000, routing_key="orders", message_id=each) for each in IDS
                    )
                )
                assert "memory" in await until(lambda: publisher.blocked)
                assert not waiting.done()
            finally:
                await asyncio.to_thread(node.ctl, "set_vm_memory_high_watermark", "0.4")
            assert await waiting == IDS
            assert publisher.blocked is None
            assert await scene.account() == Counter([first, *IDS])

    asyncio.run(scenario())


@both_types
def test_a_consumer_timeout_that_closes_the_channel_names_handler_message_and_both_times(
    node: OwnNode, queue_type: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with own_shop(node, f"timeout-{queue_type}", queue_type=queue_type) as scene:
            release = asyncio.Event()

            async def handle(message: Message) -> None:
                if message.message_id == "slow" and not message.redelivered:
                    await release.wait()
                scene.done.append(str(message.message_id))

            consumer = scene.consumer(orders=handle)
            told: list[Any] = []
            consumer.subscribe(told.append, "consumer.stopped", "message.requeued")
            async with consumer:
                await scene.publish("slow", "quick")
                await until(lambda: sorted(scene.done) == ["quick", "slow"])
                release.set()
                await until(lambda: len(told) == 2)
                await until(lambda: consumer.healthy)
            stopped, given_back = told[0].reason, told[1].reason
            assert re.match(
                r"handler tests\.\S+\.handle held message slow for (1\.\d|[2-9])\S*s, longer than the ", stopped
            )
            assert "longer than the consumer timeout of 1s; the broker closed the channel: 406 PRECOND" in stopped
            assert stopped in given_back
            assert f"orders: the consumer ended and restarts: {stopped}" in caplog.messages

    node.set("channel_tick_interval", "300")  # milliseconds between two looks; a minute is the default
    node.set("consumer_timeout", "1000")
    try:
        asyncio.run(scenario())
    finally:
        node.set("consumer_timeout", "1800000")
        node.set("channel_tick_interval", "60000")
