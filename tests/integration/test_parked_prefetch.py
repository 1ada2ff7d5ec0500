"""Reading with a limit on what is unacked: never more are held, and what the broker does not show is said."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from amqpflow.model.message import Delivery
from amqpflow.parking.selection import Selection
from amqpflow.rabbitmq.address import BrokerAddress
from amqpflow.rabbitmq.connection import Connection
from amqpflow.services.parked import export as parked_export
from amqpflow.services.parked import listing as parked_list
from amqpflow.services.parked import restore as parked_restore
from amqpflow.services.parked import stats as parked_stats
from amqpflow.services.reading.consumers import QueueConsumers
from amqpflow.services.reading.options import ReadOptions
from amqpflow.services.reading.target import ReadTarget, read_target
from amqpflow.services.replaying.replayer import replay_parked
from amqpflow.services.replaying.request import ReplayRequest
from tests.cli.parked_shop import amqpflow, fill, write_shop
from tests.parked import delivered, depth, drained, list_parked, park, workplace
from tests.topologies import topology

WORK, PARKING = "orders", "orders.parking"
COUNT, PREFETCH = 250, 100
IDS = [f"m{number}" for number in range(COUNT)]


@asynccontextmanager
async def watched(address: BrokerAddress) -> AsyncIterator[Callable[[], int]]:
    """Ask the broker all the time how many are unacked; the answer is the most there were."""
    compiled = topology({WORK: [1000]}, vhost=address.vhost)
    async with workplace(address, compiled) as (_, connection):
        channel = await connection.open_channel()
        total, least = (await channel.queue_counts(PARKING)).ready, COUNT

        async def look() -> None:
            nonlocal least
            while True:
                least = min(least, (await channel.queue_counts(PARKING)).ready)

        looking = asyncio.create_task(look())
        try:
            yield lambda: total - least
        finally:
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)


async def ids_in(connection: Connection, queue: str) -> list[str]:
    taken = await drained(connection, queue, await depth(connection, queue))
    return [str(each.properties.message_id) for each in taken]


async def listing(target: ReadTarget) -> int:
    return len((await parked_list.list_parked(target, Selection())).messages)


async def showing(target: ReadTarget) -> int:
    return len(await parked_list.find_parked(target, "m7"))


async def counting(target: ReadTarget) -> int:
    found = await parked_stats.count_parked(target, Selection(), by=("queue",))
    assert not found.complete
    assert "which is the prefetch" in str(found.queues[0].ended_early)
    return PREFETCH


@pytest.fixture
def most_held(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """The most that a reading held at once."""
    take, most = QueueConsumers._take, 0

    def counted(consumers: QueueConsumers, delivery: Delivery) -> None:
        nonlocal most
        take(consumers, delivery)
        most = max(most, sum(each.tags.held for each in consumers.holdings))

    monkeypatch.setattr(QueueConsumers, "_take", counted)
    return lambda: most


@pytest.mark.parametrize(
    ("read", "seen"), [(listing, PREFETCH), (showing, 1), (counting, PREFETCH)], ids=["list", "show", "stats"]
)
def test_no_more_are_held_than_the_prefetch_and_all_stay_in_their_order(
    vhost: BrokerAddress, read: Callable[[ReadTarget], Awaitable[int]], seen: int
) -> None:
    compiled = topology({WORK: [1000]}, vhost=vhost.vhost)

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            await park(connection, compiled, [delivered(WORK, message_id=each) for each in IDS])
            async with watched(vhost) as most_unacked:
                assert await read(read_target(broker, compiled, (), ReadOptions(prefetch=PREFETCH))) == seen
                assert most_unacked() <= PREFETCH
            assert await ids_in(connection, PARKING) == IDS

    asyncio.run(go())


def test_what_was_read_before_is_read_in_parts_and_keeps_its_order(vhost: BrokerAddress) -> None:
    """A quorum queue puts a part that it is given back behind the others, so that the next part comes."""
    compiled = topology({WORK: [1000]}, vhost=vhost.vhost)

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            await park(connection, compiled, [delivered(WORK, message_id=each) for each in IDS])
            assert (await list_parked(broker, compiled)).complete
            async with watched(vhost) as most_unacked:
                found = await parked_list.list_parked(
                    read_target(broker, compiled, (), ReadOptions(prefetch=PREFETCH)), Selection()
                )
                assert most_unacked() <= PREFETCH
            assert [each.message_id for each in found.messages] == IDS
            assert (found.complete, found.notes) == (True, ())
            assert await ids_in(connection, PARKING) == IDS

    asyncio.run(go())


def test_what_was_read_only_in_part_before_may_change_its_order_and_that_is_said(vhost: BrokerAddress) -> None:
    compiled = topology({WORK: [1000]}, vhost=vhost.vhost)
    new = [f"n{number}" for number in range(30)]

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            await park(connection, compiled, [delivered(WORK, message_id=each) for each in IDS])
            assert (await list_parked(broker, compiled)).complete
            await park(connection, compiled, [delivered(WORK, message_id=each) for each in new])
            target = read_target(broker, compiled, (), ReadOptions(prefetch=PREFETCH))
            found = await parked_list.list_parked(target, Selection())
            assert {each.message_id for each in found.messages} >= set(IDS)
            assert not found.complete
            assert "its oldest messages are last now" in " ".join(found.notes)
            assert sorted(await ids_in(connection, PARKING)) == sorted([*IDS, *new])

    asyncio.run(go())


def test_an_export_says_that_not_all_was_read(vhost: BrokerAddress, tmp_path: Path) -> None:
    compiled = topology({WORK: [1000]}, vhost=vhost.vhost)

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            await park(connection, compiled, [delivered(WORK, message_id=each) for each in IDS])
            target = read_target(broker, compiled, (), ReadOptions(prefetch=PREFETCH))
            report = await parked_export.export_parked(target, Selection(), str(tmp_path / "x"))
            assert (report.selected, report.complete) == (PREFETCH, False)
            assert await ids_in(connection, PARKING) == IDS

    asyncio.run(go())


def test_a_discard_takes_all_with_a_small_prefetch_and_a_restore_looks_with_it(
    vhost: BrokerAddress, tmp_path: Path, most_held: Callable[[], int]
) -> None:
    compiled, file = topology({WORK: [1000]}, vhost=vhost.vhost), str(tmp_path / "x")

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            await park(connection, compiled, [delivered(WORK, message_id=each) for each in IDS])
            target = read_target(broker, compiled, (), ReadOptions(prefetch=PREFETCH))
            report = await parked_export.discard_parked(target, Selection(), file)
            assert (report.discarded, report.complete) == (COUNT, True)
            assert 0 < most_held() <= PREFETCH
            assert await depth(connection, PARKING) == 0
            restored = await parked_restore.restore_parked(broker, file, ReadOptions(prefetch=PREFETCH))
            assert (restored.restored, restored.complete) == (COUNT, True)

    asyncio.run(go())


@pytest.mark.parametrize("stay", [0, 50, 150], ids=["all go", "some stay", "more stay than may be held"])
def test_a_replay_takes_all_that_it_can_reach_with_a_small_prefetch(
    vhost: BrokerAddress, stay: int, most_held: Callable[[], int]
) -> None:
    compiled = topology({WORK: [1000]}, vhost=vhost.vhost)
    staying = set(IDS[:stay])

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            await park(connection, compiled, [delivered(WORK, message_id=each) for each in IDS])
            choice = ReplayRequest(select=lambda parked: parked.message_id not in staying)
            report = await replay_parked(broker, compiled, choice=choice, options=ReadOptions(prefetch=PREFETCH))
            assert 0 < most_held() <= PREFETCH
            assert await ids_in(connection, PARKING) == (IDS if stay > PREFETCH else IDS[:stay])
            assert report.replayed == (0 if stay > PREFETCH else COUNT - stay)
            if stay > PREFETCH:
                assert "which is the prefetch" in str(report.stopped)
                assert report.hint == "a larger prefetch reaches those behind them"
            else:
                assert report.complete

    asyncio.run(go())


COMMANDS = ["list", "stats", "export", "show", "discard", "replay"]


@pytest.mark.one_broker
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_takes_the_option(vhost: BrokerAddress, tmp_path: Path, command: str) -> None:
    file = write_shop(tmp_path)
    fill(file, vhost, [delivered(WORK, message_id=f"m{number}") for number in range(5)])
    more = {
        "list": (),
        "stats": (),
        "export": ("--to", str(tmp_path / "x")),
        "show": ("m4",),
        "discard": ("--all", "--no-export", "--yes"),
        "replay": ("--yes",),
    }[command]
    words = "replay" if command == "replay" else f"parked {command}"
    done = amqpflow(words, file, vhost, *more, "--prefetch", "3")
    if command in ("discard", "replay"):
        assert done.code == 0, done.err
    else:
        assert "3 messages are held, which is the prefetch" in done.err
        assert done.code == (4 if command == "show" else 3)
