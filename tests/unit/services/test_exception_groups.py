"""What a handler has decided, or failed with, that raised a group of exceptions."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, NoReturn

import pytest

from amqpflow import Ack, Breaker, Discard, Message, Outcome, Park, Pause, Retry, UndecodableError
from amqpflow.delivery.settle import ToParking, ToTier
from amqpflow.delivery.verdict import CannotDecode, Decided, Failed, Verdict
from amqpflow.model.event import BreakerOpened, Event
from amqpflow.model.routes import QueueRoutes
from amqpflow.services.consuming.circuit import CircuitBreaker
from amqpflow.services.consuming.events import Events
from amqpflow.services.consuming.health import ConsumerHealth
from amqpflow.services.handling.exception_groups import LEAVES_MAX, leaves, meaning
from amqpflow.services.handling.handler import make_handler
from amqpflow.services.handling.invocation import HandlerInvoker, NotStarted
from tests.deliveries import decided, incoming, routes, rule

MESSAGE = Message(incoming())


def group(*errors: BaseException) -> BaseExceptionGroup[BaseException]:
    return BaseExceptionGroup("several", errors)


def raising(error: BaseException) -> Callable[[Message], Any]:
    async def handler(message: Message) -> NoReturn:
        raise error

    return handler


def called(error: BaseException, where: QueueRoutes | None = None, **options: Any) -> Verdict:
    """The verdict on a handler that raises this."""
    usual: dict[str, Any] = {"concurrency": 1, "prefetch": None, "timeout": None, "keep_stack": False}
    handler = make_handler("orders", raising(error), **{**usual, **options})

    async def run() -> Verdict:
        return await HandlerInvoker(handler, where or routes(5000), asyncio.Event(), threads=None).call(MESSAGE)

    return asyncio.run(run())


def nested(error: BaseException, levels: int) -> BaseException:
    for _ in range(levels):
        error = group(error)
    return error


# -- a group of one is that one


@pytest.mark.parametrize("levels", [1, 3])
@pytest.mark.parametrize("outcome", [Park("why"), Retry(after=3), Pause(3), Discard("gone"), Ack()])
def test_an_outcome_alone_in_a_group_is_the_outcome(outcome: Outcome, levels: int) -> None:
    verdict = called(nested(outcome, levels))
    assert isinstance(verdict, Decided)
    assert verdict.outcome is outcome


def test_an_error_alone_in_a_group_is_recorded_as_that_error() -> None:
    plain, grouped = called(ValueError("order 17")), called(nested(ValueError("order 17"), 3))
    assert isinstance(plain, Failed)
    assert isinstance(grouped, Failed)
    assert grouped.error == plain.error, "type, text, place and fingerprint"


def test_an_error_alone_in_a_group_takes_the_rule_for_that_error() -> None:
    where = routes(5000, rules=[rule("ExceptionGroup", park="several"), rule("ValueError", park="invalid")])
    settlement = decided(incoming(), called(group(ValueError()), where), where)
    assert isinstance(settlement, ToParking)
    assert settlement.detail == "invalid"


def test_an_undecodable_body_alone_in_a_group_is_undecodable() -> None:
    verdict = called(group(UndecodableError("not JSON")))
    assert isinstance(verdict, CannotDecode)
    assert verdict.error.message == "not JSON"


def test_a_cancellation_alone_in_a_group_is_a_failure_unless_the_consumer_made_it() -> None:
    verdict = called(group(asyncio.CancelledError("mine")))
    assert isinstance(verdict, Failed)
    assert verdict.error.type == "asyncio.exceptions.CancelledError"

    async def run() -> None:
        stopping, started = asyncio.Event(), asyncio.Event()

        async def handler(message: Message) -> None:
            started.set()
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError as error:
                raise group(error, OSError()) from None

        made = make_handler("orders", handler, concurrency=1, prefetch=None, timeout=None, keep_stack=False)
        call = asyncio.create_task(HandlerInvoker(made, routes(5000), stopping, threads=None).call(MESSAGE))
        await started.wait()
        stopping.set()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

    asyncio.run(run())


def test_what_says_that_nothing_was_started_is_raised_out_of_a_group() -> None:
    error = NotStarted("the consumer was stopped")
    with pytest.raises(NotStarted) as raised:
        called(group(error))
    assert raised.value is error


@pytest.mark.parametrize("error", [SystemExit("why"), KeyboardInterrupt()])
def test_an_exit_in_a_group_is_a_failure(error: BaseException) -> None:
    verdict = called(group(error))
    assert isinstance(verdict, Failed)
    assert verdict.error.type == type(error).__name__


# -- of several


@pytest.mark.parametrize(
    ("errors", "kind"),
    [
        ((Park("a"), ValueError("b")), "Park"),
        ((ValueError("b"), Park("a"), UndecodableError("c")), "Park"),
        ((Discard(), Retry(), Park("a")), "Park"),
        ((OSError(), UndecodableError("c")), "UndecodableError"),
        ((Discard(), OSError()), "a failure"),
        ((Ack(), OSError()), "a failure"),
        ((Retry(after=60), OSError()), "a failure"),
        ((Discard(), Ack(), Retry()), "Retry"),
        ((Retry(), Pause(5)), "Pause"),
        ((Ack(), Discard()), "Discard"),
        ((Ack(), Ack()), "Ack"),
        ((Discard(), asyncio.CancelledError()), "Discard"),
        ((asyncio.CancelledError(), asyncio.CancelledError()), "a failure"),
    ],
)
def test_of_several_the_most_careful_decides(errors: tuple[BaseException, ...], kind: str) -> None:
    means = meaning(group(*errors))
    assert (type(means).__name__ if not isinstance(means, BaseExceptionGroup) else "a failure") == kind


def test_the_first_rule_that_matches_any_member_decides() -> None:
    """The order of the rules counts, not that of the group."""
    where = routes(5000, rules=[rule("ValueError", park="invalid"), rule("ConnectionError", delays=[100])])
    for errors in ((ConnectionError(), ValueError()), (ValueError(), ConnectionError())):
        settlement = decided(incoming(), called(group(*errors), where), where)
        assert isinstance(settlement, ToParking)
        assert settlement.detail == "invalid"
    settlement = decided(incoming(), called(group(KeyError(), group(ConnectionError(), OSError())), where), where)
    assert isinstance(settlement, ToTier)
    assert settlement.tier.delay_ms == 100


def test_a_rule_may_name_the_group_itself() -> None:
    where = routes(5000, rules=[rule("ExceptionGroup", park="several")])
    assert isinstance(decided(incoming(), called(group(KeyError(), OSError()), where), where), ToParking)


def test_an_outcome_in_a_group_matches_no_rule() -> None:
    where = routes(5000, rules=[rule("amqpflow.model.outcome.Retry", park="outcome")])
    verdict = called(group(Retry(), OSError()), where)
    assert isinstance(verdict, Failed)
    assert verdict.matches == frozenset()


def test_the_record_names_the_first_error_and_how_many_more_there_are() -> None:
    verdict = called(
        group(asyncio.CancelledError(), group(ConnectionError("b" * 2000)), OSError(), KeyError(), OSError())
    )
    assert isinstance(verdict, Failed)
    assert verdict.error.type == "ConnectionError"
    assert verdict.error.message.startswith("bbb")
    assert verdict.error.message.endswith("… (and 3 more in the group: OSError, KeyError)")
    assert len(verdict.error.message.encode()) <= 1024


def test_park_beside_an_error_records_the_error() -> None:
    verdict = called(group(Park("sold out"), KeyError("sku")))
    assert isinstance(verdict, Decided)
    assert verdict.error is not None
    assert (verdict.error.type, verdict.error.message) == ("KeyError", "'sku'")


async def fail(error: BaseException) -> None:
    await asyncio.sleep(0)
    raise error


async def in_task_group(message: Message) -> None:
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(fail(Park("in a task")))


def test_an_outcome_out_of_a_task_group_is_returned_to_middlewares() -> None:
    seen: list[Any] = []

    async def middleware(message: Message, call_next: Any) -> Outcome | None:
        seen.append(await call_next(message))
        return seen[-1]

    handler = make_handler(
        "orders", in_task_group, concurrency=1, prefetch=None, timeout=5, keep_stack=False, middlewares=[middleware]
    )

    async def run() -> Verdict:
        return await HandlerInvoker(handler, routes(5000), asyncio.Event(), threads=None).call(MESSAGE)

    assert asyncio.run(run()) == Decided(outcome=Park("in a task"))
    assert seen == [Park("in a task")]


def test_the_task_of_a_handler_that_was_cancelled_by_itself_handles_the_next_message() -> None:
    """Its count of cancellations is none: a TaskGroup of the next message would pass it on."""

    async def cancels_itself(message: Message) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            raise KeyError("after that") from None

    async def run() -> int:
        handler = make_handler("orders", cancels_itself, concurrency=1, prefetch=None, timeout=None, keep_stack=False)
        await HandlerInvoker(handler, routes(5000), asyncio.Event(), threads=None).call(MESSAGE)
        task = asyncio.current_task()
        assert task is not None
        return task.cancelling()

    assert asyncio.run(run()) == 0


# -- bounded


@pytest.mark.timing
def test_a_group_of_many_is_not_looked_at_to_its_end() -> None:
    many = group(*(ValueError(number) for number in range(50_000)))
    began = time.process_time()
    verdict = called(many)
    assert time.process_time() - began < 1
    assert isinstance(verdict, Failed)
    assert verdict.error.message == "0 (and at least 999 more in the group: ValueError)"
    assert len(leaves(many)) == LEAVES_MAX


def test_a_group_that_is_nested_very_deeply_is_a_failure() -> None:
    deep = nested(Discard(), 20_000)
    assert isinstance(called(deep), Failed)
    while isinstance(deep, BaseExceptionGroup):  # freed level by level: Python frees it by recursion
        deep = deep.exceptions[0]


def test_what_was_not_looked_at_discards_no_message() -> None:
    many = group(*(Discard() for _ in range(LEAVES_MAX)), ValueError("the last one"))
    assert isinstance(called(many), Failed)
    all_of_them = group(*(Discard() for _ in range(LEAVES_MAX)))
    assert isinstance(called(all_of_them), Decided)


# -- breakers


def opened_by(breaker: Breaker, where: QueueRoutes, *errors: BaseException) -> list[str]:
    """The reasons for which the breaker opens when calls raise these."""
    events, heard = Events(), list[Event]()
    events.subscribe(heard.append, BreakerOpened)

    async def run() -> None:
        breaking = CircuitBreaker(breaker, where, events, ConsumerHealth())
        for each in errors:
            with pytest.raises(type(each)):
                await breaking(MESSAGE, raising(each))

    asyncio.run(run())
    return [each.reason for each in heard if isinstance(each, BreakerOpened)]


def test_a_breaker_looks_into_groups() -> None:
    where = routes(5000, rules=[rule("ValueError", park="invalid")])
    grouped = group(KeyError("a"), group(ConnectionError("gateway")))
    assert opened_by(Breaker(trip_on=(ConnectionError,)), where, grouped) == ["ConnectionError: gateway"]
    assert opened_by(Breaker(trip_on=("ConnectionError",)), where, grouped) == ["ConnectionError: gateway"]
    assert opened_by(Breaker(errors=(ConnectionError,), minimum=1), where, grouped)
    assert not opened_by(Breaker(errors=(ConnectionError,), minimum=1), where, group(KeyError(), OSError()))
    assert not opened_by(Breaker(minimum=1), where, group(KeyError(), ValueError())), "a rule parks it"
    assert opened_by(Breaker(minimum=1), where, group(Retry()))
    assert not opened_by(Breaker(minimum=1), where, group(Discard()))
    assert not opened_by(Breaker(minimum=1, trip_on=(Exception,)), where, group(Park(), Discard()))
    assert opened_by(Breaker(minimum=1, trip_on=(OSError,)), where, group(Park(), OSError()))
