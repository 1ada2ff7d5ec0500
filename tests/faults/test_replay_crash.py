"""A replay, or a listing, that is killed at any point loses nothing, and what it sends twice can be told."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections import defaultdict

import pytest

from amqpflow.model import headers as h
from amqpflow.model.message import Delivery, Properties
from amqpflow.rabbitmq.address import BrokerAddress
from amqpflow.rabbitmq.connection import Connection
from amqpflow.services.parking import list_parked
from amqpflow.services.replay_pass import WINDOW
from amqpflow.services.replayer import replay_parked
from tests.brokers.selection import BrokerUnderTest
from tests.faults.replay_and_die import POINTS, shared_shop
from tests.parked import delivered, depth, depth_becomes, drained, park, publish, workplace

PARKING = "shared.parking"
B_COUNT = 120


async def run_until_killed(address: BrokerAddress, point: str, times: int) -> int:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.faults.replay_and_die",
        address.url,
        address.management_candidates()[-1],
        point,
        str(times),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode in (0, -signal.SIGKILL), output.decode()
    return process.returncode


async def settled(connection: Connection, queue: str) -> int:
    """The queue's depth, once the broker has taken back what a dead process held."""
    channel = await connection.admin_channel()
    async with asyncio.timeout(10):
        while (await channel.queue_declare(queue, passive=True)).consumer_count:
            await asyncio.sleep(0.02)
    await channel.close()
    before = -1
    while (now := await depth(connection, queue)) != before:
        before = now
        await asyncio.sleep(0.1)
    return now


def test_killed_at_every_point_a_replay_loses_nothing(vhost: BrokerAddress) -> None:
    compiled = shared_shop(vhost.vhost)
    everything = {f"b{n}" for n in range(B_COUNT)}
    others = [f"a{n}" for n in range(B_COUNT)]
    replayed: dict[str, list[Delivery]] = defaultdict(list)

    async def collect(connection: Connection) -> None:
        for each in await drained(connection, "b", await settled(connection, "b")):
            replayed[str(each.properties.message_id)].append(each)

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            mixed = [delivered(queue, message_id=f"{queue}{n}") for n in range(B_COUNT) for queue in "ab"]
            await park(connection, compiled, mixed)
            kills = 0
            for times in (1, 3):
                for point in POINTS:
                    # there is one giving back in each run
                    if times > 1 and point.startswith(("give-back", "nack")):
                        continue
                    code = await run_until_killed(vhost, point, times)
                    # RabbitMQ 3 gets everything back by the channel's end, without a nack
                    assert code == -signal.SIGKILL or point == "nack.sent", point
                    kills += code == -signal.SIGKILL
                    await settled(connection, PARKING)
                    await collect(connection)
                    listing = await list_parked(broker, compiled)
                    still = [str(row.message_id) for row in listing.messages]
                    # what the dead process held is behind the rest now
                    assert sorted(each for each in still if each.startswith("a")) == sorted(others), point
                    assert {each for each in still if each.startswith("b")} | replayed.keys() == everything, point
                    if not any(each.startswith("b") for each in still):
                        await park(connection, compiled, [delivered("b", message_id=f"b{n}") for n in range(B_COUNT)])
                        replayed.clear()
            assert kills >= 14
            report = await replay_parked(broker, compiled, "b")
            assert report.complete
            await collect(connection)
            assert replayed.keys() == everything
            for copies in replayed.values():
                assert len({(each.properties.headers or {})[h.HOP] for each in copies}) == 1
            still = [str(row.message_id) for row in (await list_parked(broker, compiled)).messages]
            assert sorted(still) == sorted(others)

    asyncio.run(go())


@pytest.mark.parametrize("times", [1, 150])
def test_one_kill_sends_at_most_the_window_twice(vhost: BrokerAddress, times: int) -> None:
    compiled = shared_shop(vhost.vhost)

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            await park(connection, compiled, [delivered("b", message_id=f"b{n}") for n in range(1000)])
            assert await run_until_killed(vhost, "publish.confirmed", times) == -signal.SIGKILL
            await settled(connection, PARKING)
            await replay_parked(broker, compiled, "b")
            copies: dict[str, set[str]] = defaultdict(set)
            count = await settled(connection, "b")
            for each in await drained(connection, "b", count):
                copies[str(each.properties.message_id)].add((each.properties.headers or {})[h.HOP])
            assert len(copies) == 1000
            assert all(len(hops) == 1 for hops in copies.values())
            assert 1000 <= count <= 1000 + WINDOW

    asyncio.run(go())


@pytest.mark.parametrize("times", [1, 500, 4500])
def test_a_listing_that_is_killed_in_the_middle_changes_nothing(
    vhost: BrokerAddress, broker: BrokerUnderTest, times: int
) -> None:
    compiled = shared_shop(vhost.vhost)
    expected = [f"m{n}" for n in range(5000)]

    async def go() -> None:
        async with workplace(vhost, compiled) as (opened, connection):
            await publish(connection, PARKING, *(Properties(message_id=each) for each in expected))
            for _ in range(2):
                assert await run_until_killed(vhost, "listing", times) == -signal.SIGKILL
                await depth_becomes(connection, PARKING, 5000)
                listing = await list_parked(opened, compiled)
                assert [row.message_id for row in listing.messages] == expected

    asyncio.run(go())
