"""Replays that are interrupted, gone on with, held and looked back on; how fast, where to, and when to stop."""

from __future__ import annotations

import asyncio
import errno
import os
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from amqpflow.errors import RefusedError, UsageError
from amqpflow.model import headers as h
from amqpflow.model.message import Delivery
from amqpflow.model.properties import Properties
from amqpflow.model.routes import CompiledTopology
from amqpflow.parking.replay import Destination
from amqpflow.parking.selection import Matcher, Selection
from amqpflow.rabbitmq.address import BrokerAddress
from amqpflow.rabbitmq.connection import Connection, connect
from amqpflow.services.loading import durable_file
from amqpflow.services.reading.lock import reading_alone
from amqpflow.services.reading.options import ReadOptions
from amqpflow.services.replaying import reparked, sending
from amqpflow.services.replaying.journal_files import Journals
from amqpflow.services.replaying.plan import plan_replay
from amqpflow.services.replaying.replayer import replay_parked
from amqpflow.services.replaying.request import ReplayRequest, destination_of
from tests.brokers.selection import BrokerUnderTest
from tests.parked import (
    delivered,
    depth,
    depth_becomes,
    drained,
    list_parked,
    park,
    parking_publish,
    publish,
    publish_without_id,
    workplace,
)
from tests.topologies import topology

WORK, PARKING = "orders", "orders.parking"


def shop(vhost: BrokerAddress, **options: Any) -> CompiledTopology:
    return topology({WORK: [1000]}, vhost=vhost.vhost, **options)


def ids(deliveries: list[Delivery]) -> list[str | None]:
    return [each.properties.message_id for each in deliveries]


def numbered(count: int, **more: Any) -> list[Delivery]:
    return [delivered(WORK, message_id=f"m{n}", **more) for n in range(count)]


async def interrupted(
    broker: Any, compiled: CompiledTopology, journals: Journals, at: str, times: int = 1, **options: Any
) -> None:
    # an exception of another kind would be a bug that is reported; this one only unwinds
    task = asyncio.ensure_future(
        replay_parked(broker, compiled, WORK, journals=journals, on_step=_raising(at, times), **options)
    )
    with pytest.raises(_Gone):
        await task


class _Gone(Exception):
    pass


class FullDisk:
    """The module os, on a disk that is full after so many writes."""

    def __init__(self, writes: int) -> None:
        self.left = writes

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def write(self, fd: int, data: Any) -> int:
        self.left -= 1
        if self.left < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return os.write(fd, data)


CONFIRMED = "confirmed, and not acked"  #: a step: the journal says so of the messages of a round


def _raising(at: str, times: int) -> Callable[[str], None]:
    left, latest = times, ""

    def step(name: str) -> None:
        nonlocal left, latest
        reached = latest == "publish.confirmed" and name == "journal.after" if at == CONFIRMED else name == at
        latest = latest if name == "journal.before" else name
        left -= reached
        if reached and left == 0:
            raise _Gone

    return step


def test_a_replay_that_is_stopped_before_its_last_parking_queue_is_interrupted_and_can_be_resumed(
    vhost: BrokerAddress, tmp_path: Path
) -> None:
    """All that was read was replayed, and yet it is not complete."""
    compiled, journals, stop = (
        topology({"a": [1000], "b": [1000]}, vhost=vhost.vhost),
        Journals(tmp_path),
        asyncio.Event(),
    )

    def stop_after_the_first(step: str) -> None:
        if step == "requeue.after":
            stop.set()

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            await park(connection, compiled, [delivered(queue) for queue in "ab"])
            report = await replay_parked(
                broker, compiled, journals=journals, options=ReadOptions(stop=stop), on_step=stop_after_the_first
            )
            assert (report.replayed, report.interrupted, report.complete) == (1, True, False)
            assert await depth(connection, "b.parking") == 1
            report = await replay_parked(broker, compiled, journals=journals, resume=journals.load(report.replay_id))
            assert (report.replayed, report.complete) == (1, True)

    asyncio.run(go())


def test_a_replay_that_is_stopped_at_its_limit_is_complete(vhost: BrokerAddress, tmp_path: Path) -> None:
    compiled, stop = topology({"a": [1000], "b": [1000]}, vhost=vhost.vhost), asyncio.Event()

    def stop_after_the_first(step: str) -> None:
        if step == "requeue.after":
            stop.set()

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            await park(connection, compiled, [delivered(queue) for queue in "ab"])
            report = await replay_parked(
                broker,
                compiled,
                choice=ReplayRequest(limit=1),
                options=ReadOptions(stop=stop),
                on_step=stop_after_the_first,
            )
            assert (report.replayed, report.interrupted, report.complete) == (1, False, True)

    asyncio.run(go())


def test_what_is_confirmed_in_the_journal_is_taken_out_and_not_sent_again(
    vhost: BrokerAddress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "BATCH", 10)
    compiled, journals = shop(vhost), Journals(tmp_path)

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            await park(connection, compiled, numbered(50))
            await interrupted(broker, compiled, journals, CONFIRMED, 2)
            (state,) = journals.all(lambda *_: None)
            assert state.end is None
            confirmed = {hop for hop, _ in state.unacked.values()}
            assert confirmed
            report = await replay_parked(broker, compiled, WORK, journals=journals)
            assert report.complete
            assert report.already == len(state.unacked) > 0
            taken = await drained(connection, WORK, await depth(connection, WORK))
            hops = [(each.properties.headers or {})[h.HOP] for each in taken]
            assert set(hops) == {f"m{n}/1/0" for n in range(50)}
            doubtful = {hop for hop, _ in (*state.leaving.values(), *state.in_doubt.values())}
            assert {hop for hop in hops if hops.count(hop) > 1} <= doubtful
            assert all(hops.count(hop) == 1 for hop in confirmed)
            assert all(each.is_complete for each in journals.all(lambda *_: None))

    asyncio.run(go())


@pytest.mark.parametrize("in_doubt", ["send", "hold"])
def test_what_is_in_doubt_is_sent_again_with_its_hop_or_held(
    vhost: BrokerAddress, tmp_path: Path, in_doubt: Any
) -> None:
    compiled, journals = shop(vhost), Journals(tmp_path)

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            await park(connection, compiled, numbered(20))
            await interrupted(broker, compiled, journals, "publish.after")
            (state,) = journals.all(lambda *_: None)
            doubtful = len(state.in_doubt)  # what had arrived when the first batch was sent
            assert 1 <= doubtful <= 20
            choice = ReplayRequest(in_doubt=in_doubt)
            report = await replay_parked(broker, compiled, WORK, journals=journals, choice=choice)
            if in_doubt == "hold":
                assert (report.replayed, report.in_doubt, report.remaining) == (20 - doubtful, doubtful, doubtful)
                assert report.sent_again == 0
                assert "`in_doubt` send" in report.left_behind[0].why
                report = await replay_parked(broker, compiled, WORK, journals=journals)
            assert (report.replayed, report.sent_again, report.complete) == (
                doubtful if in_doubt == "hold" else 20,
                doubtful,
                True,
            )
            taken = await drained(connection, WORK, await depth(connection, WORK))
            assert {(each.properties.headers or {})[h.HOP] for each in taken} == {f"m{n}/1/0" for n in range(20)}

    asyncio.run(go())


def test_what_is_held_is_counted_once_by_a_replay_in_steps(vhost: BrokerAddress, tmp_path: Path) -> None:
    compiled, journals = shop(vhost), Journals(tmp_path)

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            await park(connection, compiled, numbered(5))
            await interrupted(broker, compiled, journals, "publish.after")
            doubtful = len(next(iter(journals.all(lambda *_: None))).in_doubt)
            assert doubtful
            await park(connection, compiled, [delivered(WORK, message_id=f"new{n}") for n in range(10)])
            choice = ReplayRequest(ramp=(2, 4), ramp_wait=0.1, in_doubt="hold")
            report = await replay_parked(broker, compiled, WORK, journals=journals, choice=choice)
            assert (report.replayed, report.in_doubt) == (15 - doubtful, doubtful)
            assert len({each.id for each in report.left_behind}) == len(report.left_behind) == doubtful

    asyncio.run(go())


def test_a_replay_is_resumed_under_its_own_id_and_what_came_back_is_not_sent_again(
    vhost: BrokerAddress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "BATCH", 10)
    compiled, journals = shop(vhost), Journals(tmp_path)

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            await park(connection, compiled, numbered(40))
            await interrupted(broker, compiled, journals, "ack.after", 2)
            sent = await drained(connection, WORK, await depth(connection, WORK))
            await park(connection, compiled, sent[:3])  # they fail again
            (state,) = journals.all(lambda *_: None)
            report = await replay_parked(broker, compiled, WORK, journals=journals, resume=state)
            assert (report.replay_id, report.complete, report.came_back) == (state.head.id, True, 3)
            again = await drained(connection, WORK, await depth(connection, WORK))
            assert {*ids(sent), *ids(again)} == {f"m{n}" for n in range(40)}
            listing = await list_parked(broker, compiled)
            assert [(row.message_id, row.replays) for row in listing.messages] == [(each, 1) for each in ids(sent[:3])]
            (after,) = journals.all(lambda *_: None)
            assert (after.is_complete, len(after.resumed)) == (True, 1)

    asyncio.run(go())


def test_a_replay_of_other_messages_does_not_do_with_what_an_interrupted_one_knows(
    vhost: BrokerAddress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "BATCH", 10)
    compiled, journals = topology({WORK: [1000], "mail": [1000]}, vhost=vhost.vhost), Journals(tmp_path)

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            await park(connection, compiled, [*numbered(30), delivered("mail", message_id="other")])
            with pytest.raises(_Gone):
                await replay_parked(broker, compiled, None, journals=journals, on_step=_raising(CONFIRMED, 2))
            (state,) = journals.all(lambda *_: None)
            confirmed = {hop for hop, _ in state.unacked.values()}
            assert confirmed
            # neither one of another queue, nor one that takes nothing of this queue, ends it
            assert (await replay_parked(broker, compiled, "mail", journals=journals)).complete
            nothing = ReplayRequest(select=lambda _: False)
            assert (await replay_parked(broker, compiled, None, journals=journals, choice=nothing)).complete
            still = [each for each in journals.all(lambda *_: None) if each.head.id == state.head.id]
            assert [each.is_complete for each in still] == [False]
            report = await replay_parked(broker, compiled, None, journals=journals)
            assert report.complete
            assert report.already > 0
            taken = await drained(connection, WORK, await depth(connection, WORK))
            hops = [(each.properties.headers or {})[h.HOP] for each in taken]
            assert set(hops) == {f"m{n}/1/0" for n in range(30)}
            assert all(hops.count(hop) == 1 for hop in confirmed)
            assert all(each.is_complete for each in journals.all(lambda *_: None))

    asyncio.run(go())


@pytest.mark.one_broker
def test_what_a_replay_did_that_died_while_this_one_waited_for_it_is_known(
    vhost: BrokerAddress, tmp_path: Path
) -> None:
    compiled, journals = shop(vhost), Journals(tmp_path)

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            await park(connection, compiled, numbered(5))
            await interrupted(broker, compiled, journals, "ack.before")
            (path,) = tmp_path.iterdir()
            hidden = path.rename(tmp_path / "hidden")
            waiting = asyncio.Event()
            async with reading_alone(connection, PARKING):
                second = asyncio.create_task(
                    replay_parked(
                        broker, compiled, WORK, journals=journals, options=ReadOptions(on_wait=lambda _: waiting.set())
                    )
                )
                await waiting.wait()
                hidden.rename(path)
            report = await second
            assert report.complete
            assert report.already + report.sent_again > 0
            sent = await depth(connection, WORK)
            assert sent == 5 + report.sent_again

    asyncio.run(go())


@pytest.mark.one_broker
def test_what_another_broker_of_the_same_name_confirmed_is_in_doubt_and_not_taken_out(
    vhost: BrokerAddress, tmp_path: Path
) -> None:
    compiled, journals = shop(vhost), Journals(tmp_path)

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            await park(connection, compiled, numbered(5))
            await interrupted(broker, compiled, journals, CONFIRMED)
            (state,) = journals.all(lambda *_: None)
            assert state.unacked
            (path,) = tmp_path.iterdir()
            path.write_bytes(path.read_bytes().replace(state.head.address.encode(), b"elsewhere:5672"))
            sent = await depth(connection, WORK)
            report = await replay_parked(broker, compiled, WORK, journals=journals)
            assert (report.replayed, report.already, report.complete) == (5, 0, True)
            assert report.sent_again >= len(state.unacked)
            assert await depth(connection, WORK) == sent + 5

    asyncio.run(go())


@pytest.mark.one_broker
def test_only_what_was_interrupted_here_is_resumed(vhost: BrokerAddress, tmp_path: Path) -> None:
    compiled, journals = shop(vhost), Journals(tmp_path)

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            await park(connection, compiled, numbered(5))
            await interrupted(broker, compiled, journals, "publish.after")
            (state,) = journals.all(lambda *_: None)
            elsewhere = replace(state, head=replace(state.head, vhost="another"))
            with pytest.raises(RefusedError, match="in virtual host another"):
                await replay_parked(broker, compiled, WORK, journals=journals, resume=elsewhere)
            assert (await replay_parked(broker, compiled, WORK, journals=journals, resume=state)).complete
            with pytest.raises(RefusedError, match="in the meantime"):
                journals.reopen(state)
            (after,) = journals.all(lambda *_: None)
            assert after.confirmed == 5
            with pytest.raises(RefusedError, match="is already complete"):
                await replay_parked(broker, compiled, WORK, journals=journals, resume=after)

    asyncio.run(go())


def test_messages_without_any_id_are_known_by_what_they_hold(vhost: BrokerAddress, tmp_path: Path) -> None:
    compiled, journals = shop(vhost), Journals(tmp_path)

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            await publish_without_id(connection, PARKING, 3)
            await interrupted(broker, compiled, journals, CONFIRMED, choice=ReplayRequest(origin=WORK))
            report = await replay_parked(broker, compiled, WORK, journals=journals, choice=ReplayRequest(origin=WORK))
            assert report.complete
            # they are never believed to be sent: they go again, and say so
            assert report.sent_again == report.replayed
            taken = await drained(connection, WORK, await depth(connection, WORK))
            assert len({(each.properties.headers or {})[h.HOP] for each in taken}) == 3

    asyncio.run(go())


def test_a_journal_that_cannot_be_written_is_refused_before_anything_is_sent(
    vhost: BrokerAddress, tmp_path: Path
) -> None:
    compiled = shop(vhost)
    (tmp_path / "file").write_text("")

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            await park(connection, compiled, numbered(3))
            with pytest.raises(RefusedError, match="cannot be written"):
                await replay_parked(broker, compiled, WORK, journals=Journals(tmp_path / "file" / "x"))
            assert (await depth(connection, WORK), await depth(connection, PARKING)) == (0, 3)

    asyncio.run(go())


def test_a_disk_that_is_full_in_the_middle_stops_the_replay_and_loses_nothing(
    vhost: BrokerAddress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "BATCH", 10)
    compiled, full = shop(vhost), FullDisk(writes=4)
    monkeypatch.setattr(durable_file, "os", full)

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            await park(connection, compiled, numbered(100))
            report = await replay_parked(broker, compiled, WORK, journals=Journals(tmp_path))
            assert report.stopped is not None
            assert "cannot write the journal any more: No space left" in report.stopped
            assert report.replayed + report.in_doubt > 0
            (state,) = Journals(tmp_path).all(lambda *_: None)
            assert report.in_doubt == len(state.unacked)
            # what the journal takes for parked is parked, and the next replay takes it out
            monkeypatch.setattr(durable_file, "os", os)
            report = await replay_parked(broker, compiled, WORK, journals=Journals(tmp_path))
            assert (report.complete, report.already, report.sent_again) == (True, len(state.unacked), 0)
            taken = await drained(connection, WORK, await depth(connection, WORK))
            assert sorted(ids(taken), key=str) == sorted(f"m{n}" for n in range(100))
            assert await depth(connection, PARKING) == 0

    asyncio.run(go())


def test_to_another_queue_with_other_headers(vhost: BrokerAddress) -> None:
    compiled = shop(vhost)
    choice = ReplayRequest(
        to=destination_of("elsewhere", {}), set_headers={"mended": "yes", "a": "2"}, drop_headers=frozenset({"b"})
    )

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            channel = await connection.admin_channel()
            await channel.queue_declare("elsewhere", durable=True)
            await park(connection, compiled, numbered(3, headers={"a": "1", "b": "x", "c": [1, {"d": None}]}))
            plan = await plan_replay(broker, compiled, WORK, choice=choice)
            assert plan.destinations == (("elsewhere", 3),)
            report = await replay_parked(broker, compiled, WORK, choice=choice)
            assert (report.replayed, report.to) == (3, "elsewhere")
            taken = await drained(connection, "elsewhere", 3)
            theirs = {name: value for name, value in (taken[0].properties.headers or {}).items() if name[0] != "x"}
            assert theirs == {"a": "2", "c": [1, {"d": None}], "mended": "yes"}

    asyncio.run(go())


@pytest.mark.parametrize("to", ["missing", "amq.direct:nowhere", "no-such-exchange:key"])
def test_a_destination_that_is_not_there_leaves_everything_parked(vhost: BrokerAddress, to: str) -> None:
    compiled = shop(vhost)

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            await park(connection, compiled, numbered(5))
            report = await replay_parked(broker, compiled, WORK, choice=ReplayRequest(to=destination_of(to, {})))
            assert (report.replayed, report.complete, report.remaining) == (0, False, 5)
            assert "cannot route to" in (report.stopped or "")
            assert report.hint == "create the destination first"
            assert ids(await drained(connection, PARKING, 5)) == [f"m{n}" for n in range(5)]

    asyncio.run(go())


def test_a_selection_takes_some_and_leaves_the_rest_in_order(vhost: BrokerAddress) -> None:
    compiled = shop(vhost)
    selection = Matcher(Selection(headers=("tenant=t1",)), now=0, routes=compiled.routes)

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            messages = [delivered(WORK, message_id=f"m{n}", headers={"tenant": f"t{n % 10}"}) for n in range(1000)]
            await park(connection, compiled, messages)
            choice = ReplayRequest(select=selection)
            plan = await plan_replay(broker, compiled, WORK, choice=choice)
            report = await replay_parked(broker, compiled, WORK, choice=choice)
            assert (plan.selected, report.replayed, report.others, report.remaining) == (100, 100, 900, 900)
            assert ids(await drained(connection, WORK, 100)) == [f"m{n}" for n in range(1, 1000, 10)]
            left = [f"m{n}" for n in range(1000) if n % 10 != 1]
            assert ids(await drained(connection, PARKING, 900)) == left

    asyncio.run(go())


@pytest.mark.one_broker
def test_a_sample_is_taken_at_random_and_counted_before(vhost: BrokerAddress) -> None:
    compiled = shop(vhost)

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            await park(connection, compiled, numbered(100))
            choice = ReplayRequest(sample=7, seed=3)
            plan = await plan_replay(broker, compiled, WORK, choice=choice)
            report = await replay_parked(broker, compiled, WORK, choice=choice)
            assert (plan.selected, report.replayed, report.remaining) == (7, 7, 93)

    asyncio.run(go())


@pytest.mark.one_broker
def test_all_work_queues_of_a_topology(vhost: BrokerAddress) -> None:
    compiled = topology({"a": [1000], "b": [1000], "c": [1000]}, vhost=vhost.vhost)

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            for queue in "abc":
                await park(connection, compiled, [delivered(queue, message_id=f"{queue}{n}") for n in range(3)])
            plan = await plan_replay(broker, compiled)
            assert dict(plan.destinations) == {"a": 3, "b": 3, "c": 3}
            report = await replay_parked(broker, compiled, ["a", "b"])
            assert (report.replayed, report.queues, report.remaining) == (6, ("a", "b"), 0)
            report = await replay_parked(broker, compiled)
            assert report.replayed == 3
            assert [await depth(connection, each) for each in "abc"] == [3, 3, 3]

    asyncio.run(go())


@pytest.mark.one_broker
def test_a_rate_is_kept(vhost: BrokerAddress) -> None:
    compiled = shop(vhost)

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            await park(connection, compiled, numbered(60))
            report = await replay_parked(broker, compiled, WORK, choice=ReplayRequest(rate=50))
            assert (report.replayed, report.complete) == (60, True)
            assert 1.0 < report.seconds < 10
            assert ids(await drained(connection, WORK, 60)) == [f"m{n}" for n in range(60)]

    asyncio.run(go())


@pytest.mark.one_broker
def test_a_work_queue_is_never_filled_over_the_depth(vhost: BrokerAddress) -> None:
    compiled, seen = shop(vhost), [0]

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            await park(connection, compiled, numbered(100))
            channel = await connection.open_channel()

            async def take() -> None:
                while True:
                    seen.append((await channel.queue_counts(WORK)).ready)
                    if seen[-1] >= 20:
                        await drained(connection, WORK, 20)
                    await asyncio.sleep(0.02)

            taking = asyncio.create_task(take())
            report = await replay_parked(broker, compiled, WORK, choice=ReplayRequest(max_depth=20))
            taking.cancel()
            await asyncio.gather(taking, return_exceptions=True)
            assert (report.replayed, report.complete) == (100, True)
            assert max(seen) == 20

    asyncio.run(go())


async def failing(connection: Connection, compiled: CompiledTopology) -> Any:
    """A consumer of the work queue that parks whatever comes."""
    channel, parking = await connection.open_channel(), await connection.open_channel()
    tasks: set[asyncio.Task[None]] = set()

    async def park_again(delivery: Delivery) -> None:
        await parking.publish(parking_publish(compiled, delivery))
        channel.ack(delivery.delivery_tag)

    def take(delivery: Delivery) -> None:
        task = asyncio.create_task(park_again(delivery))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    await channel.consume(WORK, take, prefetch=20, on_cancel=lambda: None)
    return channel


@pytest.mark.one_broker
def test_a_ramp_looks_at_what_came_back_and_stops(vhost: BrokerAddress, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = shop(vhost)
    choice = ReplayRequest(ramp=(2, 10), ramp_wait=0.5, stop_if_reparked=0.2)

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            await park(connection, compiled, numbered(100))
            report = await replay_parked(broker, compiled, WORK, choice=choice)
            assert (report.replayed, report.complete, report.came_back) == (100, True, 0)
            await drained(connection, WORK, 100)
            await park(connection, compiled, numbered(100))
            channel = await failing(connection, compiled)

            async def until_both_are_back(stop: asyncio.Event, seconds: float) -> None:
                await depth_becomes(connection, PARKING, 100)

            monkeypatch.setattr(reparked, "set_within", until_both_are_back)
            report = await replay_parked(broker, compiled, WORK, choice=choice)
            assert (report.replayed, report.came_back, report.guarded) == (2, 2, True)
            assert report.stopped == "2 of 2 replayed messages are parked again"
            assert await depth(connection, PARKING) == 100
            await channel.close()

    asyncio.run(go())


@pytest.mark.one_broker
def test_without_a_ramp_too_many_that_come_back_stop_it_too(
    vhost: BrokerAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("amqpflow.services.replaying.reparked.GUARD_EVERY", 0.1)
    compiled = shop(vhost)

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            await park(connection, compiled, numbered(500))
            channel = await failing(connection, compiled)
            choice = ReplayRequest(rate=200, stop_if_reparked=0.5)
            report = await replay_parked(broker, compiled, WORK, choice=choice)
            assert report.guarded
            assert 0 < report.replayed < 500
            await depth_becomes(connection, PARKING, 500)
            await channel.close()

    asyncio.run(go())


@pytest.mark.one_broker
def test_a_watch_ends_when_nothing_is_on_its_way_and_counts_what_came_back(
    vhost: BrokerAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reparked, "WATCH_EVERY", 0.5)  # three looks see nothing of what a consumer holds
    compiled = shop(vhost)
    told: list[tuple[int, int]] = []

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            await park(connection, compiled, numbered(5))
            channel = await failing(connection, compiled)
            report = await replay_parked(
                broker, compiled, WORK, on_watch=lambda depth, parked: told.append((depth, parked))
            )
            assert (report.replayed, report.came_back) == (5, 5)
            assert told[-1] == (0, 5)
            await channel.close()

    asyncio.run(go())


@pytest.mark.releases(">=4.3")
def test_a_slow_replay_gives_back_before_the_consumer_timeout_and_goes_on(
    vhost: BrokerAddress, broker: BrokerUnderTest
) -> None:
    compiled = shop(vhost)
    policy = {"pattern": "^orders[.]parking$", "definition": {"consumer-timeout": 4000}, "apply-to": "queues"}

    async def go() -> None:
        async with workplace(vhost, compiled) as (opened, connection):
            await park(connection, compiled, numbered(60))
            broker.management.put("policies", vhost.vhost, "short", body=policy)
            steps: list[str] = []
            choice = ReplayRequest(rate=20)
            report = await replay_parked(opened, compiled, WORK, choice=choice, on_step=steps.append)
            assert (report.replayed, report.complete, report.stopped) == (60, True, None)
            assert steps.count("requeue.after") >= 2
            assert ids(await drained(connection, WORK, 60)) == [f"m{n}" for n in range(60)]

    asyncio.run(go())


def test_two_messages_with_one_id_are_both_sent(vhost: BrokerAddress, tmp_path: Path) -> None:
    compiled = shop(vhost)

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            for body in (b"one", b"two"):
                await publish(connection, PARKING, Properties(message_id="same"), body=body)
            journals = Journals(tmp_path)
            await interrupted(broker, compiled, journals, "ack.after", choice=ReplayRequest(origin=WORK))
            report = await replay_parked(broker, compiled, WORK, journals=journals, choice=ReplayRequest(origin=WORK))
            assert report.complete
            taken = await drained(connection, WORK, await depth(connection, WORK))
            assert {each.body for each in taken} == {b"one", b"two"}

    asyncio.run(go())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"set_headers": {"x-amqpflow-hop": "1"}}, "belongs to RabbitMQ or amqpflow"),
        ({"drop_headers": frozenset({"x-death"})}, "belongs to RabbitMQ or amqpflow"),
        ({"rate": 0}, "more than 0"),
        ({"ramp": (10, 1)}, "do not fall"),
        ({"stop_if_reparked": 1.5}, "at most 100 %"),
        ({"max_depth": 0}, "at least 1"),
    ],
)
def test_what_cannot_be_meant_is_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        ReplayRequest(**options)


@pytest.mark.parametrize(
    ("text", "exchange", "key"),
    [("q", "", "q"), ("x:k", "x", "k"), (":q", "", "q"), ("x:a:b", "x", "a:b"), ("a:b", "shop.retry", "a:b")],
)
def test_a_destination_is_a_queue_or_an_exchange_and_a_key(text: str, exchange: str, key: str) -> None:
    work = {"a:b": Destination(exchange="shop.retry", routing_key="a:b", queue="a:b", label="a:b")}
    found = destination_of(text, work)
    assert (found.exchange, found.routing_key) == (exchange, key)


def test_a_replay_that_cannot_read_its_next_parking_queue_reports_what_it_did(
    vhost: BrokerAddress, tmp_path: Path
) -> None:
    """It is stopped while another command reads that queue."""
    compiled, journals = topology({"a": [1000], "b": [1000]}, vhost=vhost.vhost), Journals(tmp_path)

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            await park(connection, compiled, [delivered(queue) for queue in "ab"])
            stop = asyncio.Event()
            async with reading_alone(connection, "b.parking"):
                report = await replay_parked(
                    broker, compiled, journals=journals, options=ReadOptions(stop=stop, on_wait=lambda _: stop.set())
                )
            assert (report.replayed, report.complete, report.interrupted) == (1, False, True)
            resumed = journals.load(report.replay_id)
            report = await replay_parked(broker, compiled, journals=journals, resume=resumed)
            assert (report.replayed, report.complete) == (1, True)

    asyncio.run(go())


def test_a_step_of_a_ramp_whose_result_cannot_be_counted_ends_the_replay_with_a_report(
    vhost: BrokerAddress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled, journals = shop(vhost), Journals(tmp_path)

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            await park(connection, compiled, numbered(5))
            stop = asyncio.Event()
            async with AsyncExitStack() as locks:

                async def locked_meanwhile(stop: asyncio.Event, seconds: float) -> None:
                    await locks.enter_async_context(reading_alone(connection, PARKING))

                monkeypatch.setattr(reparked, "set_within", locked_meanwhile)
                report = await replay_parked(
                    broker,
                    compiled,
                    journals=journals,
                    choice=ReplayRequest(ramp=(2,)),
                    options=ReadOptions(stop=stop, on_wait=lambda _: stop.set()),
                )
            assert (report.replayed, report.interrupted, report.complete) == (2, True, False)

    asyncio.run(go())


def test_a_copy_that_one_of_several_queues_refuses_is_in_doubt_and_sent_once(
    vhost: BrokerAddress, tmp_path: Path
) -> None:
    compiled, journals = shop(vhost), Journals(tmp_path)

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            channel = await connection.admin_channel()
            await channel.exchange_declare("both", exchange_type="fanout")
            for queue, arguments in (
                ("takes", {}),
                ("refuses", {"x-queue-type": "classic", "x-max-length": 1, "x-overflow": "reject-publish"}),
            ):
                await channel.queue_declare(queue, durable=True, arguments=arguments)
                await channel.queue_bind(queue, "both")
            await park(connection, compiled, numbered(3))
            choice = ReplayRequest(to=destination_of("both:key", {}))
            report = await replay_parked(broker, compiled, journals=journals, choice=choice)
            assert (report.replayed, report.failed, report.in_doubt) == (1, 0, 2)
            assert report.stopped
            assert await depth(connection, "takes") == 3
            assert len(journals.load(report.replay_id).in_doubt) == 2

    asyncio.run(go())


def test_a_replay_says_when_higher_priorities_kept_it_from_what_was_there(
    vhost: BrokerAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends after as many messages as there were. On RabbitMQ 4 these need not be the ones that were there."""
    monkeypatch.setattr(sending, "WINDOW", 5)
    compiled = topology({"a": [1000]}, vhost=vhost.vhost)

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            await park(connection, compiled, [delivered("a", message_id=f"old{n}", priority=0) for n in range(40)])
            urgent = [
                parking_publish(
                    compiled, delivered("a", message_id=f"new{n}", priority=9), now=time.time_ns() // 1_000_000 + 60_000
                )
                for n in range(10)
            ]

            async def fail_meanwhile() -> None:
                async with await connect(vhost, name="amqpflow test") as theirs:
                    channel = await theirs.open_channel()
                    await asyncio.gather(*map(channel.publish, urgent))
                    await channel.close()

            def after_some(step: str) -> None:
                sent.append(step)
                if sent.count("publish.after") == 2 and step == "publish.after":
                    # the replay waits for it: else it may hold all that was there by then
                    failing = Thread(target=lambda: asyncio.run(fail_meanwhile()))
                    failing.start()
                    failing.join()

            sent: list[str] = []
            report = await replay_parked(broker, compiled, choice=ReplayRequest(rate=40.0), on_step=after_some)
            assert report.remaining == 10
            assert report.complete == (broker.connection.version < (4,))
            again = await replay_parked(broker, compiled)
            assert (again.complete, again.remaining) == (True, 0)

    asyncio.run(go())
