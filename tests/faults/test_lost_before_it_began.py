"""A connection is lost while messages wait for their handler, or while one runs: what begins, and what must not."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from amqpflow import CallNext, Consumer, Message, Outcome
from amqpflow.rabbitmq.address import BrokerAddress
from amqpflow.services.consuming import left_behind
from amqpflow.services.loading.topology import Topology
from tests.shop import Shop, connections_of, cut, shop
from tests.waiting import until

pytestmark = pytest.mark.one_broker


class Calls:
    """A handler that notes its calls; the first one lasts until `first_ends`."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.first_ends = threading.Event()

    async def asynchronous(self, message: Message) -> None:
        if self._is_first(message):
            while not self.first_ends.is_set():
                await asyncio.sleep(0.005)

    def in_a_thread(self, message: Message) -> None:
        if self._is_first(message):
            self.first_ends.wait(20)

    def _is_first(self, message: Message) -> bool:
        self.calls[str(message.message_id)] += 1
        return message.message_id == "m0" and self.calls["m0"] == 1


def one_slot(scene: Shop, function: Any) -> Consumer:
    consumer = Consumer(Topology(compiled=scene.compiled), scene.address.url, concurrency=1)
    consumer.add_handler("orders", function, concurrency=5)
    return consumer


def one_key(scene: Shop, function: Any) -> Consumer:
    consumer = scene.consumer()
    consumer.add_handler("orders", function, concurrency=5, order_by=lambda message: "the same")
    return consumer


def one_at_a_time_by_a_middleware(scene: Shop, function: Any) -> Consumer:
    consumer, turn = scene.consumer(), asyncio.Lock()

    async def middleware(message: Message, call_next: CallNext) -> Outcome | None:
        async with turn:
            return await call_next(message)

    consumer.add_handler("orders", function, concurrency=5, middlewares=[middleware])
    return consumer


@pytest.mark.parametrize("waiting", [one_slot, one_key, one_at_a_time_by_a_middleware])
@pytest.mark.parametrize("kind", ["asynchronous", "in_a_thread"])
def test_what_waited_on_a_lost_channel_is_handled_once(
    vhost: BrokerAddress, waiting: Callable[[Shop, Any], Consumer], kind: str
) -> None:
    async def scenario() -> None:
        async with shop(vhost) as scene:
            calls = Calls()
            consumer = waiting(scene, getattr(calls, kind))
            connections = connections_of(consumer)
            await scene.publish(*(f"m{number}" for number in range(5)))
            async with consumer:
                await until(lambda: calls.calls["m0"])
                await until(lambda: consumer.totals["received"] >= (1 if waiting is one_key else 5))
                cut(connections)
                await until(lambda: "orders" in consumer.problems)
                calls.first_ends.set()
                await until(lambda: consumer.totals["acked"] == 5)
            assert calls.calls == Counter(m0=2, m1=1, m2=1, m3=1, m4=1)
            await scene.all_settled([])

    asyncio.run(scenario())


def test_messages_of_a_lost_channel_take_no_turn_of_a_rate(vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        async with shop(vhost) as scene:
            calls: Counter[str] = Counter()

            async def handle(message: Message) -> None:
                calls[str(message.message_id)] += 1

            consumer = scene.consumer()
            consumer.add_handler("orders", handle, concurrency=10, prefetch=10, rate="30/m")
            connections = connections_of(consumer)
            clock = asyncio.get_running_loop().time
            await scene.publish(*(f"m{number}" for number in range(11)))
            async with consumer:
                await until(lambda: calls and consumer.totals["received"] >= 10)
                await until(lambda: consumer.totals["acked"] == 1)
                await until(lambda: consumer.totals["received"] == 11)  # the broker has got the ack
                cut(connections)
                lost_at = clock()
                await until(lambda: consumer.totals["acked"] == 2)
                # one turn is every 2 s: those of the ten that waited on the lost channel would be 20 s
                assert clock() - lost_at < 12
            assert set(calls.values()) == {1}

    asyncio.run(scenario())


@pytest.mark.parametrize("kind", ["asynchronous", "in_a_thread"])
def test_messages_of_one_key_are_never_handled_at_once_across_a_reconnect(vhost: BrokerAddress, kind: str) -> None:
    async def scenario() -> None:
        async with shop(vhost) as scene:
            running: Counter[Any] = Counter()
            together: list[str] = []
            order: list[str] = []
            lost = threading.Event()

            def begin(message: Message) -> bool:
                key = message.headers["customer"]
                running[key] += 1
                if running[key] > 1:
                    together.append(str(message.message_id))
                order.append(str(message.message_id))
                return order.count("a0") == 1 and message.message_id == "a0"

            def end(message: Message) -> None:
                running[message.headers["customer"]] -= 1

            async def asynchronous(message: Message) -> None:
                if begin(message):
                    while not lost.is_set():
                        await asyncio.sleep(0.005)
                await asyncio.sleep(0.01)
                end(message)

            def in_a_thread(message: Message) -> None:
                if begin(message):
                    lost.wait(20)
                end(message)

            handlers: dict[str, Callable[[Message], Awaitable[None] | None]] = {
                "asynchronous": asynchronous,
                "in_a_thread": in_a_thread,
            }
            consumer = scene.consumer()
            consumer.add_handler("orders", handlers[kind], concurrency=5, prefetch=20, order_by="customer")
            connections = connections_of(consumer)
            recovered = asyncio.Event()
            consumer.on("connection.recovered")(lambda _: recovered.set())
            async with consumer:
                await scene.publish("a0", "a1", "a2", headers={"customer": "a"})
                await until(lambda: order == ["a0"])
                cut(connections)
                await asyncio.wait_for(recovered.wait(), 30)
                # another key is handled meanwhile, and those of the first one wait for the handler that still runs
                await scene.publish("b0", headers={"customer": "b"})
                await until(lambda: "b0" in order)
                await until(lambda: consumer.healthy)
                assert order == ["a0", "b0"]
                lost.set()
                await until(lambda: consumer.totals["acked"] == 4)
            assert not together
            assert order == ["a0", "b0", "a0", "a1", "a2"]

    asyncio.run(scenario())


@pytest.mark.parametrize("kind", ["asynchronous", "in_a_thread"])
def test_handlers_of_a_lost_channel_that_take_all_places_are_named(
    vhost: BrokerAddress, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    monkeypatch.setattr(left_behind, "_PATIENCE", 0.2)
    monkeypatch.setattr(left_behind, "_EVERY", 0.05)

    async def scenario() -> None:
        async with shop(vhost) as scene:
            calls = Calls()
            consumer = scene.consumer(orders=getattr(calls, kind), concurrency=1, prefetch=5)
            connections = connections_of(consumer)
            await scene.publish("m0", "m1")
            async with consumer:
                await until(lambda: calls.calls["m0"])
                cut(connections)
                problem = await until(lambda: consumer.problems.get("orders handlers"))
                assert f"handler {__name__}.Calls.{kind} still runs in all its slots" in problem
                assert "message m0 for " in problem
                assert not consumer.healthy
                assert calls.calls == Counter(m0=1)
                calls.first_ends.set()
                await until(lambda: consumer.totals["acked"] == 2)
                await until(lambda: consumer.healthy)

    asyncio.run(scenario())
    assert [each.levelname for each in caplog.records if "no message can be started" in each.getMessage()] == ["ERROR"]


def test_a_key_is_free_after_a_connection_was_lost_with_messages_of_it_waiting(vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        async with shop(vhost) as scene:
            lost = asyncio.Event()

            async def handle(message: Message) -> None:
                if message.message_id == "m3":
                    await lost.wait()
                scene.done.append(str(message.message_id))

            consumer = scene.consumer()
            consumer.add_handler("orders", handle, concurrency=1, prefetch=20, order_by="customer")
            connections = connections_of(consumer)
            ids = [f"m{number}" for number in range(10)]
            async with consumer:
                session = consumer._runners[0].session
                assert session is not None
                await scene.publish(*ids, headers={"customer": "c"})
                await until(lambda: len(scene.done) == 3 and len(session.held()) > 1)
                cut(connections)
                await until(session.ended.is_set)
                lost.set()  # with its key free, the lost session must not take it for a message that it cannot handle
                await until(lambda: set(scene.done) == set(ids))
                await until(lambda: consumer.totals["acked"] >= 10)  # the cut may have taken an ack along

    asyncio.run(scenario())
