"""Connections that a firewall has forgotten: no end, no reset, no error, and nothing comes through any more."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import pytest

from amqpflow import Message, Publisher, Retry
from amqpflow.errors import BrokerUnavailableError, PublishUncertainError
from amqpflow.model.headers import HOP
from amqpflow.model.message import Publish
from amqpflow.model.properties import Properties
from amqpflow.model.wire import encode_content_header
from amqpflow.rabbitmq import connection as connection_module
from amqpflow.rabbitmq import connection_monitor
from amqpflow.rabbitmq.address import BrokerAddress
from amqpflow.rabbitmq.connection import connect
from amqpflow.services.consuming import pending as in_flight
from amqpflow.services.publishing.outbox import Outbox
from tests.faults.proxy import Proxy
from tests.posting import posted
from tests.shop import PARKING, Shop, shop
from tests.waiting import until

CONSUMING, PUBLISHING = 0, 1  # the connections of a consumer, in the order in which it opens them


def retries_first(scene: Shop) -> Callable[[Message], object]:
    async def handle(message: Message) -> None:
        if message.attempt == 1 and not str(message.message_id).startswith("good"):
            raise Retry
        scene.done.append(f"{message.message_id} {message.hop}")

    return handle


def seen(scene: Shop, name: str) -> bool:
    return any(each.startswith(f"{name} ") for each in scene.done)


@pytest.mark.one_broker
@pytest.mark.parametrize(
    ("which", "heartbeat", "limit"),
    [
        # some seconds more than it takes, and than is promised: the machine may have other work
        pytest.param(None, None, 19, id="both, with the default limits"),
        pytest.param(CONSUMING, 1, 9, id="consuming"),
        pytest.param(PUBLISHING, 0, 14, id="publishing"),
    ],
)
def test_a_good_message_is_handled_in_time_after_connections_froze(
    vhost: BrokerAddress,
    monkeypatch: pytest.MonkeyPatch,
    which: int | None,
    heartbeat: int | None,
    limit: float,
    record_property: Callable[[str, object], None],
) -> None:
    """There is a single slot, which a failed message holds."""
    if heartbeat is not None:
        quickly(monkeypatch)

    async def scenario() -> None:
        async with shop(vhost) as scene, Proxy(vhost, heartbeat=heartbeat) as proxy:
            consumer = scene.consumer(orders=retries_first(scene), concurrency=1)
            consumer.address = proxy.address
            async with consumer:
                await scene.publish("opens the connection for retries")
                await until(lambda: seen(scene, "opens the connection for retries"))
                proxy.freeze(*([] if which is None else [which]))
                froze = asyncio.get_running_loop().time()
                await scene.publish("bad", "good")
                await until(lambda: seen(scene, "good"))
                took = asyncio.get_running_loop().time() - froze
                record_property("seconds", took)
                await until(lambda: seen(scene, "bad"))
                await until(lambda: consumer.healthy)
            assert took < limit
            # what was published on the frozen connection never arrived, and what was handled is told by its hop
            assert len(set(scene.done)) == 3
            assert await scene.depth("orders.parking") == 0

    asyncio.run(scenario())


def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not more so than a broker with other work answers."""
    monkeypatch.setattr(connection_monitor, "CONFIRM_PATIENCE", 2.0)
    monkeypatch.setattr(in_flight, "CONFIRM_PATIENCE", 2.0)


def parking(name: str) -> Publish:
    properties = Properties(message_id=name, delivery_mode=2, headers={HOP: f"{name}/0/1"})
    return Publish.of(exchange=PARKING, routing_key="orders.parking", properties=properties, body=b"")


@pytest.mark.parametrize("to_client", [True, False], ids=["both ways", "heartbeats still come"])
def test_a_publish_on_a_frozen_connection_is_uncertain_and_the_next_one_arrives(
    vhost: BrokerAddress, monkeypatch: pytest.MonkeyPatch, to_client: bool
) -> None:
    """Heartbeats are off, or come from a broker that does not hear us: it is the confirm that is missing."""
    quickly(monkeypatch)

    async def scenario() -> None:
        async with shop(vhost) as scene, Proxy(vhost, heartbeat=0 if to_client else 20) as proxy:
            outbox = Outbox(lambda: connect(proxy.address, name="amqpflow test"))
            await posted(outbox, parking("before"))
            proxy.freeze(to_client=to_client)
            with pytest.raises(PublishUncertainError):
                await posted(outbox, parking("frozen"))
            await posted(outbox, parking("frozen"))
            await outbox.close()
            assert Counter(each.header.properties.message_id for each in await scene.take("orders.parking")) == Counter(
                ["before", "frozen"]
            )

    asyncio.run(scenario())


@pytest.mark.one_broker
def test_a_broker_that_answers_but_does_not_confirm_is_waited_for(
    vhost: BrokerAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a quorum queue without a majority: to publish again would only make copies of what is still confirmed."""
    quickly(monkeypatch)

    async def scenario() -> None:
        async with shop(vhost) as scene:
            connection = await connect(vhost, name="amqpflow test")
            channel = await connection.open_channel()
            asked: list[int] = []
            ask = channel.ask

            def count() -> None:
                asked.append(channel.oldest)
                ask()

            monkeypatch.setattr(channel, "ask", count)
            confirms, held_back = channel._confirms, []
            take = channel._take.__self__  # type: ignore[attr-defined]
            monkeypatch.setattr(take, "_confirmed", lambda *confirm: held_back.append(confirm), raising=True)
            publishing = asyncio.create_task(channel.publish(parking("m")))
            await until(lambda: held_back)
            await until(lambda: len(asked) >= 3)
            assert not connection.is_closed
            for confirm in held_back:
                confirms.confirmed(*confirm)
            await publishing
            await connection.close()
            assert await scene.depth("orders.parking") == 1

    asyncio.run(scenario())


@pytest.mark.one_broker
def test_a_large_message_on_a_slow_link_takes_its_time(vhost: BrokerAddress, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is on its way for longer than a confirm may take, and the question waits behind it."""
    monkeypatch.setattr(connection_monitor, "CONFIRM_PATIENCE", 2.0)

    async def scenario() -> None:
        # it takes longer than the broker waits for a heartbeat, which is longer than this process stands still
        async with shop(vhost) as scene, Proxy(vhost, heartbeat=2) as proxy:
            outbox = Outbox(lambda: connect(proxy.address, name="amqpflow test"))
            await posted(outbox, parking("small"))
            proxy.rate = 3_000_000
            began = asyncio.get_running_loop().time()
            await posted(outbox, replace(parking("large"), header=header(15_000_000), body=b"x" * 15_000_000))
            assert asyncio.get_running_loop().time() - began > 2 * connection_monitor.CONFIRM_PATIENCE
            await outbox.close()
            assert await scene.depth("orders.parking") == 2

    asyncio.run(scenario())


def header(size: int) -> bytes:
    return encode_content_header(Properties(message_id="large", delivery_mode=2), size)


@pytest.mark.one_broker
def test_a_publisher_does_not_hang_on_a_frozen_connection(
    vhost: BrokerAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    quickly(monkeypatch)

    async def scenario() -> None:
        async with shop(vhost) as scene, Proxy(vhost, heartbeat=0) as proxy:
            publisher = Publisher(proxy.address.url)
            await publisher.publish(b"", routing_key="orders", message_id="before")
            proxy.freeze()
            with pytest.raises(PublishUncertainError) as uncertain:
                await publisher.publish(b"", routing_key="orders", message_id="frozen")
            assert uncertain.value.message_id == "frozen"
            await publisher.publish(b"", routing_key="orders", message_id="frozen")
            await publisher.close()
            assert await scene.account() == Counter(["before", "frozen"])

    asyncio.run(scenario())


@pytest.mark.one_broker
def test_a_proxy_that_accepts_and_says_nothing_is_left_when_it_speaks_again(
    vhost: BrokerAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with shop(vhost) as scene, Proxy(vhost) as proxy:
            consumer = scene.consumer(orders=retries_first(scene))
            consumer.address = proxy.address
            tries: list[str] = []
            async with consumer:
                # from now on: the first connections have to succeed
                defaults = connection_module.connect.__kwdefaults__
                monkeypatch.setattr(connection_module.connect, "__kwdefaults__", {**defaults, "timeout": 0.5})
                proxy.silent = True
                proxy.cut()
                handler = _Collect(tries)
                logging.getLogger("amqpflow.consumer").addHandler(handler)
                try:
                    await until(lambda: len(tries) >= 2)
                finally:
                    logging.getLogger("amqpflow.consumer").removeHandler(handler)
                assert "did not answer in time" in tries[0]
                proxy.silent = False
                monkeypatch.setattr(connection_module.connect, "__kwdefaults__", defaults)
                await scene.publish("good", "bad")
                await until(lambda: seen(scene, "good") and seen(scene, "bad"))

    asyncio.run(scenario())


class _Collect(logging.Handler):
    def __init__(self, texts: list[str]) -> None:
        super().__init__()
        self._texts = texts

    def emit(self, record: logging.LogRecord) -> None:
        if "cannot reconnect" in record.getMessage():
            self._texts.append(record.getMessage())


@pytest.mark.one_broker
def test_many_publishes_that_wait_for_a_connection_share_one_try(
    vhost: BrokerAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 50 that are held, the last would have to wait for 50 time limits, one after the other."""

    async def scenario() -> None:
        async with Proxy(vhost) as proxy:
            proxy.silent = True
            outbox = Outbox(lambda: connect(proxy.address, name="amqpflow test", timeout=0.5))
            began = asyncio.get_running_loop().time()
            results = await asyncio.gather(
                *(posted(outbox, parking(f"m{number}")) for number in range(50)), return_exceptions=True
            )
            assert asyncio.get_running_loop().time() - began < 15
            assert all(isinstance(each, BrokerUnavailableError) for each in results)
            assert len({id(each) for each in results}) == 50, "each has an error of its own"
            await outbox.close()

    asyncio.run(scenario())


@pytest.mark.one_broker
def test_a_consumer_stops_in_time_although_its_connections_are_frozen(vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        async with shop(vhost) as scene, Proxy(vhost, heartbeat=0) as proxy:
            consumer = scene.consumer(orders=retries_first(scene))
            consumer.address = proxy.address
            consumer.shutdown_timeout = 0.5
            await consumer.start()
            await scene.publish("opens the connection for retries")
            await until(lambda: seen(scene, "opens the connection for retries"))
            proxy.freeze()
            began = asyncio.get_running_loop().time()
            with suppress(BrokerUnavailableError):
                await consumer.stop()
            assert asyncio.get_running_loop().time() - began < 20

    asyncio.run(scenario())
