"""What is around a handler, in which order, and what of it is settled."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from typing import Any

import pytest

from amqpflow import Ack, Consumer, Discard, InvalidHandlerError, Message, Outcome, Park, Retry
from amqpflow.delivery.verdict import BadResult, Decided, Failed, Verdict
from amqpflow.services.handling.handler import make_handler
from amqpflow.services.handling.invocation import HandlerInvoker
from amqpflow.services.handling.middleware import CallNext, Middleware
from amqpflow.services.handling.turns import NotStarted
from amqpflow.services.loading.topology import Topology
from tests.deliveries import incoming, routes
from tests.topologies import topology

MESSAGE = Message(incoming())


def called(function: Any, *middlewares: Any, calls: int = 1, timeout: float | None = None) -> Verdict:
    """The verdict of the last call, all of them one after the other on one thread."""
    handler = make_handler(
        "orders",
        function,
        concurrency=1,
        prefetch=None,
        timeout=timeout,
        keep_stack=False,
        middlewares=middlewares,
    )

    async def run() -> Verdict:
        threads = handler.threads()
        invoker = HandlerInvoker(handler, routes(5000), asyncio.Event(), threads=threads)
        try:
            async with asyncio.timeout(30):
                for _ in range(calls):
                    verdict = await invoker.call(MESSAGE)
            return verdict
        finally:
            if threads is not None:
                threads.shutdown()

    return asyncio.run(run())


class Noting:
    def __init__(self, name: str, said: list[str]) -> None:
        self.name, self.said = name, said

    async def __call__(self, message: Message, call_next: CallNext) -> Outcome | None:
        self.said.append(f"{self.name} in")
        try:
            return await call_next(message)
        finally:
            self.said.append(f"{self.name} out")


@pytest.mark.parametrize("kind", ["async", "thread"])
def test_the_first_is_the_outermost(kind: str) -> None:
    said: list[str] = []

    def handle(message: Message) -> None:
        said.append("handler")

    async def handle_async(message: Message) -> None:
        handle(message)

    function = handle if kind == "thread" else handle_async
    assert called(function, Noting("a", said), Noting("b", said)) == Decided(outcome=Ack())
    assert said == ["a in", "b in", "handler", "b out", "a out"]


def test_those_of_the_consumer_are_outside_those_of_the_handler() -> None:
    said: list[str] = []
    outer, inner = Noting("consumer", said), Noting("handler", said)
    consumer = Consumer(
        Topology(compiled=topology({"orders": (50,)}, vhost="/")), "amqp://localhost", middlewares=[outer]
    )

    @consumer.handler("orders", middlewares=[inner])
    async def handle(message: Message) -> None: ...

    assert consumer._handlers["orders"].middlewares == (outer, inner)


async def to_discard(message: Message, call_next: CallNext) -> Outcome | None:
    try:
        return await call_next(message)
    except Exception as error:
        return Discard(str(error))


def test_a_middleware_may_decide_about_an_error() -> None:
    async def handle(message: Message) -> None:
        raise ValueError("old")

    assert called(handle, to_discard) == Decided(outcome=Discard("old"))


def test_an_outcome_that_was_raised_is_no_error_for_a_middleware() -> None:
    async def handle(message: Message) -> None:
        try:
            raise ValueError("bad")
        except ValueError as error:
            raise Park("no") from error

    verdict = called(handle, to_discard)
    assert isinstance(verdict, Decided)
    assert verdict.outcome == Park("no")
    assert verdict.error is not None, "what it was raised from is in the record"
    assert verdict.error.type == "ValueError"


def test_an_error_of_a_middleware_is_settled_like_one_of_the_handler() -> None:
    async def broken(message: Message, call_next: CallNext) -> Outcome | None:
        await call_next(message)
        raise LookupError("no session")

    async def handle(message: Message) -> None: ...

    verdict = called(handle, broken)
    assert isinstance(verdict, Failed)
    assert verdict.error.type == "LookupError"


def test_a_middleware_may_raise_an_outcome_or_return_nonsense() -> None:
    async def raising(message: Message, call_next: CallNext) -> Outcome | None:
        raise Retry(after=3)

    async def nonsense(message: Message, call_next: CallNext) -> Any:
        return 5

    async def handle(message: Message) -> None: ...

    assert called(handle, raising) == Decided(outcome=Retry(after=3))
    assert isinstance(called(handle, nonsense), BadResult)


@pytest.mark.parametrize("kind", ["async", "thread"])
def test_context_variables_of_a_middleware_reach_the_handler(kind: str) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")
    seen: list[str] = []

    async def setting(message: Message, call_next: CallNext) -> Outcome | None:
        token = variable.set("set")
        try:
            return await call_next(message)
        finally:
            variable.reset(token)

    def handle(message: Message) -> None:
        seen.append(variable.get())

    async def handle_async(message: Message) -> None:
        handle(message)

    called(handle if kind == "thread" else handle_async, setting)
    assert seen == ["set"]


@pytest.mark.parametrize("in_a_thread", [False, True])
def test_no_middleware_begins_for_a_message_that_the_broker_has_back(in_a_thread: bool) -> None:
    said: list[str] = []
    held = True

    async def waiting(message: Message, call_next: CallNext) -> Outcome | None:
        nonlocal held
        held = False  # while it waited for its turn
        return await call_next(message)

    async def handle(message: Message) -> None:
        said.append("handler")

    function: Any = (lambda message: said.append("handler")) if in_a_thread else handle
    handler = make_handler(
        "orders",
        function,
        concurrency=1,
        prefetch=None,
        timeout=None,
        keep_stack=False,
        middlewares=(Noting("middleware", said),),
    )

    async def run() -> None:
        threads = handler.threads()
        invoker = HandlerInvoker(handler, routes(5000), asyncio.Event(), threads=threads, outer=[waiting])
        try:
            with pytest.raises(NotStarted, match="its channel ended before its handler began"):
                await invoker.call(Message(incoming(), holds=lambda _: held))
        finally:
            if threads is not None:
                threads.shutdown()

    asyncio.run(run())
    assert said == []


def test_the_timeout_is_for_the_middlewares_too() -> None:
    async def hanging(message: Message, call_next: CallNext) -> Outcome | None:
        await asyncio.sleep(30)
        return None

    async def handle(message: Message) -> None: ...

    verdict = called(handle, hanging, timeout=0.01)
    assert isinstance(verdict, Failed)
    assert verdict.error.message == "handle ran longer than its timeout of 10ms"


def test_a_middleware_that_does_not_call_the_handler_gives_its_thread_back() -> None:
    async def short(message: Message, call_next: CallNext) -> Outcome | None:
        return Discard("short")

    assert called(lambda message: None, short, calls=5) == Decided(outcome=Discard("short"))


def test_a_middleware_may_call_the_handler_again() -> None:
    tries: list[str] = []

    async def again(message: Message, call_next: CallNext) -> Outcome | None:
        for _ in range(3):
            try:
                return await call_next(message)
            except ValueError:
                pass
        return await call_next(message)

    def handle(message: Message) -> None:
        tries.append(threading.current_thread().name)
        if len(tries) % 3:
            raise ValueError

    assert called(handle, again, calls=2) == Decided(outcome=Ack())
    assert len(tries) == 6


async def one_argument(message: Message) -> None: ...


@pytest.mark.parametrize(
    ("middleware", "what"),
    [
        (Noting, "is a class"),
        (lambda message, call_next: None, "is not async"),
        (one_argument, "cannot be called with a message and call_next"),
        (5, "is not async"),
    ],
)
def test_what_is_no_middleware_is_refused(middleware: Middleware, what: str) -> None:
    with pytest.raises(InvalidHandlerError, match=what):
        called(one_argument, middleware)
