"""What a failed call had in hand is free as soon as its listeners are done, without a garbage collection."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from amqpflow import Message, Outcome, Park
from amqpflow.delivery.settle import decide
from amqpflow.model.event import Event, MessageHandled, MessageParked, MessageRetried
from amqpflow.services.consuming.event_log import EventLog
from amqpflow.services.consuming.events import Events
from amqpflow.services.consuming.telemetry import ConsumerTelemetry
from amqpflow.services.handling.handler import make_handler
from amqpflow.services.handling.invocation import HandlerInvoker
from amqpflow.services.handling.thread_pool import THREAD_NAME
from tests.deliveries import at, incoming, routes


class Held:
    """What is in a local variable of a handler: a connection, a body of 100 MB."""


async def task() -> None:
    raise OSError


@pytest.fixture
def no_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


KINDS = ["async", "thread", "timeout", "outcome", "outcome in a group", "group", "cause", "middleware"]


@pytest.mark.usefixtures("no_collection")
@pytest.mark.parametrize("kind", KINDS)
def test_what_a_failed_call_held_is_free_when_its_listeners_are_done(kind: str) -> None:
    held: list[weakref.ref[Held]] = []
    heard: list[tuple[str, str]] = []

    def hold() -> Held:
        mine = Held()
        held.append(weakref.ref(mine))
        return mine

    async def handle(message: Message) -> None:
        mine = hold()  # noqa: F841 - a local of the frame
        match kind:
            case "timeout":
                await asyncio.sleep(30)
            case "outcome":
                raise Park("no")
            case "outcome in a group":
                raise ExceptionGroup("one", [Park("no")])
            case "group":
                raise ExceptionGroup("two", [OSError(), KeyError()])
            case "cause":
                try:
                    await task()
                except OSError as error:
                    raise Park("no") from error
        raise OSError

    def in_thread(message: Message) -> None:
        mine = hold()  # noqa: F841 - a local of the frame
        raise OSError

    async def middleware(message: Message, call_next: Any) -> Outcome | None:
        return await call_next(message)  # type: ignore[no-any-return]

    def listen(event: Event) -> None:
        assert isinstance(event, MessageHandled | MessageRetried | MessageParked)
        heard.append((event.name, type(event.error).__name__))

    async def run() -> None:
        handler = make_handler(
            "orders",
            in_thread if kind == "thread" else handle,
            concurrency=1,
            prefetch=None,
            timeout=0.01 if kind == "timeout" else 5,
            keep_stack=True,
            middlewares=[middleware] if kind == "middleware" else [],
        )
        events = Events()
        events.subscribe(listen, MessageHandled, MessageRetried, MessageParked)
        EventLog().listen(events, tracebacks=False)
        telemetry, where = ConsumerTelemetry(events, Counter()), routes(5000)
        message = incoming()
        threads = handler.threads()
        verdict = await HandlerInvoker(handler, where, asyncio.Event(), threads=threads).call(Message(message))
        telemetry.handled(message, verdict, 0.1)
        telemetry.ended(message, decide(message, verdict, at(where)), 0.1, verdict)
        assert held[0]() is not None or kind.startswith("outcome"), "the verdict has the exception and its frames"
        del verdict
        await asyncio.sleep(0)
        if threads is not None:
            threads.shutdown()
            for each in threading.enumerate():
                if each.name.startswith(THREAD_NAME):
                    each.join(5)  # what the thread itself had of the call
        assert [name for name, _ in heard] == [
            "message.handled",
            "message.parked" if kind in ("outcome", "outcome in a group", "cause") else "message.retried",
        ]
        assert (heard[0][1] == "NoneType") == kind.startswith("outcome")
        assert held[0]() is None, gc.get_referrers(held[0]())

    asyncio.run(run())
