"""An interrupted replay is resumed as it was asked for, whoever began it and whoever resumes it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from amqpflow import Selection, prune_replay_history, replay, replay_history
from amqpflow.errors import RefusedError
from amqpflow.model import headers as h
from amqpflow.rabbitmq.address import BrokerAddress
from amqpflow.services.replaying import sending
from amqpflow.services.replaying.journal_files import Journals
from amqpflow.services.replaying.replayer import replay_parked
from amqpflow.services.replaying.request import ReplayRequest, destination_of
from tests.integration.test_replay_identity import CONFIRMED, interrupted
from tests.parked import delivered, depth, drained, park, workplace
from tests.topologies import topology


def mixed(count: int) -> list[Any]:
    return [delivered("a", message_id=f"{kind}{n}", headers={"kind": kind}) for n in range(count) for kind in "xy"]


async def resume_by_api(vhost: BrokerAddress, compiled: Any, directory: Path, **options: Any) -> Any:
    (state,) = [each for each in replay_history(directory) if not each.is_complete]
    return await replay(compiled, vhost, journal=directory, resume=state.head.id[:6], **options)


def test_the_api_resumes_what_was_asked_for_and_nothing_else(
    vhost: BrokerAddress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "BATCH", 10)
    compiled = topology({"a": [1000], "b": [1000]}, vhost=vhost.vhost)
    choice = ReplayRequest(
        select=Selection(headers=("kind=x",)),
        to=destination_of("elsewhere", {}),
        keep_attempts=True,
        drop_headers=frozenset({"kind"}),
    )

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            channel = await connection.admin_channel()
            await channel.queue_declare("elsewhere", durable=True)
            await park(connection, compiled, [*mixed(30), delivered("b", message_id="other", headers={"kind": "x"})])
            journals = Journals(tmp_path)
            assert await interrupted(broker, compiled, journals, CONFIRMED, queue="a", times=2, choice=choice)
            report = await resume_by_api(vhost, compiled, tmp_path)
            assert (report.complete, report.to, report.queues) == (True, "elsewhere", ("a",))
            assert (await depth(connection, "a.parking"), await depth(connection, "b.parking")) == (30, 1)
            assert (await depth(connection, "a"), await depth(connection, "b")) == (0, 0)
            taken = await drained(connection, "elsewhere", await depth(connection, "elsewhere"))
            assert {each.properties.message_id for each in taken} == {f"x{n}" for n in range(30)}
            assert all("kind" not in (each.properties.headers or {}) for each in taken)
            assert all(str((each.properties.headers or {})[h.HOP]).endswith("/1/1") for each in taken)
            (state,) = replay_history(tmp_path)
            assert (state.is_complete, len(state.resumed)) == (True, 1)

    asyncio.run(go())


def test_a_resumed_sample_takes_the_messages_that_were_chosen_and_a_limit_what_is_left_of_it(
    vhost: BrokerAddress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "BATCH", 5)
    compiled = topology({"a": [1000]}, vhost=vhost.vhost)

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            await park(connection, compiled, mixed(30))
            for choice in (ReplayRequest(sample=20, seed=1), ReplayRequest(limit=20)):
                assert await interrupted(broker, compiled, Journals(tmp_path), CONFIRMED, times=2, choice=choice)
                report = await resume_by_api(vhost, compiled, tmp_path)
                assert report.complete, report
                taken = await drained(connection, "a", await depth(connection, "a"))
                names = {each.properties.message_id for each in taken}
                assert len(names) == 20, choice
                await asyncio.sleep(0)
            assert await depth(connection, "a.parking") == 20

    asyncio.run(go())


@pytest.mark.one_broker
def test_what_contradicts_it_is_refused_and_headers_have_to_be_given_again(
    vhost: BrokerAddress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "BATCH", 5)
    compiled = topology({"a": [1000]}, vhost=vhost.vhost)
    secret = ReplayRequest(set_headers={"token": "hunter2"})

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            await park(connection, compiled, mixed(10))
            assert await interrupted(broker, compiled, Journals(tmp_path), CONFIRMED, times=2, choice=secret)
            assert b"hunter2" not in b"".join(path.read_bytes() for path in tmp_path.iterdir())
            before = await depth(connection, "a"), await depth(connection, "a.parking")
            with pytest.raises(RefusedError, match="has another request: queue: b now, all then"):
                await resume_by_api(vhost, compiled, tmp_path, queue="b", choice=secret)
            with pytest.raises(RefusedError, match="sets these headers: token"):
                await resume_by_api(vhost, compiled, tmp_path)
            assert before == (await depth(connection, "a"), await depth(connection, "a.parking"))
            assert (await resume_by_api(vhost, compiled, tmp_path, choice=secret)).complete
            taken = await drained(connection, "a", await depth(connection, "a"))
            assert all((each.properties.headers or {})["token"] == "hunter2" for each in taken)
            assert len({each.properties.message_id for each in taken}) == 20

    asyncio.run(go())


@pytest.mark.one_broker
def test_journals_of_finished_replays_are_removed_on_request_and_others_stay(
    vhost: BrokerAddress, tmp_path: Path
) -> None:
    compiled = topology({"a": [1000]}, vhost=vhost.vhost)

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            await park(connection, compiled, mixed(2))
            done = await replay_parked(broker, compiled, journals=Journals(tmp_path))
            await park(connection, compiled, mixed(2))
            assert await interrupted(broker, compiled, Journals(tmp_path), CONFIRMED)
            assert prune_replay_history(tmp_path) == (done.replay_id,)
            assert [each.is_complete for each in replay_history(tmp_path)] == [False]
            assert (await replay_parked(broker, compiled, journals=Journals(tmp_path))).already > 0

    asyncio.run(go())
