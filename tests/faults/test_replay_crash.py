"""A replay, or a listing, that is killed at any point loses nothing, and what it sends twice can be told."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from amqpflow.model import headers as h
from amqpflow.model.properties import Properties
from amqpflow.rabbitmq.address import BrokerAddress
from amqpflow.rabbitmq.connection import Connection, connect
from amqpflow.services.replaying.journal_files import Journals
from amqpflow.services.replaying.replayer import replay_parked
from tests.brokers.selection import BrokerUnderTest
from tests.faults.replay_and_die import CONNECTIONS, ONCE, POINTS, name_of, shared_shop
from tests.faults.replay_and_die import WINDOW as DYING_WINDOW
from tests.parked import delivered, depth, depth_becomes, drained, list_parked, park, publish, workplace
from tests.statemachine.places import Places

PARKING = "shared.parking"
B_COUNT = 120


async def run_until_killed(
    address: BrokerAddress,
    connection: Connection,
    point: str,
    times: int,
    directory: Path | None = None,
    kind: str = "quorum",
) -> int:
    """Run it until it kills itself, or ends, and the broker has noticed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.faults.replay_and_die",
        address.url,
        address.management_candidates()[-1],
        point,
        str(times),
        str(directory or ""),
        kind,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode in (0, -signal.SIGKILL), output.decode()
    await Places(connection).gone(name_of(process.pid), CONNECTIONS)
    return process.returncode


async def settled(connection: Connection, queue: str) -> int:
    """The queue's depth, once the broker has taken back what a dead process held."""
    channel = await connection.admin_channel()
    async with asyncio.timeout(60):
        while (await channel.queue_declare(queue, passive=True)).consumer_count:
            await asyncio.sleep(0.02)
    await channel.close()
    before = -1
    while (now := await depth(connection, queue)) != before:
        before = now
        await asyncio.sleep(0.1)
    return now


def chosen_points() -> list[tuple[str, int, str]]:
    """Every point at its first and third time, quorum and classic; without AMQPFLOW_TEST_FULL a part of them."""
    full = bool(os.environ.get("AMQPFLOW_TEST_FULL"))
    every = [
        (point, times, kind)
        for kind in ("quorum", "classic")
        for times in (1, 3)
        for point in POINTS
        if times == 1 or not point.startswith(ONCE)
    ]
    part = {"journal.torn", "publish.sent", "publish.confirmed", "ack.sent", "nack.sent"}
    return every if full else [each for each in every if each[0] in part and (each[1], each[2]) == (3, "quorum")]


def test_killed_at_every_point_a_replay_loses_nothing_and_the_next_one_finishes_it(
    vhost: BrokerAddress, tmp_path: Path
) -> None:
    """Of each point, one run is killed there, and the next replay finishes it. AMQPFLOW_TEST_FULL=1 takes all points,
    before and after every operation, on both kinds of parking queue.
    """

    async def go(number: int, point: str, times: int, kind: str) -> bool:
        compiled, directory = shared_shop(vhost.vhost, kind), tmp_path / str(number)
        everything = {f"b{n}" for n in range(B_COUNT)}
        async with await connect(vhost, name="amqpflow test") as connection:
            await (await connection.admin_channel()).queue_delete(PARKING)  # of the run before, of another type
        async with workplace(vhost, compiled) as (broker, connection):
            mixed = [delivered(queue, message_id=f"{queue}{n}") for n in range(B_COUNT) for queue in "ab"]
            await park(connection, compiled, mixed)
            killed = await run_until_killed(vhost, connection, point, times, directory, kind) == -signal.SIGKILL
            await settled(connection, PARKING)
            at_death = next(Journals(directory).all(lambda *_: None), None)
            report = await replay_parked(broker, compiled, "b", journals=Journals(directory))
            assert report.complete, (point, report)
            copies: dict[str, list[str]] = defaultdict(list)
            for each in await drained(connection, "b", await settled(connection, "b")):
                copies[str(each.properties.message_id)].append((each.properties.headers or {})[h.HOP])
            assert copies.keys() == everything, point
            twice = {name for name, hops in copies.items() if len(hops) > 1}
            unsure = (*at_death.in_doubt.values(), *at_death.leaving.values()) if at_death else ()
            assert twice <= (named := {hop.split("/")[0] for hop, _ in unsure}), (point, twice - named)
            # what it says of acks is of two seconds, and most of them were taken
            assert at_death is None or len(at_death.in_doubt) <= DYING_WINDOW
            assert len(twice) <= DYING_WINDOW
            assert all(len(set(hops)) == 1 for hops in copies.values()), point
            left = await drained(connection, PARKING, await settled(connection, PARKING))
            ids = [str(each.properties.message_id) for each in left]
            assert sorted(ids) == sorted(f"a{n}" for n in range(B_COUNT)), point
            # a torn reading of a quorum queue comes back whole, in its order; its own window may be behind the rest
            assert ids == [f"a{n}" for n in range(B_COUNT)], point
            assert all(state.is_complete for state in Journals(directory).all(lambda *_: None))
        return killed

    async def all_of_them() -> None:
        points = chosen_points()
        killed = [await go(number, *each) for number, each in enumerate(points)]
        # RabbitMQ 3 gets everything back by the channel's end, without a nack
        assert all(died for died, (point, _, _) in zip(killed, points, strict=True) if point != "nack.sent")

    asyncio.run(all_of_them())


def test_without_a_journal_one_kill_sends_at_most_the_window_twice(vhost: BrokerAddress) -> None:
    compiled = shared_shop(vhost.vhost)

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            await park(connection, compiled, [delivered("b", message_id=f"b{n}") for n in range(1000)])
            assert await run_until_killed(vhost, connection, "publish.confirmed", 5) == -signal.SIGKILL
            await settled(connection, PARKING)
            await replay_parked(broker, compiled, "b")
            copies: dict[str, set[str]] = defaultdict(set)
            count = await settled(connection, "b")
            for each in await drained(connection, "b", count):
                copies[str(each.properties.message_id)].add((each.properties.headers or {})[h.HOP])
            assert len(copies) == 1000
            assert all(len(hops) == 1 for hops in copies.values())
            assert 1000 <= count <= 1000 + DYING_WINDOW

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
                assert await run_until_killed(vhost, connection, "listing", times) == -signal.SIGKILL
                await depth_becomes(connection, PARKING, 5000)
                listing = await list_parked(opened, compiled)
                assert [row.message_id for row in listing.messages] == expected

    asyncio.run(go())
