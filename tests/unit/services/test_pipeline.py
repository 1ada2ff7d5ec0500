"""A delivery's way through a handler's runner, without a broker: each is settled once, and reported once."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from amqpflow.delivery.breaker import Breaker
from amqpflow.errors import AmqpflowError, PublishForbiddenError, UnroutableError
from amqpflow.model import headers as h
from amqpflow.model.event import Event, MessageReceived, MessageSettled
from amqpflow.model.message import Delivery, Publish
from amqpflow.model.outcome import Discard, Park
from amqpflow.services.consuming.events import Events
from amqpflow.services.consuming.health import ConsumerHealth
from amqpflow.services.consuming.runner import HandlerRunner
from amqpflow.services.consuming.settler import Settler, now
from amqpflow.services.consuming.suspects import Suspects
from amqpflow.services.consuming.telemetry import ConsumerTelemetry, Totals
from amqpflow.services.handling.handler import make_handler
from amqpflow.services.handling.message import Message
from tests.deliveries import delivery, routes
from tests.waiting import until

ROUTES = routes(1000)


class FakeChannel:
    """Takes what a session writes."""

    close_reason = None

    def __init__(self) -> None:
        self.take: Callable[[Delivery], None] = lambda _: None
        self.settled: list[tuple[str, int]] = []
        self.consuming = 0
        self._on_close: list[Callable[[], None]] = []

    def on_close(self, callback: Callable[[], None]) -> None:
        self._on_close.append(callback)

    async def consume(self, queue: str, take: Callable[[Delivery], None], **_: Any) -> None:
        self.take = take
        self.consuming += 1

    async def cancel(self, tag: str) -> None:
        self.consuming -= 1

    def ack(self, tag: int) -> bool:
        self.settled.append(("ack", tag))
        return True

    def nack(self, tag: int, *, requeue: bool = True) -> bool:
        self.settled.append(("requeue" if requeue else "dead-letter", tag))
        return True

    def reject(self, tag: int) -> bool:
        self.settled.append(("reject", tag))
        return True

    async def close(self) -> None:
        for each in self._on_close:
            each()


class FakeConnection:
    """Opens such channels."""

    version = (4, 3)
    is_closed = False
    close_reason = None

    def __init__(self) -> None:
        self.closed = asyncio.Event()
        self.channel = FakeChannel()

    async def open_channel(self) -> FakeChannel:
        return self.channel


class FakeOutbox:
    """Confirms what is published, unless there is another answer for its key."""

    blocked = None

    def __init__(self, answers: dict[str, list[AmqpflowError]]) -> None:
        self.published: list[str] = []
        self._answers = answers

    def post(self, publish: Publish, settled: Callable[[AmqpflowError | None], None]) -> None:
        self.published.append(publish.routing_key)
        answers = self._answers.get(publish.routing_key, [])
        asyncio.get_running_loop().call_soon(settled, answers.pop(0) if answers else None)


class Scene:
    def __init__(self, runner: HandlerRunner, channel: FakeChannel, outbox: FakeOutbox) -> None:
        self.runner, self.channel, self.outbox = runner, channel, outbox
        self._tag = 0

    def deliver(self, message_id: str, headers: dict[str, Any] | None = None, **changes: Any) -> None:
        self._tag += 1
        arrived = replace(delivery(headers, message_id=message_id), delivery_tag=self._tag, **changes)
        self.channel.take(arrived)


@asynccontextmanager
async def running(
    function: Callable[[Message], Awaitable[Any]],
    heard: list[Event],
    totals: Counter[str],
    answers: dict[str, list[AmqpflowError]] | None = None,
    **options: Any,
) -> AsyncIterator[Scene]:
    usual = {"concurrency": 2, "prefetch": 100, "timeout": None, "keep_stack": False}
    handler = make_handler("orders", function, **{**usual, **options})
    events, health, connection, outbox = Events(), ConsumerHealth(), FakeConnection(), FakeOutbox(answers or {})
    events.subscribe(heard.append)
    runner = HandlerRunner(handler, ROUTES, 1000, events, ConsumerTelemetry(events, totals), health, Suspects())
    settler = Settler(
        routes=ROUTES,
        outbox=outbox,  # type: ignore[arg-type]
        frame_max=131_072,
        host="h",
        version="1",
        events=events,
        health=health,
    )
    session = await runner.open(connection)  # type: ignore[arg-type]
    work = asyncio.create_task(runner.run(connection, settler, session))  # type: ignore[arg-type]
    try:
        yield Scene(runner, connection.channel, outbox)
        assert health.problems == {}
    finally:
        await runner.stop(asyncio.get_running_loop().time() + 5)
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)


def test_each_delivery_is_settled_and_reported_once() -> None:
    heard, totals = list[Event](), Totals()

    async def handle(message: Message) -> Any:
        match message.message_id:
            case "fails":
                raise ValueError
            case "parks":
                raise Park("no")
            case "drops":
                return Discard("old")
            case "strange":
                return 7
        return None

    async def scenario() -> None:
        answers = {"orders.retry.1s": [UnroutableError("no queue")]}
        async with running(handle, heard, totals, answers) as scene:
            ids = ["good", "fails", "fails", "parks", "drops", "strange", "good"]
            for each in ids:
                scene.deliver(each)
            waits = {h.HOP: "m/0/1", h.FAILED_AT: now() - 1000, h.DUE_AT: now() + 60_000}
            scene.deliver("early", {h.QUEUE: "orders", h.ATTEMPT: 1, **waits})
            await until(lambda: len(scene.channel.settled) == 8)
            assert sorted(scene.channel.settled) == [("ack", tag) for tag in range(1, 9)]
            assert Counter(scene.outbox.published) == {"orders.retry.1s": 4, "orders.parking": 2}

    asyncio.run(scenario())
    assert totals == Counter(received=8, acked=2, retried=2, parked=2, discarded=1, postponed=1)
    received = [each.delivery for each in heard if isinstance(each, MessageReceived)]
    assert sorted(received) == sorted(each.delivery for each in heard if isinstance(each, MessageSettled))


def test_what_cannot_be_published_is_held_and_others_are_handled() -> None:
    heard, totals, seen = list[Event](), Totals(), list[str]()

    async def handle(message: Message) -> Any:
        seen.append(str(message.message_id))
        if message.message_id == "bad":
            raise Park

    async def scenario() -> None:
        answers: dict[str, list[AmqpflowError]] = {"orders.parking": [PublishForbiddenError("no")] * 2}
        async with running(handle, heard, totals, answers) as scene:
            scene.deliver("bad")
            scene.deliver("good")
            await until(lambda: scene.channel.settled == [("ack", 2)])
            await until(lambda: len(scene.channel.settled) == 2)

    asyncio.run(scenario())
    assert totals == Counter(received=2, acked=1, parked=1)
    assert [each.name for each in heard if each.name == "message.held"] == ["message.held"]


def test_what_was_not_started_goes_back_when_the_consumer_stops() -> None:
    heard, totals = list[Event](), Totals()

    async def scenario() -> None:
        begun, go_on = asyncio.Event(), asyncio.Event()

        async def handle(_: Message) -> None:
            begun.set()
            await go_on.wait()

        async with running(handle, heard, totals, concurrency=1) as scene:
            for each in ("first", "second", "third"):
                scene.deliver(each)
            await begun.wait()
            stopping = asyncio.create_task(scene.runner.stop(asyncio.get_running_loop().time() + 5))
            await until(lambda: len(scene.channel.settled) == 2)
            assert scene.channel.settled == [("requeue", 2), ("requeue", 3)]
            go_on.set()
            await stopping
            assert scene.channel.settled[2:] == [("ack", 1)]

    asyncio.run(scenario())
    assert totals == Counter(received=1, acked=1)


def test_an_open_breaker_requeues_what_waits_and_tries_one() -> None:
    heard, totals, calls = list[Event](), Totals(), list[str]()

    async def handle(message: Message) -> None:
        calls.append(str(message.message_id))
        if len(calls) == 1:
            raise ConnectionError

    async def scenario() -> None:
        breaker = Breaker(trip_on=(ConnectionError,), open_for=0.05)
        async with running(handle, heard, totals, concurrency=1, breaker=breaker) as scene:
            for each in ("first", "second", "third"):
                scene.deliver(each)
            await until(lambda: len(scene.channel.settled) == 3)
            assert sorted(scene.channel.settled) == [("ack", 1), ("requeue", 2), ("requeue", 3)]
            await until(lambda: scene.channel.consuming == 1)
            scene.deliver("second")
            await until(lambda: calls == ["first", "second"])
            await until(lambda: any(each.name == "breaker.closed" for each in heard))

    asyncio.run(scenario())
    assert totals == Counter(received=2, acked=1, retried=1)


def test_a_suspect_is_handled_alone_and_one_that_was_lost_too_often_is_parked_without_a_call() -> None:
    heard, totals, running_with = list[Event](), Totals(), list[tuple[str, int]]()

    async def scenario() -> None:
        running_now = 0

        async def handle(message: Message) -> None:
            nonlocal running_now
            running_now += 1
            running_with.append((str(message.message_id), running_now))
            await asyncio.sleep(0.05)
            running_now -= 1

        async with running(handle, heard, totals) as scene:
            scene.deliver("good")
            scene.deliver("suspect", {"x-delivery-count": 3}, redelivered=True)
            scene.deliver("killer", {"x-delivery-count": 9}, redelivered=True)
            await until(lambda: ("ack", 2) in scene.channel.settled)
            scene.deliver("good")
            await until(lambda: len(scene.channel.settled) == 4)
            assert scene.outbox.published == ["orders.parking"]

    asyncio.run(scenario())
    assert dict(running_with)["suspect"] == 1, "alone"
    assert "killer" not in dict(running_with)
    assert totals["parked"] == 1
    assert totals["received"] == totals["acked"] + totals["parked"]
