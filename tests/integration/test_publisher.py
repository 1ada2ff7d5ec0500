"""Publisher: whoever publishes knows what became of each message."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from amqpflow import (
    BrokerUnavailableError,
    Consumer,
    InvalidTopologyError,
    OutgoingMessage,
    PartlyDoneError,
    Publisher,
    PublishRefusedError,
    PublishUncertainError,
    Topology,
    UnroutableError,
    VirtualHostMissingError,
)
from amqpflow.errors import PermissionDeniedError, UnpublishableError, UsageError
from amqpflow.model import headers as h
from amqpflow.model.message import Publish
from amqpflow.model.properties import Properties
from amqpflow.rabbitmq.address import BrokerAddress
from amqpflow.rabbitmq.connection import connect
from amqpflow.services.publishing.outbox import Outbox
from tests.brokers.management import Management
from tests.brokers.selection import BrokerUnderTest
from tests.posting import posted
from tests.shop import cut, shop
from tests.waiting import until

PASSED_ON = {  # by a handler that publishes with all headers of what it received
    h.ATTEMPT: 7,
    h.QUEUE: "orders",
    h.PREFIX + "x": 1,
    "x-death": [{"queue": "orders.parking", "reason": "expired"}],
    "x-first-death-queue": "orders.parking",
    "x-delivery-count": 40,
    "x-acquired-count": 41,
    "x-stream-offset": 42,
}


def test_a_published_message_is_persistent_has_an_id_and_what_was_given(vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        async with shop(vhost) as scene, Publisher(vhost.url) as publisher:
            given = {
                "headers": {"theirs": 1, "CC": [], "x-opt-delivery-time": 1} | PASSED_ON,
                "priority": 0,
                "correlation_id": "c",
                "content_type": "application/json",
                "content_encoding": "utf-8",
                "reply_to": "r",
                "timestamp": datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC),
                "type": "t",
                "app_id": "a",
            }
            message_id = await publisher.publish(b"body", routing_key="orders", expiration=600_000, **given)
            plain_id = await publisher.publish(bytearray(b"plain"), routing_key="orders", message_id="mine")
            assert plain_id == "mine"
            with_all, plain = sorted(await scene.take("orders"), key=lambda each: each.body)
            properties = with_all.header.properties
            assert properties.message_id == message_id
            assert properties.delivery_mode == 2
            headers = dict(properties.headers)
            assert headers.pop("x-delivery-count", 0) == 0, "that of the queue"
            assert headers == {"theirs": 1, "CC": [], "x-opt-delivery-time": 1}
            assert properties.expiration == "600000"
            assert properties.timestamp == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
            assert (properties.priority, properties.message_type) == (0, "t")
            for name in ("correlation_id", "content_type", "content_encoding", "reply_to", "app_id"):
                assert getattr(properties, name) == given[name]
            assert plain.body == b"plain"
            assert plain.header.properties.priority is None

    asyncio.run(scenario())


@pytest.mark.one_broker
@pytest.mark.parametrize("form", ["path", "text", "topology"])
def test_the_virtual_host_of_the_file_is_used_as_the_consumer_does(
    broker: BrokerUnderTest, vhost: BrokerAddress, tmp_path: Path, form: str
) -> None:
    path = tmp_path / "topology.yaml"
    path.write_text(f"version: 1\nname: shop\nvhost: {vhost.vhost}\nqueues: {{orders: {{}}}}\n")
    file = {"path": path, "text": str(path), "topology": Topology.load(path)}[form]

    async def scenario() -> None:
        async with shop(vhost) as scene, Publisher(broker.address.url, topology=file) as publisher:
            assert publisher.address.vhost == Consumer(file, broker.address.url).address.vhost == vhost.vhost
            await publisher.publish(b"there", routing_key="orders")
            assert [each.body for each in await scene.take("orders")] == [b"there"]

    asyncio.run(scenario())


def test_a_topology_without_a_virtual_host_leaves_the_one_in_the_url(tmp_path: Path) -> None:
    path = tmp_path / "topology.yaml"
    path.write_text("version: 1\nname: shop\nqueues: {orders: {}}\n")
    assert Publisher("amqp://broker/mine", topology=path).address.vhost == "mine"
    path.write_text("version: 1\nname: shop\nqueus: {}\n")
    with pytest.raises(InvalidTopologyError, match="queus"):
        Publisher("amqp://broker/mine", topology=path)


def test_an_error_names_the_virtual_host(vhost: BrokerAddress) -> None:
    """A queue that is missing here is often in another virtual host."""
    place = f", in virtual host {vhost.vhost}"

    async def scenario() -> None:
        full = {"x-max-length": 1, "x-overflow": "reject-publish"}
        async with shop(vhost, queue_type="classic", arguments=full), Publisher(vhost.url) as publisher:
            await publisher.publish(b"", routing_key="orders")
            with pytest.raises(UnroutableError) as no_queue:
                await publisher.publish(b"", routing_key="nowhere")
            with pytest.raises(UnroutableError) as no_exchange:
                await publisher.publish(b"", exchange="missing", routing_key="orders")
            with pytest.raises(PublishRefusedError) as refused:
                await publisher.publish(b"", routing_key="orders")
            assert str(no_queue.value) == f"no queue for routing key 'nowhere' on exchange ''{place}"
            assert str(no_exchange.value) == f"exchange 'missing' does not exist{place}"
            assert str(refused.value).endswith(place)
            (result,) = await publisher.publish_many([OutgoingMessage(body=b"", routing_key="nowhere")])
            assert str(result) == str(no_queue.value)

    asyncio.run(scenario())


def test_each_way_to_fail_has_a_name_and_the_publisher_lives_on(vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        full = {"x-max-length": 1, "x-overflow": "reject-publish"}
        async with shop(vhost, queue_type="classic", arguments=full) as scene, Publisher(vhost.url) as publisher:
            await publisher.publish(b"", routing_key="orders")
            failures: dict[str, tuple[dict[str, Any], type[Exception]]] = {
                "no queue": ({"routing_key": "nowhere"}, UnroutableError),
                "no exchange": ({"exchange": "missing", "routing_key": "orders"}, UnroutableError),
                "full": ({"routing_key": "orders"}, PublishRefusedError),
                "header too large": ({"routing_key": "orders", "headers": {"h": "x" * 200_000}}, UnpublishableError),
                "no header": ({"routing_key": "orders", "headers": {"h": object()}}, UnpublishableError),
                "priority": ({"routing_key": "orders", "priority": 256}, UnpublishableError),
                "long name": ({"routing_key": "x" * 256}, UnpublishableError),
                "surrogate": ({"routing_key": "orders", "correlation_id": "\ud800"}, UnpublishableError),
            }
            for name, (arguments, kind) in failures.items():
                with pytest.raises(kind) as raised:
                    await publisher.publish(b"", message_id=name, **arguments)
                assert type(raised.value) is kind, name
                assert raised.value.message_id == name  # type: ignore[attr-defined]
            with pytest.raises(UnpublishableError, match="body is of type str, not bytes"):
                await publisher.publish("text", routing_key="orders")  # type: ignore[arg-type]
            assert len(await scene.take("orders")) == 1
            await publisher.publish(b"", routing_key="orders")

    asyncio.run(scenario())


def test_many_are_published_in_order_with_one_result_each(vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        async with shop(vhost) as scene, Publisher(vhost.url) as publisher:
            wanted = [OutgoingMessage(body=str(number).encode(), routing_key="orders") for number in range(2000)]
            wanted[7] = OutgoingMessage(body=b"7", routing_key="nowhere")
            wanted[8] = OutgoingMessage(body=b"8", routing_key="orders", priority=-1)
            results = await publisher.publish_many(wanted)
            assert isinstance(results[7], UnroutableError)
            assert isinstance(results[8], UnpublishableError)
            ids = [each for each in results if isinstance(each, str)]
            assert len(ids) == 1998
            found = await scene.take("orders")
            assert [each.header.properties.message_id for each in found] == ids
            assert [each.body for each in found] == [each.body for each in wanted if each.body not in (b"7", b"8")]

    asyncio.run(scenario())


@pytest.mark.one_broker
def test_messages_that_cannot_be_sent_are_refused_alone_and_take_no_room(vhost: BrokerAddress) -> None:
    """More of them than may be without a confirm at one time, each beside good ones."""
    wrong: list[Any] = [
        OutgoingMessage(body=b"", routing_key=None),  # type: ignore[arg-type]
        OutgoingMessage(body=b"", routing_key=["orders"]),  # type: ignore[arg-type]
        OutgoingMessage(body=b"", routing_key="orders", headers={1: 2}),  # type: ignore[dict-item]
        OutgoingMessage(body=b"", routing_key="orders", headers=[("a", 1)]),  # type: ignore[arg-type]
        OutgoingMessage(body=b"", routing_key="orders", headers={"load": float("nan")}),
        OutgoingMessage(body=b"", routing_key="orders", headers={"trace": 1 << 63}),
        OutgoingMessage(body=b"", routing_key="orders", headers={"h": "x" * 200_000}),
        OutgoingMessage(body="text", routing_key="orders"),  # type: ignore[arg-type]
        {"body": b"", "routing_key": "orders"},
        None,
    ]

    async def scenario() -> None:
        async with shop(vhost) as scene, Publisher(vhost.url) as publisher:
            good = OutgoingMessage(body=b"good", routing_key="orders")
            for _ in range(3):
                results = await publisher.publish_many([good, *wrong * 50, good])
                assert [type(each) for each in results] == [str, *[UnpublishableError] * 500, str]
            many = await publisher.publish_many([good, *wrong * 110, good])
            assert isinstance(many[-1], str)
            async with asyncio.timeout(30):
                await publisher.publish(b"good", routing_key="orders")
            assert [each.body for each in await scene.take("orders")] == [b"good"] * 9

    asyncio.run(scenario())


def test_a_number_that_is_none_leaves_the_connection_to_the_others(vhost: BrokerAddress) -> None:
    """RabbitMQ would close the connection over it (fact 9.12), with all that is not confirmed."""

    async def scenario() -> None:
        async with shop(vhost), Publisher(vhost.url) as publisher:
            results = await asyncio.gather(
                *(publisher.publish(b"", routing_key="orders") for _ in range(100)),
                publisher.publish(b"", routing_key="orders", headers={"load": float("nan")}),
                *(publisher.publish(b"", routing_key="orders") for _ in range(100)),
                return_exceptions=True,
            )
            assert [each for each in results if not isinstance(each, str)] == [results[100]]
            assert isinstance(results[100], UnpublishableError)

    asyncio.run(scenario())


@pytest.mark.one_broker
def test_messages_that_raise_leave_the_results_of_those_before(vhost: BrokerAddress) -> None:
    def messages() -> Iterator[OutgoingMessage]:
        yield OutgoingMessage(body=b"0", routing_key="orders", message_id="m0")
        yield OutgoingMessage(body=b"1", routing_key="nowhere")
        raise KeyError("row 2")

    async def scenario() -> None:
        async with shop(vhost) as scene, Publisher(vhost.url) as publisher:
            with pytest.raises(PartlyDoneError, match="raised KeyError after 2 of them: 'row 2'") as raised:
                await publisher.publish_many(messages())
            assert isinstance(raised.value.__cause__, KeyError)
            first, second = raised.value.report  # type: ignore[misc]
            assert first == "m0"
            assert isinstance(second, UnroutableError)
            assert [each.body for each in await scene.take("orders")] == [b"0"]

    asyncio.run(scenario())


def test_what_is_no_list_of_messages_is_refused_before_anything_is_sent() -> None:
    async def later() -> AsyncIterator[OutgoingMessage]:
        yield OutgoingMessage(body=b"")

    async def scenario() -> None:
        publisher = Publisher("amqp://broker/")
        for wrong in (OutgoingMessage(body=b""), "text", b"text", {"body": b""}, 7, None, later()):
            with pytest.raises(UsageError, match=r"messages is of type .*, not a"):
                await publisher.publish_many(wrong)  # type: ignore[arg-type]

    asyncio.run(scenario())


def test_one_that_closes_the_channel_is_named_and_the_others_arrive(vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        async with shop(vhost) as scene, Publisher(vhost.url) as publisher:
            wanted = [OutgoingMessage(body=b"", routing_key="orders", message_id=f"m{number}") for number in range(60)]
            wanted[30] = OutgoingMessage(body=b"", exchange="missing", routing_key="orders", message_id="culprit")
            # RabbitMQ closes the channel of whoever asks for a direct reply without consuming one
            wanted[40] = OutgoingMessage(
                body=b"", routing_key="orders", message_id="reply", reply_to="amq.rabbitmq.reply-to"
            )
            results = await publisher.publish_many(wanted)
            assert isinstance(results[30], UnroutableError)
            assert isinstance(results[40], UnpublishableError)
            assert "PRECONDITION_FAILED" in str(results[40])
            found = {each.header.properties.message_id for each in await scene.take("orders")}
            assert found == {f"m{number}" for number in range(60) if number not in (30, 40)}
            assert [each for each in results if isinstance(each, str)] == sorted(found, key=lambda each: int(each[1:]))

    asyncio.run(scenario())


def test_a_lost_connection_is_opened_again(vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        async with shop(vhost) as scene, Publisher(vhost.url) as publisher:
            await publisher.publish(b"", routing_key="orders", message_id="first")
            ids = [f"m{number}" for number in range(1000)]
            window = asyncio.create_task(
                publisher.publish_many(
                    OutgoingMessage(body=b"x" * 10_000, routing_key="orders", message_id=each) for each in ids
                )
            )
            channel, connection = publisher._here().outbox._channel, publisher._here().outbox._connection
            assert channel is not None
            assert connection is not None
            await until(lambda: not channel.is_idle, every=0)
            cut([connection])
            results = await window
            assert all(isinstance(each, str | PublishUncertainError) for each in results)
            uncertain = [each for each in results if isinstance(each, PublishUncertainError)]
            assert uncertain
            # published again with their ids, none is missing
            again = await publisher.publish_many(
                OutgoingMessage(body=b"", routing_key="orders", message_id=each.message_id) for each in uncertain
            )
            assert again == [each.message_id for each in uncertain]
            await scene.close_connections("amqpflow publisher")
            await until(lambda: publisher._here().outbox._connection.is_closed)  # type: ignore[union-attr]
            await publisher.publish(b"", routing_key="orders", message_id="last")
            found = {each.header.properties.message_id for each in await scene.take("orders")}
            assert found == {*ids, "first", "last"}

    asyncio.run(scenario())


@pytest.mark.one_broker
def test_what_was_not_sent_when_the_connection_is_lost_is_sent_on_the_next_one(vhost: BrokerAddress) -> None:
    """It is certainly in no queue, so that nobody has to look for it there."""

    async def scenario() -> None:
        async with shop(vhost) as scene, Publisher(vhost.url) as publisher:
            await publisher.publish(b"", routing_key="orders", message_id="first")
            await until(lambda: publisher._here().outbox.is_open)
            connection = publisher._here().outbox._connection
            assert connection is not None
            window = [asyncio.create_task(publisher.publish(b"", routing_key="orders")) for _ in range(3)]
            # alike to a return: the second waits for the confirm of the first
            window += [asyncio.create_task(publisher.publish(b"", routing_key="orders", message_id="m")) for _ in "ab"]
            await asyncio.sleep(0)  # they are posted, and written at the end of this turn
            cut([connection])
            results = await asyncio.gather(*window, return_exceptions=True)
            assert [type(each) for each in results] == [str] * 5
            found = [each.header.properties.message_id for each in await scene.take("orders")]
            assert sorted(found) == sorted(["first", *map(str, results)])

    asyncio.run(scenario())


@pytest.mark.one_broker
def test_what_waits_behind_its_like_survives_a_neighbour_that_closes_the_channel(vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        async with shop(vhost) as scene, Publisher(vhost.url) as publisher:
            alike = [OutgoingMessage(body=b"", routing_key="orders", message_id="m") for _ in range(5)]
            culprit = OutgoingMessage(body=b"", routing_key="orders", reply_to="amq.rabbitmq.reply-to")
            results = await publisher.publish_many([*alike, culprit, *alike])
            assert [type(each) for each in results] == [*[str] * 5, UnpublishableError, *[str] * 5]
            assert len(await scene.take("orders")) >= 10

    asyncio.run(scenario())


def test_one_id_in_flight_twice_is_not_confused(vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        async with shop(vhost), Publisher(vhost.url) as publisher:
            keys = ["orders", "nowhere", "orders", "orders", "nowhere"] * 20
            results = await publisher.publish_many(
                OutgoingMessage(body=b"", routing_key=key, message_id="same") for key in keys
            )
            assert [isinstance(each, str) for each in results] == [key == "orders" for key in keys]

    asyncio.run(scenario())


def test_without_permission_it_is_said(vhost: BrokerAddress) -> None:
    management = Management(vhost)
    name = f"reader-{vhost.vhost}"
    management.put("users", name, body={"password": "p", "tags": ""})
    management.put("permissions", vhost.vhost, name, body={"configure": "^$", "write": "^$", "read": ".*"})

    async def scenario() -> None:
        async with shop(vhost):
            url = vhost.url.replace(f"{vhost.user}:{vhost.password}@", f"{name}:p@")
            async with Publisher(url) as publisher:
                with pytest.raises((PublishRefusedError, PermissionDeniedError), match="permission"):
                    await publisher.publish(b"", exchange="shop.retry", routing_key="orders")

    try:
        asyncio.run(scenario())
    finally:
        management.delete("users", name)


@pytest.mark.one_broker
def test_a_broker_that_is_not_there_is_said_to_be_unavailable(vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        async with Publisher("amqp://guest:guest@127.0.0.1:1/") as publisher:
            with pytest.raises(BrokerUnavailableError, match=r"127\.0\.0\.1:1"):
                await publisher.publish(b"", routing_key="orders")
        async with Publisher(vhost.with_vhost("no such").url) as publisher:
            with pytest.raises(VirtualHostMissingError):
                await publisher.publish(b"", routing_key="orders")
        publisher = Publisher(vhost.url)
        await publisher.close()
        with pytest.raises(BrokerUnavailableError, match="closed"):
            await publisher.publish(b"", routing_key="orders")

    asyncio.run(scenario())


def test_a_publisher_in_a_handler(vhost: BrokerAddress) -> None:
    """What a service usually does: a message is handled by publishing another, with the headers it came with."""

    async def scenario() -> None:
        async with shop(vhost, {"orders": (50,), "audit": (50,)}) as scene, Publisher(vhost.url) as publisher:
            seen: list[tuple[int, dict[str, Any]]] = []

            async def orders(message: Any) -> None:
                if message.attempt == 1:
                    raise OSError("once")
                await publisher.publish(message.body, routing_key="audit", headers=message.headers)
                scene.done.append("orders")

            async def audit(message: Any) -> None:
                seen.append((message.attempt, dict(message.headers)))

            async with scene.consumer(orders=orders, audit=audit):
                await scene.publish("m", headers={"trace": "t"})
                await until(lambda: seen)
            assert seen == [(1, {"trace": "t"})]

    asyncio.run(scenario())


@pytest.mark.one_broker
def test_a_publish_that_is_cancelled_before_it_is_written_is_not_sent(vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        async with shop(vhost) as scene, Publisher(vhost.url) as publisher:
            cancelled = asyncio.create_task(publisher.publish(b"", routing_key="orders", message_id="cancelled"))
            await asyncio.sleep(0)  # it connects
            cancelled.cancel()
            with pytest.raises(asyncio.CancelledError):
                await cancelled
            await publisher.publish(b"", routing_key="orders", message_id="kept")
            assert [each.header.properties.message_id for each in await scene.take("orders")] == ["kept"]

    asyncio.run(scenario())


@pytest.mark.one_broker
def test_a_cancelled_publish_counts_until_it_is_confirmed(vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        async with shop(vhost), Publisher(vhost.url) as publisher:
            await publisher.publish(b"", routing_key="orders")
            here = publisher._here()
            task = asyncio.create_task(publisher.publish(b"", routing_key="orders"))
            await asyncio.sleep(0)
            assert here._outstanding == 1
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert here._outstanding == 1
            await until(lambda: here._outstanding == 0)

    asyncio.run(scenario())


@pytest.mark.one_broker
def test_what_may_have_arrived_before_its_exchange_was_deleted_stays_uncertain(vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        async with shop(vhost) as scene:
            exchange = scene.compiled.parking_exchange
            outbox = Outbox(lambda: connect(vhost, name="test"))
            try:

                def message(name: str, exchange: str, body: bytes = b"") -> Publish:
                    properties = Properties(message_id=name)
                    return Publish.of(exchange=exchange, routing_key="orders.parking", properties=properties, body=body)

                await posted(outbox, message("before", exchange))
                async with outbox._one_at_a_time:
                    there = posted(outbox, message("there", exchange, bytes(8_000_000)))  # the disk takes a while
                    culprit = posted(outbox, message("culprit", "nowhere"))
                    assert outbox._channel is not None
                    await outbox._channel.closed.wait()
                    assert not there.done(), "its confirm takes longer than the end of the channel"
                    scene.delete("exchanges", exchange)
                with pytest.raises(PublishUncertainError, match=r"published again: exchange .* does not exist"):
                    await there
                with pytest.raises(UnroutableError):
                    await culprit
                await scene.holds("orders.parking", 2)
            finally:
                await outbox.close()

    asyncio.run(scenario())
