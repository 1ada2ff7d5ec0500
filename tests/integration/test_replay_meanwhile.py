"""What others do to the queues of a replay while it runs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from threading import Thread

import pytest

from amqpflow.model.message import Delivery, Publish
from amqpflow.rabbitmq.address import BrokerAddress
from amqpflow.rabbitmq.connection import Connection, connect
from amqpflow.services.replaying import rate_limiter, reparked
from amqpflow.services.replaying.journal_files import Journals
from amqpflow.services.replaying.replayer import replay_parked
from amqpflow.services.replaying.request import ReplayRequest, destination_of
from tests.parked import delivered, depth, drained, park, workplace
from tests.topologies import topology

IN_STEPS = ReplayRequest(ramp=(2,), ramp_wait=1.0)


def in_the_pause(monkeypatch: pytest.MonkeyPatch, others: Callable[[], Awaitable[None]]) -> None:
    """Between two steps of a ramp the parking queue is free for others."""

    async def pause(stop: asyncio.Event, seconds: float) -> None:
        await others()

    monkeypatch.setattr(reparked, "set_within", pause)


def ids(deliveries: list[Delivery]) -> list[str | None]:
    return [each.properties.message_id for each in deliveries]


async def all_of(connection: Connection, queue: str) -> list[Delivery]:
    return await drained(connection, queue, await depth(connection, queue))


@pytest.mark.parametrize("taken", [8, 3])
def test_what_another_replay_brought_back_meanwhile_is_not_replayed(
    vhost: BrokerAddress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taken: int
) -> None:
    compiled = topology({"a": [1000]}, vhost=vhost.vhost)

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            journals = Journals(tmp_path)
            await park(connection, compiled, [delivered("a", message_id=f"m{n}") for n in range(10)])

            async def second_operator() -> None:
                second = await replay_parked(broker, compiled, journals=journals, choice=ReplayRequest(limit=taken))
                assert second.replayed == taken
                await park(connection, compiled, await all_of(connection, "a"))  # all of both fail again

            in_the_pause(monkeypatch, second_operator)
            report = await replay_parked(broker, compiled, journals=journals, choice=IN_STEPS)
            assert (report.replayed, report.came_back, report.complete) == (10 - taken, 2, True)
            assert ids(await all_of(connection, "a")) == [f"m{n}" for n in range(2 + taken, 10)]
            assert await depth(connection, "a.parking") == 2 + taken
            note = f"{taken} messages that another replay took meanwhile are parked again, and were not replayed"
            assert note in report.notes

    asyncio.run(go())


def test_what_was_there_is_replayed_though_it_lies_behind_what_came_back(
    vhost: BrokerAddress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = topology({"a": [1000]}, vhost=vhost.vhost)

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            await park(connection, compiled, [delivered("a", message_id=f"m{n}") for n in range(10)])

            async def taken_out_and_put_back() -> None:
                rest = await all_of(connection, "a.parking")
                await park(connection, compiled, await all_of(connection, "a"))
                channel = await connection.open_channel()
                for each in rest:
                    header = each.header.payload
                    await channel.publish(
                        Publish(exchange="", routing_key=each.queue, header=header, body=each.body, identity="")
                    )
                await channel.close()

            in_the_pause(monkeypatch, taken_out_and_put_back)
            report = await replay_parked(broker, compiled, journals=Journals(tmp_path), choice=IN_STEPS)
            assert (report.replayed, report.came_back, report.complete) == (10, 2, True)
            assert ids(await all_of(connection, "a")) == [f"m{n}" for n in range(2, 10)]
            assert await depth(connection, "a.parking") == 2

    asyncio.run(go())


def test_a_destination_that_is_deleted_while_its_depth_is_watched_leaves_nothing_unsettled(
    vhost: BrokerAddress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rate_limiter, "_DEPTH_EVERY", 0.0)  # so that it is looked at before the confirm comes
    compiled, journals = topology({"a": [1000]}, vhost=vhost.vhost), Journals(tmp_path)

    async def delete() -> None:
        async with await connect(vhost, name="amqpflow test") as connection:
            await (await connection.admin_channel()).queue_delete("one")

    def deleted(step: str) -> None:
        if step == "publish.after":
            # the replay waits for it: nothing of what RabbitMQ says meanwhile is read
            thread = Thread(target=lambda: asyncio.run(delete()))
            thread.start()
            thread.join()

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            await (await connection.admin_channel()).queue_declare("one", durable=True)
            await park(connection, compiled, [delivered("a", message_id=f"m{n}") for n in range(3)])
            choice = ReplayRequest(to=destination_of("one", {}), max_depth=1)
            report = await replay_parked(broker, compiled, journals=journals, choice=choice, on_step=deleted)
            assert report.stopped is not None
            assert "no queue 'one'" in report.stopped
            assert not report.complete
            assert report.replayed + report.failed == 1  # confirmed, or returned
            (state,) = journals.all(lambda *_: None)
            assert (state.sent, list(state.unsettled())) == (1, [])
            assert state.end is not None
            assert await depth(connection, "a.parking") == 3 - report.replayed

    asyncio.run(go())
