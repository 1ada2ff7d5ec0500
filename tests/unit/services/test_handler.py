"""What may be registered as a handler, and what calling one comes to."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, NoReturn, Optional

import pytest

from amqpflow import Ack, Consumer, Discard, InvalidHandlerError, Message, Outcome, Park, Retry, UndecodableError
from amqpflow.delivery.verdict import BadResult, CannotDecode, Decided, Failed, Verdict
from amqpflow.model.routes import QueueRoutes
from amqpflow.services.handling.handler import Handler, make_handler
from amqpflow.services.handling.invocation import HandlerInvoker
from amqpflow.services.handling.thread_pool import Threads
from amqpflow.services.loading.topology import Topology
from tests.deliveries import incoming, routes, rule
from tests.topologies import topology

MESSAGE = Message(incoming())


def made(function: Any, **options: Any) -> Handler:
    usual: dict[str, Any] = {"concurrency": 1, "prefetch": None, "timeout": None, "keep_stack": False}
    return make_handler("orders", function, **{**usual, **options})


async def call(
    handler: Handler, message: Message, where: QueueRoutes, threads: Threads | None, stopping: asyncio.Event
) -> Verdict:
    return await HandlerInvoker(handler, where, stopping, threads=threads).call(message)


def called(function: Any, where: QueueRoutes | None = None, **options: Any) -> Verdict:
    handler = made(function, **options)

    async def run() -> Verdict:
        threads = handler.threads()
        try:
            return await call(handler, MESSAGE, where or routes(5000), threads, asyncio.Event())
        finally:
            if threads is not None:
                threads.shutdown()

    return asyncio.run(run())


# -- registering


class Instance:
    async def __call__(self, message: Message) -> None: ...


class Service:
    async def method(self, message: Message) -> Retry | None: ...

    def sync_method(self, message: Message) -> None: ...


async def plain(message): ...  # type: ignore[no-untyped-def]


async def with_default(message: Message, more: int = 1) -> None: ...


async def optional(message: Message) -> Optional[Park]: ...  # noqa: UP045


async def union(message: Message) -> Ack | Retry | Park | Discard | None: ...


async def whatever(message: Message) -> Any: ...


async def never(message: Message) -> NoReturn:
    raise Park


async def an_outcome(message: Message) -> Outcome: ...


async def unknown_name(message: Message) -> OnlyATypeChecker: ...  # type: ignore[name-defined]  # noqa: F821


@pytest.mark.parametrize(
    ("function", "is_async"),
    [
        (plain, True),
        (with_default, True),
        (optional, True),
        (union, True),
        (whatever, True),
        (never, True),
        (an_outcome, True),
        (unknown_name, True),
        (Instance(), True),
        (Service().method, True),
        (functools.partial(with_default, more=2), True),
        (Service().sync_method, False),
        (lambda message: None, False),
        (print, False),
    ],
)
def test_what_can_be_a_handler(function: Any, is_async: bool) -> None:
    assert made(function).is_async is is_async


async def no_argument() -> None: ...


async def two_arguments(message: Message, other: int) -> None: ...


async def keyword_only(*, message: Message) -> None: ...


async def a_dict(message: Message) -> dict[str, int]: ...


async def a_bool(message: Message) -> bool: ...


async def a_list(message: Message) -> list[Ack]: ...


async def partly(message: Message) -> Ack | int: ...


def generator(message: Message) -> Iterator[None]:
    yield


async def a_generator(message: Message) -> Any:
    yield


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (no_argument, "cannot be called with one message"),
        (two_arguments, "cannot be called with one message"),
        (keyword_only, "cannot be called with one message"),
        (a_dict, "is annotated to return dict"),
        (a_bool, "is annotated to return bool"),
        (a_list, "is annotated to return list"),
        (partly, "is annotated to return"),
        (generator, "generator"),
        (a_generator, "generator"),
        ("no function", "not callable"),
    ],
)
def test_what_cannot_be_a_handler_is_refused_at_registration(function: Any, words: str) -> None:
    with pytest.raises(InvalidHandlerError, match=words):
        made(function)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"concurrency": 0}, "must be at least 1"),
        ({"concurrency": 10, "prefetch": 9}, r"from concurrency \(10\)"),
        ({"prefetch": 65_536}, "65535"),
        ({"prefetch": 0}, "prefetch=0"),
        ({"timeout": 0}, "more than 0 seconds"),
        ({"timeout": -1.5}, "more than 0 seconds"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidHandlerError, match=words):
        made(plain, **options)


def test_prefetch_is_the_concurrency_unless_it_is_given() -> None:
    assert made(plain, concurrency=7).prefetch == 7
    assert made(plain, concurrency=7, prefetch=9).prefetch == 9


# -- a consumer's handlers


def consumer() -> Consumer:
    return Consumer(Topology(compiled=topology({"orders.confirm": (50,), "orders.audit": ()}, vhost="v")), "amqp://h")


def test_an_unknown_queue_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(InvalidHandlerError, match=r"shop\.yaml has no queue 'orders\.confrim'") as refused:
        consumer().handler("orders.confrim")
    assert refused.value.hint == "did you mean orders.confirm?"
    with pytest.raises(InvalidHandlerError) as refused:
        consumer().add_handler("zzz", plain)
    assert refused.value.hint == "its queues are orders.confirm, orders.audit"


def test_a_queue_has_one_handler() -> None:
    one = consumer()
    one.handler("orders.confirm")(plain)
    with pytest.raises(InvalidHandlerError, match="already has a handler"):
        one.handler("orders.confirm")(plain)


def test_the_decorator_returns_the_function() -> None:
    assert consumer().handler("orders.audit")(plain) is plain


def test_a_consumer_without_a_handler_does_not_start() -> None:
    with pytest.raises(InvalidHandlerError, match="no handler is registered"):
        asyncio.run(consumer().start())


# -- calling


def returning(value: Any) -> Callable[[Message], Awaitable[Any]]:
    async def handler(message: Message) -> Any:
        return value

    return handler


def raising(error: BaseException) -> Callable[[Message], Awaitable[Any]]:
    async def handler(message: Message) -> Any:
        raise error

    return handler


def in_thread(function: Callable[[Message], Awaitable[Any]]) -> Callable[[Message], Any]:
    """The same, not async."""

    def handler(message: Message) -> Any:
        coroutine = function(message)
        try:
            coroutine.send(None)  # type: ignore[attr-defined]
        except StopIteration as end:
            return end.value

    return handler


both = pytest.mark.parametrize("kind", [lambda function: function, in_thread], ids=["async", "thread"])


@both
@pytest.mark.parametrize("outcome", [Ack(), Retry(after=3), Park("x"), Discard()])
def test_an_outcome_may_be_returned_or_raised(kind: Any, outcome: Outcome) -> None:
    assert called(kind(returning(outcome))) == Decided(outcome=outcome)
    raised = called(kind(raising(outcome)))
    assert isinstance(raised, Decided)
    assert raised.outcome == outcome


@both
def test_none_is_ack(kind: Any) -> None:
    assert called(kind(returning(None))) == Decided(outcome=Ack())


@both
@pytest.mark.parametrize("value", [True, 0, "ok", {"a": 1}, Ack, Retry])
def test_anything_else_is_no_outcome(kind: Any, value: Any) -> None:
    verdict = called(kind(returning(value)))
    assert isinstance(verdict, BadResult)
    assert type(value).__name__ in verdict.detail


@both
def test_an_error_is_recorded(kind: Any) -> None:
    verdict = called(kind(raising(OSError("down"))), keep_stack=True)
    assert isinstance(verdict, Failed)
    assert (verdict.error.type, verdict.error.message) == ("OSError", "down")
    assert "in handler" in str(verdict.error.stack)
    assert len(str(verdict.error.fingerprint)) == 16
    assert called(kind(raising(OSError("up")))).error.fingerprint == verdict.error.fingerprint  # type: ignore[union-attr]
    assert called(kind(raising(KeyError("down")))).error.fingerprint != verdict.error.fingerprint  # type: ignore[union-attr]


@both
@pytest.mark.parametrize(
    "error",
    [
        asyncio.CancelledError(),
        StopIteration(),
        StopAsyncIteration(),
        GeneratorExit(),
        ExceptionGroup("many", [ValueError(), OSError()]),
        RecursionError(),
        MemoryError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_no_exception_is_too_strange_to_be_a_failure(kind: Any, error: BaseException) -> None:
    assert isinstance(called(kind(raising(error))), Failed)


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no")


def test_an_error_whose_text_raises_is_recorded_without_it() -> None:
    verdict = called(raising(Unprintable()))
    assert isinstance(verdict, Failed)
    assert "RuntimeError" in verdict.error.message


@both
@pytest.mark.parametrize("error", [SystemExit("why"), SystemExit(3), KeyboardInterrupt("why")], ids=repr)
def test_an_exit_is_a_failure_of_the_message_and_is_said(
    kind: Any, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    verdict = called(kind(raising(error)), routes(5000, rules=[rule(type(error).__name__, park="exits")]))
    assert isinstance(verdict, Failed)
    assert (verdict.error.type, verdict.error.message) == (type(error).__name__, str(error))
    assert verdict.matches == {type(error).__name__}
    (record,) = caplog.records
    for words in (
        "orders: handler ",
        "handler raised",
        f"{type(error).__name__}: {error} (test_handler.py:",
        "message m",
    ):
        assert words in record.getMessage()


def test_an_exit_that_a_middleware_makes_is_a_failure_too() -> None:
    async def middleware(message: Message, call_next: Any) -> None:
        sys.exit("no configuration")

    assert isinstance(called(raising(ValueError()), middlewares=[middleware]), Failed)


@pytest.mark.parametrize("error", [SystemExit(7), KeyboardInterrupt()], ids=repr)
def test_an_exit_by_a_signal_is_not_the_handler_s(error: BaseException) -> None:
    """The application's own signal handler runs in the middle of whatever is being done."""

    def asked(*_: object) -> None:
        raise error

    async def handler(message: Message) -> None:
        signal.raise_signal(signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, asked)
    try:
        with pytest.raises(type(error)):
            called(handler)
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_ctrl_c_is_not_the_handler_s_where_python_s_own_handler_is_installed() -> None:
    async def handler(message: Message) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # as before asyncio.run, which has its own
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        called(handler)


def test_a_cancellation_that_the_handler_itself_raises_while_the_consumer_stops_is_settled() -> None:
    handler = made(raising(asyncio.CancelledError()))

    async def scenario() -> Verdict:
        stopping = asyncio.Event()
        stopping.set()
        return await call(handler, MESSAGE, routes(5000), None, stopping)

    assert isinstance(asyncio.run(scenario()), Failed)


@both
def test_an_undecodable_body_is_told_apart(kind: Any) -> None:
    verdict = called(kind(raising(UndecodableError("not JSON"))))
    assert isinstance(verdict, CannotDecode)
    assert verdict.error.message == "not JSON"


def test_an_outcome_raised_from_an_error_keeps_it() -> None:
    async def handler(message: Message) -> None:
        try:
            raise KeyError("total")
        except KeyError as error:
            raise Park("no total") from error

    verdict = called(handler)
    assert isinstance(verdict, Decided)
    assert verdict.error is not None
    assert verdict.error.type == "KeyError"


class Base(Exception):
    pass


class Derived(Base):
    pass


@pytest.mark.parametrize(
    ("error", "names"),
    [
        (Derived(), {"Derived", "Base", f"{__name__}.Derived", "Exception"}),
        (Base(), {"Base", "Exception"}),
        (TimeoutError(), {"TimeoutError", "asyncio.TimeoutError", "OSError", "Exception"}),
        (ConnectionResetError(), {"OSError", "Exception"}),
        (ValueError(), {"Exception"}),
    ],
)
def test_a_rule_names_the_class_or_a_base_of_it(error: Exception, names: set[str]) -> None:
    all_names = [
        "Derived",
        "Base",
        f"{__name__}.Derived",
        "TimeoutError",
        "asyncio.TimeoutError",
        "OSError",
        "Exception",
    ]
    verdict = called(raising(error), routes(5000, rules=[rule(each, park="x") for each in all_names]))
    assert isinstance(verdict, Failed)
    assert verdict.matches == names


# -- time


def test_a_handler_that_takes_too_long_has_failed_with_timeout_error() -> None:
    async def slow(message: Message) -> None:
        await asyncio.sleep(30)

    verdict = called(slow, routes(5000, rules=[rule("TimeoutError", park="slow")]), timeout=0.01)
    assert isinstance(verdict, Failed)
    assert verdict.error.message == "slow ran longer than its timeout of 10ms"
    assert verdict.matches == {"TimeoutError"}


def test_a_handler_s_own_timeout_error_is_not_ours() -> None:
    verdict = called(raising(TimeoutError("gateway")), timeout=5)
    assert isinstance(verdict, Failed)
    assert verdict.error.message == "gateway"


def test_a_handler_that_swallows_its_cancellation_is_late_all_the_same() -> None:
    async def stubborn(message: Message) -> None:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            pass

    assert isinstance(called(stubborn, timeout=0.01), Decided | Failed)


def test_handlers_in_threads_run_at_once_up_to_the_concurrency() -> None:
    together = threading.Barrier(4)

    def handler(message: Message) -> None:
        together.wait(30)

    made_handler = made(handler, concurrency=4)

    async def run() -> list[Verdict]:
        threads = made_handler.threads()
        calls = [call(made_handler, MESSAGE, routes(5000), threads, asyncio.Event()) for _ in range(8)]
        verdicts = await asyncio.gather(*calls)
        assert threads is not None
        threads.shutdown()
        return verdicts

    assert asyncio.run(run()) == [Decided(outcome=Ack())] * 8


def test_context_variables_reach_a_thread() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    seen: list[str] = []
    handler = made(lambda message: seen.append(variable.get()))

    async def run() -> None:
        variable.set("seen")
        threads = handler.threads()
        await call(handler, MESSAGE, routes(5000), threads, asyncio.Event())
        assert threads is not None
        threads.shutdown()

    asyncio.run(run())
    assert seen == ["seen"]


def test_a_handler_is_cancelled_only_when_the_consumer_stops() -> None:
    async def run() -> None:
        started, stopping = asyncio.Event(), asyncio.Event()

        async def waits(message: Message) -> None:
            started.set()
            await asyncio.sleep(30)

        handler = made(waits)
        task = asyncio.create_task(call(handler, MESSAGE, routes(5000), None, stopping))
        await started.wait()
        stopping.set()
        task.cancel()
        began = time.monotonic()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert time.monotonic() - began < 20

    asyncio.run(run())
