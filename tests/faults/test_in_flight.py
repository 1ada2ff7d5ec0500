"""Copies that no task waits for: whose delivery is gone, which are never confirmed, and what is told of them."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextvars import ContextVar
from typing import Any

import pytest

from amqpflow import Message, Retry
from amqpflow.errors import PublishUncertainError
from amqpflow.model import routes
from amqpflow.model.event import Event, MessageSettled
from amqpflow.model.message import Publish
from amqpflow.model.properties import Properties
from amqpflow.model.wire import encode_content_header
from amqpflow.rabbitmq.address import BrokerAddress
from amqpflow.rabbitmq.confirms import Settled
from amqpflow.services.consuming import pending as in_flight
from amqpflow.services.consuming.patience import Patience
from amqpflow.services.publishing.outbox import Outbox
from tests.shop import publish_plainly, shop
from tests.waiting import until

pytestmark = pytest.mark.one_broker


async def channel_of(consumer: Any) -> Any:
    """The channel that a consumer consumes `orders` on."""
    session = await until(lambda: consumer._runners[0].session)
    return session.channel


async def widened(consumer: Any, prefetch: int) -> None:
    """When it may hold so many deliveries, as it may after its first acks."""
    session = await until(lambda: consumer._runners[0].session)
    await until(lambda: session._subscription.prefetch == prefetch)


@pytest.mark.parametrize("outbox_is_open", [True, False])
def test_a_handler_that_fails_after_its_channel_was_closed_publishes_nothing(
    vhost: BrokerAddress, outbox_is_open: bool
) -> None:
    """The broker has the message, and gives it to the next handler: a copy would be one message more, every time."""

    async def scenario() -> None:
        async with shop(vhost) as scene:
            release, started = asyncio.Event(), asyncio.Event()

            async def handle(message: Message) -> None:
                if message.message_id == "before" and message.attempt == 1:
                    raise Retry
                if message.message_id == "m" and not message.redelivered:
                    started.set()
                    await release.wait()
                    raise Retry
                scene.done.append(str(message.message_id))

            consumer = scene.consumer(orders=handle, concurrency=5)
            async with consumer:
                if outbox_is_open:
                    await scene.publish("before")
                    await until(lambda: scene.done == ["before"])
                await scene.publish("m")
                await started.wait()
                await (await channel_of(consumer)).close()
                await until(lambda: "m" in scene.done)
                retried = consumer.totals["retried"]
                release.set()
                await until(lambda: consumer.totals["requeued"] == 1)
                assert consumer.totals["retried"] == retried
            assert await scene.account() == Counter(scene.done)
            assert scene.done.count("m") == 1

    asyncio.run(scenario())


def test_all_copies_of_one_settlement_bear_one_hop_when_there_is_no_message_id(
    vhost: BrokerAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    published: list[tuple[str, str]] = []
    post = Outbox.post

    def spy(outbox: Outbox, message: Publish, settled: Settled) -> None:
        published.append((message.routing_key, message.identity))
        post(outbox, message, settled)

    monkeypatch.setattr(Outbox, "post", spy)

    async def scenario() -> None:
        async with shop(vhost) as scene:

            async def handle(message: Message) -> None:
                if message.attempt == 1:
                    raise Retry
                scene.done.append(message.hop)

            async with scene.consumer(orders=handle):
                scene.unbind("shop.retry", "orders.retry.50ms")
                admin = await scene.connection.admin_channel()
                header = encode_content_header(Properties(delivery_mode=2), 0)
                nameless = Publish(exchange="", routing_key="orders", header=header, body=b"", identity="")
                await publish_plainly(admin, nameless)
                await until(lambda: scene.done)
            assert list(dict.fromkeys(queue for queue, _ in published)) == ["orders.retry.50ms", "orders.retry.100ms"]
            assert {hop for _, hop in published} == set(scene.done)

    asyncio.run(scenario())


def test_what_a_listener_finds_in_its_context_is_the_message_s_own(vhost: BrokerAddress) -> None:
    """As tracing keeps its span there. The confirm is read by a task that another message may have started."""
    handled: ContextVar[str] = ContextVar("handled", default="nothing")

    async def scenario() -> None:
        async with shop(vhost, {"orders": (60_000,)}) as scene:
            found: dict[str, str] = {}

            async def handle(message: Message) -> None:
                handled.set(str(message.message_id))
                raise Retry

            consumer = scene.consumer(orders=handle, concurrency=2)
            consumer.subscribe(lambda event: found.update({event.message_id: handled.get()}), "message.retried")
            async with consumer:
                for name in ("opens the connection", "is the next", "and one more"):
                    await scene.publish(name)
                    await until(lambda name=name: name in found)
            assert found == {name: name for name in found}

    asyncio.run(scenario())


def test_what_is_given_back_without_a_confirm_is_told_then_and_not_again(
    vhost: BrokerAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(in_flight, "CONFIRM_PATIENCE", 0.05)
    monkeypatch.setattr(routes, "DEFAULT_CONSUMER_TIMEOUT", 1.0)
    held_back: list[Any] = []
    post = Outbox.post

    def late(outbox: Outbox, message: Publish, settled: Settled, *ticket: Any) -> None:
        post(outbox, message, lambda error: held_back.append(lambda: settled(error)))

    async def scenario() -> None:
        async with shop(vhost, {"orders": (60_000,)}) as scene:
            told: list[tuple[str, str]] = []

            async def handle(message: Message) -> None:
                if message.redelivered:
                    scene.done.append(str(message.message_id))
                    return
                raise Retry

            consumer = scene.consumer(orders=handle)
            consumer.subscribe(lambda event: told.append((event.name, getattr(event, "reason", ""))), MessageSettled)
            async with consumer:
                monkeypatch.setattr(Outbox, "post", late)
                await scene.publish("m")
                given_back = await until(lambda: [each for each in told if each[0] == "message.requeued"])
                assert given_back == [("message.requeued", "it was held too long")]
                await until(lambda: scene.done)
                for settled in held_back:
                    settled()
                assert await until(lambda: consumer.healthy)
            assert Counter(name for name, _ in told) == {"message.requeued": 1, "message.acked": 1}
            assert set(await scene.account()) == {"m"}

    asyncio.run(scenario())


def test_a_task_that_fails_unexpectedly_leaves_no_delivery_held(
    vhost: BrokerAddress, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(in_flight, "CONFIRM_PATIENCE", 0.05)

    async def fails(*_: Any) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(Patience, "wait_for_confirm", fails)

    async def scenario() -> None:
        async with shop(vhost, {"orders": (60_000,)}) as scene:

            async def handle(message: Message) -> None:
                if message.redelivered:
                    scene.done.append(str(message.message_id))
                    return
                raise Retry

            consumer = scene.consumer(orders=handle)
            async with consumer:
                monkeypatch.setattr(Outbox, "post", lambda *_: None)
                await scene.publish("m")
                await until(lambda: scene.done == ["m"])
                assert consumer.totals["requeued"] == 1
            assert await scene.account() == Counter(["m"])

    asyncio.run(scenario())


def test_as_many_copies_are_on_their_way_as_the_concurrency_and_others_wait(
    vhost: BrokerAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lost connection makes all of them uncertain, and so second copies."""
    posted: list[Any] = []
    post = Outbox.post

    def late(outbox: Outbox, message: Publish, settled: Settled, *ticket: Any) -> None:
        posted.append((outbox, message, settled))

    async def scenario() -> None:
        async with shop(vhost, {"orders": (50,)}) as scene:

            async def handle(message: Message) -> None:
                if message.attempt == 1 and message.message_id not in first:
                    raise Retry
                scene.done.append(str(message.message_id))

            first, ids = ["a", "b", "c"], [f"m{number}" for number in range(20)]
            consumer = scene.consumer(orders=handle, concurrency=3, prefetch=20)
            async with consumer:
                await scene.publish(*first)
                await widened(consumer, 20)
                with monkeypatch.context() as patched:
                    patched.setattr(Outbox, "post", late)
                    await scene.publish(*ids)
                    await until(lambda: len(posted) == 6)
                    await asyncio.sleep(0.1)
                    assert (len(posted), consumer.totals["received"]) == (6, 9)
                for each in posted:
                    post(*each)
                await until(lambda: len(scene.done) == 23)
            assert await scene.account() == Counter(first + ids)

    asyncio.run(scenario())


def test_copies_that_were_returned_and_are_sent_again_count_as_on_their_way(
    vhost: BrokerAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_their_way: list[Any] = []
    post = Outbox.post

    def late(outbox: Outbox, message: Publish, settled: Settled, *ticket: Any) -> None:
        if message.routing_key == "orders.retry.50ms":
            post(outbox, message, settled)  # returned
        else:
            on_their_way.append((outbox, message, settled))

    async def scenario() -> None:
        async with shop(vhost) as scene:

            async def handle(message: Message) -> None:
                if message.attempt == 1 and message.message_id not in first:
                    await asyncio.sleep(0.005)  # long enough for the return to come
                    raise Retry
                scene.done.append(str(message.message_id))

            first, ids = ["a", "b"], [f"m{number}" for number in range(50)]
            consumer = scene.consumer(orders=handle, concurrency=2, prefetch=50)
            async with consumer:
                await scene.publish(*first)
                await widened(consumer, 50)
                scene.unbind("shop.retry", "orders.retry.50ms")
                with monkeypatch.context() as patched:
                    patched.setattr(Outbox, "post", late)
                    await scene.publish(*ids)
                    await until(lambda: len(on_their_way) == 4)
                    await asyncio.sleep(0.2)
                    assert (len(on_their_way), consumer.totals["received"]) == (4, 6)
                for each in on_their_way:
                    post(*each)
                await until(lambda: len(scene.done) == 52)
            assert await scene.account() == Counter(first + ids)

    asyncio.run(scenario())


def test_a_copy_that_fails_once_its_session_has_ended_is_no_problem_of_the_next_one(
    vhost: BrokerAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    posted: list[Settled] = []

    async def scenario() -> None:
        async with shop(vhost) as scene:

            async def handle(message: Message) -> None:
                if not posted:
                    raise Retry
                scene.done.append(str(message.message_id))

            held: list[Event] = []
            consumer = scene.consumer(orders=handle)
            consumer.subscribe(held.append, "message.held")
            with monkeypatch.context() as patched:
                patched.setattr(Outbox, "post", lambda _outbox, _message, settled: posted.append(settled))
                async with consumer:
                    await scene.publish("m")
                    await until(lambda: len(posted) == 1)
                    posted[0](PublishUncertainError("the connection was lost"))
                    await until(lambda: len(posted) == 2)
                    await (await channel_of(consumer)).close()
                    await until(lambda: scene.done == ["m"])
                    await until(lambda: consumer.healthy)
                    posted[1](PublishUncertainError("the connection was lost"))
                    await until(lambda: consumer.totals["requeued"] == 1)
                    assert consumer.problems == {}
                    assert len(held) == 1
            assert await scene.account() == Counter(["m"])

    asyncio.run(scenario())


def test_every_delivery_that_was_received_is_told_of_when_the_consumer_stops(
    vhost: BrokerAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One copy is on its way, the next message waits for its own with its task, and neither is confirmed in time."""
    on_their_way: list[Settled] = []
    close = Outbox.close

    async def end(outbox: Outbox, *, within: float = 1.0) -> None:
        await close(outbox, within=within)
        for settled in on_their_way:
            settled(PublishUncertainError("closed before the confirm"))

    async def scenario() -> None:
        async with shop(vhost, {"orders": (60_000,)}) as scene:

            async def handle(message: Message) -> None:
                raise Retry

            consumer = scene.consumer(orders=handle, concurrency=1, prefetch=3)
            consumer.shutdown_timeout = 0.1
            async with consumer:
                await scene.publish("opens the connection")
                await until(lambda: consumer.totals["retried"] == 1)
                monkeypatch.setattr(Outbox, "post", lambda _outbox, _message, settled: on_their_way.append(settled))
                monkeypatch.setattr(Outbox, "close", end)
                await scene.publish("m1", "m2", "m3")
                await until(lambda: len(on_their_way) == 2)
            totals = consumer.totals
            assert (totals["received"], totals["retried"], totals["requeued"]) == (3, 1, 2)
            await scene.holds("orders", 3)
            assert await scene.account() == Counter(["opens the connection", "m1", "m2", "m3"])

    asyncio.run(scenario())
