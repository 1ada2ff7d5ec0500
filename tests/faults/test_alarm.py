"""A broker in a memory alarm blocks publishes and takes every ack: what failed is held, and all else is handled."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from amqpflow import BrokerUnavailableError, Message, Park, Publisher, PublishUncertainError, Retry
from amqpflow.model.event import MessageHeld
from amqpflow.node import create_virtual_host
from amqpflow.parking.selection import Selection
from amqpflow.rabbitmq.connection import connect
from amqpflow.services.consuming import pending as in_flight
from amqpflow.services.parked import export as parked_export
from amqpflow.services.parked import restore as parked_restore
from amqpflow.services.parked import restore_publisher
from amqpflow.services.reading.options import ReadOptions
from amqpflow.services.reading.target import read_target
from tests.brokers.own_node import OwnNode
from tests.parked import delivered, park, workplace
from tests.shop import Shop, shop
from tests.topologies import topology
from tests.waiting import until

BAD = [f"bad{number}" for number in range(5)]
GOOD = [f"good{number}" for number in range(40)]
WHY = "the broker blocks publishes: low on memory"


class Alarm:
    """Of the whole node. `rabbitmqctl` takes seconds, so several consumers share one."""

    def __init__(self, node: OwnNode) -> None:
        self._node = node
        self._began = False

    async def begin(self) -> None:
        self._began = True
        await asyncio.to_thread(self._node.ctl, "set_vm_memory_high_watermark", "0.00001")
        connection = await connect(self._node.address, name="amqpflow test")
        channel = await connection.admin_channel()

        async def blocked() -> bool:  # RabbitMQ blocks a connection when it publishes, once it knows of the alarm
            await channel.basic_publish(b"", routing_key="nowhere")
            return connection.blocked is not None

        await until(blocked)
        await connection.close(within=0.1)

    async def end(self) -> None:
        if self._began:
            self._began = False
            await asyncio.to_thread(self._node.ctl, "set_vm_memory_high_watermark", "0.4")


@asynccontextmanager
async def alarm_on(node: OwnNode) -> AsyncIterator[Alarm]:
    alarm = Alarm(node)
    try:
        yield alarm
    finally:
        await alarm.end()


@asynccontextmanager
async def own_shop(node: OwnNode, vhost: str, **options: Any) -> AsyncIterator[Shop]:
    await asyncio.to_thread(create_virtual_host, node.address, vhost)
    async with shop(node.address.with_vhost(vhost), {"orders": (50,)}, **options) as scene:
        yield scene


def fails_bad_ones(scene: Shop) -> Any:
    """Bad ones fail once: every second one is parked, the others are retried."""

    async def handle(message: Message) -> None:
        name = str(message.message_id)
        if name.startswith("bad") and message.attempt == 1:
            raise Park if int(name[3:]) % 2 else Retry
        scene.done.append(name)

    return handle


async def waits_long(message: Message) -> None:
    raise Retry(after=120)


KINDS: dict[str, dict[str, Any]] = {
    "quorum": {},
    "classic": {"queue_type": "classic"},
    "single active": {"arguments": {"x-single-active-consumer": True}},
}


@pytest.mark.one_broker
def test_messages_that_fail_in_an_alarm_are_held_and_the_backlog_is_handled(
    node: OwnNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The backlog may be what the broker is short of memory for."""
    monkeypatch.setattr(in_flight, "CONFIRM_PATIENCE", 120.0)  # it is the alarm that is known, long before that

    async def backlog(kind: str, began: asyncio.Barrier, handled: asyncio.Barrier) -> None:
        async with own_shop(node, f"backlog {kind}", **KINDS[kind]) as scene:
            consumer = scene.consumer(orders=fails_bad_ones(scene), concurrency=2, prefetch=10)
            consumer.address = replace(consumer.address, url=f"{consumer.address.url}?heartbeat=2")
            said: list[Any] = []
            consumer.subscribe(said.append, MessageHeld, "consumer.paused", "connection.lost")
            await scene.publish(*BAD, *GOOD)
            await began.wait()
            async with consumer:
                await until(lambda: len(scene.done) == len(GOOD))
                held = f"{WHY}: {len(BAD)} messages held, others are handled"
                await until(lambda: consumer.problems.get("orders") == held)
                assert not consumer.healthy
                assert consumer.totals["retried"] == consumer.totals["parked"] == 0
                # RabbitMQ reads no heartbeats of a connection that it has blocked, and sends its own
                await asyncio.sleep(7)
                await handled.wait()
                await until(lambda: consumer.healthy)
                await until(lambda: len(scene.done) == len(GOOD) + 3)
                await until(lambda: consumer.totals["parked"] == 2)
                assert consumer.totals["requeued"] == 0
            assert sorted(getattr(each, "message_id", each.name) for each in said) == BAD, (
                "it never paused, and lost no connection"
            )
            # nothing was sent twice, and what was held is retried in the order in which it failed
            assert [each for each in scene.done if each in BAD] == ["bad0", "bad2", "bad4"]
            parked = [str(each.header.properties.message_id) for each in await scene.take("orders.parking")]
            assert Counter(scene.done + parked) == Counter([*BAD, *GOOD])
            assert await scene.depth("orders") == await scene.depth("orders.retry.50ms") == 0

    async def scenario() -> None:
        began, handled = asyncio.Barrier(len(KINDS) + 1), asyncio.Barrier(len(KINDS) + 1)
        async with alarm_on(node) as alarm, asyncio.TaskGroup() as group:
            for kind in KINDS:
                group.create_task(backlog(kind, began, handled))
            await until(lambda: began.n_waiting == len(KINDS))
            await alarm.begin()
            await began.wait()
            await until(lambda: handled.n_waiting == len(KINDS), timeout=90)
            await alarm.end()
            await handled.wait()

    asyncio.run(scenario())


@pytest.mark.one_broker
def test_a_consumer_stands_still_and_says_why_once_all_that_it_may_hold_has_failed(node: OwnNode) -> None:
    """It gives them back when it stops in the alarm, and the next one begins there. One message is not due."""

    async def scenario() -> None:
        async with alarm_on(node) as alarm, own_shop(node, "still") as scene:
            consumer = scene.consumer(orders=fails_bad_ones(scene), concurrency=1, prefetch=3)
            paused: list[str] = []
            consumer.subscribe(lambda event: paused.append(event.reason), "consumer.paused")
            async with scene.consumer(orders=waits_long) as before:
                await scene.publish("early")
                await until(lambda: before.totals["postponed"])
            await until(lambda: scene.depth("orders"))
            await scene.publish("good0", *BAD, "good1")
            await alarm.begin()
            async with consumer:
                await until(lambda: paused)
                assert paused == [consumer.problems["orders"]]
                assert paused[0].startswith(f"{WHY}: ")
                assert paused[0].endswith("messages held, nothing else is handled")
                assert scene.done == ["good0"]
                began = asyncio.get_running_loop().time()
            assert asyncio.get_running_loop().time() - began < 20  # the broker answers no close: 5 s are for that
            async with scene.consumer(orders=fails_bad_ones(scene), concurrency=1, prefetch=10) as another:
                await until(lambda: "good1" in scene.done)
                await alarm.end()
                # what the first consumer had sent before it knew of the alarm may be there twice
                await until(lambda: len(set(scene.done)) == 5)
                await until(lambda: another.totals["parked"] == 2)
                await until(lambda: another.totals["postponed"])
            await until(lambda: scene.depth("orders"))  # the early one has come round
            assert set(await scene.account()) == {*BAD, "good0", "good1", "early"}

    asyncio.run(scenario())


def unsent(said: list[str]) -> list[str]:
    return [each for each in said if each.endswith("nothing was published")]


@pytest.mark.one_broker
def test_threads_that_publish_in_an_alarm_end_with_their_timeout(node: OwnNode) -> None:
    async def scenario() -> None:
        async with own_shop(node, "threads") as scene, alarm_on(node) as alarm:
            said: list[str] = []

            def handle(message: Message) -> None:
                try:
                    message.publish(b"", routing_key="orders.parking", message_id=f"{message.message_id}/out")
                except TimeoutError as error:
                    said.append(str(error))
                    raise
                scene.done.append(message.message_id or "")

            ids = [f"m{number}" for number in range(14)]  # more than there may be threads
            consumer = scene.consumer(orders=handle, concurrency=2, prefetch=100, timeout=1.0)
            await scene.publish(*ids)
            await alarm.begin()
            async with consumer:
                await until(lambda: len(said) + len(scene.done) == len(ids))
                assert len(said) > len(ids) - 4, "all but what was published before the alarm was known"
                assert consumer.live, "no thread is kept"
                assert len(unsent(said)) >= len(said) - 4
                await alarm.end()
                await until(lambda: sorted(scene.done) == sorted(ids))
                await until(lambda: consumer.healthy)
            copies = await scene.take("orders.parking")
            assert len(copies) == len(ids) + len(said) - len(unsent(said))

    asyncio.run(scenario())


@pytest.mark.one_broker
def test_publishes_that_are_cancelled_in_an_alarm_are_not_sent_after_it(node: OwnNode) -> None:
    async def scenario() -> None:
        async with own_shop(node, "cancelled") as scene, alarm_on(node) as alarm:
            async with Publisher(scene.address.url) as publisher:
                await publisher.publish(b"", routing_key="orders", message_id="before")
                await alarm.begin()
                sent = asyncio.create_task(publisher.publish(b"", routing_key="orders", message_id="sent"))
                await until(lambda: publisher.blocked)
                late = [publisher.publish(b"x" * 1000, routing_key="orders") for _ in range(2000)]
                ended = await asyncio.gather(*(asyncio.wait_for(each, 0.05) for each in late), return_exceptions=True)
                assert {type(each) for each in ended} == {TimeoutError}
                assert publisher._here()._outstanding <= 1, "the first one may be on its way"
                waits = asyncio.create_task(publisher.publish(b"", routing_key="orders", message_id="waits"))
                await alarm.end()
                await asyncio.gather(sent, waits)
            found = [each.header.properties.message_id for each in await scene.take("orders")]
            assert sorted(found) == ["before", "sent", "waits"]

    asyncio.run(scenario())


@pytest.mark.one_broker
def test_a_publisher_that_closes_in_an_alarm_has_sent_nothing_of_what_waits(node: OwnNode) -> None:
    async def scenario() -> None:
        async with own_shop(node, "closes") as scene, alarm_on(node) as alarm:
            publisher = Publisher(scene.address.url)
            await publisher.publish(b"", routing_key="orders")
            await alarm.begin()
            sent = asyncio.create_task(publisher.publish(b"", routing_key="orders"))
            await until(lambda: publisher.blocked)
            waits = asyncio.create_task(publisher.publish(b"", routing_key="orders"))
            await asyncio.sleep(0)
            await publisher.close(timeout=0)
            with pytest.raises(BrokerUnavailableError, match="closed"):
                await waits
            with suppress(PublishUncertainError):  # it may have been confirmed just before the alarm was told
                await sent

    asyncio.run(scenario())


@pytest.mark.one_broker
@pytest.mark.parametrize("ends", ["stop", "time"])
def test_a_restore_in_an_alarm_ends_when_it_is_told_to_or_says_why(
    node: OwnNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends: str
) -> None:
    monkeypatch.setattr(restore_publisher, "_LOOK", 0.05)
    if ends == "time":
        monkeypatch.setattr(restore_publisher, "CONFIRM_TIMEOUT", 2.0)
    vhost = node.address.with_vhost(f"restore {ends}")
    export, compiled = str(tmp_path / "export"), topology({"orders": [1000]}, vhost=vhost.vhost)

    async def scenario() -> None:
        await asyncio.to_thread(create_virtual_host, node.address, vhost.vhost)
        async with workplace(vhost, compiled) as (broker, connection), alarm_on(node) as alarm:
            await park(connection, compiled, [delivered("orders", message_id=f"m{number}") for number in range(9)])
            await parked_export.discard_parked(
                read_target(broker, compiled, (), ReadOptions(prefetch=100)), Selection(), export
            )
            await alarm.begin()
            stop = asyncio.Event()
            restore = asyncio.create_task(parked_restore.restore_parked(broker, export, ReadOptions(stop=stop)))
            await until(lambda: broker.connection.blocked)
            if ends == "stop":
                stop.set()
            report = await asyncio.wait_for(restore, 60)
            assert (report.restored, report.in_doubt, report.interrupted) == (0, 1, ends == "stop")
            why = None if ends == "stop" else f"no confirm within 2 s: {WHY}"
            assert report.stopped == why
            await alarm.end()
        async with workplace(vhost, compiled) as (broker, _):
            report = await parked_restore.restore_parked(broker, export, ReadOptions())
            assert report.complete
            assert report.restored + report.before + report.still_parked == 9

    asyncio.run(scenario())
