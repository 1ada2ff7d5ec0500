"""Parked messages that a broker does not take any more, or does not confirm: each concerns itself alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from amqpflow.model.routes import CompiledTopology
from amqpflow.node import create_virtual_host
from amqpflow.parking.selection import Selection
from amqpflow.rabbitmq.connection import Connection
from amqpflow.rabbitmq.observe import Broker
from amqpflow.services.parked.export import discard_parked
from amqpflow.services.parked.restore import restore_parked
from amqpflow.services.reading.options import ReadOptions
from amqpflow.services.reading.target import read_target
from amqpflow.services.replaying import sending
from amqpflow.services.replaying.replayer import replay_parked
from tests.brokers.own_node import OwnNode
from tests.parked import delivered, depth, drained, park, workplace
from tests.topologies import topology

LARGE = b"x" * 200_000
COUNT = 1000
IDS = [f"m{number}" for number in range(COUNT)]
TOO_LARGE = {"m3", "m700"}


@asynccontextmanager
async def own_place(
    node: OwnNode, vhost: str, *queues: str
) -> AsyncIterator[tuple[CompiledTopology, Broker, Connection]]:
    await asyncio.to_thread(create_virtual_host, node.address, vhost)
    compiled = topology({each: [1000] for each in queues}, vhost=vhost, queue_type="classic")
    address = node.address.with_vhost(vhost)
    # rabbitmqctl takes seconds, and the event loop may stand still meanwhile
    address = replace(address, url=f"{address.url}?heartbeat=60")
    async with workplace(address, compiled) as (broker, connection):
        yield compiled, broker, connection


@asynccontextmanager
async def smaller_messages(node: OwnNode) -> AsyncIterator[None]:
    """The node takes none of more than 100,000 bytes meanwhile."""
    await asyncio.to_thread(node.set, "max_message_size", "100000")
    try:
        yield
    finally:
        await asyncio.to_thread(node.set, "max_message_size", "134217728")


async def park_some_large(connection: Connection, compiled: CompiledTopology) -> None:
    messages = [delivered("orders", message_id=each, body=LARGE if each in TOO_LARGE else b"{}") for each in IDS]
    await park(connection, compiled, messages)


async def ids_in(connection: Connection, queue: str) -> list[str]:
    taken = await drained(connection, queue, await depth(connection, queue))
    return [str(each.properties.message_id) for each in taken]


def test_a_message_that_is_too_large_for_the_broker_stays_parked_and_the_others_are_replayed(node: OwnNode) -> None:
    async def scenario() -> None:
        async with own_place(node, "too-large", "orders") as (compiled, broker, connection):
            await park_some_large(connection, compiled)
            async with smaller_messages(node):
                report = await replay_parked(broker, compiled)
            assert (report.replayed, report.failed, report.in_doubt, report.stopped) == (COUNT - 2, 2, 0, None)
            assert {each.message_id for each in report.left_behind} == TOO_LARGE
            assert all("larger than" in each.why and not each.in_doubt for each in report.left_behind)
            assert set(await ids_in(connection, "orders")) == set(IDS) - TOO_LARGE
            assert await ids_in(connection, "orders.parking") == ["m3", "m700"]

    asyncio.run(scenario())


def test_a_queue_that_confirms_nothing_leaves_only_its_own_messages_in_doubt(
    node: OwnNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "CONFIRM_TIMEOUT", 5.0)  # those of the other queue have to be confirmed within

    async def scenario() -> None:
        async with own_place(node, "stuck", "a", "b") as (compiled, broker, connection):
            pairs = [delivered(queue, message_id=f"{queue}{n}") for n in range(50) for queue in ("b", "a")]
            await park(connection, compiled, pairs)
            name = 'rabbit_misc:r(<<"stuck">>, queue, <<"a">>)'
            find = f"{{ok, Q}} = rabbit_amqqueue:lookup({name}), P = amqqueue:get_pid(Q)"
            suspended = False

            def suspend(step: str) -> None:
                nonlocal suspended
                if step == "publish.before" and not suspended:
                    suspended = True
                    node.ctl("eval", f"{find}, sys:suspend(P).")

            try:
                report = await replay_parked(broker, compiled, on_step=suspend)
            finally:
                await asyncio.to_thread(node.ctl, "eval", f"{find}, sys:resume(P).")
            assert await ids_in(connection, "b") == [f"b{n}" for n in range(50)]
            assert report.replayed == 50
            assert report.in_doubt > 0
            assert all("no confirm within" in each.why for each in report.left_behind)
            assert sorted(await ids_in(connection, "a.parking")) == sorted(f"a{n}" for n in range(50))

    asyncio.run(scenario())


def test_a_message_that_is_too_large_for_the_broker_keeps_no_other_from_being_restored(
    node: OwnNode, tmp_path: Path
) -> None:
    file = str(tmp_path / "orders.jsonl")

    async def scenario() -> None:
        async with own_place(node, "restore-too-large", "orders") as (compiled, broker, connection):
            await park_some_large(connection, compiled)
            await discard_parked(read_target(broker, compiled), Selection(), file)
            async with smaller_messages(node):
                report = await restore_parked(broker, file, ReadOptions())
            assert (report.restored, report.failed, report.in_doubt, report.stopped) == (COUNT - 2, 2, 0, None)
            assert {each.message_id for each in report.left_behind} == TOO_LARGE
            assert not report.complete
            again = await restore_parked(broker, file, ReadOptions())
            assert (again.restored, again.failed, again.complete) == (2, 0, True)
            assert sorted(await ids_in(connection, "orders.parking")) == sorted(IDS)

    asyncio.run(scenario())
