"""With an aiormq that does not read through our transport, everything works on its plain API, and a log line says so.

By hand, the consumer's whole suite on it: `AMQPFLOW_PLAIN_CHANNEL=1 pytest tests/integration/test_consumer.py`
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from typing import Any

import aiormq.connection
import pytest

from amqpflow import OutgoingMessage, Park, Publisher, Unpublishable, Unroutable
from amqpflow.errors import PublishUncertain
from amqpflow.model.message import Publish
from amqpflow.model.properties import Properties
from amqpflow.rabbitmq.address import BrokerAddress
from amqpflow.rabbitmq.connection import PLAIN
from amqpflow.rabbitmq.plain import PlainTransport
from tests.shop import shop
from tests.waiting import until

IDS = [f"m{number}" for number in range(60)]


@pytest.fixture(params=["asked for", "transport not used"])
def plain(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "asked for":
        monkeypatch.setenv(PLAIN, "1")
        return
    # an aiormq that has forgotten about transport_factory
    connect = aiormq.connection.Connection.__init__

    def without(self: Any, *args: Any, transport_factory: Any = None, **kwargs: Any) -> None:
        connect(self, *args, **kwargs)

    monkeypatch.setattr(aiormq.connection.Connection, "__init__", without)


def test_it_is_said(plain: None, vhost: BrokerAddress, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with shop(vhost) as scene:
            assert isinstance(scene.connection._pika.content, PlainTransport)

    with caplog.at_level(logging.WARNING):
        asyncio.run(scenario())
    assert "plain API" in caplog.text


def test_messages_are_retried_parked_and_acked(plain: None, vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        async with shop(vhost) as scene:
            tried: Counter[str | None] = Counter()

            async def orders(message: Any) -> None:
                tried[message.message_id] += 1
                if message.message_id == "m7":
                    raise Park("bad")
                if tried[message.message_id] == 1:
                    raise OSError("once")
                assert message.attempt == 2
                assert message.headers == {"their": "header"}
                scene.done.append(message.message_id)

            async with scene.consumer(orders=orders, prefetch=50):
                await scene.publish(*IDS, headers={"their": "header"})
                await scene.all_settled(IDS)

    asyncio.run(scenario())


def test_a_publisher_knows_what_became_of_each(plain: None, vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        async with shop(vhost) as scene, Publisher(vhost.url) as publisher:
            keys = ["orders", "nowhere", "orders", "orders", "nowhere"] * 10
            results = await publisher.publish_many(
                OutgoingMessage(body=b"x" * 300_000 if at == 3 else b"", routing_key=key, message_id="same")
                for at, key in enumerate(keys)
            )
            assert [each == "same" for each in results] == [key == "orders" for key in keys]
            assert all(isinstance(each, Unroutable) for each in results if each != "same")
            found = await scene.take("orders")
            assert sorted(len(each.body) for each in found) == [0] * 29 + [300_000]

    asyncio.run(scenario())


def test_a_consumer_that_stops_gives_back(plain: None, vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        async with shop(vhost) as scene:
            began = asyncio.Event()

            async def orders(message: Any) -> None:
                began.set()
                await asyncio.sleep(60)

            consumer = scene.consumer(orders=orders, concurrency=5, prefetch=20)
            consumer.shutdown_timeout = 0.1
            async with consumer:
                await scene.publish(*IDS[:20])
                await began.wait()
            await until(lambda: scene.depth("orders"))
            assert len(await scene.take("orders")) == 20

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("unwritable", "what"),
    [
        ({"headers": {"a": b"\xff"}}, "its properties"),
        ({"type": "\udcff"}, "its properties"),
        ({"routing_key": "\udcff"}, "its exchange or routing key"),
        ({"exchange": "\u00fc"}, "its exchange or routing key"),
    ],
    ids=["header", "property", "routing key", "exchange"],
)
def test_what_pamqp_cannot_write_is_not_sent_and_the_next_message_is(
    plain: None, vhost: BrokerAddress, unwritable: dict[str, Any], what: str
) -> None:
    async def scenario() -> None:
        async with shop(vhost) as scene, Publisher(vhost.url) as publisher:
            with pytest.raises(Unpublishable, match=f"pamqp cannot encode {what}"):
                await publisher.publish(b"", **{"routing_key": "orders", **unwritable})
            await publisher.publish(b"next", routing_key="orders")
            assert [each.body for each in await scene.take("orders")] == [b"next"]

    asyncio.run(scenario())


def test_what_pamqp_reads_and_cannot_write_is_handled_and_when_it_fails_parked_by_the_broker(
    vhost: BrokerAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with shop(vhost) as scene:

            async def orders(message: Any) -> None:
                if message.body == b"fails":
                    raise OSError
                scene.done.append(message.body)

            await scene.publish("odd", headers={"a": b"\xff"}, body=b"odd")
            await scene.publish("fails", headers={"a": b"\xff"}, body=b"fails")
            await scene.publish("good", body=b"good")
            monkeypatch.setenv(PLAIN, "1")
            async with scene.consumer(orders=orders, concurrency=1) as consumer:
                await until(lambda: scene.done == [b"odd", b"good"])
                await until(lambda: consumer.totals["parked"] == 1)
            monkeypatch.delenv(PLAIN)
            (parked,) = await scene.take("orders.parking")
            assert (parked.body, (parked.header.properties.headers or {})["a"]) == (b"fails", b"\xff")

    asyncio.run(scenario())


def test_what_pamqp_cannot_read_all_the_same_makes_everything_uncertain_and_nothing_confirmed(
    plain: None, vhost: BrokerAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the confirms that follow would be taken for those of other publishes."""
    monkeypatch.setattr(PlainTransport, "check", lambda *_: None)

    async def scenario() -> None:
        async with shop(vhost) as scene:
            channel = await scene.connection.open_channel()
            messages = [
                Publish.of(exchange="", routing_key=key, properties=Properties(message_id=key), body=b"")
                for key in ("\udcff", "orders")
            ]
            async with asyncio.timeout(10):
                results = await asyncio.gather(*map(channel.publish, messages), return_exceptions=True)
            assert [type(each) for each in results] == [PublishUncertain, PublishUncertain]

    asyncio.run(scenario())
