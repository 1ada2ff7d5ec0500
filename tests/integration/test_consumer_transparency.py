"""A retry is invisible: the same message comes to the same queue, when it is due, however large it is."""

from __future__ import annotations

import asyncio
import struct
import time
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from statistics import median
from typing import Any

import pytest

from amqpflow import Message, Park, Retry
from amqpflow.model import headers as h
from amqpflow.model.message import Publish
from amqpflow.model.properties import Properties
from amqpflow.model.wire import encode_content_header, encode_table, length_prefixed
from amqpflow.parking.parked import read_parked
from amqpflow.rabbitmq.address import BrokerAddress
from tests.messages import nested
from tests.parked import drained
from tests.shop import Shop, publish_plainly, shop
from tests.waiting import until

both_types = pytest.mark.parametrize("queue_type", ["quorum", "classic"])

EVERYTHING = Properties(  # but user_id, which must be the publisher's own
    content_type="application/json",
    content_encoding="utf-8",
    headers={
        "text": "grüße",
        "bytes": b"\xff\xfe",
        "binary": bytearray(b"\x00\x01"),
        "yes": True,
        "none": None,
        "number": -(1 << 40),
        "double": 0.1,
        "decimal": Decimal("-1.50"),
        "time": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        "table": {"list": [1, "b", {"c": None}], "": 0},
        "k" * 255: "a long name",
        "CC": ["order.copied"],
        "x-opt-delivery-time": 1_790_000_000_000,
        "x-opt-delivery-delay": 5,
        "x-delay": -5000,
        "x-stream-filter-value": "region-1",
        "x-death": [{"queue": "elsewhere", "reason": "rejected", "count": 7, "time": datetime(2026, 1, 1, tzinfo=UTC)}],
        "x-first-death-queue": "elsewhere",
        "x-delivery-count": 41,
        "x-stream-offset": 5,
        "x-theirs": "kept",
    },
    delivery_mode=2,
    priority=0,
    correlation_id="c",
    reply_to="r",
    expiration="600000",
    message_id="everything",
    timestamp=datetime(2026, 1, 2, tzinfo=UTC),
    type="t",
    app_id="a",
    cluster_id="cluster",
)
NOTHING = Properties(delivery_mode=2)


@both_types
def test_the_second_attempt_is_equal_to_the_first(vhost: BrokerAddress, queue_type: str) -> None:
    sent = replace(EVERYTHING, user_id=vhost.user)

    async def scenario() -> None:
        async with shop(vhost, {"orders": (50, 70)}, queue_type=queue_type) as scene:
            admin = await scene.connection.admin_channel()
            await admin.exchange_declare("events", exchange_type="topic", durable=True)
            for key in ("order.placed", ""):
                await admin.queue_bind("orders", "events", key)
            seen: dict[str, list[tuple[Any, ...]]] = {}

            async def handle(message: Message) -> None:
                seen.setdefault(message.body.decode(), []).append(
                    (message.properties, message.body, message.exchange, message.routing_key)
                )
                # what a handler does to what it was shown is not in the copy
                if isinstance(message.headers.get("table"), dict):
                    message.headers["table"]["list"].append("changed")
                if message.attempt < 3:
                    raise Retry
                scene.done.append(message.body.decode())

            consumer = scene.consumer(orders=handle)
            async with consumer:
                # aiormq is no judge of what is absent: it adds a message id
                plain = await scene.connection.admin_channel()
                for key, name, properties in (
                    ("order.placed", "everything", sent),
                    ("order.placed", "nothing", NOTHING),
                    ("", "without a key", NOTHING),
                ):
                    header, body = encode_content_header(properties, len(name)), name.encode()
                    await publish_plainly(
                        plain, Publish(exchange="events", routing_key=key, header=header, body=body, identity="")
                    )
                await until(lambda: len(scene.done) == 3)
            everything, nothing, without_key = seen["everything"], seen["nothing"], seen["without a key"]
            for attempts in (everything, nothing, without_key):
                assert attempts == [attempts[0]] * 3
            assert everything[0][2:] == ("events", "order.placed")
            assert without_key[0][2:] == ("events", "")
            first = everything[0][0]
            for name in ("priority", "expiration", "user_id", "timestamp", "cluster_id", "message_id", "type"):
                assert getattr(first, name) == getattr(sent, name), name
            assert first.headers["x-death"][0]["queue"] == "elsewhere"
            assert first.headers["CC"] == ["order.copied"]
            assert "x-delivery-count" not in first.headers
            assert nothing[0][0] == Properties(delivery_mode=2, headers={})
            assert await scene.account() == Counter(scene.done)

    asyncio.run(scenario())


def test_a_retry_in_one_queue_is_never_seen_by_another(vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        async with shop(vhost, {"orders": (50,), "audit": (50,)}) as scene:
            admin = await scene.connection.admin_channel()
            await admin.exchange_declare("events", exchange_type="topic", durable=True)
            for queue in ("orders", "audit"):
                await admin.queue_bind(queue, "events", "order.#")
            seen: Counter[tuple[str, int]] = Counter()

            async def orders(message: Message) -> None:
                seen["orders", message.attempt] += 1
                if message.attempt == 1:
                    raise Retry
                scene.done.append("in orders")

            async def audit(message: Message) -> None:
                seen["audit", message.attempt] += 1
                scene.done.append("in audit")

            ids = [f"m{number}" for number in range(10)]
            async with scene.consumer(orders=orders, audit=audit):
                await scene.publish(*ids, exchange="events", queue="order.placed")
                await until(lambda: len(scene.done) == 20)
            assert seen == Counter({("orders", 1): 10, ("orders", 2): 10, ("audit", 1): 10})
            assert await scene.account() == Counter({"in orders": 10, "in audit": 10})

    asyncio.run(scenario())


def test_what_is_large_is_retried_and_parked_and_the_connection_lives(vhost: BrokerAddress) -> None:
    headers = {f"header-{number}": f"value {number}" for number in range(200)}
    tall = {"h": "x" * 100_000}
    body = bytes(range(256)) * 4096

    async def scenario() -> None:
        async with shop(vhost, {"orders": (50,)}) as scene:

            async def handle(message: Message) -> None:
                raise RuntimeError("é" * 500_000 if message.message_id == "error" else "no")

            consumer = scene.consumer(orders=handle)
            async with consumer:
                await scene.publish("body", body=body)
                await scene.publish("headers", headers=headers)
                await scene.publish("large headers", headers=tall)
                await scene.publish("error")
                await until(lambda: consumer.totals["parked"] == 4)
                assert consumer.healthy
                assert consumer.totals == Counter(received=8, retried=4, parked=4)
            parked = {each.header.properties.message_id: each for each in await scene.take("orders.parking")}
            assert parked["body"].body == body
            assert headers.items() <= parked["headers"].header.properties.headers.items()
            assert parked["large headers"].header.properties.headers["h"] == tall["h"]
            message = parked["error"].header.properties.headers[h.ERROR_MESSAGE]
            assert 1000 < len(message.encode()) <= 1024
            assert len(encode_table(parked["error"].header.properties.headers)) <= 16 * 1024

    asyncio.run(scenario())


def test_headers_that_leave_no_room_are_parked_by_the_broker(vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        async with shop(vhost) as scene:

            async def handle(message: Message) -> None:
                raise Park

            async with scene.consumer(orders=handle) as consumer:
                largest = {"h": "x" * (scene.connection.frame_max - 100)}
                await scene.publish("large", headers=largest)
                message = await scene.take_one("orders.parking")
                assert message.header.properties.headers["h"] == largest["h"]
                assert message.header.properties.headers["x-death"][0]["reason"] == "rejected"
                assert consumer.healthy

    asyncio.run(scenario())


def test_headers_that_leave_no_room_stay_in_a_classic_queue_and_its_consumer_pauses(vhost: BrokerAddress) -> None:
    """Its dead-lettering is at most once: nothing may be left to it."""

    async def scenario() -> None:
        async with shop(vhost, queue_type="classic") as scene:

            async def handle(message: Message) -> None:
                raise Park

            async with scene.consumer(orders=handle) as consumer:
                await scene.publish("large", headers={"h": "x" * (scene.connection.frame_max - 100)})
                problem = await until(lambda: consumer.problems.get("orders"))
                assert "cannot be copied" in problem
            await scene.holds("orders", 1)
            assert await scene.account() == Counter(["large"])

    asyncio.run(scenario())


DELAYS = (100, 1000, 5000)


@pytest.mark.timing
def test_a_message_comes_back_when_it_is_due_and_no_tier_holds_up_another(vhost: BrokerAddress) -> None:
    """All three tiers at once: never early, and half of the messages at most 500 ms late on a machine that is busy.

    What waited behind a message of another tier would be 900 ms late.
    """

    async def scenario(scene: Shop) -> dict[int, list[float]]:
        failed: dict[str, float] = {}
        late: dict[int, list[float]] = {delay: [] for delay in DELAYS}

        async def handle(message: Message) -> None:
            delay = message.json()
            if message.attempt == 1:
                failed[str(message.message_id)] = time.monotonic()
                raise Retry(after=delay / 1000)
            late[delay].append((time.monotonic() - failed[str(message.message_id)]) * 1000 - delay)

        async with scene.consumer(orders=handle):
            for number in range(7):
                for delay in reversed(DELAYS):
                    await scene.publish(f"{delay}-{number}", body=str(delay).encode())
                await asyncio.sleep(0.05)
            await until(lambda: all(len(each) == 7 for each in late.values()))
        return late

    async def run() -> None:
        async with shop(vhost, {"orders": DELAYS}) as scene:
            late = await scenario(scene)
        for delay, each in late.items():
            assert min(each) >= 0, f"{delay} ms: {each}"
            assert median(each) <= 500, f"{delay} ms: {each}"

    asyncio.run(run())


@pytest.mark.one_broker
def test_headers_that_nobody_can_decode_are_in_the_way_of_nobody_who_does_not_look(vhost: BrokerAddress) -> None:
    entry = b"\4deep" + nested(100)
    properties = length_prefixed(entry) + b"\2"
    flags = 1 << 13 | 1 << 12  # headers, delivery_mode

    async def scenario() -> None:
        async with shop(vhost) as scene:
            seen: list[tuple[str, int]] = []

            async def handle(message: Message) -> None:
                seen.append((message.body.decode(), message.attempt))
                if message.body == b"looks":
                    message.headers.get("other")
                if message.attempt == 1:
                    raise Retry
                if message.body == b"parks":
                    raise Park
                scene.done.append(message.body.decode())

            async with scene.consumer(orders=handle):
                plain = await scene.connection.admin_channel()
                for body in (b"acks", b"parks", b"looks"):
                    header = struct.pack(">HHQH", 60, 0, len(body), flags) + properties
                    await publish_plainly(
                        plain, Publish(exchange="", routing_key="orders", header=header, body=body, identity="")
                    )
                await until(lambda: scene.depth("orders.parking"))
                await until(lambda: len(seen) == 5)
                taken = await drained(scene.connection, "orders.parking", 2)
                for each in taken:
                    each.header.make_readable()
                parked = {each.body: read_parked(each, scene.compiled.routes) for each in taken}
            assert sorted(seen) == [("acks", 1), ("acks", 2), ("looks", 1), ("parks", 1), ("parks", 2)]
            assert scene.done == ["acks"]
            reasons = {body: each.reason for body, each in parked.items()}
            assert reasons == {b"parks": "parked", b"looks": "undecodable"}
            assert all(entry in each.delivery.header.payload for each in parked.values()), "copied as it came"

    asyncio.run(scenario())
