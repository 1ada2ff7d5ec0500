"""What an interrupted replay sent is never taken for what it did not send, however much the two have in common."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from amqpflow.model import headers as h
from amqpflow.model.content_header import ContentHeader
from amqpflow.model.message import Delivery, Publish
from amqpflow.model.properties import Properties
from amqpflow.model.routes import CompiledTopology
from amqpflow.parking.journal import JournalState
from amqpflow.rabbitmq.address import BrokerAddress
from amqpflow.rabbitmq.connection import Connection
from amqpflow.rabbitmq.observe import Broker
from amqpflow.services.replaying import sending
from amqpflow.services.replaying.journal_file import JournalFile
from amqpflow.services.replaying.journal_files import Journals
from amqpflow.services.replaying.replayer import replay_parked
from amqpflow.services.replaying.report import ReplayReport
from amqpflow.services.replaying.request import ReplayRequest, destination_of
from tests.parked import (
    delivered,
    depth,
    depth_becomes,
    drained,
    list_parked,
    park,
    parking_publish,
    publish_without_id,
    workplace,
)
from tests.topologies import topology
from tests.waiting import until

CONFIRMED = "confirmed, and not acked"
ACKED = "requeue.before"  #: all acks were given, and none is proven
POINTS = ["publish.before", "publish.after", CONFIRMED, "ack.before", "ack.after", ACKED]
FIRST_THREE = ReplayRequest(limit=3)
FROM_A = ReplayRequest(origin="a")


class _Gone(Exception):
    pass


def dying(at: str, times: int = 1) -> Callable[[str], None]:
    """A step that ends the replay as a crash does, but for the acks that it gave: those are taken."""
    left, latest = times, ""

    def step(name: str) -> None:
        nonlocal left, latest
        reached = latest == "publish.confirmed" and name == "journal.after" if at == CONFIRMED else name == at
        latest = latest if name == "journal.before" else name
        left -= reached
        if reached and left == 0:
            raise _Gone

    return step


async def interrupted(broker: Broker, compiled: CompiledTopology, journals: Journals, at: str, **options: Any) -> bool:
    """Replay until the step; False when it was over before."""
    queue, times = options.pop("queue", None), options.pop("times", 1)
    try:
        await replay_parked(broker, compiled, queue, journals=journals, on_step=dying(at, times), **options)
    except _Gone:
        return True
    return False


async def contents(connection: Connection, queue: str) -> Counter[tuple[str | None, bytes, str]]:
    """What is in a queue, by message id, body and the header `n`."""
    taken = await drained(connection, queue, await depth(connection, queue))
    return Counter(
        (each.properties.message_id, each.body, str((each.properties.headers or {}).get("n"))) for each in taken
    )


def states(journals: Journals) -> list[JournalState]:
    return list(journals.all(lambda *_: None))


@pytest.mark.parametrize("parking", [None, "shared.parking"])
@pytest.mark.parametrize("at", POINTS)
def test_one_event_in_two_work_queues_is_two_messages(
    vhost: BrokerAddress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parking: str | None, at: str
) -> None:
    monkeypatch.setattr(sending, "BATCH", 10)
    compiled = topology({"a": [1000], "b": [1000]}, vhost=vhost.vhost, parking=parking)
    events = [(f"m{n}", b"{}", "None") for n in range(40)]

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            for queue in "ab":
                await park(connection, compiled, [delivered(queue, message_id=name) for name, _, _ in events])
            journals = Journals(tmp_path)
            for times in (2, 1, 2):
                await interrupted(broker, compiled, journals, at, times=1 if at == ACKED else times)
            report = await replay_parked(broker, compiled, journals=journals)
            assert (report.complete, report.remaining) == (True, 0)
            for queue in "ab":
                assert (await contents(connection, queue)).keys() == set(events), (queue, at)

    asyncio.run(go())


@pytest.mark.parametrize("at", POINTS)
def test_messages_that_share_an_id_and_an_empty_body_are_all_sent(
    vhost: BrokerAddress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    monkeypatch.setattr(sending, "BATCH", 5)
    compiled = topology({"a": [1000]}, vhost=vhost.vhost)

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            await park(
                connection,
                compiled,
                [delivered("a", message_id="same", body=b"", headers={"n": n}) for n in range(30)],
            )
            journals = Journals(tmp_path)
            await interrupted(broker, compiled, journals, at, choice=FIRST_THREE)
            await interrupted(broker, compiled, journals, at, times=1 if at == ACKED else 2, choice=FIRST_THREE)
            assert (await replay_parked(broker, compiled, journals=journals)).complete
            assert (await contents(connection, "a")).keys() == {("same", b"", str(n)) for n in range(30)}

    asyncio.run(go())


@pytest.mark.parametrize("at", POINTS)
def test_messages_that_are_equal_in_every_byte_are_sent_as_often_as_they_are_there(
    vhost: BrokerAddress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    monkeypatch.setattr(sending, "BATCH", 4)
    compiled = topology({"a": [1000]}, vhost=vhost.vhost)

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            await park(connection, compiled, [delivered("a", message_id="same") for _ in range(20)])
            journals = Journals(tmp_path)
            for _ in range(3):
                assert await interrupted(broker, compiled, journals, at, choice=FIRST_THREE)
                assert await depth(connection, "a") + await depth(connection, "a.parking") >= 20
            assert (await replay_parked(broker, compiled, journals=journals)).complete
            assert await depth(connection, "a") >= 20, at
            assert await depth(connection, "a.parking") == 0

    asyncio.run(go())


def test_what_is_confirmed_drops_as_many_equal_ones_as_were_confirmed_in_all_runs_together(
    vhost: BrokerAddress, tmp_path: Path
) -> None:
    compiled = topology({"a": [1000]}, vhost=vhost.vhost)

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            journals = Journals(tmp_path)
            await park(connection, compiled, [delivered("a", message_id="same") for _ in range(3)])
            assert await interrupted(broker, compiled, journals, CONFIRMED, choice=ReplayRequest(limit=1))
            (state,) = states(journals)
            assert len(state.unacked) == 1
            # it is used by a run that dies before it can ack, and is not there for the one after that
            assert await interrupted(broker, compiled, journals, "ack.before", choice=ReplayRequest(limit=1))
            report = await replay_parked(broker, compiled, journals=journals)
            assert (report.complete, report.already) == (True, 0)
            assert await depth(connection, "a") >= 3

    asyncio.run(go())


async def taken_and_not_proven(
    broker: Broker, connection: Connection, compiled: CompiledTopology, journals: Journals
) -> None:
    """One of two equal messages is replayed and out of the queue, and the journal does not know that."""
    await park(connection, compiled, [delivered("a", message_id="same")])
    assert await interrupted(broker, compiled, journals, "ack.after")
    assert (await depth(connection, "a"), await depth(connection, "a.parking")) == (1, 0)


def test_an_equal_message_that_comes_after_one_whose_ack_was_taken_is_sent(
    vhost: BrokerAddress, tmp_path: Path
) -> None:
    compiled = topology({"a": [1000]}, vhost=vhost.vhost)

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            journals = Journals(tmp_path)
            await taken_and_not_proven(broker, connection, compiled, journals)
            await park(connection, compiled, [delivered("a", message_id="same")])
            await list_parked(broker, compiled)  # it was delivered before, as the other one was
            report = await replay_parked(broker, compiled, journals=journals)
            assert (report.replayed, report.already, report.sent_again) == (1, 0, 1)
            assert await depth(connection, "a") == 2

    asyncio.run(go())


async def put_back(connection: Connection, compiled: CompiledTopology, delivery: Delivery) -> None:
    """As a restore does: the very message, straight into the parking queue."""
    publish = parking_publish(compiled, delivery)
    channel = await connection.open_channel()
    await channel.publish(replace(publish, exchange=""))
    await channel.close()


async def recreate(connection: Connection, compiled: CompiledTopology) -> None:
    channel = await connection.admin_channel()
    arguments = {"x-queue-type": "quorum", "x-delivery-limit": 1_000_000}
    await channel.queue_delete("a.parking")
    await channel.queue_declare("a.parking", durable=True, arguments=arguments)
    await channel.queue_bind("a.parking", compiled.parking_exchange, "a.parking")
    await channel.queue_purge("a")


@pytest.mark.parametrize("looked_at", [False, True])
def test_what_is_put_back_into_a_queue_that_was_made_anew_is_sent(
    vhost: BrokerAddress, tmp_path: Path, looked_at: bool
) -> None:
    compiled = topology({"a": [1000]}, vhost=vhost.vhost)
    message = delivered("a", message_id="same")

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            journals = Journals(tmp_path)
            await park(connection, compiled, [message])
            assert await interrupted(broker, compiled, journals, CONFIRMED)
            assert len(states(journals)[0].unacked) == 1
            await recreate(connection, compiled)
            await put_back(connection, compiled, message)
            if looked_at:
                await list_parked(broker, compiled)
            report = await replay_parked(broker, compiled, journals=journals)
            assert (report.replayed, report.already) == (1, 0)
            assert await depth(connection, "a") == 1

    asyncio.run(go())


def test_what_was_never_delivered_before_is_not_what_was_sent(vhost: BrokerAddress, tmp_path: Path) -> None:
    compiled = topology({"a": [1000]}, vhost=vhost.vhost)

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            journals = Journals(tmp_path)
            await park(connection, compiled, [delivered("a", message_id="same")])
            assert await interrupted(broker, compiled, journals, CONFIRMED)
            await recreate(connection, compiled)
            await park(connection, compiled, [delivered("a", message_id="same")])  # byte for byte, and another one
            report = await replay_parked(broker, compiled, journals=journals)
            assert (report.replayed, report.already) == (1, 0)
            assert await depth(connection, "a") == 1

    asyncio.run(go())


def test_a_proof_that_did_not_hold_for_one_message_holds_for_no_later_one(vhost: BrokerAddress, tmp_path: Path) -> None:
    compiled = topology({"a": [1000]}, vhost=vhost.vhost)

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            journals = Journals(tmp_path)
            await park(connection, compiled, [delivered("a", message_id="same")])
            assert await interrupted(broker, compiled, journals, CONFIRMED)
            await recreate(connection, compiled)
            await park(connection, compiled, [delivered("a", message_id="same") for _ in range(2)])
            first = await replay_parked(broker, compiled, journals=journals, choice=ReplayRequest(limit=1))
            assert (first.replayed, first.already) == (1, 0)
            await list_parked(broker, compiled)
            report = await replay_parked(broker, compiled, journals=journals)
            assert (report.replayed, report.already) == (1, 0)
            assert await depth(connection, "a") == 2

    asyncio.run(go())


def test_what_was_sent_elsewhere_was_not_sent_here(vhost: BrokerAddress, tmp_path: Path) -> None:
    compiled = topology({"a": [1000]}, vhost=vhost.vhost)

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            await (await connection.admin_channel()).queue_declare("elsewhere", durable=True)
            await park(connection, compiled, [delivered("a", message_id="same")])
            choice = ReplayRequest(to=destination_of("elsewhere", {}))
            assert await interrupted(broker, compiled, Journals(tmp_path), CONFIRMED, choice=choice)
            report = await replay_parked(broker, compiled, journals=Journals(tmp_path))
            assert (report.replayed, report.already, report.sent_again) == (1, 0, 1)
            assert (await depth(connection, "a"), await depth(connection, "elsewhere")) == (1, 1)

    asyncio.run(go())


@pytest.mark.parametrize("at", ["publish.after", CONFIRMED, "ack.before"])
def test_what_may_have_come_to_the_same_queue_another_way_is_in_doubt(
    vhost: BrokerAddress, tmp_path: Path, at: str
) -> None:
    compiled = topology({"a": [1000]}, vhost=vhost.vhost)
    default_exchange = ReplayRequest(to=destination_of(":a", {}))

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            journals = Journals(tmp_path)
            await park(connection, compiled, [delivered("a", message_id=f"m{n}") for n in range(5)])
            assert await interrupted(broker, compiled, journals, at)
            (state,) = states(journals)
            known = {hop.partition("/")[0] for hop, _ in state.unsettled()}
            doubtful = {hop.partition("/")[0] for hop, _ in state.in_doubt.values()}
            assert known
            await park(connection, compiled, [delivered("a", message_id="never sent")])

            held = await replay_parked(
                broker, compiled, journals=journals, choice=replace(default_exchange, in_doubt="hold")
            )
            still = len(known)  # of those of the first batch
            assert (held.replayed, held.already, held.in_doubt, held.complete) == (6 - still, 0, still, False)
            assert await depth(connection, "a.parking") == still
            assert not any(each.is_complete for each in states(journals))

            report = await replay_parked(broker, compiled, journals=journals, choice=default_exchange)
            assert (report.replayed, report.already, report.sent_again, report.complete) == (still, 0, still, True)
            copies = Counter(name for name, _, _ in (await contents(connection, "a")).elements())
            # what was on its way, or about to be sent, when the connection closed may have been taken or not
            assert all(copies[name] in ((1, 2) if name in doubtful else (2,)) for name in known)
            assert copies["never sent"] == 1
            assert all(each.is_complete for each in states(journals))

    asyncio.run(go())


@pytest.mark.parametrize("identity", ["anonymous", "without a record"])
def test_a_message_that_could_come_again_is_not_dropped_on_a_journals_word(
    vhost: BrokerAddress, tmp_path: Path, identity: str
) -> None:
    compiled = topology({"a": [1000]}, vhost=vhost.vhost)

    async def again(connection: Connection) -> None:
        plain = Properties(message_id=None if identity == "anonymous" else "same", delivery_mode=2)
        channel = await connection.open_channel()
        await channel.publish(
            Publish(
                exchange=compiled.parking_exchange,
                routing_key="a.parking",
                header=ContentHeader.of(plain, 2).payload,
                body=b"{}",
                identity="x",
            )
        )
        await channel.close()

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            journals = Journals(tmp_path)
            await again(connection)
            assert await interrupted(broker, compiled, journals, CONFIRMED, choice=FROM_A)
            (state,) = states(journals)
            assert len(state.unacked) == 1
            taken = await drained(connection, "a.parking", await depth(connection, "a.parking"))
            assert len(taken) == 1  # another consumer takes it out
            await again(connection)
            await list_parked(broker, compiled)
            report = await replay_parked(broker, compiled, journals=journals, choice=FROM_A)
            assert (report.replayed, report.already, report.sent_again) == (1, 0, 1)
            assert await depth(connection, "a") == 2

    asyncio.run(go())


def test_copies_of_messages_without_an_id_are_sent_again_with_the_hops_that_they_had(
    vhost: BrokerAddress, tmp_path: Path
) -> None:
    compiled = topology({"a": [1000]}, vhost=vhost.vhost)

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            await publish_without_id(connection, "a.parking", 6)
            journals, steps = Journals(tmp_path), list[str]()

            def once_one_is_out(step: str) -> None:
                steps.append(step)
                if step == "publish.after" and "ack.after" in steps:
                    raise _Gone

            # one at a time: the first is out of the queue, the last of those that were sent is in doubt
            slowly = ReplayRequest(rate=5, origin="a")
            with pytest.raises(_Gone):
                await replay_parked(broker, compiled, journals=journals, on_step=once_one_is_out, choice=slowly)
            left, count = await depth(connection, "a.parking"), steps.count("publish.after")
            out = 6 - left
            assert 1 <= out < count
            await depth_becomes(connection, "a", count)  # the last one was not confirmed yet
            sent = await drained(connection, "a", count)
            hops = [str((each.properties.headers or {})[h.HOP]) for each in sent]
            report = await replay_parked(broker, compiled, journals=journals, choice=FROM_A)
            assert report.complete
            again = await drained(connection, "a", await depth(connection, "a"))
            hops_again = [str((each.properties.headers or {})[h.HOP]) for each in again]
            assert len(hops_again) == left
            assert not {*hops[:out]} & {*hops_again}, "the copy of another message"
            assert {*hops[out:]} <= {*hops_again}

    asyncio.run(go())


async def side_by_side(vhost: BrokerAddress, compiled: CompiledTopology, *replays: Any) -> list[ReplayReport]:
    from amqpflow.rabbitmq.observe import open_broker

    async with AsyncExitStack() as stack:
        tasks: list[Awaitable[ReplayReport]] = []
        for queue, journals in replays:
            broker = await stack.enter_async_context(open_broker(vhost))
            tasks.append(replay_parked(broker, compiled, queue, journals=journals))
        return list(await asyncio.gather(*tasks))


@pytest.mark.parametrize("parking", [None, "shared.parking"])
def test_two_replays_side_by_side_lose_nothing_of_an_event_that_went_to_both_queues(
    vhost: BrokerAddress, tmp_path: Path, parking: str | None
) -> None:
    compiled = topology({"a": [1000], "b": [1000]}, vhost=vhost.vhost, parking=parking)
    events = {f"m{n}" for n in range(600)}

    async def go() -> None:
        async with workplace(vhost, compiled) as (_, connection):
            for queue in "ab":
                await park(connection, compiled, [delivered(queue, message_id=name) for name in sorted(events)])
            journals = Journals(tmp_path)
            reports = await side_by_side(vhost, compiled, ("a", journals), (None, Journals(tmp_path)))
            assert all(each.complete for each in reports)
            assert sum(each.replayed for each in reports) == 1200
            assert all(each.already == 0 for each in reports)
            for queue in "ab":
                assert {name for name, _, _ in await contents(connection, queue)} == events

    asyncio.run(go())


def test_a_journal_that_is_being_written_is_not_believed_and_holds_what_it_may_have_sent(
    vhost: BrokerAddress, tmp_path: Path
) -> None:
    compiled = topology({"a": [1000]}, vhost=vhost.vhost)

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            journals = Journals(tmp_path)
            await park(connection, compiled, [delivered("a", message_id="one")])
            assert await interrupted(broker, compiled, journals, CONFIRMED)
            (path,) = tmp_path.iterdir()
            found = JournalFile.take(path)
            assert found is not None
            held = await replay_parked(broker, compiled, journals=journals, choice=ReplayRequest(in_doubt="hold"))
            assert (held.in_doubt, held.replayed, held.already) == (1, 0, 0)
            found[0].close()
            report = await replay_parked(broker, compiled, journals=journals)
            assert (report.replayed, report.already) == (0, 1)
            assert (await depth(connection, "a"), await depth(connection, "a.parking")) == (1, 0)

    asyncio.run(go())


OLD_HEAD = (
    '{{"format":"amqpflow replay journal","version":1,"id":"01d","at":5,"by":"ops@host","topology":"t",'
    '"vhost":"{vhost}","cluster":"{cluster}","address":"{address}","parking_queues":["a.parking"],"queue":null,'
    '"selection":{{}},"options":{{}},"written_by":"0.1.0"}}\n'
)


@pytest.mark.parametrize("in_doubt", [None, "hold"])
def test_a_journal_of_the_old_version_drops_nothing(vhost: BrokerAddress, tmp_path: Path, in_doubt: Any) -> None:
    compiled = topology({"a": [1000]}, vhost=vhost.vhost)

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            await park(connection, compiled, [delivered("a", message_id=f"m{n}") for n in range(3)])
            address = broker.address
            head = OLD_HEAD.format(
                vhost=vhost.vhost,
                cluster=broker.connection.cluster_name,
                address=f"{address.host}:{address.port}",
            )
            body = "c" * 12
            lines = f'{{"send":1,"keys":[["m0/1/0","{body}"],["m1/1/0","{body}"]]}}\n{{"confirmed":[[1,1]]}}\n'
            (tmp_path / "01d.replay").write_text(head + lines)
            (tmp_path / "01d.replay").chmod(0o600)
            journals = Journals(tmp_path)
            report = await replay_parked(broker, compiled, journals=journals, choice=ReplayRequest(in_doubt=in_doubt))
            assert report.already == 0
            if in_doubt == "hold":
                assert (report.replayed, report.in_doubt) == (1, 2)
                report = await replay_parked(broker, compiled, journals=journals)
            assert (report.complete, report.sent_again) == (True, 2)
            assert len(await contents(connection, "a")) == 3
            assert all(each.is_complete for each in states(journals))

    asyncio.run(go())


def test_a_plan_of_one_of_two_equal_messages_lets_one_be_taken(vhost: BrokerAddress) -> None:
    from amqpflow.services.replaying.plan import plan_replay

    compiled = topology({"a": [1000]}, vhost=vhost.vhost)

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            await park(connection, compiled, [delivered("a", message_id="same") for _ in range(2)])
            plan = await plan_replay(broker, compiled, choice=ReplayRequest(limit=1))
            assert plan.selected == 1
            report = await replay_parked(broker, compiled, choice=ReplayRequest(only=plan.only))
            assert (report.replayed, report.others, report.remaining) == (1, 1, 1)

    asyncio.run(go())


def test_what_another_consumer_holds_is_known_to_the_replay_that_sees_it(vhost: BrokerAddress, tmp_path: Path) -> None:
    compiled = topology({"a": [1000]}, vhost=vhost.vhost)

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            journals = Journals(tmp_path)
            await park(connection, compiled, [delivered("a", message_id="same")])
            assert await interrupted(broker, compiled, journals, CONFIRMED)
            channel, held = await connection.open_channel(), asyncio.Event()
            await channel.consume("a.parking", lambda _: held.set(), prefetch=1, on_cancel=lambda: None)
            await until(held.is_set)
            resumed = journals.load(states(journals)[0].head.id)
            for options in ({}, {"resume": resumed}):
                report = await replay_parked(broker, compiled, journals=journals, **options)
                assert (report.replayed, report.already) == (0, 0)
            await channel.close()
            await depth_becomes(connection, "a.parking", 1)
            report = await replay_parked(broker, compiled, journals=journals)
            assert (report.replayed, report.already) == (0, 1)
            assert await depth(connection, "a") == 1
            assert all(state.is_complete for state in states(journals))

    asyncio.run(go())
