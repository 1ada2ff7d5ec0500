"""Parked copies that have one hop id: of one event in several work queues, and real equals."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence

import pytest

from amqpflow.model.routes import CompiledTopology
from amqpflow.rabbitmq.address import BrokerAddress
from amqpflow.services.replaying.outbox import PendingReplay, ReplayOutbox
from amqpflow.services.replaying.replayer import replay_parked
from amqpflow.services.replaying.request import ReplayRequest, destination_of
from tests.brokers.management import Management
from tests.parked import delivered, depth, drained, park, workplace
from tests.topologies import topology

pytestmark = pytest.mark.one_broker

SHARED = "shared.parking"
EVENTS = [f"m{number}" for number in range(100)]


def two_queues(vhost: BrokerAddress) -> CompiledTopology:
    return topology({"a": [1000], "b": [1000]}, vhost=vhost.vhost, parking=SHARED)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[list[tuple[str, str]]]:
    """What each write to the publishing channel sends: routing keys and hop ids."""
    batches: list[list[tuple[str, str]]] = []
    send = ReplayOutbox.send

    async def watched(outbox: ReplayOutbox, pendings: Sequence[PendingReplay]) -> None:
        for flight in pendings:
            assert not outbox.is_outstanding(flight.copy.returned_as), "a return could not tell them apart"
        batches.append([(each.copy.routing_key, each.copy.identity) for each in pendings])
        await send(outbox, pendings)

    monkeypatch.setattr(ReplayOutbox, "send", watched)
    return batches


def test_copies_of_one_event_side_by_side_for_two_queues_are_in_flight_together(
    vhost: BrokerAddress, sent: list[list[tuple[str, str]]]
) -> None:
    compiled = two_queues(vhost)

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            copies = [delivered(queue, message_id=event) for event in EVENTS for queue in "ab"]
            await park(connection, compiled, copies)
            report = await replay_parked(broker, compiled)
            assert (report.replayed, report.complete, report.remaining) == (200, True, 0)
            for queue in "ab":
                assert [each.properties.message_id for each in await drained(connection, queue, 100)] == EVENTS

    asyncio.run(go())
    assert any(len({hop for _, hop in batch}) < len(batch) for batch in sent), "no two with one hop id at a time"


def test_of_two_copies_in_flight_the_returned_one_stays_parked(vhost: BrokerAddress) -> None:
    """Both have one hop id: only the routing key of the return says which of them is in no queue."""
    compiled = two_queues(vhost)

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            await park(connection, compiled, [delivered(queue, message_id="m") for queue in "ab"])
            Management(vhost).delete("bindings", vhost.vhost, "e", compiled.retry_exchange, "q", "b", "b")
            report = await replay_parked(broker, compiled)
            assert (report.replayed, report.failed, report.complete) == (1, 1, False)
            assert [await depth(connection, queue) for queue in ("a", "b", SHARED)] == [1, 0, 1]
            (left,) = await drained(connection, SHARED, 1)
            assert left.headers["x-amqpflow-queue"] == "b"

    asyncio.run(go())


@pytest.mark.parametrize("order", ["side by side", "one after the other"])
def test_equal_copies_wait_for_one_another_and_hold_up_no_other(
    vhost: BrokerAddress, sent: list[list[tuple[str, str]]], order: str
) -> None:
    """As after a restore of what was still parked: every message twice, with one hop id and one work queue."""
    compiled = two_queues(vhost)
    ids = [each for event in EVENTS for each in (event, event)] if order == "side by side" else EVENTS * 2

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            await park(connection, compiled, [delivered("a", message_id=each) for each in ids])
            report = await replay_parked(broker, compiled)
            assert (report.replayed, report.complete, report.remaining) == (200, True, 0)
            found = Counter(each.properties.message_id for each in await drained(connection, "a", 200))
            assert found == Counter(ids)

    asyncio.run(go())
    assert max(map(len, sent)) > 10, "one at a time"


def test_messages_behind_many_equal_ones_are_sent_before_the_last_of_those(
    vhost: BrokerAddress, sent: list[list[tuple[str, str]]]
) -> None:
    compiled = two_queues(vhost)
    ids = ["same"] * 20 + EVENTS

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            await park(connection, compiled, [delivered("a", message_id=each) for each in ids])
            report = await replay_parked(broker, compiled)
            assert (report.replayed, report.complete, report.remaining) == (120, True, 0)

    asyncio.run(go())
    hops = [hop for batch in sent for _, hop in batch]
    assert hops.index("m99/1/0") < len(hops) - 1 - hops[::-1].index("same/1/0")


def test_copies_of_one_event_for_one_destination_all_arrive(
    vhost: BrokerAddress, sent: list[list[tuple[str, str]]]
) -> None:
    """With `--to` the copies of both work queues have one exchange, one routing key and one hop id."""
    compiled = two_queues(vhost)

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            admin = await connection.admin_channel()
            await admin.queue_declare("inspect", durable=True)
            await park(connection, compiled, [delivered(queue, message_id=each) for each in EVENTS for queue in "ab"])
            choice = ReplayRequest(to=destination_of("inspect", {}), stop_if_reparked=None)
            report = await replay_parked(broker, compiled, choice=choice)
            assert (report.replayed, report.complete, report.remaining) == (200, True, 0)
            assert len(await drained(connection, "inspect", 200)) == 200

    asyncio.run(go())
