"""The broker is killed under a replay and comes back: nothing is lost, and what is there twice can be told."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from amqpflow.model import headers as h
from amqpflow.model.routes import CompiledTopology
from amqpflow.node.locate import Installation, locate
from amqpflow.rabbitmq.address import BrokerAddress
from amqpflow.services.reading.options import ReadOptions
from amqpflow.services.replaying.journal_files import Journals
from amqpflow.services.replaying.replayer import WINDOW, replay_parked
from amqpflow.services.replaying.report import ReplayReport
from tests.brokers.own_node import OwnNode
from tests.brokers.processes import belonging_to
from tests.parked import delivered, depth, drained, list_parked, park, workplace
from tests.topologies import topology
from tests.waiting import until

COUNT = 5000


def shop(address: BrokerAddress) -> CompiledTopology:
    return topology({"orders": [1000]}, vhost=address.vhost)


async def replay_until_the_broker_dies(node: OwnNode, directory: Path) -> ReplayReport:
    compiled = shop(node.address)

    def kill(_: str, done: int, __: int) -> None:
        if done >= 700:
            for process, command in belonging_to(node.directory).items():
                if "beam" in command:
                    os.kill(process, signal.SIGKILL)

    async with workplace(node.address, compiled) as (broker, connection):
        await park(connection, compiled, [delivered("orders", message_id=f"m{n}") for n in range(COUNT)])
        async with asyncio.timeout(120):
            return await replay_parked(
                broker,
                compiled,
                "orders",
                journals=Journals(directory / "journals"),
                options=ReadOptions(on_progress=kill),
            )


async def recovered(node: OwnNode) -> None:
    """Wait until the queues are as the kill left them, all of it ready.

    A quorum queue answers before it has read its log again, and before it takes back what the dead process held.
    """

    async def all_ready() -> bool:
        arguments = ("-s", "list_queues", "-p", node.address.vhost, "messages_ready", "messages_unacknowledged")
        rows = [row.split() for row in (await asyncio.to_thread(node.ctl, *arguments)).splitlines()]
        if any(len(row) < 2 for row in rows):
            return False  # a queue without a leader has no counts
        ready, unacked = (sum(int(row[column]) for row in rows) for column in (0, 1))
        return ready >= COUNT and unacked == 0

    await until(all_ready, timeout=120)


async def replay_the_rest(node: OwnNode, directory: Path) -> None:
    compiled = shop(node.address)
    async with workplace(node.address, compiled) as (broker, connection):
        await recovered(node)
        parked = [str(row.message_id) for row in (await list_parked(broker, compiled)).messages]
        sent = await depth(connection, "orders")
        assert len(set(parked)) == len(parked)
        assert COUNT <= len(parked) + sent <= COUNT + WINDOW
        (state,) = Journals(directory / "journals").all(lambda *_: None)
        report = await replay_parked(broker, compiled, "orders", journals=Journals(directory / "journals"))
        assert report.complete
        assert report.replayed + report.already == len(parked)
        copies: dict[str, set[str]] = defaultdict(set)
        counted: Counter[str] = Counter()
        for each in await drained(connection, "orders", await depth(connection, "orders")):
            counted[str(each.properties.message_id)] += 1
            copies[str(each.properties.message_id)].add((each.properties.headers or {})[h.HOP])
        assert copies.keys() == {f"m{n}" for n in range(COUNT)}
        assert all(len(hops) == 1 for hops in copies.values())
        twice = {name for name, count in counted.items() if count > 1}
        assert twice <= {hop.split("/")[0] for hop, _ in (*state.in_doubt.values(), *state.leaving.values())}


def test_a_broker_that_is_killed_in_the_middle_of_a_replay_loses_nothing(tmp_path: Path) -> None:
    if not isinstance(found := locate(), Installation):
        pytest.skip(f"a private node needs a RabbitMQ installed here: {found.reason}")
    node = OwnNode(found, tmp_path / "node")
    node.start()
    try:
        report = asyncio.run(replay_until_the_broker_dies(node, tmp_path))
        assert not report.complete
        assert report.stopped is not None
        assert 0 < report.replayed < COUNT
        node.stop()
        node.start()
        asyncio.run(replay_the_rest(node, tmp_path))
    finally:
        node.stop()
