"""What a channel promises: each publish's fate is known, each delivery arrives as it was sent."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from decimal import Decimal
from importlib.metadata import version
from typing import Any
from uuid import uuid4

import aiormq
import pytest
from aiormq.abc import ChannelFrame

from amqpflow.errors import (
    BrokerUnavailableError,
    ClientLibraryError,
    PublishRefusedError,
    PublishUncertainError,
    UnroutableError,
)
from amqpflow.model.message import Delivery, Publish
from amqpflow.model.properties import Properties
from amqpflow.rabbitmq import client_library, frames, transport
from amqpflow.rabbitmq.address import BrokerAddress
from amqpflow.rabbitmq.channel import Channel
from amqpflow.rabbitmq.connection import Connection, connect
from tests.brokers.management import Management
from tests.faults.proxy import Proxy
from tests.waiting import until

CLASSIC, QUORUM = {"x-queue-type": "classic"}, {"x-queue-type": "quorum"}


@asynccontextmanager
async def opened(address: BrokerAddress, **queues: dict[str, Any]) -> AsyncIterator[tuple[Connection, Channel]]:
    """A connection and a channel; `queues` are declared by name with their arguments."""
    async with await connect(address, name="amqpflow test channel") as connection:
        admin = await connection.admin_channel()
        for name, arguments in queues.items():
            await admin.queue_declare(name, durable=True, arguments=arguments)
        await admin.close()
        channel = await connection.open_channel()
        yield connection, channel
        await channel.close()


def message(
    routing_key: str, message_id: str | None = None, *, exchange: str = "", body: bytes = b"x", **more: Any
) -> Publish:
    more.setdefault("delivery_mode", 2)
    properties = Properties(message_id=message_id or uuid4().hex, **more)
    return Publish.of(exchange=exchange, routing_key=routing_key, properties=properties, body=body)


async def fates(*publishes: Coroutine[Any, Any, None]) -> list[BaseException | None]:
    async with asyncio.timeout(20):
        return await asyncio.gather(*publishes, return_exceptions=True)


async def read(connection: Connection, queue: str, count: int) -> list[Delivery]:
    """Consume so many messages and ack them."""
    channel = await connection.open_channel()
    got: list[Delivery] = []
    await channel.consume(queue, got.append, prefetch=0, on_cancel=lambda: None)
    await until(lambda: len(got) >= count)
    for delivery in got:
        channel.ack(delivery.delivery_tag)
    await channel.close()
    return got


# -- returns and confirms


def test_a_returned_message_is_never_taken_for_a_confirmed_one_with_the_same_id(vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        async with opened(vhost, here=CLASSIC) as (connection, channel):
            keys = ["here", "nowhere"] * 50
            ends = await fates(*(channel.publish(message(key, "same")) for key in keys))
            assert [type(end) for end in ends] == [type(None), UnroutableError] * 50
            assert len(await read(connection, "here", 50)) == 50

    asyncio.run(scenario())


def test_a_return_is_told_from_a_confirm_by_exchange_and_by_header_too(vhost: BrokerAddress) -> None:
    """The same id and the same routing key: only the exchange, or a header that routes, makes the difference."""

    async def scenario() -> None:
        async with opened(vhost, here=QUORUM) as (connection, channel):
            admin = await connection.admin_channel()
            await admin.exchange_declare("by-header", exchange_type="headers")
            await admin.queue_bind("here", "by-header", "", arguments={"x-match": "all", "to": "here"})
            await admin.exchange_declare("empty", exchange_type="fanout")
            publishes = [
                channel.publish(message("here", "same", exchange=exchange, headers={"to": to}))
                for exchange, to in [("by-header", "here"), ("by-header", "there"), ("empty", ""), ("", "")] * 25
            ]
            ends = await fates(*publishes)
            assert [type(end) for end in ends] == [type(None), UnroutableError, UnroutableError, type(None)] * 25

    asyncio.run(scenario())


def test_a_full_queue_refuses_and_holds_exactly_what_was_confirmed(vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        full = {**CLASSIC, "x-max-length": 3, "x-overflow": "reject-publish"}
        async with opened(vhost, full=full, free=CLASSIC) as (connection, channel):
            ids = [f"m{number}" for number in range(40)]
            publishes = [channel.publish(message(queue, each)) for each in ids for queue in ("full", "free")]
            ends = await fates(*publishes)
            assert ends[1::2] == [None] * 40
            assert {type(end) for end in ends[::2]} == {type(None), PublishRefusedError}
            confirmed = [each for each, end in zip(ids, ends[::2], strict=True) if end is None]
            assert [each.properties.message_id for each in await read(connection, "full", 3)] == confirmed
            assert await fates(channel.publish(message("full"))) == [None]

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "culprit",
    [
        pytest.param(message("x", "culprit", exchange="missing"), id="404"),
        pytest.param(message("here", "culprit", user_id="somebody-else"), id="406"),
    ],
)
def test_a_publish_that_closes_the_channel_leaves_the_others_uncertain_and_none_lost(
    vhost: BrokerAddress, culprit: Publish
) -> None:
    async def scenario() -> None:
        async with opened(vhost, here=QUORUM) as (connection, channel):
            good = [message("here", f"m{number}") for number in range(40)]
            window = [*good[:20], culprit, *good[20:]]
            ends = await fates(*(channel.publish(each) for each in window))
            assert isinstance(ends[20], PublishUncertainError)
            for end in ends:
                assert end is None or (isinstance(end, PublishUncertainError) and end.closed_by_publish)
            assert channel.is_closed
            assert [type(end) for end in await fates(channel.publish(message("here")))] == [BrokerUnavailableError]
            assert not channel.ack(1)
            # the connection is alive, and what was confirmed is in the queue
            other = await connection.open_channel()
            confirmed = {each.properties.message_id for each, end in zip(window, ends, strict=True) if end is None}
            await other.publish(message("here", "last"))
            found = [each.properties.message_id for each in await read(connection, "here", len(confirmed) + 1)]
            assert confirmed <= set(found)
            assert not connection.is_closed

    asyncio.run(scenario())


def test_what_is_written_while_the_broker_closes_the_channel_does_not_end_the_connection(vhost: BrokerAddress) -> None:
    """Acks are written in every turn of the event loop while the broker's close arrives."""

    async def scenario() -> None:
        async with opened(vhost, here=CLASSIC) as (connection, filler):
            for _ in range(10):
                await fates(*(filler.publish(message("here")) for _ in range(500)))
                channel = await connection.open_channel()
                got: list[Delivery] = []
                await channel.consume("here", got.append, prefetch=0, on_cancel=lambda: None)
                await until(lambda got=got: len(got) >= 500)  # type: ignore[misc]
                culprit = asyncio.create_task(channel.publish(message("x", exchange="missing")))
                while not channel.closed.is_set():
                    if got:
                        channel.ack(got.pop(0).delivery_tag)
                    await asyncio.sleep(0)
                assert isinstance((await asyncio.gather(culprit, return_exceptions=True))[0], PublishUncertainError)
            await filler.publish(message("here"))
            assert not connection.is_closed

    asyncio.run(scenario())


def test_a_publisher_that_is_cancelled_does_not_confuse_the_next_one_with_its_id(vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        async with opened(vhost, here=CLASSIC) as (connection, channel):
            first = asyncio.create_task(channel.publish(message("nowhere", "same")))
            await asyncio.sleep(0)
            first.cancel()
            admin = await connection.admin_channel()
            await admin.queue_declare("nowhere", durable=True, arguments=CLASSIC)
            assert await fates(channel.publish(message("nowhere", "same"))) == [None]

    asyncio.run(scenario())


# -- bodies and properties


def test_bodies_of_every_size_arrive_whole(vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        async with opened(vhost, here=CLASSIC) as (connection, channel):
            frame = channel.frame_max - 8
            sizes = [0, 1, frame - 1, frame, frame + 1, 2 * frame, 1_000_000, 5_000_000]
            bodies = [bytes(number % 251 for number in range(997)) * (size // 997 + 1) for size in sizes]
            bodies = [body[:size] for body, size in zip(bodies, sizes, strict=True)]
            assert await fates(*(channel.publish(message("here", body=body)) for body in bodies)) == [None] * len(sizes)
            assert [each.body for each in await read(connection, "here", len(sizes))] == bodies

    asyncio.run(scenario())


@pytest.mark.parametrize("queue", [CLASSIC, QUORUM], ids=["classic", "quorum"])
def test_properties_arrive_as_they_were_sent(vhost: BrokerAddress, queue: dict[str, Any]) -> None:
    headers = {
        "text": "grüße",
        "bytes": b"\xff\xfe",
        "binary": bytearray(b"\x00\x01"),
        "yes": True,
        "no": False,
        "none": None,
        "small": -7,
        "large": 1 << 62,
        "double": 0.1,
        "decimal": Decimal("-1.50"),
        "time": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        "table": {"a": [1, "b", {"c": None}], "": 0},
        "k" * 255: "a long name",
    }
    everything = Properties(
        content_type="application/json",
        content_encoding="utf-8",
        headers=headers,
        delivery_mode=2,
        priority=0,
        correlation_id="c",
        reply_to="r",
        expiration="600000",
        message_id="m",
        timestamp=datetime(2026, 1, 2, tzinfo=UTC),
        type="t",
        user_id=vhost.user,
        app_id="a",
        cluster_id="cluster",
    )
    nothing = Properties(message_id="n", delivery_mode=2)

    async def scenario() -> None:
        async with opened(vhost, here=queue) as (connection, channel):
            for properties in (everything, nothing):
                await channel.publish(Publish.of(exchange="", routing_key="here", properties=properties, body=b""))
            # on RabbitMQ 4.3 an absent priority goes before 0
            first, second = sorted(await read(connection, "here", 2), key=lambda each: str(each.properties.message_id))
            assert first.properties == everything
            assert second.properties == nothing
            assert type(first.properties.headers["binary"]) is bytearray  # type: ignore[index]

    asyncio.run(scenario())


def test_headers_that_no_frame_holds_are_refused_and_the_channel_lives(vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        async with opened(vhost, here=CLASSIC) as (_, channel):
            for headers in ({"h": "x" * channel.frame_max}, {"h": object()}):
                with pytest.raises(ValueError, match="headers"):
                    await channel.publish(message("here", headers=headers))
            assert await fates(channel.publish(message("here"))) == [None]

    asyncio.run(scenario())


def short(data: bytes) -> bytes:
    return bytes((len(data),)) + data


def table(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


HOSTILE = {
    "a timestamp in microseconds": (1 << 6, struct.pack(">Q", 1_790_000_000_000_000)),
    "the largest timestamp": (1 << 6, b"\xff" * 8),
    "a message id in Latin-1": (1 << 7, short(b"caf\xe9")),
    "a header name in Latin-1": (1 << 13, table(short(b"caf\xe9") + b"t\x01")),
    "a header in microseconds": (1 << 13, table(short(b"at") + b"T" + struct.pack(">Q", 1_790_000_000_000_000))),
    "the largest number": (1 << 13, table(short(b"n") + b"L" + b"\xff" * 8)),
}
NESTED = b"V"
for _ in range(200):
    NESTED = b"F" + table(short(b"k") + NESTED)


async def publish_raw(channel: Any, queue: str, flags: int, properties: bytes, key: bytes | None = None) -> None:
    """Publish what no client library would encode, on a plain channel of aiormq."""
    number = channel.number
    method = (
        struct.pack(">HHH", 60, 40, 0) + short(b"amq.topic" if key else b"") + short(key or queue.encode()) + b"\x01"
    )
    header = struct.pack(">HHQH", 60, 0, 1, flags) + properties
    data = b"".join(frames.encode_frame(kind, number, each) for kind, each in ((1, method), (2, header), (3, b"x")))
    await channel.write_queue.put(ChannelFrame(payload=data, should_close=False, drain_future=None))


def test_what_a_producer_may_write_never_ends_the_connection(vhost: BrokerAddress) -> None:
    """One such message would otherwise end every consumer that it is delivered to, again and again."""

    async def scenario() -> None:
        async with opened(vhost, here=CLASSIC) as (connection, channel):
            admin = await connection.admin_channel()
            for flags, properties in HOSTILE.values():
                await publish_raw(admin, "here", flags, properties)
            await admin.queue_bind("here", "amq.topic", "#")
            await publish_raw(admin, "here", 0, b"", key=b"caf\xe9")
            deliveries = await read(connection, "here", len(HOSTILE) + 1)
            micros, largest, latin, name, nested, number, keyed = deliveries
            assert micros.properties.timestamp == 1_790_000_000_000_000
            assert largest.properties.timestamp == (1 << 64) - 1
            assert latin.properties.message_id == "caf\udce9"
            assert name.properties.headers == {"caf\udce9": True}
            assert nested.properties.headers == {"at": 1_790_000_000_000_000}
            assert number.properties.headers in ({"n": (1 << 64) - 1}, {"n": -1})  # 4.x makes it signed
            assert keyed.routing_key == "caf\udce9"
            # and a copy of each is what it was
            for each in deliveries:
                if each.properties.message_id is None:
                    copy = message("here", headers=each.properties.headers, timestamp=each.properties.timestamp)
                else:
                    copy = Publish.of(exchange="", routing_key="here", properties=each.properties, body=each.body)
                await channel.publish(copy)
            copies = await read(connection, "here", len(deliveries))
            for each, copy_of in zip(deliveries, copies, strict=True):
                assert copy_of.properties.headers == each.properties.headers
                assert copy_of.properties.timestamp == each.properties.timestamp

    asyncio.run(scenario())


def test_a_delivery_whose_properties_cannot_be_read_arrives_all_the_same(vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        async with opened(vhost, here=CLASSIC) as (connection, channel):
            await publish_raw(await connection.admin_channel(), "here", 1 << 13, table(short(b"k") + NESTED))
            await channel.publish(message("here", "next"))
            other = await connection.open_channel()
            taken: list[Delivery] = []
            await other.consume("here", taken.append, prefetch=0, on_cancel=lambda: None)
            await until(lambda: len(taken) == 2)
            bad, good = sorted(taken, key=lambda each: each.header.message_id or "")  # they came on two channels
            assert (bad.body, good.properties.message_id) == (b"x", "next")
            with pytest.raises(ValueError, match="nested"):
                bad.headers["k"]
            await other.close()

    asyncio.run(scenario())


# -- the end of a channel


def test_a_lost_connection_leaves_publishes_uncertain_and_settles_nothing(vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        async with opened(vhost, here=QUORUM) as (connection, channel):
            await channel.publish(message("here", "held"))
            got: list[Delivery] = []
            await channel.consume("here", got.append, prefetch=10, on_cancel=lambda: None)
            await until(lambda: got)
            window = asyncio.gather(
                *(channel.publish(message("here", f"m{number}")) for number in range(200)), return_exceptions=True
            )
            await asyncio.sleep(0)
            management = Management(vhost)
            name = await until(lambda: [each["name"] for each in management.get("vhosts", vhost.vhost, "connections")])
            management.delete("connections", *name)
            ends = await asyncio.wait_for(window, 20)
            assert {type(end) for end in ends} <= {type(None), PublishUncertainError}
            await connection.closed.wait()
            assert [type(end) for end in await fates(channel.publish(message("here")))] == [BrokerUnavailableError]
            assert not channel.ack(got[0].delivery_tag)
            async with await connect(vhost, name="amqpflow test again") as again:
                confirmed = sum(end is None for end in ends)
                found: list[Delivery] = []
                reading = await again.open_channel()
                await reading.consume("here", found.append, prefetch=0, on_cancel=lambda: None)
                # some that were not confirmed may be there as well, ahead of the one that comes back
                await until(lambda: len(found) > confirmed and "held" in {each.properties.message_id for each in found})

    asyncio.run(scenario())


def test_publishes_that_the_socket_never_took_are_uncertain_too(vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        async with Proxy(vhost) as proxy, opened(proxy.address, here=CLASSIC) as (connection, channel):
            proxy.to_broker.clear()
            window = [asyncio.create_task(channel.publish(message("here", body=b"x" * 100_000))) for _ in range(50)]
            await asyncio.sleep(0)
            await connection.close(within=0.1)
            ends = await asyncio.wait_for(asyncio.gather(*window, return_exceptions=True), 10)
            assert {type(end) for end in ends} == {PublishUncertainError}

    asyncio.run(scenario())


@pytest.mark.parametrize("settle", ["ack", "nack"])
def test_what_was_settled_before_a_close_is_settled(vhost: BrokerAddress, settle: str) -> None:
    """RabbitMQ would forget all but 33 of them on a quorum queue, and count a delivery for each."""

    async def scenario() -> None:
        async with opened(vhost, here=QUORUM) as (connection, channel):
            ids = [f"m{number:03}" for number in range(200)]
            await fates(*(channel.publish(message("here", each)) for each in ids))
            consuming = await connection.open_channel()
            got: list[Delivery] = []
            tag = await consuming.consume("here", got.append, prefetch=0, on_cancel=lambda: None)
            await until(lambda: len(got) == 200)
            await consuming.cancel(tag)
            for delivery in got:
                getattr(consuming, settle)(delivery.delivery_tag)
                await asyncio.sleep(0)
            await consuming.close()
            if settle == "ack":
                await asyncio.sleep(0.3)
                assert (await channel.queue_counts("here")).ready == 0
            else:
                again = await read(connection, "here", 200)
                assert sorted(str(each.properties.message_id) for each in again) == ids
                # RabbitMQ 4.3 counts a close, and a nack it does not
                assert len({(each.properties.headers or {}).get("x-delivery-count") for each in again}) == 1

    asyncio.run(scenario())


@pytest.mark.one_broker
@pytest.mark.parametrize("settle", ["ack", "nack"])
def test_what_settles_all_up_to_a_delivery_does_not_overtake_the_acks_of_its_turn(
    vhost: BrokerAddress, settle: str
) -> None:
    """Else a nack would put back what is done, and its ack would name a delivery that is gone: the channel closes."""

    async def scenario() -> None:
        async with opened(vhost, here=CLASSIC) as (connection, channel):
            for number in range(4):
                await channel.publish(message("here", f"m{number}"))
            consuming = await connection.open_channel()
            got: list[Delivery] = []
            tag = await consuming.consume("here", got.append, prefetch=0, on_cancel=lambda: None)
            await until(lambda: len(got) == 4)
            await consuming.cancel(tag)
            consuming.ack(got[2].delivery_tag)
            consuming.ack(got[1].delivery_tag)
            getattr(consuming, settle)(got[3].delivery_tag, multiple=True)
            left = [] if settle == "ack" else ["m0", "m3"]

            async def counted() -> bool:
                return (await consuming.queue_counts("here")).ready == len(left)

            await until(counted)  # a classic queue may answer before it has put them back
            assert [each.properties.message_id for each in await read(connection, "here", len(left))] == left
            await consuming.close()
            assert (await channel.queue_counts("here")).ready == 0

    asyncio.run(scenario())


def test_a_deleted_queue_cancels_its_consumer(vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        async with opened(vhost, here=QUORUM) as (connection, channel):
            cancelled = asyncio.Event()
            await channel.consume("here", lambda _: None, prefetch=1, on_cancel=cancelled.set)
            admin = await connection.admin_channel()
            await admin.queue_delete("here")
            await asyncio.wait_for(cancelled.wait(), 10)

    asyncio.run(scenario())


# -- the seam


def test_aiormq_reads_through_our_transport(vhost: BrokerAddress) -> None:
    """When this fails, aiormq has moved what amqpflow/rabbitmq/transport.py stands on: see its first lines."""
    moved = "aiormq's transport_factory no longer leads deliveries through amqpflow.rabbitmq.transport"
    assert issubclass(transport.ContentTransport, aiormq.connection.TransportFactory), moved

    async def scenario() -> None:
        seen: list[int] = []
        async with opened(vhost, here=CLASSIC) as (connection, channel):
            takers = connection._pika.content.takers
            assert set(takers) == {channel._amqp.number}, moved
            take = takers[channel._amqp.number]
            takers[channel._amqp.number] = lambda kind, payload: seen.append(kind) or take(kind, payload)  # type: ignore[func-returns-value]
            got: list[Delivery] = []
            await channel.consume("here", got.append, prefetch=1, on_cancel=lambda: None)
            await channel.publish(message("here"))
            await until(lambda: got)
            assert {1, 2, 3} <= set(seen), moved
            takers[channel._amqp.number] = take
            assert not channel._amqp.confirmations, "aiormq counts publishes that are not its own"
        assert not takers, "a closed channel leaves its taker behind"

    asyncio.run(scenario())


def forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """An aiormq that has forgotten about transport_factory."""
    init = aiormq.connection.Connection.__init__

    def without(self: Any, *args: Any, transport_factory: Any = None, **kwargs: Any) -> None:
        init(self, *args, **kwargs)

    monkeypatch.setattr(aiormq.connection.Connection, "__init__", without)


def refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """An aiormq that takes no transport_factory."""
    init = aiormq.connection.Connection.__init__

    def without(self: Any, url: Any, *, loop: Any = None, context: Any = None) -> None:
        init(self, url, loop=loop, context=context)

    monkeypatch.setattr(aiormq.connection.Connection, "__init__", without)


def read_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    """An aiormq that reads by a method which the reader of our transport does not have."""
    monkeypatch.delattr(transport.FrameReader, "readexactly")


def gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """An aiormq without the classes that the transport is made of."""
    monkeypatch.setattr(client_library, "_missing", "cannot import name 'TransportFactory'")


@pytest.mark.parametrize("moved", [forgotten, refused, read_otherwise, gone])
def test_an_aiormq_that_does_not_fit_is_refused_with_the_versions_that_do(
    vhost: BrokerAddress, monkeypatch: pytest.MonkeyPatch, moved: Callable[[pytest.MonkeyPatch], None]
) -> None:
    moved(monkeypatch)
    with pytest.raises(ClientLibraryError) as caught:
        asyncio.run(connect(vhost, name="amqpflow test"))
    installed = f"aiormq {version('aiormq')} with aio-pika {version('aio-pika')}"
    assert str(caught.value).startswith(f"amqpflow cannot use {installed}: ")
    assert caught.value.hint == "pip install 'aio-pika>=10.1,<11' 'aiormq>=7.2,<8'"


def test_a_busy_connection_is_not_taken_for_a_stuck_one(vhost: BrokerAddress, monkeypatch: pytest.MonkeyPatch) -> None:
    """aiormq ends a connection on which it reads nothing for three heartbeats, deliveries it does not see included."""
    monkeypatch.setattr(transport, "_SIGN_OF_LIFE", 0.0)

    async def scenario() -> None:
        async with opened(vhost, here=CLASSIC) as (connection, channel):
            amqp = connection._amqp
            before = amqp._Connection__last_frame_time
            await channel.publish(message("here"))
            assert await until(lambda: amqp._Connection__last_frame_time > before)

    asyncio.run(scenario())
