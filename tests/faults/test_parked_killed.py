"""A list, an export, a discard or a restore that is killed: nothing is lost, and the order of the rest is kept."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections import Counter
from pathlib import Path

import pytest

from amqpflow.parking.export import Discarded, ExportedMessage
from amqpflow.parking.selection import Selection
from amqpflow.rabbitmq.address import BrokerAddress
from amqpflow.rabbitmq.connection import Connection
from amqpflow.services.parked.export import discard_parked
from amqpflow.services.parked.export_file import read_export
from amqpflow.services.parked.restore import restore_parked
from amqpflow.services.reading.options import ReadOptions
from amqpflow.services.reading.target import read_target
from tests.faults.parked_and_die import STEPS
from tests.faults.replay_and_die import CONNECTIONS, name_of, shared_shop
from tests.parked import delivered, depth, drained, park, workplace
from tests.statemachine.places import Places

PARKING = "shared.parking"
COUNT = 60
EACH = [f"{queue}{n}" for n in range(COUNT // 2) for queue in "ab"]


async def killed(
    address: BrokerAddress, connection: Connection, kind: str, what: str, step: str, times: int, file: Path
) -> None:
    """Run it until it kills itself, and the broker has noticed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.faults.parked_and_die",
        address.url,
        address.management_candidates()[-1],
        kind,
        what,
        step,
        str(times),
        str(file),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode == -signal.SIGKILL, (what, step, output.decode())
    await Places(connection).gone(name_of(process.pid), CONNECTIONS)


async def given_back(connection: Connection, least: int) -> int:
    """The depth of the queue once it has what the dead process held: an ack may have reached the broker or not."""
    channel = await connection.open_channel()
    seen: list[int] = []
    async with asyncio.timeout(60):
        while len(seen) < 10 or len(set(seen[-10:])) > 1 or seen[-1] < least:
            seen.append((await channel.queue_counts(PARKING)).ready)
            await asyncio.sleep(0.03)
    await channel.close()
    return seen[-1]


def exported(file: Path) -> list[str]:
    if not file.exists():
        return []
    lines = [line for _, line in read_export(str(file))]
    assert not [line for line in lines if isinstance(line, str)]
    return [str(line.header.properties.message_id) for line in lines if isinstance(line, ExportedMessage)]


@pytest.mark.parametrize("kind", ["quorum", pytest.param("classic", marks=pytest.mark.one_broker)])
def test_a_killed_list_export_or_discard_loses_nothing(vhost: BrokerAddress, tmp_path: Path, kind: str) -> None:
    compiled = shared_shop(vhost.vhost, kind)

    async def go() -> None:
        async with workplace(vhost, compiled) as (_, connection):
            for what in ("list", "export", "discard"):
                for step in STEPS[what]:
                    await park(connection, compiled, [delivered(each[0], message_id=each) for each in EACH])
                    file = tmp_path / f"{what}-{step}.jsonl"
                    await killed(vhost, connection, kind, what, step, 20 if step in ("seen", "write") else 1, file)
                    kept = exported(file)
                    assert what == "discard" or kept == []
                    left = await given_back(connection, COUNT - len(kept))
                    still = [str(each.properties.message_id) for each in await drained(connection, PARKING, left)]
                    assert set(still) | set(kept) == set(EACH), step
                    assert still == [each for each in EACH if each in set(still)], step
                    assert [each for each in EACH if each.startswith("a")] == [e for e in still if e.startswith("a")]

    asyncio.run(go())


@pytest.mark.one_broker
@pytest.mark.parametrize("step", STEPS["restore"])
def test_a_killed_restore_resumes_and_no_message_is_there_twice(
    vhost: BrokerAddress, tmp_path: Path, step: str
) -> None:
    compiled = shared_shop(vhost.vhost)
    count, file = 1200, tmp_path / "all.jsonl"
    ids = [f"b{n}" for n in range(count)]

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            await park(connection, compiled, [delivered("b", message_id=each) for each in ids])
            target = read_target(broker, compiled)
            report = await discard_parked(target, Selection(), str(file))
            assert (report.discarded, report.complete) == (count, True)
            await killed(vhost, connection, "quorum", "restore", step, 900 if step == "publish" else 3, file)
            there = await given_back(connection, 0)
            lines = [json.loads(line) for line in Path(f"{file}.restored").read_text().splitlines()[1:]]
            recorded = sum(len(line.get("restored", ())) for line in lines)
            assert 0 < recorded <= there < count
            again = await restore_parked(broker, str(file), ReadOptions())
            # what was confirmed and not recorded is seen in the queue: nothing is there twice
            assert (again.complete, again.before, again.still_parked) == (True, recorded, there - recorded)
            assert await depth(connection, PARKING) == count
            third = await restore_parked(broker, str(file), ReadOptions())
            assert (third.restored, third.before + third.still_parked) == (0, count)
            copies = Counter(str(each.properties.message_id) for each in await drained(connection, PARKING, count))
            assert copies == Counter(ids)

    asyncio.run(go())


@pytest.mark.one_broker
@pytest.mark.parametrize("step", STEPS["discard"])
def test_what_a_killed_discard_left_is_whole_after_a_restore(vhost: BrokerAddress, tmp_path: Path, step: str) -> None:
    """Each message once: one in doubt that is parked is the same; and of equal ones none is missing."""
    compiled, file = shared_shop(vhost.vhost), tmp_path / "x.jsonl"

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            await park(connection, compiled, [delivered("b", message_id=each) for each in EACH])
            await killed(vhost, connection, "quorum", "discard", step, 20 if step == "seen" else 1, file)
            kept = exported(file)
            assert len(lines_of(file, Discarded)) == (step == "finish")
            await given_back(connection, COUNT - len(kept))
            if step == "finish":  # the acks of all are certain: what is parked now is another one
                await park(connection, compiled, [delivered("b", message_id=EACH[0])])
            if kept:
                report = await restore_parked(broker, str(file), ReadOptions())
                assert report.restored + report.still_parked == len(kept)
                assert bool(report.still_parked) == any("are in doubt" in note for note in report.notes)
            left = await drained(connection, PARKING, await depth(connection, PARKING))
            copies = Counter(str(each.properties.message_id) for each in left)
            assert copies == Counter(EACH) + Counter(EACH[:1] if step == "finish" else ())

    asyncio.run(go())


def lines_of(file: Path, kind: type) -> list[object]:
    return [line for _, line in read_export(str(file)) if isinstance(line, kind)] if file.exists() else []
