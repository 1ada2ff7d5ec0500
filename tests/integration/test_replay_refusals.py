"""What becomes of the others when a replay meets a message that is refused, not confirmed, or has no way."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from amqpflow.errors import BrokerUnavailableError
from amqpflow.model import headers as h
from amqpflow.model.resources import Queue
from amqpflow.model.routes import CompiledTopology
from amqpflow.rabbitmq.address import BrokerAddress
from amqpflow.rabbitmq.connection import Connection
from amqpflow.services.replaying import sending
from amqpflow.services.replaying.replayer import _Replay, replay_parked
from amqpflow.services.replaying.report import ReplayReport
from tests.conftest import BrokerUnderTest
from tests.parked import delivered, depth, drained, park, workplace
from tests.soak.network import Network
from tests.topologies import topology

COUNT = 200  #: messages of each of two queues
SHARED = pytest.mark.parametrize("parking", [None, "all.parking"], ids=["own parking", "shared parking"])


def two(vhost: BrokerAddress, parking: str | None, *, full: bool = False) -> CompiledTopology:
    """Two work queues, of which `a` takes three messages when it is `full`."""
    compiled = topology({"a": [1000], "b": [1000]}, vhost=vhost.vhost, parking=parking)
    if full:
        limited = {"x-queue-type": "classic", "x-max-length": 3, "x-overflow": "reject-publish"}
        queues = {**compiled.desired.queues, "a": Queue(name="a", arguments=limited)}
        object.__setattr__(compiled.desired, "queues", queues)
    return compiled


async def park_both(connection: Connection, compiled: CompiledTopology) -> None:
    await park(
        connection,
        compiled,
        [delivered(queue, message_id=f"{queue}{number}") for number in range(COUNT) for queue in ("a", "b")],
    )


async def numbers_in(connection: Connection, queue: str) -> list[str]:
    taken = await drained(connection, queue, await depth(connection, queue))
    return [str(each.properties.message_id) for each in taken]


@SHARED
def test_a_full_work_queue_keeps_no_other_from_its_messages(
    vhost: BrokerAddress, monkeypatch: pytest.MonkeyPatch, parking: str | None
) -> None:
    monkeypatch.setattr(sending, "PATIENCE", 0.3)
    compiled = two(vhost, parking, full=True)

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            await park_both(connection, compiled)
            report = await replay_parked(broker, compiled)
            assert await numbers_in(connection, "b") == [f"b{n}" for n in range(COUNT)]
            assert await numbers_in(connection, "a") == ["a0", "a1", "a2"]
            assert (report.replayed, report.in_doubt, report.remaining) == (COUNT + 3, 0, COUNT - 3)
            assert report.failed > 0
            assert not report.complete
            assert "a accepts no more messages" in f"{report.stopped} {report.notes}"
            assert {each.message_id for each in report.left_behind} <= {f"a{n}" for n in range(COUNT)}
            left = await numbers_in(connection, parking or "a.parking")
            assert left == [f"a{n}" for n in range(3, COUNT)], "in their order"

    asyncio.run(go())


@SHARED
def test_a_work_queue_without_a_way_keeps_no_other_from_its_messages(
    vhost: BrokerAddress, broker: BrokerUnderTest, parking: str | None
) -> None:
    compiled = two(vhost, parking)

    async def go() -> None:
        async with workplace(vhost, compiled) as (opened, connection):
            await park_both(connection, compiled)
            broker.management.delete("bindings", vhost.vhost, "e", "shop.retry", "q", "a", "a")
            report = await replay_parked(opened, compiled)
            assert await numbers_in(connection, "b") == [f"b{n}" for n in range(COUNT)]
            assert (report.replayed, report.in_doubt, report.remaining) == (COUNT, 0, COUNT)
            assert "shop.retry cannot route to a: " in report.notes[0]
            assert report.notes[0].endswith("amqpflow apply shop.yaml")
            assert report.failed > 0

    asyncio.run(go())


def test_without_write_permission_nothing_is_in_doubt(vhost: BrokerAddress, broker: BrokerUnderTest) -> None:
    compiled = two(vhost, None)

    async def go() -> None:
        async with workplace(vhost, compiled) as (opened, connection):
            await park_both(connection, compiled)
            rights = {"configure": ".*", "write": "^$", "read": ".*"}
            broker.management.put("permissions", vhost.vhost, broker.address.user, body=rights)
            report = await replay_parked(opened, compiled)
            assert "no permission to publish to exchange 'shop.retry'" in str(report.stopped or report.notes)
            assert (report.replayed, report.in_doubt, report.remaining) == (0, 0, 2 * COUNT)
            assert 0 < report.failed <= 2, "one for each destination told it"

    asyncio.run(go())


@pytest.mark.parametrize("lost", ["once", "for good"])
def test_a_publishing_connection_that_is_lost_is_opened_again(
    vhost: BrokerAddress, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    if lost == "for good":
        monkeypatch.setattr(sending, "RECONNECT_WITHIN", 0.5)
    monkeypatch.setattr(sending, "BATCH", 100)
    compiled = topology({"orders": [1000]}, vhost=vhost.vhost)
    opened: list[Connection] = []
    publishing = _Replay._publishing

    async def connect(replay: Any) -> Connection:
        if opened and lost == "for good":
            raise BrokerUnavailableError("the network is down")
        opened.append(await publishing(replay))
        return opened[-1]

    monkeypatch.setattr(_Replay, "_publishing", connect)
    sent = 0

    def step(name: str) -> None:
        nonlocal sent
        sent += name == "publish.before"
        if name == "publish.before" and sent > 2 and len(opened) == 1:
            asyncio.get_running_loop().call_soon(opened[-1]._pika.content.abort)

    async def go() -> ReplayReport:
        async with workplace(vhost, compiled) as (broker, connection):
            await park(connection, compiled, [delivered("orders", message_id=f"m{n}") for n in range(1000)])
            report = await replay_parked(broker, compiled, on_step=step)
            copies: dict[str, set[str]] = {}
            for each in await drained(connection, "orders", await depth(connection, "orders")):
                copies.setdefault(str(each.properties.message_id), set()).add(str(each.headers[h.HOP]))
            left = await numbers_in(connection, "orders.parking")
            assert copies.keys() | set(left) == {f"m{n}" for n in range(1000)}
            assert all(len(hops) == 1 for hops in copies.values()), "a second copy has the hop id of the first"
            return report

    report = asyncio.run(go())
    if lost == "once":
        assert (report.replayed, report.complete, len(opened)) == (1000, True, 2)
    else:
        assert report.stopped is not None
        assert report.hint == "replay again to continue"
        assert 0 < report.in_doubt <= 1000 - report.replayed


@pytest.mark.one_broker
def test_a_publishing_connection_that_dies_silently_is_given_up(
    vhost: BrokerAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing passes on it any more, not even its end; what was on its way is published again on another."""
    monkeypatch.setattr(sending, "BATCH", 100)
    compiled = topology({"orders": [1000]}, vhost=vhost.vhost)
    frozen_at = 0.0

    async def go() -> None:
        nonlocal frozen_at
        async with Network(vhost) as network:
            parts = vhost.parts
            user = parts.netloc.rpartition("@")[0]
            url = f"amqp://{user}@127.0.0.1:{network.port}{parts.path}"
            address = replace(vhost, url=url)
            sent = 0

            def step(name: str) -> None:
                nonlocal sent
                sent += name == "publish.before"
                if name == "publish.before" and sent == 3:
                    assert network.freeze("publishing") == 1

            async with workplace(address, compiled) as (broker, connection):
                await park(connection, compiled, [delivered("orders", message_id=f"m{n}") for n in range(1000)])
                report = await replay_parked(broker, compiled, on_step=step)
                assert (report.replayed, report.complete, report.in_doubt) == (1000, True, 0)
                assert report.seconds < sending.CONFIRM_TIMEOUT
                taken = await drained(connection, "orders", await depth(connection, "orders"))
                hops = {(str(each.properties.message_id), str(each.headers[h.HOP])) for each in taken}
                assert len(hops) == len({message_id for message_id, _ in hops}) == 1000

    asyncio.run(go())
