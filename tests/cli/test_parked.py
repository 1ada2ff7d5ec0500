"""`amqpflow parked` as users run it: what it prints, and that nothing in a message acts on a terminal."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from amqpflow import ReadOptions, StoppedError, Topology, parked_message
from amqpflow.model.properties import Properties
from amqpflow.rabbitmq.address import BrokerAddress
from amqpflow.rabbitmq.connection import connect
from amqpflow.services.reading.lock import reading_alone
from tests.cli.parked_shop import amqpflow, arguments, fill, write_shop
from tests.commands import AMQPFLOW, environment
from tests.integration.test_channel import HOSTILE as WRITTEN_BY_OTHERS
from tests.integration.test_channel import NESTED, publish_raw, short, table
from tests.parked import delivered, depth, depth_becomes, publish

pytestmark = pytest.mark.one_broker

RFC_3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
HOSTILE = "\x1b[2J\x9b31m\u202e\u2066\x07\r\n"


@pytest.fixture
def shop(tmp_path: Path, vhost: BrokerAddress, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AMQPFLOW_VHOST", vhost.vhost)
    return write_shop(tmp_path)


def listed(shop: Path, vhost: BrokerAddress, *options: str) -> Any:
    done = amqpflow("parked list", shop, vhost, "-o", "json", *options)
    assert done.code == 0, done.err
    assert done.out.isascii()
    return json.loads(done.out)


def assert_harmless(text: str) -> None:
    acting = re.findall("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u200e\u200f]", text)
    assert not acting, acting


def test_a_list_for_people(shop: Path, vhost: BrokerAddress) -> None:
    fill(shop, vhost, [delivered("orders", message_id=f"m{n}") for n in range(3)])
    fill(shop, vhost, [delivered("mail", message_id="x")], error="KeyError")
    done = amqpflow("parked list", shop, vhost)
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[0].split() == ["PARKED", "AT", "WORK", "QUEUE", "REASON", "ERROR", "ATTEMPTS", "AGE", "SIZE", "ID"]
    assert [line.split()[1] for line in lines[1:5]] == ["orders", "orders", "orders", "mail"]
    assert "KeyError: no" in lines[4]
    assert lines[-1] == "4 parked messages in orders.parking, shared.parked."


def test_an_empty_parking_queue_says_so(shop: Path, vhost: BrokerAddress) -> None:
    fill(shop, vhost, [])
    done = amqpflow("parked list", shop, vhost, "--queue", "orders")
    assert (done.code, done.out) == (0, "No parked messages in orders.parking.\n")


def test_a_list_for_programs(shop: Path, vhost: BrokerAddress) -> None:
    fill(shop, vhost, [delivered("orders", message_id=f"m{n}") for n in range(3)])
    fill(shop, vhost, [delivered("audit", message_id="a")])
    document = listed(shop, vhost)
    assert document["complete"] is True
    assert [(each["parking_queue"], each["ready"], each["read"]) for each in document["queues"]] == [
        ("orders.parking", 3, 3),
        ("shared.parked", 1, 1),
    ]
    first = document["messages"][0]
    assert (first["queue"], first["reason"], first["attempts"], first["error_type"]) == (
        "orders",
        "parked",
        1,
        "ValueError",
    )
    assert RFC_3339.fullmatch(first["failed_at"])
    assert (first["exchange"], first["routing_key"], first["message_id"]) == ("events", "order.placed", "m0")
    assert [each["message_id"] for each in listed(shop, vhost, "--limit", "2")["messages"]] == ["m0", "m1"]
    assert [each["message_id"] for each in listed(shop, vhost, "--queue", "audit")["messages"]] == ["a"]
    assert listed(shop, vhost, "--queue", "mail")["messages"] == []


def test_an_unknown_queue_is_wrong_usage(shop: Path, vhost: BrokerAddress) -> None:
    fill(shop, vhost, [])
    done = amqpflow("parked list", shop, vhost, "--queue", "mial")
    assert done.code == 64
    assert "did you mean mail?" in done.err


def test_a_message_is_shown_with_its_record_headers_and_body(shop: Path, vhost: BrokerAddress) -> None:
    message = delivered(
        "orders",
        message_id="one",
        body=b'{"total": 1e400, "total": 2}',
        content_type="application/json",
        headers={"their": {"nested": [1, True]}},
    )
    fill(shop, vhost, [message])
    (row,) = listed(shop, vhost)["messages"]
    done = amqpflow("parked show", shop, vhost, row["id"])
    assert done.code == 0
    for text in (
        f"Parked message {row['id']}",
        "work queue       orders",
        "reason           parked: told so",
        "first published  exchange events, routing key order.placed",
        "error            ValueError",
        "raised at        service.py:10",
        '  their: {"nested": [1, true]}',
        "x-amqpflow-hop: one/0/1",
        "Body: 28 bytes, application/json",
        '    "total": 1e400,\n    "total": 2',
    ):
        assert text in done.out
    (shown,) = json.loads(amqpflow("parked show", shop, vhost, "one", "-o", "json").out)["messages"]
    assert shown["body"] == '{"total": 1e400, "total": 2}'
    assert shown["headers"]["their"] == {"nested": [1, True]}
    assert shown["history"][0]["error_type"] == "ValueError"
    assert shown["error_location"] == row["error_location"] == "service.py:10"
    assert RFC_3339.fullmatch(shown["history"][0]["at"])
    assert shown["properties"]["content_type"] == "application/json"


def test_bodies_that_are_no_text(shop: Path, vhost: BrokerAddress) -> None:
    fill(
        shop,
        vhost,
        [
            delivered("orders", message_id="binary", body=b"\x00\x01\xfe\xff"),
            delivered("orders", message_id="packed", body=gzip.compress(b"hello"), content_encoding="gzip"),
            delivered("orders", message_id="bomb", body=gzip.compress(bytes(50_000_000)), content_encoding="gzip"),
            delivered("orders", message_id="empty", body=b""),
        ],
    )
    assert "00000000  00 01 fe ff" in amqpflow("parked show", shop, vhost, "binary").out
    packed = amqpflow("parked show", shop, vhost, "packed").out
    assert "gzip undone" in packed
    assert packed.endswith("  hello\n")
    assert "-o json has them all" in amqpflow("parked show", shop, vhost, "bomb").out
    assert "Body: 0 bytes" in amqpflow("parked show", shop, vhost, "empty").out
    (shown,) = json.loads(amqpflow("parked show", shop, vhost, "binary", "-o", "json").out)["messages"]
    assert (shown["body"], shown["body_base64"], shown["body_bytes"]) == (None, "AAH+/w==", 4)


def test_what_is_not_there_is_said(shop: Path, vhost: BrokerAddress) -> None:
    fill(shop, vhost, [delivered("orders")])
    done = amqpflow("parked show", shop, vhost, "0123456789")
    assert done.code == 1
    assert "no parked message 0123456789" in done.err
    assert json.loads(amqpflow("parked show", shop, vhost, "0123456789", "-o", "json").out)["messages"] == []


def test_nothing_in_a_message_acts_on_a_terminal_or_breaks_json(shop: Path, vhost: BrokerAddress) -> None:
    hostile = delivered(
        "orders",
        message_id=f"evil{HOSTILE}",
        exchange=f"e{HOSTILE}",
        routing_key=f"r{HOSTILE}",
        body=f"body {HOSTILE}".encode(),
        content_type=f"text/plain{HOSTILE}",
        headers={f"k{HOSTILE}": f"v{HOSTILE}", "bytes": b"\x1b[2J\xff", "deep": [[{"a": [HOSTILE]}]]},
    )
    fill(shop, vhost, [hostile], error=f"Error{HOSTILE}")
    (row,) = listed(shop, vhost)["messages"]
    assert row["error_type"] == f"Error{HOSTILE}"
    for done in (
        amqpflow("parked list", shop, vhost),
        amqpflow("parked show", shop, vhost, row["id"]),
        amqpflow("parked show", shop, vhost, row["id"], "-o", "json"),
        amqpflow("replay", shop, vhost, "--queue", "orders", "--dry-run"),
        amqpflow("replay", shop, vhost, "--queue", "orders", "--yes"),
    ):
        assert done.code == 0, done.err
        assert_harmless(done.out + done.err)


def test_messages_that_nobody_here_parked_are_listed_and_shown(shop: Path, vhost: BrokerAddress) -> None:
    count = 4 + len(WRITTEN_BY_OTHERS)
    too_deep = table(short(b"k") + NESTED)
    fill(shop, vhost, [])

    async def go() -> None:
        async with await connect(vhost, name="amqpflow test") as connection:
            odd = {"x-death": "x", "x-amqpflow-queue": 5, "x-amqpflow-history": [1]}
            await publish(
                connection, "orders.parking", Properties(message_id="bare"), Properties(message_id="odd", headers=odd)
            )
            channel = await connection.admin_channel()
            deep = ((1 << 13, too_deep), (1 << 13 | 1 << 7, too_deep + short(b"deep")))
            for flags, properties in (*WRITTEN_BY_OTHERS.values(), *deep):
                await publish_raw(channel, "orders.parking", flags, properties)
            await depth_becomes(connection, "orders.parking", count)

    asyncio.run(go())
    document = listed(shop, vhost, "--queue", "orders")
    assert [each["reason"] for each in document["messages"]] == ["unknown"] * count
    (deep,) = (each["id"] for each in document["messages"] if each["message_id"] == "deep")
    (shown,) = json.loads(amqpflow("parked show", shop, vhost, deep, "-o", "json").out)["messages"]
    assert "base64" in json.dumps(shown["headers"]["k"]), "nested too deeply to be decoded: the bytes that came"
    done = amqpflow("replay", shop, vhost, "--queue", "orders", "--yes", "--origin", "orders")
    assert (done.code, f"Replayed {count} messages" in done.out) == (0, True)
    assert listed(shop, vhost)["messages"] == []


def test_ctrl_c_gives_everything_back(shop: Path, vhost: BrokerAddress) -> None:
    fill(shop, vhost, [])
    count = 40_000

    async def put() -> None:
        async with await connect(vhost, name="amqpflow test") as connection:
            await publish(connection, "orders.parking", *(Properties(message_id=f"m{n}") for n in range(count)))

    async def wait_until_taken() -> None:
        async with await connect(vhost, name="amqpflow test") as connection:
            while await depth(connection, "orders.parking") == count:
                assert process.poll() is None

    async def all_back() -> None:
        async with await connect(vhost, name="amqpflow test") as connection:
            await depth_becomes(connection, "orders.parking", count)

    asyncio.run(put())
    process = subprocess.Popen(
        [*AMQPFLOW, *arguments("parked list", shop, vhost)],
        env=environment(vhost),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    asyncio.run(wait_until_taken())
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "all messages are requeued" in err
    assert "Not all of orders.parking was read: it was interrupted." in err
    assert f"of {count} in orders.parking" in out or "No parked messages" in out
    asyncio.run(all_back())


@pytest.mark.parametrize(
    ("command", "options"),
    [("parked show", ["0123456789"]), ("parked list", []), ("replay", ["--queue", "orders", "--yes"])],
)
def test_ctrl_c_while_another_command_reads(shop: Path, vhost: BrokerAddress, command: str, options: list[str]) -> None:
    fill(shop, vhost, [delivered("orders")])

    async def interrupt() -> tuple[int, str]:
        async with (
            await connect(vhost, name="amqpflow test") as connection,
            reading_alone(connection, "orders.parking"),
        ):
            process = subprocess.Popen(
                [*AMQPFLOW, *arguments(command, shop, vhost, *options)],
                env=environment(vhost),
                stderr=subprocess.PIPE,
                text=True,
            )
            assert process.stderr is not None
            said = await asyncio.to_thread(process.stderr.readline)
            assert "Waiting for another amqpflow command" in said
            process.send_signal(signal.SIGINT)
            _, err = await asyncio.to_thread(process.communicate)
            return process.returncode, err

    code, err = asyncio.run(interrupt())
    assert (code, "interrupted while another amqpflow command was reading orders.parking" in err) == (130, True), err


def test_ctrl_c_while_a_message_is_looked_for(shop: Path, vhost: BrokerAddress) -> None:
    fill(shop, vhost, [delivered("orders", message_id=f"m{n}") for n in range(3)])

    async def look(stop: asyncio.Event) -> None:
        topology, management = Topology.load(shop), vhost.management_candidates()[-1]
        options = ReadOptions(stop=stop, on_progress=lambda *_: stop.set())
        await parked_message(topology, "nobody", vhost.url, management_url=management, options=options)

    with pytest.raises(StoppedError) as raised:
        asyncio.run(look(asyncio.Event()))
    assert raised.value.exit_code == 130

    async def all_back() -> None:
        async with await connect(vhost, name="amqpflow test") as connection:
            await depth_becomes(connection, "orders.parking", 3)

    asyncio.run(all_back())
