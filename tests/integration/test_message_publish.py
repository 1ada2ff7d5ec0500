"""Handlers publish with the message they got: those that are not async wait in their thread, async ones await."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from amqpflow import (
    BrokerUnavailableError,
    Consumer,
    Message,
    PublishUncertainError,
    Topology,
    UnpublishableError,
    UnroutableError,
    UsageError,
)
from amqpflow.rabbitmq.address import BrokerAddress
from amqpflow.services.handling.message import Message as Received
from tests.deliveries import incoming
from tests.faults.proxy import Proxy
from tests.shop import Shop, cut, shop
from tests.waiting import until

QUEUES = {"orders": (50,), "audit": (50,)}
Handle = Callable[[Message], Awaitable[None] | None]


def kinds(publish: Callable[[Message], Any]) -> dict[str, Handle]:
    """A handler of each kind that publishes so."""

    async def awaits(message: Message) -> None:
        await publish(message)

    def in_an_event_loop_of_its_own(message: Message) -> None:
        async def own() -> None:
            await publish(message)

        asyncio.run(own())

    def waits(message: Message) -> None:
        assert isinstance(publish(message), str)

    return {"async": awaits, "thread": waits, "own event loop": in_an_event_loop_of_its_own}


@pytest.mark.parametrize("kind", ["async", "thread", "own event loop"])
def test_what_a_handler_publishes_is_confirmed_before_its_message_is_acked(vhost: BrokerAddress, kind: str) -> None:
    def publish(message: Message) -> Any:
        return message.publish(message.body, routing_key="audit", headers=message.headers)

    async def scenario() -> None:
        async with shop(vhost, QUEUES) as scene:
            ids = [f"m{number}" for number in range(40)]
            await scene.publish(*ids, headers={"trace": "t"})
            consumer = scene.consumer(orders=kinds(publish)[kind], concurrency=8)
            async with consumer:
                await until(lambda: consumer.totals["acked"] == 40)
                assert consumer.totals["retried"] == 0
            found = [each.header.properties for each in await scene.take("audit")]
            assert sorted(each.correlation_id for each in found) == sorted(ids)
            assert len({each.message_id for each in found} - set(ids)) == 40
            assert {each.headers["trace"] for each in found} == {"t"}

    asyncio.run(scenario())


@pytest.mark.one_broker
def test_a_correlation_id_is_passed_on_unless_another_is_given(vhost: BrokerAddress) -> None:
    async def handle(message: Message) -> None:
        await message.publish(b"", routing_key="audit", message_id="passed on")
        await message.publish(b"", routing_key="audit", message_id="given", correlation_id="mine")

    async def scenario() -> None:
        async with shop(vhost, QUEUES) as scene:
            await scene.publish("m", correlation_id="theirs")
            async with scene.consumer(orders=handle) as consumer:
                await until(lambda: consumer.totals["acked"])
            found = {each.header.properties.message_id: each for each in await scene.take("audit")}
            assert found["passed on"].header.properties.correlation_id == "theirs"
            assert found["given"].header.properties.correlation_id == "mine"

    asyncio.run(scenario())


@pytest.mark.one_broker
@pytest.mark.parametrize("kind", ["async", "thread", "own event loop"])
def test_a_publish_that_fails_fails_the_message_with_the_publishers_errors(vhost: BrokerAddress, kind: str) -> None:
    def publish(message: Message) -> Any:
        wrong = {"nowhere": {"routing_key": "nowhere"}, "nan": {"headers": {"h": float("nan")}}}
        return message.publish(b"", **wrong[str(message.message_id)])

    async def scenario() -> None:
        async with shop(vhost, QUEUES) as scene:
            await scene.publish("nowhere", "nan")
            consumer = scene.consumer(orders=kinds(publish)[kind], concurrency=1)
            async with consumer:
                await until(lambda: consumer.totals["parked"] == 2)
            parked = {
                each.header.properties.message_id: each.header.properties.headers["x-amqpflow-error-type"]
                for each in await scene.take("orders.parking")
            }
            errors = {"nowhere": UnroutableError, "nan": UnpublishableError}
            assert parked == {name: f"{error.__module__}.{error.__qualname__}" for name, error in errors.items()}

    asyncio.run(scenario())


@pytest.mark.one_broker
def test_what_was_published_before_a_failure_is_published_again_by_the_retry(vhost: BrokerAddress) -> None:
    """So a message id that follows from the message makes the second one known."""

    def handle(message: Message) -> None:
        message.publish(b"", routing_key="audit", message_id=f"{message.message_id}/audit")
        if message.attempt == 1:
            raise OSError("once")

    async def scenario() -> None:
        async with shop(vhost, QUEUES) as scene:
            await scene.publish("m")
            async with scene.consumer(orders=handle) as consumer:
                await until(lambda: consumer.totals["acked"])
            assert [each.header.properties.message_id for each in await scene.take("audit")] == ["m/audit"] * 2

    asyncio.run(scenario())


@pytest.mark.one_broker
def test_it_has_a_connection_of_its_own_that_is_opened_again(vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        async with shop(vhost, QUEUES) as scene:
            connections: dict[str, Any] = {}
            consumer = scene.consumer(orders=lambda message: message.publish(b"", routing_key="audit") and None)
            connect = consumer._connect

            async def remember(purpose: str = "consumer", beside: Any = None) -> Any:
                connections[purpose] = await connect(purpose, beside)
                return connections[purpose]

            consumer._connect = remember  # type: ignore[method-assign]
            async with consumer:
                for done in (1, 2):
                    await scene.publish(f"m{done}")
                    await until(lambda done=done: consumer.totals["acked"] == done)  # type: ignore[misc]
                    publishing = connections["publisher"]
                    assert publishing is not connections["consumer"]
                    cut([publishing])
                    await publishing.closed.wait()
                assert consumer.healthy
            assert len(await scene.take("audit")) == 2

    asyncio.run(scenario())


class Waiting:
    """A consumer behind a proxy whose handler, in a thread, publishes one message that gets no confirm."""

    def __init__(self, scene: Shop, proxy: Proxy, *, timeout: float | None = None) -> None:
        self.scene = scene
        self.proxy = proxy
        self.began = asyncio.Event()
        self.ended = threading.Event()
        self.release = threading.Event()
        self.outcomes: list[Any] = []
        self.messages: list[Message] = []
        self.loop = asyncio.get_running_loop()
        self.consumer = Consumer(Topology(compiled=scene.compiled), proxy.address.url)
        self.consumer.add_handler("orders", self.handle, timeout=timeout)

    def handle(self, message: Message) -> None:
        self.messages.append(message)
        self.loop.call_soon_threadsafe(self.began.set)
        self.release.wait(30)
        try:
            self.outcomes.append(message.publish(b"", routing_key="audit", message_id="new"))
        except BaseException as error:
            self.outcomes.append(error)
            raise
        finally:
            self.ended.set()

    async def publishing(self) -> None:
        """Until the handler waits for the confirm, which does not come."""
        await self.consumer.start()
        await self.scene.publish("m")
        await self.began.wait()
        self.proxy.to_client.clear()
        self.release.set()


@pytest.mark.one_broker
def test_a_stop_lets_a_handler_publish(vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        async with shop(vhost, QUEUES) as scene, Proxy(vhost, heartbeat=None) as proxy:
            waiting = Waiting(scene, proxy)
            await waiting.consumer.start()
            await scene.publish("m")
            await waiting.began.wait()
            stopping = asyncio.create_task(waiting.consumer.stop())
            await until(lambda: waiting.consumer.stopping)
            waiting.release.set()
            await stopping
            assert waiting.outcomes == ["new"]
            assert len(await scene.take("audit")) == 1
            with pytest.raises(BrokerUnavailableError, match="closed"):
                await waiting.messages[0].publish(b"", routing_key="audit")
            with pytest.raises(BrokerUnavailableError, match="closed"):
                await asyncio.to_thread(waiting.messages[0].publish, b"", routing_key="audit")

    asyncio.run(scenario())


@pytest.mark.one_broker
def test_a_thread_that_waits_for_a_confirm_is_told_when_the_consumer_ends(vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        async with shop(vhost, QUEUES) as scene, Proxy(vhost) as proxy:
            waiting = Waiting(scene, proxy)
            await waiting.publishing()
            await asyncio.wait_for(waiting.consumer.abandon(), 20)
            assert await asyncio.to_thread(waiting.ended.wait, 30)
            (outcome,) = waiting.outcomes
            assert isinstance(outcome, PublishUncertainError | BrokerUnavailableError)
            assert outcome.message_id == "new"
            proxy.restore()

    asyncio.run(scenario())


@pytest.mark.one_broker
def test_a_thread_that_ran_into_its_timeout_publishes_nothing_more(vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        async with shop(vhost, QUEUES) as scene, Proxy(vhost, heartbeat=None) as proxy:
            waiting = Waiting(scene, proxy, timeout=2)  # in which the second attempt connects and publishes
            await waiting.consumer.start()
            await scene.publish("m")
            await until(lambda: waiting.consumer.totals["retried"])
            waiting.release.set()
            await until(lambda: waiting.consumer.totals["acked"])
            await until(lambda: len(waiting.outcomes) == 2)
            assert {type(each) for each in waiting.outcomes} == {TimeoutError, str}
            await waiting.consumer.stop()
            assert len(await scene.take("audit")) == 1

    asyncio.run(scenario())


def test_a_message_that_no_consumer_handed_out_has_no_connection() -> None:
    with pytest.raises(UsageError, match="not handed to a handler") as raised:
        Received(incoming()).publish(b"")
    assert "Publisher" in raised.value.hint


def test_after_its_event_loop_ended_a_thread_is_told_that_nothing_was_sent(vhost: BrokerAddress) -> None:
    kept: list[Message] = []

    async def scenario() -> None:
        async with shop(vhost, QUEUES) as scene:
            await scene.publish("m")
            async with scene.consumer(orders=kept.append):
                await until(lambda: kept)

    asyncio.run(scenario())
    with pytest.raises(BrokerUnavailableError, match="event loop of the publisher has ended"):
        kept[0].publish(b"", routing_key="audit", message_id="m")
