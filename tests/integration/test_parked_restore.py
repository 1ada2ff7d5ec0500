"""Restoring puts back what is missing: not what is still parked, not twice, and into each target of its own."""

from __future__ import annotations

import asyncio
import errno
import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from amqpflow.errors import RefusedError
from amqpflow.model.properties import Properties
from amqpflow.parking.selection import Selection
from amqpflow.rabbitmq.address import BrokerAddress
from amqpflow.rabbitmq.connection import Connection
from amqpflow.rabbitmq.observe import open_broker
from amqpflow.services.loading import durable_file
from amqpflow.services.parked import export_file
from amqpflow.services.parked.export import discard_parked, export_parked
from amqpflow.services.parked.listing import list_parked
from amqpflow.services.parked.restore import restore_parked
from amqpflow.services.parked.restore_report import RestoreOptions, RestoreReport
from amqpflow.services.reading.options import ReadOptions
from amqpflow.services.reading.target import read_target
from tests.brokers.management import Management
from tests.cli.parked_shop import amqpflow, arguments, fill, write_shop
from tests.commands import AMQPFLOW, environment
from tests.conftest import BrokerUnderTest
from tests.parked import delivered, depth, drained, park, publish, workplace
from tests.topologies import topology

WORK, PARKING = "orders", "orders.parking"


async def declared(connection: Connection, *names: str, **arguments: object) -> None:
    channel = await connection.admin_channel()
    for name in names:
        await channel.queue_declare(name, durable=True, arguments={"x-queue-type": "classic", **arguments})


def equals(numbers: Iterator[int] | range) -> list[Properties]:
    """Messages with one id and no body, which their headers alone tell apart."""
    return [Properties(message_id="same", headers={"n": number}) for number in numbers]


def names(directory: Path) -> list[str]:
    return sorted(each.name for each in directory.iterdir())


async def numbers_in(connection: Connection, queue: str) -> list[int]:
    taken = await drained(connection, queue, await depth(connection, queue))
    return sorted(each.headers["n"] for each in taken)


def test_what_is_still_parked_is_left_alone(vhost: BrokerAddress, tmp_path: Path) -> None:
    compiled, file = topology({WORK: [1000]}, vhost=vhost.vhost), tmp_path / "x.jsonl"

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            await publish(connection, PARKING, *equals(range(4)), *equals(range(2)), body=b"")
            await park(connection, compiled, [delivered(WORK, message_id=f"m{n}", user_id="guest") for n in range(3)])
            target = read_target(broker, compiled)
            await export_parked(target, Selection(), str(file))
            report = await restore_parked(broker, str(file), ReadOptions(), RestoreOptions(strip=True))
            assert (report.restored, report.still_parked, report.complete) == (0, 9, True)
            assert await depth(connection, PARKING) == 9
            # one of the two with n=0, and the one with n=3; ids and bodies are all the same
            await discard_parked(target, Selection(headers=("n=0",), limit=1), None)
            await discard_parked(target, Selection(headers=("n=3",)), None)
            report = await restore_parked(broker, str(file), ReadOptions(), RestoreOptions(strip=True))
            assert (report.restored, report.still_parked, report.complete) == (2, 7, True)
            report = await restore_parked(broker, str(file), ReadOptions(), RestoreOptions(strip=True, duplicates=True))
            assert (report.restored, report.before) == (7, 2)
            rows = (await list_parked(target, Selection(ids=("same",)))).messages
            assert len(rows) == 10

    asyncio.run(go())


def test_a_second_virtual_host_has_a_record_of_its_own(
    vhost: BrokerAddress, broker: BrokerUnderTest, tmp_path: Path
) -> None:
    file = tmp_path / "x.jsonl"
    with another_virtual_host(broker, vhost) as second:

        async def go() -> None:
            async with open_broker(vhost) as first, open_broker(second) as other:
                for each in (first, other):
                    await declared(each.connection, "dead")
                await publish(first.connection, "dead", *equals(range(5)))
                target = read_target(first, topology({}, vhost=vhost.vhost), (), ReadOptions(from_queues=("dead",)))
                await discard_parked(target, Selection(), str(file))
                for each in (other, first):
                    report = await restore_parked(each, str(file), ReadOptions())
                    assert (report.restored, report.before, report.complete) == (5, 0, True)
                    assert await numbers_in(each.connection, "dead") == list(range(5))
                for each in (other, first):
                    report = await restore_parked(each, str(file), ReadOptions())
                    assert (report.restored, report.before, report.complete) == (0, 5, True)
                    assert await depth(each.connection, "dead") == 0
                # another queue of the same virtual host is another target as well
                await declared(first.connection, "elsewhere")
                report = await restore_parked(first, str(file), ReadOptions(), RestoreOptions(to="elsewhere"))
                assert (report.restored, report.before) == (5, 0)
                report = await restore_parked(first, str(file), ReadOptions(), RestoreOptions(again=True))
                assert (report.restored, report.before, await depth(first.connection, "dead")) == (5, 0, 5)
                report = await restore_parked(other, str(file), ReadOptions())
                assert (report.restored, report.before) == (0, 5), "--again forgets one target alone"

        asyncio.run(go())


@pytest.mark.one_broker
def test_the_same_cluster_name_under_another_address_is_not_believed(vhost: BrokerAddress, tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    assert vhost.host == "127.0.0.1"
    alias = BrokerAddress(
        url=vhost.url.replace("127.0.0.1", "localhost"), source="test", management_url=vhost.management_candidates()[-1]
    )

    async def go() -> None:
        async with open_broker(vhost) as broker, open_broker(alias) as tunnel:
            await declared(broker.connection, "dead")
            await publish(broker.connection, "dead", *equals(range(2)))
            target = read_target(broker, topology({}, vhost=vhost.vhost), (), ReadOptions(from_queues=("dead",)))
            await discard_parked(target, Selection(), str(file))
            await restore_parked(broker, str(file), ReadOptions())
            await drained(broker.connection, "dead", 1)
            with pytest.raises(RefusedError, match="can be this broker or another") as refused:
                await restore_parked(tunnel, str(file), ReadOptions())
            assert f"127.0.0.1:{vhost.port}" in str(refused.value)
            assert await depth(broker.connection, "dead") == 1
            report = await restore_parked(tunnel, str(file), ReadOptions(), RestoreOptions(again=True))
            assert (report.restored, report.still_parked) == (1, 1)
            assert (await restore_parked(tunnel, str(file), ReadOptions())).restored == 0

    asyncio.run(go())


@pytest.mark.one_broker
def test_a_restore_that_stopped_between_equal_messages_puts_back_the_other_one(
    vhost: BrokerAddress, tmp_path: Path
) -> None:
    file, stop = tmp_path / "x.jsonl", asyncio.Event()

    async def go() -> None:
        async with open_broker(vhost) as broker:
            await declared(broker.connection, "dead")
            await publish(broker.connection, "dead", *equals(range(1)), *equals(range(1)), *equals(range(1)))
            target = read_target(broker, topology({}, vhost=vhost.vhost), (), ReadOptions(from_queues=("dead",)))
            await discard_parked(target, Selection(), str(file))
            options = ReadOptions(stop=stop)
            report = await restore_parked(
                broker, str(file), options, on_step=lambda step: step == "publish" and stop.set()
            )
            assert (report.restored, report.interrupted, report.complete) == (1, True, False)
            report = await restore_parked(broker, str(file), ReadOptions())
            assert (report.restored, report.before, report.still_parked) == (2, 1, 0)
            assert await numbers_in(broker.connection, "dead") == [0, 0, 0]

    asyncio.run(go())


@pytest.mark.one_broker
def test_an_export_that_was_edited_between_two_runs_misses_nothing(vhost: BrokerAddress, tmp_path: Path) -> None:
    file, stop = tmp_path / "x.jsonl", asyncio.Event()

    async def go() -> None:
        async with open_broker(vhost) as broker:
            await declared(broker.connection, "dead")
            await publish(broker.connection, "dead", *equals(range(3)))
            target = read_target(broker, topology({}, vhost=vhost.vhost), (), ReadOptions(from_queues=("dead",)))
            await discard_parked(target, Selection(), str(file))
            options = ReadOptions(stop=stop)
            await restore_parked(broker, str(file), options, on_step=lambda step: step == "publish" and stop.set())
            await drained(broker.connection, "dead", 1)  # it was replayed, say
            head, _, *messages, _, end = [json.loads(line) for line in file.read_text().splitlines()]
            for number, each in enumerate(messages, 1):
                each["number"] = number
            end["count"] = len(messages)
            file.write_text("".join(json.dumps(each) + "\n" for each in (head, *messages, end)))
            report = await restore_parked(broker, str(file), ReadOptions())
            assert (report.restored, report.before) == (2, 0)
            assert await numbers_in(broker.connection, "dead") == [1, 2]

    asyncio.run(go())


def test_an_equal_message_that_is_still_parked_is_another_one_after_a_discard(
    vhost: BrokerAddress, tmp_path: Path
) -> None:
    file = tmp_path / "x.jsonl"

    async def go() -> None:
        async with open_broker(vhost) as broker:
            await declared(broker.connection, "dead", "dead.2")
            for queue in ("dead", "dead.2"):
                await publish(broker.connection, queue, *[Properties(message_id="same")] * 3, body=b"")
            target = read_target(
                broker, topology({}, vhost=vhost.vhost), (), ReadOptions(from_queues=("dead", "dead.2"))
            )
            report = await discard_parked(target, Selection(limit=5), str(file))
            assert report.discarded == 5
            restored = await restore_parked(broker, str(file), ReadOptions())
            assert (restored.restored, restored.still_parked, restored.complete) == (5, 0, True)
            assert [await depth(broker.connection, each) for each in ("dead", "dead.2")] == [3, 3]
            assert any("2 were restored although an equal message is parked" in note for note in restored.notes)
            # and what the restore put back is known by its record
            again = await restore_parked(broker, str(file), ReadOptions())
            assert (again.restored, again.before, again.notes) == (0, 5, [])

    asyncio.run(go())


@pytest.mark.one_broker
def test_a_file_that_does_not_say_what_was_taken_out_leaves_equal_messages_in_doubt(
    vhost: BrokerAddress, tmp_path: Path
) -> None:
    """As an earlier version wrote it, or edited: one is missing that may be parked, and the report says so."""
    file = tmp_path / "x.jsonl"

    def edited(lines: list[str]) -> list[str]:
        kept = [json.loads(line) for line in (lines[0], *lines[2:])]
        for number, each in enumerate(kept[1:-2], 1):
            each["number"] = number
        kept[-2]["count"] = kept[-1]["count"] = len(kept) - 3
        return [json.dumps(each) for each in kept]

    def earlier(lines: list[str]) -> list[str]:
        head = {**json.loads(lines[0]), "version": 1}
        del head["discard"]
        return [json.dumps(head), *lines[1:-2], lines[-1]]

    async def go() -> None:
        async with open_broker(vhost) as broker:
            await declared(broker.connection, "dead")
            target = read_target(broker, topology({}, vhost=vhost.vhost), (), ReadOptions(from_queues=("dead",)))
            for change, kept, why in ((edited, 2, "the file was edited"), (earlier, 3, "version 1")):
                await publish(broker.connection, "dead", *equals(range(1)), *equals(range(1)), *equals(range(1)))
                await publish(broker.connection, "dead", *equals(range(1)))
                file.unlink(missing_ok=True)
                Path(f"{file}.restored").unlink(missing_ok=True)
                await discard_parked(target, Selection(limit=3), str(file))
                file.write_text("".join(f"{line}\n" for line in change(file.read_text().splitlines())))
                report = await restore_parked(broker, str(file), ReadOptions())
                assert (report.messages, report.restored, report.still_parked) == (kept, kept - 1, 1)
                assert any("1 are in doubt" in note and why in note for note in report.notes), report.notes
                report = await restore_parked(broker, str(file), ReadOptions(), RestoreOptions(duplicates=True))
                assert (report.restored, report.before) == (1, kept - 1)
                assert len(await numbers_in(broker.connection, "dead")) == kept + 1

    asyncio.run(go())


@pytest.mark.one_broker
def test_two_restores_at_once_put_each_message_back_once(vhost: BrokerAddress, tmp_path: Path) -> None:
    file, copy = tmp_path / "x.jsonl", tmp_path / "copy.jsonl"

    async def go() -> None:
        async with open_broker(vhost) as broker, open_broker(vhost) as colleague:
            await declared(broker.connection, "dead")
            await publish(broker.connection, "dead", *equals(range(50)))
            target = read_target(broker, topology({}, vhost=vhost.vhost), (), ReadOptions(from_queues=("dead",)))
            await discard_parked(target, Selection(), str(file))
            shutil.copy(file, copy)
            waits = ReadOptions(on_wait=lambda _: None)
            others: list[asyncio.Task[RestoreReport]] = []

            def looked(step: str) -> None:
                if step == "looked":
                    for each in (file, copy):
                        others.append(
                            asyncio.create_task(restore_parked(colleague, str(each), waits, RestoreOptions(again=True)))
                        )

            report = await restore_parked(broker, str(file), ReadOptions(), on_step=looked)
            with pytest.raises(RefusedError, match="another restore of"):
                await others[0]
            also = await others[1]
            assert report.restored == 50
            assert (also.restored, also.still_parked) == (0, 50)
            assert await numbers_in(broker.connection, "dead") == list(range(50))

    asyncio.run(go())


@pytest.mark.one_broker
def test_a_file_system_without_locks_is_no_other_restore(
    vhost: BrokerAddress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "x.jsonl"

    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    async def go() -> None:
        async with open_broker(vhost) as broker:
            await declared(broker.connection, "dead")
            await publish(broker.connection, "dead", *equals(range(2)))
            target = read_target(broker, topology({}, vhost=vhost.vhost), (), ReadOptions(from_queues=("dead",)))
            await discard_parked(target, Selection(), str(file))
            monkeypatch.setattr(durable_file.fcntl, "flock", no_locks)
            assert (await restore_parked(broker, str(file), ReadOptions())).restored == 2
            assert (await restore_parked(broker, str(file), ReadOptions())).before == 2

    asyncio.run(go())


@pytest.mark.parametrize("kind", ["classic", "quorum"])
def test_without_the_management_api_what_is_still_parked_is_seen_too(
    vhost: BrokerAddress, tmp_path: Path, kind: str
) -> None:
    file = tmp_path / "x.jsonl"
    limit = {"x-delivery-limit": 1_000_000} if kind == "quorum" else {}

    async def go() -> None:
        async with open_broker(vhost, use_management=False) as broker:
            await declared(broker.connection, "dead", **{"x-queue-type": kind, **limit})
            await publish(broker.connection, "dead", *equals(range(4)))
            target = read_target(broker, topology({}, vhost=vhost.vhost), (), ReadOptions(from_queues=("dead",)))
            await export_parked(target, Selection(), str(file))
            await drained(broker.connection, "dead", 1)
            report = await restore_parked(broker, str(file), ReadOptions())
            assert (report.restored, report.still_parked, report.complete) == (1, 3, True)
            assert any("policies cannot be seen" in note for note in report.notes)

    asyncio.run(go())


@pytest.mark.one_broker
def test_what_the_queue_refused_is_not_recorded_as_restored(vhost: BrokerAddress, tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"

    async def go() -> None:
        async with open_broker(vhost) as broker:
            await declared(broker.connection, "dead", "larger")
            await declared(broker.connection, "small", **{"x-max-length": 3, "x-overflow": "reject-publish"})
            await publish(broker.connection, "dead", *equals(range(5)))
            target = read_target(broker, topology({}, vhost=vhost.vhost), (), ReadOptions(from_queues=("dead",)))
            await discard_parked(target, Selection(), str(file))
            report = await restore_parked(broker, str(file), ReadOptions(), RestoreOptions(to="small"))
            assert report.restored < 5
            assert (report.complete, report.failed, report.in_doubt) == (False, 5 - report.restored, 0)
            assert all("refused" in each.why for each in report.left_behind)
            there = await numbers_in(broker.connection, "small")
            assert len(there) == report.restored
            report = await restore_parked(broker, str(file), ReadOptions(), RestoreOptions(to="small"))
            assert await numbers_in(broker.connection, "small") == sorted({*range(5)} - {*there})
            assert (report.restored, report.before) == (5 - len(there), len(there))

    asyncio.run(go())


@pytest.mark.one_broker
def test_what_cannot_be_seen_is_refused_and_put_back_when_told_so(vhost: BrokerAddress, tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"

    async def go() -> None:
        async with open_broker(vhost) as broker:
            await declared(broker.connection, "dead", "consumed")
            channel = await broker.connection.admin_channel()
            limited = {"x-queue-type": "quorum", "x-delivery-limit": 5}
            await channel.queue_declare("limited", durable=True, arguments=limited)
            await publish(broker.connection, "dead", *equals(range(2)))
            await publish(broker.connection, "limited", Properties(message_id="theirs"))
            target = read_target(broker, topology({}, vhost=vhost.vhost), (), ReadOptions(from_queues=("dead",)))
            await discard_parked(target, Selection(), str(file))
            consuming = await broker.connection.open_channel()
            await consuming.consume("consumed", lambda _: None, prefetch=1, on_cancel=lambda: None)
            for queue, why in (("consumed", "it has 1 consumers"), ("limited", "limits it to 5 deliveries")):
                with pytest.raises(RefusedError, match=why) as refused:
                    await restore_parked(broker, str(file), ReadOptions(), RestoreOptions(to=queue))
                assert "`duplicates`" in refused.value.hint
                report = await restore_parked(
                    broker, str(file), ReadOptions(), RestoreOptions(to=queue, duplicates=True)
                )
                assert (report.restored, report.complete) == (2, True)
                report = await restore_parked(
                    broker, str(file), ReadOptions(), RestoreOptions(to=queue, duplicates=True)
                )
                assert (report.restored, report.before) == (0, 2)

    asyncio.run(go())


@pytest.mark.one_broker
def test_a_record_of_an_earlier_version_is_not_believed(vhost: BrokerAddress, tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"

    async def go() -> None:
        async with open_broker(vhost) as broker:
            await declared(broker.connection, "dead")
            await publish(broker.connection, "dead", *equals(range(2)))
            target = read_target(broker, topology({}, vhost=vhost.vhost), (), ReadOptions(from_queues=("dead",)))
            await discard_parked(target, Selection(), str(file))
            head = json.loads(file.read_text().splitlines()[0])
            old = {"format": "amqpflow.restore", "version": 1, "export": head["id"], "to": ""}
            Path(f"{file}.restored").write_text(f"{json.dumps(old)}\n1\n2\n")
            with pytest.raises(RefusedError, match="did not say into which broker"):
                await restore_parked(broker, str(file), ReadOptions())
            report = await restore_parked(broker, str(file), ReadOptions(), RestoreOptions(again=True))
            assert (report.restored, await depth(broker.connection, "dead")) == (2, 2)

    asyncio.run(go())


@pytest.mark.one_broker
def test_no_line_is_dropped_silently(vhost: BrokerAddress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shop = write_shop(tmp_path)
    fill(shop, vhost, [delivered("orders", message_id=f"m{n}", body=b"x" * 5000 * (n == 1)) for n in range(3)])
    file = tmp_path / "x.jsonl"
    assert amqpflow("parked discard", shop, vhost, "--all", "--export", str(file), "--yes").code == 0
    whole = file.read_text()

    async def problems() -> tuple[str, ...]:
        async with open_broker(vhost) as broker:
            with pytest.raises(RefusedError) as refused:
                await restore_parked(broker, str(file), ReadOptions())
            assert await depth(broker.connection, PARKING) == 0
            return tuple(refused.value.problems)

    with monkeypatch.context() as patch:
        patch.setattr(export_file, "LONGEST_LINE", 4000)
        assert asyncio.run(problems()) == ("line 3: it is longer than 4000 bytes, longer than any message",)
    file.write_text(whole + whole.splitlines()[1] + "\n")
    assert asyncio.run(problems()) == ("line 7: it comes after the end of the export",)
    # not copied whole
    file.write_text(whole[: whole.index('"m2"')])
    done = amqpflow("parked restore", file, vhost)
    assert (done.code, done.out.splitlines()[0]) == (3, "2 of 2 messages restored: 2 in orders.parking.")
    assert "Line 4 of the export is cut off; its message was not restored." in done.err
    file.write_text(whole.removesuffix("\n"))
    done = amqpflow("parked restore", file, vhost)
    assert (done.code, done.out) == (
        0,
        "1 of 3 messages restored: 1 in orders.parking.\n"
        "2 were restored before; --again restores those that are not parked any more.\n",
    )
    done = amqpflow("parked restore", file, vhost, "--again")
    assert "3 are still parked and were left alone; --duplicates restores them too." in done.out
    assert done.code == 0


@pytest.mark.one_broker
def test_an_export_goes_through_a_pipe_into_another_virtual_host(
    vhost: BrokerAddress, broker: BrokerUnderTest, tmp_path: Path
) -> None:
    shop = write_shop(tmp_path)
    fill(shop, vhost, [delivered("orders", message_id=f"m{n}") for n in range(3)])
    with another_virtual_host(broker, vhost) as second:
        fill(shop, second, [])
        exported = subprocess.Popen(
            [*AMQPFLOW, *arguments("parked export", shop, vhost, "--to", "-")],
            env=environment(vhost),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        restored = subprocess.run(
            [*AMQPFLOW, *arguments("parked restore", Path("-"), second)],
            env=environment(second),
            stdin=exported.stdout,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            cwd=tmp_path,
        )
        _, said = exported.communicate(timeout=120)
        assert (exported.returncode, said.decode()) == (0, "3 messages written to standard output.\n")
        assert (restored.returncode, restored.stdout, restored.stderr) == (
            0,
            "3 of 3 messages restored: 3 in orders.parking.\n",
            "",
        )
        assert names(tmp_path) == ["shop.yaml"], "nothing is recorded beside a pipe"
        rows = [json.loads(line) for line in amqpflow("parked list", shop, second, "-o", "jsonl").out.splitlines()]
        assert [each["message_id"] for each in rows] == ["m0", "m1", "m2"]
    done = amqpflow("parked discard", shop, vhost, "--all", "--yes", "--export", "-")
    assert (done.code, "--export needs a file" in done.err) == (64, True)


@pytest.mark.one_broker
def test_a_file_system_without_hard_links_takes_an_export_and_never_overwrites(
    vhost: BrokerAddress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled, file = topology({WORK: [1000]}, vhost=vhost.vhost), tmp_path / "x.jsonl"

    def no_links(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(export_file.os, "link", no_links)

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            await park(connection, compiled, [delivered(WORK, message_id="m")])
            target = read_target(broker, compiled)
            await export_parked(target, Selection(), str(file))
            assert (names(tmp_path), file.stat().st_mode & 0o777) == (["x.jsonl"], 0o600)
            await drained(connection, PARKING, 1)
            assert (await restore_parked(broker, str(file), ReadOptions())).restored == 1
            # another process takes the name while the queue is read
            taken = tmp_path / "taken.jsonl"
            options = ReadOptions(on_progress=lambda *_: taken.write_text("mine") and None)
            with pytest.raises(RefusedError, match="was created meanwhile"):
                await export_parked(replace(target, options=options), Selection(), str(taken))
            assert taken.read_text() == "mine"
            assert names(tmp_path) == ["taken.jsonl", "x.jsonl", "x.jsonl.restored"]

    asyncio.run(go())


@contextmanager
def another_virtual_host(broker: BrokerUnderTest, address: BrokerAddress) -> Iterator[BrokerAddress]:
    management: Management = broker.management
    name = f"{address.vhost}-second"
    management.put("vhosts", name)
    try:
        yield address.with_vhost(name)
    finally:
        management.delete("vhosts", name)


@pytest.mark.one_broker
def test_messages_with_one_id_are_recorded_window_by_window(
    vhost: BrokerAddress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are published one after the other; a restore that dies puts no more than a window back once more."""
    monkeypatch.setattr("amqpflow.services.parked.restore_publisher.WINDOW", 10)
    compiled, file, steps = topology({WORK: [1000]}, vhost=vhost.vhost), tmp_path / "x.jsonl", list[str]()

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            await publish(connection, PARKING, *equals(range(60)), body=b"")
            await discard_parked(read_target(broker, compiled), Selection(), str(file))
            report = await restore_parked(broker, str(file), ReadOptions(), RestoreOptions(), on_step=steps.append)
            assert (report.restored, report.complete) == (60, True)
            assert await numbers_in(connection, PARKING) == list(range(60))

    asyncio.run(go())
    published = "".join("p" if each == "publish" else "|" for each in steps if each in ("publish", "recorded"))
    assert max(map(len, published.split("|"))) <= 10
