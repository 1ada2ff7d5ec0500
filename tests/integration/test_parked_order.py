"""What is called oldest is the oldest, also where RabbitMQ delivers higher priorities first."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest

from amqpflow import Topology
from amqpflow.cli.spool import Spool
from amqpflow.model.routes import CompiledTopology
from amqpflow.parking.selection import Selection
from amqpflow.rabbitmq.address import BrokerAddress
from amqpflow.rabbitmq.connection import Connection, connect
from amqpflow.rabbitmq.observe import open_broker
from amqpflow.services.loading.topology import no_topology
from amqpflow.services.parked.listing import ParkedRow, list_parked
from amqpflow.services.parked.stats import count_parked
from amqpflow.services.reading.options import ReadOptions
from amqpflow.services.reading.target import read_target
from amqpflow.services.status import StatusReader
from tests.brokers.selection import BrokerUnderTest
from tests.cli.parked_shop import amqpflow, write_shop
from tests.parked import NOW, delivered, parking_publish, workplace
from tests.topologies import declare, topology

WORK, PARKING = "orders", "orders.parking"
PRIORITIES = (1, 9, None, 5, 9, 0, None, 2, 9, 9, 0, 1)
IDS = [f"m{n}" for n in range(len(PRIORITIES))]


async def park_one_after_the_other(connection: Connection, compiled: CompiledTopology, queue: str = PARKING) -> None:
    channel = await connection.open_channel()
    for number, priority in enumerate(PRIORITIES):
        message = delivered(WORK, message_id=f"m{number}", priority=priority)
        publish = parking_publish(compiled, message, now=NOW + 1000 * number)
        await channel.publish(replace(publish, exchange="", routing_key=queue))
    await channel.close()


def test_a_list_is_by_age_whatever_the_release_delivers_first(vhost: BrokerAddress, broker: BrokerUnderTest) -> None:
    compiled = topology({WORK: [1000]}, vhost=vhost.vhost)

    async def go() -> None:
        async with workplace(vhost, compiled) as (opened, connection):
            await park_one_after_the_other(connection, compiled)
            target = read_target(opened, compiled)
            with Spool() as spool:
                rows: list[ParkedRow] = []

                def take(row: ParkedRow) -> None:
                    rows.append(row)
                    spool.add(row)

                for _ in range(2):
                    listing = await list_parked(target, Selection())
                    assert [row.message_id for row in listing.messages] == IDS
                listing = await list_parked(target, Selection(), on_row=take)
                by_priority = listing.queues[0].by_priority
                assert by_priority is (broker.version >= (4,))
                assert ([row.message_id for row in rows] == IDS) is not by_priority
                spool.sort_by_age([PARKING] if by_priority else [])
                for _ in range(2):
                    assert [row.message_id for row in spool.rows()] == IDS
            stats = await count_parked(target, Selection(), by=())
            assert stats.groups[0].sample == next(row.id for row in rows if row.message_id == "m0")
            first = await list_parked(target, Selection(limit=3))
            assert any("need not be the oldest" in note for note in first.notes) is by_priority
            reader = StatusReader(opened, compiled)
            status = await reader.read(oldest=True)
            await reader.aclose()
            said = [each for each in status.alerts if each.code == "oldest-unknown"]
            assert bool(said) is by_priority

    asyncio.run(go())


@pytest.mark.one_broker
def test_a_classic_queue_with_priorities_is_listed_by_age(vhost: BrokerAddress) -> None:
    compiled = topology({WORK: [1000]}, vhost=vhost.vhost)

    async def go() -> None:
        async with open_broker(vhost) as opened:
            channel = await opened.connection.admin_channel()
            arguments = {"x-queue-type": "classic", "x-max-priority": 9}
            await channel.queue_declare("dead", durable=True, arguments=arguments)
            await park_one_after_the_other(opened.connection, compiled, "dead")
            target = read_target(opened, no_topology(), (), ReadOptions(from_queues=("dead",)))
            listing = await list_parked(target, Selection())
            assert [row.message_id for row in listing.messages] == IDS
            first = await list_parked(target, Selection(limit=3))
            assert {row.message_id for row in first.messages} == {"m1", "m4", "m8"}

    asyncio.run(go())


@pytest.mark.one_broker
@pytest.mark.releases(">=4")  # before, a quorum queue knows no priorities (fact 12.4)
def test_the_command_lists_by_age_and_says_where_it_stopped(vhost: BrokerAddress, tmp_path: Path) -> None:
    shop = write_shop(tmp_path)

    async def go() -> None:
        compiled = Topology.load(shop, environ={"AMQPFLOW_VHOST": vhost.vhost}).compiled
        async with await connect(vhost, name="amqpflow test") as connection:
            await declare(connection, compiled)
            await park_one_after_the_other(connection, compiled)

    asyncio.run(go())
    done = amqpflow("parked list", shop, vhost, "-o", "jsonl")
    assert [json.loads(line)["message_id"] for line in done.out.splitlines()] == IDS
    assert (done.code, done.err) == (0, "")
    done = amqpflow("parked list", shop, vhost, "--limit", "3", "-o", "json")
    assert done.code == 0
    assert "Note: orders.parking delivers higher priorities first: the first in its order need not be" in done.err
