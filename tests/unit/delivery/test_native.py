"""Retries that RabbitMQ makes itself: reject while there are retries left, park on the last attempt."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from amqpflow.delivery.hot_loop import Rejections
from amqpflow.delivery.incoming import Incoming
from amqpflow.delivery.settle import Reject, ToParking, decide
from amqpflow.delivery.verdict import Decided
from amqpflow.model import headers as h
from amqpflow.model.headers import ParkReason
from amqpflow.model.outcome import Park, Retry
from amqpflow.model.routes import NativeRetry, QueueRoutes
from tests.deliveries import QUEUE, at, delivery, failed, publish_of, routes, rule

NATIVE = NativeRetry(min_ms=1000, max_ms=2500, retries=3)


def native_routes(**changes: Any) -> QueueRoutes:
    return replace(routes(), native=NATIVE, **changes)


def attempt(number: int, headers: dict[str, Any] | None = None, **more: Any) -> Incoming:
    """The n-th delivery of a message, as the broker counts."""
    counted = {**(headers or {}), "x-delivery-count": number - 1} if number > 1 else headers
    return Incoming(replace(delivery(counted, **more), redelivered=number > 1), native=True)


@pytest.mark.parametrize(("number", "delay_ms"), [(1, 1000), (2, 2000), (3, 2500)])
def test_a_failed_attempt_is_rejected_and_waits_for_the_brokers_delay(number: int, delay_ms: int) -> None:
    expected = Reject(attempt=number, delay_ms=delay_ms)
    assert decide(attempt(number), failed(), at(native_routes())) == expected
    assert decide(attempt(number), Decided(outcome=Retry(after=90)), at(native_routes())) == expected


def test_the_last_failure_is_parked_with_its_record() -> None:
    settlement = decide(attempt(4), failed("OSError", "no"), at(native_routes()))
    assert isinstance(settlement, ToParking)
    assert settlement.reason is ParkReason.EXHAUSTED
    headers = settlement.publish.properties.headers or {}
    assert (headers[h.ATTEMPT], headers[h.ERROR_TYPE], headers[h.QUEUE]) == (4, "OSError", QUEUE)
    assert "x-delivery-count" not in headers
    assert h.FIRST_FAILED_AT not in headers, "nobody wrote down when the first attempt failed"


def test_a_message_that_crashed_beyond_its_retries_is_parked_only_when_its_handler_failed() -> None:
    assert attempt(9).attempts_made == 8
    settlement = decide(attempt(9), failed(), at(native_routes()))
    assert isinstance(settlement, ToParking)


def test_a_second_copy_in_parking_has_the_hop_of_the_first_whatever_the_broker_counted() -> None:
    first, again = (decide(attempt(number), failed(), at(native_routes())) for number in (4, 5))
    hops = {(publish_of(each).properties.headers or {})[h.HOP] for each in (first, again)}
    assert hops == {"m/0/1"}


def test_rules_and_parking_on_request_work_as_with_tiers() -> None:
    where = native_routes(rules=(rule("ValueError", park="invalid"),))
    permanent = decide(attempt(1), failed("ValueError"), at(where))
    assert isinstance(permanent, ToParking)
    assert (permanent.reason, permanent.detail) == (ParkReason.PERMANENT, "invalid")
    told = decide(attempt(1), Decided(outcome=Park("no")), at(where))
    assert isinstance(told, ToParking)


def test_attempts_kept_by_a_replay_count_with_those_of_the_broker() -> None:
    headers = {h.QUEUE: QUEUE, h.ATTEMPT: 2}
    assert attempt(2, headers).attempts_made == 3
    assert isinstance(decide(attempt(2, headers), failed(), at(native_routes())), ToParking)


def test_a_count_that_a_producer_wrote_is_not_believed() -> None:
    forged = Incoming(delivery({"x-delivery-count": 40}), native=True)
    assert forged.attempts_made == 0


@pytest.mark.parametrize("forged", [50, -7, "5", None, True])
def test_nor_is_it_after_a_give_back_that_rabbitmq_does_not_count(forged: Any) -> None:
    given_back = replace(delivery({"x-delivery-count": forged, "x-acquired-count": 1}), redelivered=True)
    assert Incoming(given_back, native=True).attempts_made in (0, 1)
    assert decide(Incoming(given_back, native=True), failed(), at(native_routes())).__class__ is Reject


def test_give_backs_do_not_count_with_what_rabbitmq_counts() -> None:
    told = {"x-delivery-count": 2, "x-acquired-count": 9}
    assert Incoming(replace(delivery(told), redelivered=True), native=True).attempts_made == 2


def back_after(seen: Rejections, *seconds: float, message_id: str = "m") -> list[float | None]:
    """One message is rejected again and again, and is away for so long each time."""
    answers, now = [], 10.0
    for number, away in enumerate(seconds, 1):
        seen.rejected(attempt(number, message_id=message_id), now)
        answers.append(seen.too_soon(attempt(number + 1, message_id=message_id), now + away))
        now += away + 5
    return answers


def test_three_in_a_row_that_are_back_at_once_are_a_loop() -> None:
    assert back_after(Rejections(NATIVE), 0.004, 0.003, 0.002) == [None, None, pytest.approx(0.002)]
    assert back_after(Rejections(NATIVE), 0.004, 0.003, 1.1, 0.002) == [None] * 4, "one was delayed"
    seen = Rejections(NATIVE)
    answers = [back_after(seen, 0.001, message_id=each) for each in ("a", "b", "c")]
    assert answers == [[None], [None], [pytest.approx(0.001)]], "of different messages too"


def test_a_delay_that_was_made_shorter_under_a_running_consumer_is_no_loop() -> None:
    assert back_after(Rejections(replace(NATIVE, min_ms=30_000)), 0.6, 0.6, 0.6) == [None] * 3


def test_what_another_consumer_rejected_or_a_crash_returned_is_no_sign_of_a_loop() -> None:
    seen = Rejections(NATIVE)
    assert seen.too_soon(attempt(2), 0.0) is None
    seen.rejected(attempt(1), 10.0)
    assert seen.too_soon(attempt(3), 10.001) is None, "delivered and lost elsewhere in between"
    assert seen.too_soon(attempt(1), 10.001) is None


def test_copies_of_one_message_that_several_consumers_reject_are_no_loop() -> None:
    """Another consumer's copy arrives just after this one rejected its own, again and again."""
    seen = Rejections(NATIVE)
    for now in (10.0, 10.3, 10.6, 10.9, 11.2):
        seen.rejected(attempt(1), now)
        assert seen.too_soon(attempt(2), now + 0.01) is None


def is_remembered(seen: Rejections, **message: Any) -> bool:
    """Whether it is one of three that are back at once."""
    return any(seen.too_soon(attempt(number, **message), 10.0) is not None for number in (2, 3, 4))


def test_messages_without_an_id_are_known_by_their_bodies() -> None:
    seen = Rejections(NATIVE)
    for number in (1, 2, 3):
        seen.rejected(attempt(number, message_id=None, body=b"one"), 10.0)
    assert not is_remembered(seen, message_id=None, body=b"two")
    assert is_remembered(seen, message_id=None, body=b"one")


def test_old_rejections_are_forgotten() -> None:
    seen = Rejections(NATIVE)
    for message in range(3_335):
        for number in (1, 2, 3):
            seen.rejected(attempt(number, message_id=str(message)), 10.0)
    assert not is_remembered(seen, message_id="0")
    assert is_remembered(seen, message_id="3")
