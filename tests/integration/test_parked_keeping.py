"""Exports hold what was parked, byte by byte; restoring puts just that back; foreign queues are read with care."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from amqpflow.errors import AmqpflowError, NotAppliedError, RefusedError, UsageError
from amqpflow.model.content_header import ContentHeader
from amqpflow.model.message import Publish
from amqpflow.model.properties import Properties
from amqpflow.model.routes import CompiledTopology
from amqpflow.model.wire import encode_table, length_prefixed
from amqpflow.parking.parked import read_parked
from amqpflow.parking.selection import Selection
from amqpflow.rabbitmq.address import BrokerAddress
from amqpflow.rabbitmq.connection import connect
from amqpflow.rabbitmq.observe import open_broker
from amqpflow.services.loading.topology import no_topology
from amqpflow.services.parked.export import choose, discard_parked, export_parked
from amqpflow.services.parked.export_file import ExportWriter
from amqpflow.services.parked.listing import list_parked
from amqpflow.services.parked.restore import restore_parked
from amqpflow.services.parked.restore_report import RestoreOptions
from amqpflow.services.parked.stats import count_parked
from amqpflow.services.reading.options import ReadOptions
from amqpflow.services.reading.reader import ParkingReader
from amqpflow.services.reading.target import read_target
from amqpflow.services.replaying.plan import plan_replay
from amqpflow.services.replaying.replayer import replay_parked
from amqpflow.services.replaying.request import ReplayRequest
from tests.cli.parked_shop import amqpflow, fill, write_shop
from tests.messages import nested
from tests.parked import delivered, deliveries, depth, depth_becomes, drained, park, parking_publish, publish, workplace
from tests.topologies import topology

WORK, PARKING = "orders", "orders.parking"
HOSTILE = (
    "\x1b]0;owned\x07\x1b[2J\x9b31m\u202eevil\u2066 <script>alert(1)</script> </pre><img src=x onerror=alert(1)>"
    " &amp; \x7f\u2028\u200f\ufeff"
)


def test_what_is_restored_is_what_was_parked_byte_by_byte(vhost: BrokerAddress, tmp_path: Path) -> None:
    compiled, file = topology({WORK: [1000]}, vhost=vhost.vhost), tmp_path / "all.jsonl"
    odd = {"n": 1 << 40, "f": 0.1, "raw": b"\xff", "bytes": bytearray(b"\x00"), "deep": {"a": [None, True, {"b": 2.5}]}}

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            await park(connection, compiled, [delivered(WORK, message_id=f"m{n}", headers=odd) for n in range(5)])
            await publish(connection, PARKING, Properties(message_id="bare"), body=b"")
            await publish(
                connection, PARKING, Properties(message_id="p", priority=0, timestamp=5, type="t"), body=b"\xff\x00"
            )
            target = read_target(broker, compiled)
            before = (await list_parked(target, Selection())).messages
            exported = await export_parked(target, Selection(), str(tmp_path / "copy.jsonl"))
            assert (exported.selected, exported.complete, await depth(connection, PARKING)) == (7, True, 7)
            report = await discard_parked(target, Selection(), str(file))
            assert (report.discarded, await depth(connection, PARKING)) == (7, 0)
            restored = await restore_parked(broker, str(file), ReadOptions())
            assert (restored.restored, restored.complete) == (7, True)
            assert (await list_parked(target, Selection())).messages == before
            copy = [json.loads(line) for line in (tmp_path / "copy.jsonl").read_text().splitlines()[1:-1]]
            kept = [json.loads(line) for line in file.read_text().splitlines()[1:-2]]
            # RabbitMQ sorts the headers of what it delivers again (fact 6.14), and counts deliveries in them
            for one, other in zip(copy, kept, strict=True):
                for each in (one, other):
                    each["headers"] = {
                        k: v for k, v in each["headers"].items() if k not in ("x-delivery-count", "x-acquired-count")
                    }
                    del each["header_base64"], each["check"]
                assert one == other
            taken = await drained(connection, PARKING, 7)
            assert taken[0].properties.headers is not None
            assert {name: taken[0].properties.headers[name] for name in odd} == odd
            assert [each.body for each in taken[-2:]] == [b"", b"\xff\x00"]
            assert (taken[-1].properties.priority, taken[-2].properties.priority) == (0, None)

    asyncio.run(go())


@pytest.mark.one_broker
def test_an_export_can_be_a_directory_with_a_file_for_each_message(vhost: BrokerAddress, tmp_path: Path) -> None:
    compiled, directory = topology({WORK: [1000]}, vhost=vhost.vhost), tmp_path / "parked"
    hostile = {"../../up": "/etc/passwd", HOSTILE: HOSTILE}

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            await park(
                connection, compiled, [delivered(WORK, message_id=f"../m{n}", headers=hostile) for n in range(3)]
            )
            target = read_target(broker, compiled)
            before = (await list_parked(target, Selection())).messages
            report = await export_parked(target, Selection(), f"{directory}/")
            assert (report.selected, report.complete) == (3, True)
            files = sorted(each.name for each in directory.iterdir())
            assert files == ["00000001.json", "00000002.json", "00000003.json", "end.json", "head.json"]
            assert [each.name for each in tmp_path.iterdir()] == ["parked"]
            assert {each.stat().st_mode & 0o777 for each in directory.iterdir()} == {0o600}
            assert all(each.read_bytes().isascii() and b"\x1b" not in each.read_bytes() for each in directory.iterdir())
            with pytest.raises(RefusedError, match="exists"):
                await export_parked(target, Selection(), f"{directory}/")
            await discard_parked(target, Selection(), None)
            assert await depth(connection, PARKING) == 0
            (directory / "notes.txt").write_text("mine")
            restored = await restore_parked(broker, f"{directory}/", ReadOptions())
            assert (restored.restored, restored.complete, restored.finished) == (3, True, True)
            assert (await list_parked(target, Selection())).messages == before
            assert (await restore_parked(broker, str(directory), ReadOptions())).restored == 0, (
                "it is recorded beside it"
            )
            (directory / "00000002.json").unlink()
            with pytest.raises(RefusedError):
                await restore_parked(broker, str(directory), ReadOptions(), RestoreOptions(again=True))

    asyncio.run(go())


@pytest.mark.one_broker
def test_a_selection_is_discarded_and_no_other_message(vhost: BrokerAddress, tmp_path: Path) -> None:
    compiled = topology({"a": [1000], "b": [1000]}, vhost=vhost.vhost, parking="shared.parking")

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            ids = [f"{queue}{n}" for n in range(20) for queue in "ab"]
            await park(connection, compiled, [delivered(each[0], message_id=each, body=each.encode()) for each in ids])
            target = read_target(broker, compiled)
            stats = await count_parked(target, Selection(), by=("queue", "reason"))
            assert [(group.key, group.count) for group in stats.groups] == [
                (("a", "parked"), 20),
                (("b", "parked"), 20),
            ]
            sample = Selection(queues=("b",), sample=5, seed=3)
            shown = [row.message_id for row in (await list_parked(target, sample)).messages]
            assert len(shown) == 5
            chosen = await choose(target, sample)
            await park(connection, compiled, [delivered("b", message_id="later")])
            report = await discard_parked(target, sample, str(tmp_path / "x.jsonl"), chosen=chosen)
            assert report.discarded == 5
            still = [row.message_id for row in (await list_parked(target, Selection())).messages]
            assert still == [each for each in [*ids, "later"] if each not in shown]
            report = await discard_parked(target, Selection(match="starts_with(body, 'a1')", limit=3), None)
            assert (report.discarded, report.file) == (3, None)
            left = [row.message_id for row in (await list_parked(target, Selection())).messages]
            assert left == [each for each in still if each not in ("a1", "a10", "a11")]
            with pytest.raises(RefusedError, match="exists"):
                await export_parked(target, Selection(), str(tmp_path / "x.jsonl"))

    asyncio.run(go())


@pytest.mark.one_broker
def test_a_discard_by_work_queue_takes_nothing_that_does_not_say_it_failed_there(vhost: BrokerAddress) -> None:
    """An error queue that services share which the file does not know: one of them is in the file."""
    compiled = topology({"sales": [1000]}, vhost=vhost.vhost, parking="error")

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            await publish(connection, "error", Properties(message_id="of-billing"))
            await park(connection, compiled, [delivered("sales", message_id="mine")])
            target, mine = read_target(broker, compiled), Selection(queues=("sales",))
            assert [(row.message_id, row.queue) for row in (await list_parked(target, mine)).messages] == [
                ("of-billing", None),
                ("mine", "sales"),
            ], "it is shown"
            assert (await choose(target, mine)).count == 1
            assert (await discard_parked(target, mine, None)).discarded == 1
            left = (await list_parked(target, Selection())).messages
            assert [row.message_id for row in left] == ["of-billing"]
            assert (await discard_parked(target, Selection(queues=("error",)), None)).discarded == 1

    asyncio.run(go())


@pytest.mark.one_broker
def test_a_message_that_was_chosen_is_not_mistaken_for_its_equal_in_another_queue(
    vhost: BrokerAddress, tmp_path: Path
) -> None:
    async def go() -> None:
        async with open_broker(vhost) as broker:
            channel = await broker.connection.admin_channel()
            for queue in ("one", "two"):
                await channel.queue_declare(queue, durable=True, arguments={"x-queue-type": "classic"})
                await publish(broker.connection, queue, Properties(message_id="same"), body=b"")
            target = read_target(broker, no_topology(), (), ReadOptions(from_queues=("one", "two")))
            chosen = await choose(target, Selection(limit=1))
            await drained(broker.connection, "one", 1)  # another consumer was faster
            report = await discard_parked(target, Selection(limit=1), str(tmp_path / "x.jsonl"), chosen=chosen)
            assert (report.discarded, await depth(broker.connection, "two")) == (0, 1)

    asyncio.run(go())


@pytest.mark.one_broker
def test_the_beginning_of_several_ids_replays_none_of_them(vhost: BrokerAddress) -> None:
    compiled = topology({WORK: [1000]}, vhost=vhost.vhost)

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            names = beginning_alike(compiled)
            await park(connection, compiled, [delivered(WORK, message_id=each) for each in (*names, "other")])
            rows = (await list_parked(read_target(broker, compiled), Selection())).messages
            one, two = (row.id for row in rows if row.message_id in names)
            for limit in (None, 1):
                choice = ReplayRequest(select=Selection(ids=(one[:4].upper(),)), limit=limit)
                for act in (plan_replay, replay_parked):
                    with pytest.raises(UsageError, match="several ids begin with") as wrong:
                        await act(broker, compiled, choice=choice)
                    assert one in str(wrong.value)
                    assert two in str(wrong.value)
            assert (await depth(connection, PARKING), await depth(connection, WORK)) == (3, 0)
            report = await replay_parked(broker, compiled, choice=ReplayRequest(select=Selection(ids=(one[:9],))))
            assert (report.replayed, report.others, report.complete) == (1, 2, True)
            (taken,) = await drained(connection, WORK, 1)
            assert taken.properties.message_id == names[0]

    asyncio.run(go())


@pytest.mark.one_broker
def test_the_beginning_of_several_ids_discards_none_of_them(vhost: BrokerAddress, tmp_path: Path) -> None:
    compiled = topology({WORK: [1000]}, vhost=vhost.vhost)

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            names = beginning_alike(compiled)
            await park(connection, compiled, [delivered(WORK, message_id=each) for each in (*names, "other")])
            target = read_target(broker, compiled)
            rows = {row.message_id: row.id for row in (await list_parked(target, Selection())).messages}
            one, two = (rows[each] for each in names)
            for where in (str(tmp_path / "x.jsonl"), None):
                with pytest.raises(UsageError, match="several ids begin with") as wrong:
                    await discard_parked(target, Selection(ids=(one[:4],), limit=1), where)
                assert one in str(wrong.value)
                assert two in str(wrong.value)
            assert (await depth(connection, PARKING), list(tmp_path.iterdir())) == (3, [])
            report = await discard_parked(target, Selection(ids=(one[:9],)), None)
            assert report.discarded == 1
            left = (await list_parked(target, Selection())).messages
            assert {row.id for row in left} == {*rows.values()} - {one}

    asyncio.run(go())


def beginning_alike(compiled: CompiledTopology) -> tuple[str, str]:
    """Two message ids whose messages get ids with the same four first digits."""
    seen: dict[str, str] = {}
    for number in range(100_000):
        name = f"m{number}"
        header = ContentHeader(parking_publish(compiled, delivered(WORK, message_id=name)).header)
        message = read_parked(replace(delivered(PARKING), header=header), compiled.routes)
        if (other := seen.setdefault(message.id[:4], name)) != name:
            return other, name
    raise AssertionError("no two are alike")


@pytest.mark.one_broker
def test_nothing_leaves_its_queue_that_the_disk_did_not_take(
    vhost: BrokerAddress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = topology({WORK: [1000]}, vhost=vhost.vhost)

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            await park(connection, compiled, [delivered(WORK, message_id=f"m{n}") for n in range(20)])
            target = read_target(broker, compiled)

            def full(_: ExportWriter) -> None:
                raise AmqpflowError("cannot write x: No space left on device")

            writer = ExportWriter.__init__

            def opened(self: ExportWriter, *args: Any, **kwargs: Any) -> None:
                writer(self, *args, **kwargs)
                monkeypatch.setattr(ExportWriter, "checkpoint", full)

            monkeypatch.setattr(ExportWriter, "__init__", opened)
            with pytest.raises(AmqpflowError, match="No space left"):
                await discard_parked(target, Selection(), str(tmp_path / "x.jsonl"))
            taken = await drained(connection, PARKING, 20)
            assert [each.properties.message_id for each in taken] == [f"m{n}" for n in range(20)]

    asyncio.run(go())


@pytest.mark.one_broker
def test_a_damaged_export_is_refused_before_anything_is_published(vhost: BrokerAddress, tmp_path: Path) -> None:
    compiled, file = topology({WORK: [1000]}, vhost=vhost.vhost), tmp_path / "x.jsonl"

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            await park(connection, compiled, [delivered(WORK, message_id=f"m{n}", body=b"abc") for n in range(3)])
            await publish(connection, PARKING, Properties(message_id="cc", headers={"CC": ["orders"]}))
            await drained(connection, WORK, 1)
            await publish(connection, PARKING, Properties(message_id="at", headers={"x-opt-delivery-time": 1 << 42}))
            await discard_parked(read_target(broker, compiled), Selection(), str(file))
            whole = file.read_text()
            file.write_text(whole.replace('"abc"', '"abd"', 1))
            with pytest.raises(RefusedError) as raised:
                await restore_parked(broker, str(file), ReadOptions())
            assert [each.split(":")[0] for each in raised.value.problems] == ["line 2", "line 5", "line 6"]
            assert "changed since it was written" in raised.value.problems[0]
            assert "it has a x-opt-delivery-time header" in raised.value.problems[2]
            file.write_text(whole)
            with pytest.raises(NotAppliedError, match="no queue to go to"):
                await restore_parked(broker, str(file), ReadOptions(), RestoreOptions(to="nowhere", strip=True))
            # the writer was killed over its last line
            file.write_text(whole[: whole.rindex('{"type": "discarded"') - 20])
            report = await restore_parked(broker, str(file), ReadOptions(), RestoreOptions(strip=True))
            assert (report.messages, report.restored, report.finished) == (4, 4, False)
            assert report.complete is False, "it cannot say whether the export had more"
            assert report.cut_off == 6
            file.write_text(whole)
            report = await restore_parked(broker, str(file), ReadOptions(), RestoreOptions(strip=True))
            assert (report.before, report.restored, report.changed, await depth(connection, WORK)) == (4, 1, 1, 0)
            restored = await drained(connection, PARKING, 5)
            assert not any({"CC", "x-opt-delivery-time"} & each.headers.keys() for each in restored)
            for text, words in (("", "it is empty"), ("{}\n", "line 1: neither"), ("\xff\n", "line 1: it is not JSON")):
                file.write_text(text, encoding="latin-1")
                with pytest.raises(RefusedError) as raised:
                    await restore_parked(broker, str(file), ReadOptions())
                assert words in raised.value.problems[0]

    asyncio.run(go())


@pytest.mark.one_broker
def test_headers_that_are_nested_too_deeply_hide_nothing_from_a_restore(vhost: BrokerAddress, tmp_path: Path) -> None:
    compiled, file = topology({WORK: [1000]}, vhost=vhost.vhost), tmp_path / "x.jsonl"
    deep = b"\4deep" + nested(70)
    entries = encode_table({"CC": ["nowhere"], "their": 1})[4:] + deep
    header = ContentHeader.of(Properties(message_id="m")).copy(length_prefixed(entries), 2)

    async def go() -> None:
        async with workplace(vhost, compiled) as (broker, connection):
            channel = await connection.open_channel()
            await channel.publish(Publish(exchange="", routing_key=PARKING, header=header, body=b"{}", identity="m"))
            await discard_parked(read_target(broker, compiled), Selection(), str(file))
            with pytest.raises(RefusedError) as raised:
                await restore_parked(broker, str(file), ReadOptions())
            assert "it has a CC header" in raised.value.problems[0]
            report = await restore_parked(broker, str(file), ReadOptions(), RestoreOptions(strip=True))
            assert (report.restored, report.changed) == (1, 1)
            (back,) = await drained(connection, PARKING, 1)
            assert (back.header.message_id, set(back.headers)) == ("m", {"their", "deep"})
            assert deep in back.header.payload

    asyncio.run(go())


@pytest.mark.parametrize("kind", ["classic", "quorum"])
def test_a_queue_that_would_drop_what_comes_back_is_read_only_when_told_so(vhost: BrokerAddress, kind: str) -> None:
    limit = {"x-delivery-limit": 1_000_000} if kind == "quorum" else {}
    ids = [f"m{n}" for n in range(5)]

    async def go() -> None:
        async with await connect(vhost, name="amqpflow test") as connection, open_broker(vhost) as broker:
            channel = await connection.admin_channel()
            for name, overflow in (("drops", {}), ("rejects", {"x-overflow": "reject-publish"})):
                arguments = {"x-queue-type": kind, "x-max-length": 5, **limit, **overflow}
                await channel.queue_declare(name, durable=True, arguments=arguments)
                await publish(connection, name, *(Properties(message_id=each) for each in ids))
            places = {
                (name, unverified): read_target(
                    broker, no_topology(), (), ReadOptions(from_queues=(name,), unverified=unverified)
                )
                for name in ("drops", "rejects")
                for unverified in (False, True)
            }
            with pytest.raises(RefusedError, match="limit it to 5 messages, and it drops its oldest") as refused:
                await list_parked(places["drops", False], Selection())
            assert "`unverified`" in str(refused.value.hint)
            assert refused.value.exit_code == 4
            listing = await list_parked(places["drops", True], Selection())
            assert [row.message_id for row in listing.messages] == ids
            assert any("push out the ones that are requeued" in note for note in listing.notes)
            listing = await list_parked(places["rejects", False], Selection())
            assert ([row.message_id for row in listing.messages], listing.notes) == (ids, ())
            # why: three that come while all is held take the places of three that are held
            for name, left in (("drops", 5), ("rejects", 8)):
                async with ParkingReader(broker.connection, name, quorum=kind == "quorum") as reader:
                    async for delivery in deliveries(reader, at_most=5):
                        reader.keep(delivery)
                    await publish(connection, name, *(Properties(message_id=f"new{n}") for n in range(3)))
                assert await depth(connection, name) == left

    asyncio.run(go())


def test_a_dead_letter_queue_that_is_in_no_file_is_listed_exported_and_restored(
    vhost: BrokerAddress, tmp_path: Path
) -> None:
    async def go() -> None:
        async with await connect(vhost, name="amqpflow test") as connection:
            channel = await connection.admin_channel()
            await channel.queue_declare("dead", durable=True, arguments={"x-queue-type": "classic"})
            await channel.queue_declare(
                "counted", durable=True, arguments={"x-queue-type": "quorum", "x-delivery-limit": 5}
            )
            dead = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"}
            await channel.queue_declare("work", durable=True, arguments={"x-queue-type": "classic", **dead})
            await publish(connection, "work", *(Properties(message_id=f"m{n}") for n in range(5)))
            for _ in range(5):
                got = await channel.basic_get("work")
                await channel.basic_reject(got.delivery.delivery_tag, requeue=False)
            await depth_becomes(connection, "dead", 5)  # RabbitMQ takes them there in its own time
            await publish(connection, "counted", Properties(message_id="c"))
            async with open_broker(vhost) as broker:
                target = read_target(broker, no_topology(), (), ReadOptions(from_queues=("dead",)))
                for _ in range(30):
                    rows = (await list_parked(target, Selection(queues=("work",)))).messages
                    assert [(row.message_id, row.reason, row.detail, row.attempts) for row in rows] == [
                        (f"m{n}", "broker", "rejected", 1) for n in range(5)
                    ]
                await discard_parked(target, Selection(), str(tmp_path / "x.jsonl"))
                assert await depth(connection, "dead") == 0
                await restore_parked(broker, str(tmp_path / "x.jsonl"), ReadOptions())
                (tmp_path / "x.jsonl.restored").unlink()
                seen = await restore_parked(
                    broker, str(tmp_path / "x.jsonl"), ReadOptions(), RestoreOptions(again=True)
                )
                assert (seen.restored, seen.still_parked) == (0, 5)
                assert [row.id for row in (await list_parked(target, Selection())).messages] == [row.id for row in rows]
                # giving back would use its messages up
                with pytest.raises(RefusedError, match="limits it to 5 deliveries"):
                    await list_parked(
                        read_target(broker, no_topology(), (), ReadOptions(from_queues=("counted",))), Selection()
                    )
                with pytest.raises(NotAppliedError, match="no queue missing"):
                    await list_parked(
                        read_target(broker, no_topology(), (), ReadOptions(from_queues=("missing",))), Selection()
                    )

    asyncio.run(go())


def test_a_rejected_message_with_a_count_of_its_own_shows_both(vhost: BrokerAddress) -> None:
    async def go() -> None:
        async with open_broker(vhost) as broker:
            channel = await broker.connection.admin_channel()
            await channel.queue_declare("tasks.dlq", durable=True, arguments={"x-queue-type": "classic"})
            dead = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "tasks.dlq"}
            await channel.queue_declare("tasks", durable=True, arguments={"x-queue-type": "classic", **dead})
            for number, headers in enumerate(({"task": "charge", "retries": 2}, {"x-retry-count": 1, "x-error": "no"})):
                await publish(broker.connection, "tasks", Properties(message_id=f"m{number}", headers=headers))
                got = await channel.basic_get("tasks")
                await channel.basic_reject(got.delivery.delivery_tag, requeue=False)
                await depth_becomes(broker.connection, "tasks.dlq", number + 1)  # before the next one
            await publish(
                broker.connection,
                "tasks.dlq",
                Properties(message_id="m2", headers={"x-retry-count": 4, "x-error": "no", "x-original-queue": "tasks"}),
            )
            target = read_target(broker, no_topology(), (), ReadOptions(from_queues=("tasks.dlq",)))
            rows = (await list_parked(target, Selection())).messages
            shown = [(each.parked_by, each.reason, each.detail, each.attempts, each.error_message) for each in rows]
            assert shown == [
                ("rabbitmq", "broker", "rejected", 3, None),
                ("rabbitmq", "broker", "rejected", 2, "no"),
                ("folk", "foreign", "folk", 5, "no"),
            ]
            assert {each.queue for each in rows} == {"tasks"}

    asyncio.run(go())


@pytest.mark.one_broker
def test_a_hostile_message_is_harmless_on_a_terminal_in_json_and_in_an_export(
    vhost: BrokerAddress, tmp_path: Path
) -> None:
    shop = write_shop(tmp_path)
    body = json.dumps({"text": HOSTILE}, ensure_ascii=False).encode()
    fill(
        shop,
        vhost,
        [
            delivered(
                "orders",
                message_id=HOSTILE[:60],
                headers={HOSTILE[:50]: HOSTILE},
                body=each,
                content_type=HOSTILE[:40],
                routing_key=HOSTILE[:70],
            )
            for each in (body, HOSTILE.encode())
        ],
        error=f"Error{HOSTILE}",
    )
    row = json.loads(amqpflow("parked list", shop, vhost, "-o", "json").out)["messages"][0]
    outputs = {
        f"{command} {options}": amqpflow(command, shop, vhost, *options)
        for command, options in (
            ("parked list", ()),
            ("parked list", ("-o", "json")),
            ("parked list", ("-o", "jsonl")),
            ("parked stats", ("--by", "error-type,routing-key,fingerprint")),
            ("parked stats", ("-o", "json")),
            ("parked show", (row["id"],)),
            ("parked show", (row["id"], "-o", "json")),
            ("parked export", ("--to", str(tmp_path / "x.jsonl"))),
            ("parked list", ("--error-type", HOSTILE, "--match", f"headers == '{HOSTILE}")),
        )
    }
    texts = {name: done.out + done.err for name, done in outputs.items()}
    texts["the file"] = (tmp_path / "x.jsonl").read_text()
    for name, text in texts.items():
        assert not re.findall(
            "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u202a-\u202e\u2066-\u2069\u200e\u200f\ufeff]", text
        ), name
        if "json" in name or name == "the file":
            assert "<" not in text, name
    exported = [json.loads(line) for line in texts["the file"].splitlines()]
    assert json.loads(exported[1]["body"])["text"] == HOSTILE


@pytest.mark.one_broker
def test_discard_asks_or_is_told_and_needs_a_filter(vhost: BrokerAddress, tmp_path: Path) -> None:
    shop = write_shop(tmp_path)
    fill(shop, vhost, [delivered("orders", message_id=f"m{n}") for n in range(3)])
    file = tmp_path / "gone.jsonl"
    done = amqpflow("parked discard", shop, vhost, "--queue", "orders", "--yes")
    assert (done.code, "by a filter, or give --all" in done.err) == (64, True)
    done = amqpflow("parked discard", shop, vhost, "--id", "m1", "--export", str(file))
    assert (done.code, "use --yes to discard without asking" in done.err) == (4, True)
    done = amqpflow("parked discard", shop, vhost, "--id", "m1", "--export", str(file), "--yes")
    assert (done.code, done.out) == (0, f"1 messages discarded; they are in {file}.\n")
    done = amqpflow("parked list", shop, vhost, "--match", "headers.a ==")
    assert (done.code, "--match: column 13: it ends too early" in done.err) == (64, True)
    rows = [json.loads(line) for line in amqpflow("parked list", shop, vhost, "-o", "jsonl").out.splitlines()]
    assert [each["message_id"] for each in rows] == ["m0", "m2"]
