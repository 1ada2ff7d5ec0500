"""In which order a replay writes its journal, publishes and acks: what is on the disk when the broker hears of it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from amqpflow.errors import AmqpflowError
from amqpflow.parking.journal import read_journal
from amqpflow.rabbitmq.address import BrokerAddress
from amqpflow.rabbitmq.connection import connect
from amqpflow.services.loading import durable_file
from amqpflow.services.reading.reader import ParkingReader
from amqpflow.services.reading.requeueing import Requeueing
from amqpflow.services.replaying import queue_pass, sending
from amqpflow.services.replaying.journal_files import Journals
from amqpflow.services.replaying.outbox import PendingReplay, ReplayOutbox
from amqpflow.services.replaying.replayer import replay_parked
from amqpflow.services.replaying.request import ReplayRequest
from tests.integration.test_replay_identity import CONFIRMED, interrupted
from tests.parked import delivered, depth, park, workplace
from tests.topologies import topology
from tests.waiting import until


class Disk:
    """The module os, whose disk keeps what was synced alone."""

    def __init__(self) -> None:
        self.unsynced: set[int] = set()

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def write(self, fd: int, data: Any) -> int:
        self.unsynced.add(fd)
        return os.write(fd, data)

    def fsync(self, fd: int) -> None:
        os.fsync(fd)
        self.unsynced.discard(fd)


def test_nothing_is_published_or_acked_before_the_disk_says_so(
    vhost: BrokerAddress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "BATCH", 10)
    compiled, disk = topology({"a": [1000]}, vhost=vhost.vhost), Disk()
    monkeypatch.setattr(durable_file, "os", disk)
    numbers: dict[int, int] = {}  # by delivery tag
    send, ack_all = ReplayOutbox.send, ParkingReader.ack_all

    def on_disk() -> Any:
        assert not disk.unsynced
        (path,) = [path for path in tmp_path.iterdir() if path.suffix == ".replay"]
        with path.open("rb") as file:
            return read_journal(file)

    async def send_watched(outbox: ReplayOutbox, pendings: Sequence[PendingReplay]) -> None:
        state = on_disk()
        for flight in pendings:
            assert state.in_doubt[flight.number] == flight.key
            numbers[flight.tag] = flight.number
        await send(outbox, pendings)

    def ack_watched(reader: ParkingReader, tags: Sequence[int]) -> bool:
        state = on_disk()
        assert all(numbers[tag] in state.leaving for tag in tags)
        return ack_all(reader, tags)

    monkeypatch.setattr(ReplayOutbox, "send", send_watched)
    monkeypatch.setattr(ParkingReader, "ack_all", ack_watched)

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            await park(connection, compiled, [delivered("a", message_id=f"m{n}") for n in range(100)])
            report = await replay_parked(broker, compiled, journals=Journals(tmp_path))
            assert (report.replayed, report.complete) == (100, True)
            assert len(numbers) == 100

    asyncio.run(go())


def test_that_a_confirm_was_used_is_on_the_disk_before_the_message_is_acked(
    vhost: BrokerAddress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled, disk = topology({"a": [1000]}, vhost=vhost.vhost), Disk()
    ack_all = ParkingReader.ack_all
    seen: list[tuple[int, int]] = []

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            await park(connection, compiled, [delivered("a", message_id=f"m{n}") for n in range(5)])
            assert await interrupted(broker, compiled, Journals(tmp_path), CONFIRMED)
            (path,) = tmp_path.iterdir()
            with path.open("rb") as file:
                confirmed = len(read_journal(file).unacked)
            assert confirmed

            def ack_watched(reader: ParkingReader, tags: Sequence[int]) -> bool:
                assert not disk.unsynced
                with path.open("rb") as file:
                    state = read_journal(file)
                seen.append((len(state.unacked), len(state.leaving)))
                assert sum(seen[-1]) == confirmed
                return ack_all(reader, tags)

            monkeypatch.setattr(durable_file, "os", disk)
            monkeypatch.setattr(ParkingReader, "ack_all", ack_watched)
            report = await replay_parked(broker, compiled, journals=Journals(tmp_path))
            assert (report.already, report.complete) == (confirmed, True)
            assert seen[0][1] > 0
            assert seen[-1] == (0, confirmed)

    asyncio.run(go())


async def acked_lines(
    vhost: BrokerAddress, directory: Path, monkeypatch: pytest.MonkeyPatch, *, proves: bool
) -> tuple[int, int]:
    """Of a replay that dies after its acks: how many of them its journal calls taken, and how many not."""
    compiled = topology({"a": [1000]}, vhost=vhost.vhost)
    monkeypatch.setattr(queue_pass, "PROVE_EVERY", 0.05)
    if not proves:

        async def never(_: ParkingReader) -> None:
            await asyncio.Event().wait()

        monkeypatch.setattr(ParkingReader, "prove", never)
    async with workplace(vhost, compiled) as (broker, connection):
        await park(connection, compiled, [delivered("a", message_id=f"m{n}") for n in range(40)])
        slowly = ReplayRequest(rate=50)
        assert await interrupted(broker, compiled, Journals(directory), "requeue.before", choice=slowly)
        await depth(connection, "a")
    (state,) = Journals(directory).all(lambda *_: None)
    return state.confirmed - len(state.leaving), len(state.leaving)


def test_an_ack_is_not_taken_for_done_before_the_broker_was_asked(
    vhost: BrokerAddress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert asyncio.run(acked_lines(vhost, tmp_path, monkeypatch, proves=False)) == (0, 40)


def test_what_the_broker_has_taken_is_forgotten_while_the_replay_runs(
    vhost: BrokerAddress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken, unproven = asyncio.run(acked_lines(vhost, tmp_path, monkeypatch, proves=True))
    assert taken > 0
    assert unproven > 0, "the last ones were acked after the broker was asked"


def test_the_acks_of_a_reading_whose_end_is_not_known_are_not_taken_for_done(
    vhost: BrokerAddress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = topology({"a": [1000]}, vhost=vhost.vhost)
    requeue_all = Requeueing.requeue_all

    async def lost(requeueing: Requeueing, *, is_part: bool) -> None:
        await requeue_all(requeueing, is_part=is_part)
        requeueing.unproven = "the connection was lost"

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            await park(connection, compiled, [delivered("a", message_id=f"m{n}") for n in range(10)])
            monkeypatch.setattr(Requeueing, "requeue_all", lost)
            report = await replay_parked(broker, compiled, journals=Journals(tmp_path))
            assert (report.replayed, report.complete) == (10, False)
            assert "RabbitMQ may not have processed every ack" in (report.stopped or "")
            (state,) = Journals(tmp_path).all(lambda *_: None)
            assert (len(state.leaving), state.is_complete) == (10, False)

    asyncio.run(go())


@pytest.mark.parametrize("end", ["queue deleted", "connection lost"])
def test_what_cannot_be_acked_any_more_is_not_counted_as_acked(vhost: BrokerAddress, end: str) -> None:
    compiled = topology({"a": [1000]}, vhost=vhost.vhost)

    async def go() -> None:
        async with workplace(vhost, compiled) as (_, connection), await connect(vhost, name="reading") as reading:
            await park(connection, compiled, [delivered("a", message_id=f"m{n}") for n in range(5)])
            async with ParkingReader(reading, "a.parking", quorum=True) as reader:  # noqa: SIM117 - in this order
                async with aclosing(reader.arrivals(at_most=5, window=10)) as arrivals:
                    batch = await anext(arrivals)
                    assert reader.ack_all([batch[0].delivery_tag])
                    if end == "queue deleted":
                        await (await connection.admin_channel()).queue_delete("a.parking")
                    else:
                        await reading.close()
                    await until(lambda: not is_going_on(reader))
                    assert reader.ack_all([batch[-1].delivery_tag]) is False

    asyncio.run(go())


def is_going_on(reader: ParkingReader) -> bool:
    try:
        return reader.may_continue()
    except AmqpflowError:
        return False
