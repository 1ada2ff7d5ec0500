"""A consumer says why it lost its queue, its channel or its connection: in events, log and health."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import pytest

from amqpflow import ConnectionLost, Consumer, ConsumerStopped, Message, MessageRequeued, Retry
from amqpflow.model.event import ConnectionRecovered
from amqpflow.rabbitmq.address import BrokerAddress
from amqpflow.rabbitmq.connection import Connection
from amqpflow.services.loading.topology import Topology
from tests.brokers.management import Management
from tests.shop import Shop, shop
from tests.waiting import until


def events_of(consumer: Consumer) -> list[Any]:
    """What is told of endings, in its order."""
    told: list[Any] = []
    consumer.subscribe(told.append, ConnectionLost, ConnectionRecovered, ConsumerStopped, MessageRequeued)
    return told


def only(told: list[Any], kind: type[Any]) -> Any:
    (found,) = [each for each in told if type(each) is kind]
    return found


class Holding:
    """A handler that holds the first delivery of each message until `release` is set."""

    def __init__(self, scene: Shop) -> None:
        self.scene, self.release, self.first = scene, asyncio.Event(), set[str]()

    async def __call__(self, message: Message) -> None:
        if str(message.message_id) not in self.first:
            self.first.add(str(message.message_id))
            await self.release.wait()
        self.scene.done.append(str(message.message_id))


def test_an_operator_closes_the_connection(vhost: BrokerAddress, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with shop(vhost) as scene:
            handler = Holding(scene)
            consumer = scene.consumer(orders=handler)
            connect, may_connect = consumer._connect, asyncio.Event()
            may_connect.set()

            async def connected(purpose: str = "consumer", beside: Connection | None = None) -> Connection:
                await may_connect.wait()
                return await connect(purpose, beside)

            consumer._connect = connected  # type: ignore[method-assign]
            told = events_of(consumer)
            async with consumer:
                await scene.publish("m1")
                await until(lambda: handler.first)
                may_connect.clear()  # else it is soon well again
                await scene.close_connections("amqpflow consumer")
                await until(lambda: not consumer.healthy)
                closed = "an operator closed the connection in the management API (320 CONNECTION_FORCED - Closed"
                assert consumer.problems["orders"].startswith(f"the connection was lost: {closed}")
                handler.release.set()
                may_connect.set()
                await until(lambda: consumer.healthy)
                await until(lambda: "requeued" in consumer.totals)
            assert closed in only(told, ConnectionLost).reason
            stopped = [each.reason for each in told if isinstance(each, ConsumerStopped)]
            assert stopped[0].startswith(f"the connection was lost: {closed}")
            assert closed in only(told, MessageRequeued).reason
        assert any(f"was lost: {closed}" in each.getMessage() for each in caplog.records if each.levelname == "ERROR")

    asyncio.run(scenario())


@pytest.mark.one_broker
def test_the_connection_that_retries_are_published_on_is_closed(
    vhost: BrokerAddress, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with shop(vhost) as scene:

            async def handle(message: Message) -> None:
                if message.attempt == 1:
                    raise Retry
                scene.done.append(str(message.message_id))

            consumer = scene.consumer(orders=handle)
            told = events_of(consumer)
            async with consumer:
                await scene.publish("m1")
                await until(lambda: scene.done == ["m1"])
                await scene.close_connections("amqpflow retries")
                await until(lambda: told)
                assert (told[0].purpose, told[0].reason[:41]) == (
                    "retries",
                    "an operator closed the connection in the ",
                )
                assert consumer.healthy, "handlers go on, and the next retry opens another"
                await scene.publish("m2")
                await until(lambda: scene.done == ["m1", "m2"])
                assert only(told, ConnectionRecovered).purpose == "retries"
            assert [each for each in told if isinstance(each, ConnectionLost)] == told[:1], "a stop is not a loss"
        assert [each.levelname for each in caplog.records if "retries connection" in each.message] == ["WARNING"]

    asyncio.run(scenario())


def test_the_queue_is_deleted_and_declared_again(vhost: BrokerAddress, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with shop(vhost) as scene:
            consumer = scene.consumer(orders=Holding(scene))
            told = events_of(consumer)
            async with consumer:
                scene.delete("queues", "orders")
                await until(lambda: "cannot consume" in consumer.problems.get("orders", ""))
                missing = f"NOT_FOUND - no queue 'orders' in vhost '{vhost.vhost}'"
                hint = "`amqpflow apply FILE` creates the queue"
                assert consumer.problems["orders"] == f"cannot consume: {missing}; {hint}"
                deleted = "the broker cancelled the consumer: the queue was deleted"
                assert only(told, ConsumerStopped).reason == deleted
                assert f"orders: the consumer ended and restarts: {deleted}" in caplog.messages
                await scene.declare()
                await until(lambda: consumer.healthy)

    asyncio.run(scenario())


@pytest.mark.releases(">=4.3")
def test_a_consumer_timeout_that_cancels_names_handler_message_and_both_times(
    vhost: BrokerAddress, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        arguments = {"x-consumer-timeout": 2000}
        async with shop(vhost, consumer_timeout_ms=2000, arguments=arguments) as scene:
            handler = Holding(scene)
            consumer = scene.consumer(orders=handler)
            told = events_of(consumer)
            async with consumer:
                await scene.publish("slow")
                await until(lambda: scene.done == ["slow"])  # its second delivery
                handler.release.set()
                await until(lambda: consumer.totals["requeued"])
            reason = told[0].reason
            held = "handler tests.integration.test_why_it_ended.Holding held message slow for "
            assert reason.startswith(f"the broker cancelled the consumer: {held}")
            assert reason.endswith(", longer than the consumer timeout of 2s")
            assert held in only(told, MessageRequeued).reason
            assert any(each.startswith("orders: the consumer ended") and held in each for each in caplog.messages)

    asyncio.run(scenario())


@pytest.mark.one_broker
def test_health_says_why_every_try_to_come_back_is_refused(vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        management = Management(vhost)
        user = f"amqpflow-test-{uuid4().hex[:8]}"
        management.put("users", user, body={"password": "first", "tags": ""})
        try:
            every = {"configure": ".*", "write": ".*", "read": ".*"}
            management.put("permissions", vhost.vhost, user, body=every)
            async with shop(vhost) as scene:
                url = f"amqp://{user}:first@{vhost.host}:{vhost.port}/{vhost.vhost}"
                consumer = Consumer(Topology(compiled=scene.compiled), url)
                consumer.add_handler("orders", Holding(scene))
                async with consumer:
                    management.put("users", user, body={"password": "second", "tags": ""})
                    await scene.close_connections("amqpflow consumer")
                    await until(lambda: "refused" in consumer.problems.get("orders", ""))
                    assert consumer.problems["orders"].startswith("cannot reconnect: ")
                    management.put("users", user, body={"password": "first", "tags": ""})
                    await until(lambda: consumer.healthy)
        finally:
            management.delete("users", user)

    asyncio.run(scenario())


@pytest.mark.one_broker
def test_a_read_permission_that_is_gone_is_said_with_the_command(vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        management = Management(vhost)
        user = f"amqpflow-test-{uuid4().hex[:8]}"
        management.put("users", user, body={"password": "first", "tags": ""})
        try:
            every = {"configure": ".*", "write": ".*", "read": ".*"}
            management.put("permissions", vhost.vhost, user, body=every)
            async with shop(vhost) as scene:
                url = f"amqp://{user}:first@{vhost.host}:{vhost.port}/{vhost.vhost}"
                consumer = Consumer(Topology(compiled=scene.compiled), url)
                consumer.add_handler("orders", Holding(scene))
                async with consumer:
                    management.put("permissions", vhost.vhost, user, body={**every, "read": "^$"})
                    await scene.close_connections("amqpflow consumer")
                    await until(lambda: "ACCESS_REFUSED" in consumer.problems.get("orders", ""))
                    assert "`amqpflow permissions FILE`" in consumer.problems["orders"]
                    management.put("permissions", vhost.vhost, user, body=every)
                    await until(lambda: consumer.healthy)
        finally:
            management.delete("users", user)

    asyncio.run(scenario())


@pytest.mark.releases(">=4.3")
def test_a_message_that_waits_for_its_publish_is_not_said_to_be_in_its_handler(vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        arguments = {"x-consumer-timeout": 1000}
        async with shop(vhost, arguments=arguments) as scene:

            async def handle(message: Message) -> None:
                if not message.redelivered:
                    raise Retry
                scene.done.append(str(message.message_id))

            consumer = scene.consumer(orders=handle)
            connect = consumer._connect

            async def connected(purpose: str = "consumer", beside: Connection | None = None) -> Connection:
                if purpose == "retries":
                    await asyncio.Event().wait()  # as long as an address that does not answer
                return await connect(purpose, beside)

            consumer._connect = connected  # type: ignore[method-assign]
            told = events_of(consumer)
            async with consumer:
                await scene.publish("m1")
                await until(lambda: scene.done == ["m1"])
            reason = next(each.reason for each in told if isinstance(each, ConsumerStopped))
            assert "the consumer timeout of the broker is shorter than " in reason
            assert ", for which message m1 could not be settled after handler " in reason

    asyncio.run(scenario())
