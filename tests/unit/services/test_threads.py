"""Handlers in threads that run on after nothing waits for them: replaced, counted, named, bounded."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from amqpflow import Message
from amqpflow.services.consuming.overdue import overdue_text
from amqpflow.services.handling.middleware import ThreadPlace, Timeout
from amqpflow.services.handling.thread_pool import Call, Threads, spare_threads
from amqpflow.services.handling.turns import NotStarted
from tests.deliveries import incoming
from tests.waiting import until


class Hanging:
    """A handler whose calls for messages that begin with "hang" last until `end`."""

    def __init__(self) -> None:
        self.end = threading.Event()
        self.begun: list[str] = []
        self.begin = threading.Semaphore(0)

    def __call__(self, message: Message) -> str | None:
        name = str(message.message_id)
        self.begun.append(name)
        self.begin.release()
        if name.startswith("hang"):
            self.end.wait(20)
        return name


@pytest.fixture
def handler() -> Iterator[Hanging]:
    found = Hanging()
    yield found
    found.end.set()


def named(name: str, holds: Callable[[Any], bool] | None = None) -> Message:
    return Message(incoming(message_id=name), holds=holds)


async def call(threads: Threads, message: Message, timeout: float = 10) -> Any:
    """As in a consumer: the clock starts when there is a thread."""
    place = ThreadPlace(threads)
    limit = Timeout(timeout, "handler")

    async def limited(message: Message) -> Any:
        return await limit(message, place.run)

    return await place.reserve(message, limited)


async def hang(threads: Threads, name: str) -> None:
    with pytest.raises(TimeoutError):
        await call(threads, named(name), timeout=0.02)


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def within() -> None:
        async with asyncio.timeout(20):
            await scenario()

    asyncio.run(within())


def test_an_overdue_call_is_replaced_by_a_fresh_thread_up_to_the_bound(handler: Hanging) -> None:
    async def scenario() -> None:
        threads = Threads(handler, 2, "q", spare=3)
        told: list[Call] = []
        threads.on_overdue = told.append
        for number in range(4):
            await hang(threads, f"hang{number}")
            assert await call(threads, named("good")) == "good"
            assert not threads.exhausted
        # one place of two is kept by the fourth, the other one works
        first, second = (asyncio.create_task(call(threads, named(name), 0.3)) for name in ("hang4", "good2"))
        with pytest.raises(TimeoutError):
            await first
        with pytest.raises(NotStarted, match="all threads of its handler are overdue"):
            await second
        assert "good2" not in handler.begun
        assert threads.exhausted
        assert not threads.available.is_set()
        assert [each.message.message_id for each in threads.overdue] == [f"hang{number}" for number in range(5)]
        assert told == list(threads.overdue)
        with pytest.raises(NotStarted, match="all threads of its handler are overdue"):
            await call(threads, named("later"))
        handler.end.set()
        await threads.available.wait()
        assert await call(threads, named("again")) == "again"
        threads.shutdown()

    run(scenario)


def test_threads_that_replaced_others_end_when_those_have_ended(handler: Hanging) -> None:
    async def scenario() -> None:
        threads = Threads(handler, 1, "surplus")
        ended: list[str | None] = []
        threads.on_ended = lambda each: ended.append(each.message.message_id)
        for number in range(5):
            await hang(threads, f"hang{number}")
        assert len(alive()) == 5
        handler.end.set()
        while len(ended) < 5:
            await asyncio.sleep(0.005)
        assert not threads.overdue
        await until(lambda: len(alive()) == 1)
        assert await call(threads, named("good")) == "good"
        assert len(alive()) == 1
        threads.shutdown()

    def alive() -> list[threading.Thread]:
        return [each for each in threading.enumerate() if each.name == "amqpflow handler surplus"]

    run(scenario)


def test_a_call_that_has_ended_when_its_task_is_cancelled_frees_its_place_once(
    handler: Hanging, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        threads = Threads(handler, 1, "q")
        loop, told = asyncio.get_running_loop(), threading.Event()
        tell = loop.call_soon_threadsafe

        def telling(*args: Any, **options: Any) -> asyncio.Handle:
            handle = tell(*args, **options)
            told.set()
            return handle

        monkeypatch.setattr(loop, "call_soon_threadsafe", telling)
        task = asyncio.create_task(call(threads, named("hang")))
        await asyncio.sleep(0)
        handler.begin.acquire()
        handler.end.set()
        told.wait(10)  # without the event loop: what the thread tells is next, and the cancellation behind it
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert not threads.overdue
        assert await call(threads, named("good")) == "good"
        assert threads._taken == 0, "its place was freed once"
        threads.shutdown()

    run(scenario)


def test_a_message_that_the_broker_has_back_does_not_begin_after_its_wait_for_a_thread(handler: Hanging) -> None:
    async def scenario() -> None:
        threads = Threads(handler, 1, "q")
        busy = asyncio.create_task(call(threads, named("hang")))
        await asyncio.to_thread(handler.begin.acquire)
        gone = set[str]()
        waiting = [
            asyncio.create_task(call(threads, named(name, lambda _, name=name: name not in gone)))
            for name in ("lost", "held")
        ]
        await asyncio.sleep(0)
        gone.add("lost")
        threads.turns.refuse_gone()
        with pytest.raises(NotStarted, match="its channel ended before its handler began"):
            await waiting[0]
        handler.end.set()
        assert await waiting[1] == "held"
        assert await busy == "hang"
        # lost between the reservation and the call
        gone.add("held")
        with pytest.raises(NotStarted):
            await call(threads, named("held", lambda _: False))
        assert handler.begun == ["hang", "held"]
        threads.shutdown()

    run(scenario)


def test_a_handler_that_hangs_does_not_keep_the_process_from_its_end(handler: Hanging) -> None:
    async def scenario() -> None:
        threads = Threads(handler, 1, "daemon")
        await hang(threads, "hang")
        threads.shutdown()
        assert [each.daemon for each in threading.enumerate() if each.name == "amqpflow handler daemon"] == [True]

    run(scenario)


def test_a_text_names_the_oldest_calls_and_is_short() -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        ids = ["m1", "x" * 255, "\x1b[31mred", "m4", "m5"]
        calls = [Call(named(each), loop.create_future(), since=1_700_000_000 + n) for n, each in enumerate(ids)]
        calls.append(Call(Message(incoming()), loop.create_future(), since=0))
        text = overdue_text("confirm", calls, 12)
        assert text.startswith(
            "6 of at most 12 threads of confirm are overdue and cannot be stopped: message m1 since 2023"
        )
        assert text.endswith(" and 3 more")
        assert "\x1b" not in text
        assert len(text) < 400
        assert overdue_text("confirm", calls, 6).startswith("stuck: all 6 threads of confirm are overdue")

    run(scenario)


@pytest.mark.parametrize(("concurrency", "spare"), [(1, 10), (10, 10), (50, 50)])
def test_the_bound_is_that_of_the_documentation(concurrency: int, spare: int) -> None:
    assert spare_threads(concurrency) == spare
