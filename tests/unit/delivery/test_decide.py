"""What is decided about a delivery, arm by arm."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from amqpflow.delivery.settle import Acknowledge, Settlement, ToParking, ToTier, decide_early
from amqpflow.delivery.verdict import BadResult, CannotDecode, Decided, ErrorRecord, Verdict
from amqpflow.model import headers as h
from amqpflow.model.headers import ParkReason
from amqpflow.model.outcome import Ack, Discard, Outcome, Park, Retry
from amqpflow.model.routes import NativeRetry
from tests.deliveries import (
    NOW,
    at,
    comes_back,
    decided,
    failed,
    headers_of,
    incoming,
    publish_of,
    retried,
    routes,
    rule,
)


def tier_of(settlement: Settlement) -> str:
    assert isinstance(settlement, ToTier), settlement
    assert settlement.publish.routing_key == settlement.tier.queue
    return settlement.tier.queue


def reason_of(settlement: Settlement) -> ParkReason:
    assert isinstance(settlement, ToParking), settlement
    assert headers_of(settlement)[h.REASON] == settlement.reason.value
    return settlement.reason


# -- outcomes


def test_ack_is_acknowledged() -> None:
    assert decided(incoming(), Decided(outcome=Ack()), routes(5000)) == Acknowledge()


@pytest.mark.parametrize(("outcome", "why"), [(Discard("old"), "old"), (Discard(), "")])
def test_discard_is_acknowledged_with_its_reason(outcome: Discard, why: str) -> None:
    assert decided(incoming(), Decided(outcome=outcome), routes(5000)) == Acknowledge(discarded=why)


def test_park_goes_to_parking_with_its_reason_and_what_it_was_raised_from() -> None:
    cause = ErrorRecord(type="KeyError", message="'total'")
    settlement = decided(incoming(), Decided(outcome=Park("negative total"), error=cause), routes(5000))
    assert reason_of(settlement) is ParkReason.PARKED
    publish = publish_of(settlement)
    assert (publish.exchange, publish.routing_key) == ("shop.parking", "orders.parking")
    headers = headers_of(settlement)
    assert headers[h.REASON_DETAIL] == "negative total"
    assert headers[h.ERROR_TYPE] == "KeyError"
    assert headers[h.ERROR_MESSAGE] == "'total'"


def test_park_without_a_reason_has_no_detail() -> None:
    headers = headers_of(decided(incoming(), Decided(outcome=Park()), routes(5000)))
    assert h.REASON_DETAIL not in headers
    assert h.ERROR_TYPE not in headers


@pytest.mark.parametrize(
    ("verdict", "reason", "detail"),
    [
        (
            CannotDecode(error=ErrorRecord(type="UndecodableError", message="not JSON")),
            ParkReason.UNDECODABLE,
            "not JSON",
        ),
        (BadResult(detail="handle returned dict"), ParkReason.BAD_RESULT, "handle returned dict"),
    ],
)
def test_what_is_no_answer_is_parked(verdict: Verdict, reason: ParkReason, detail: str) -> None:
    settlement = decided(incoming(), verdict, routes(5000))
    assert reason_of(settlement) is reason
    assert headers_of(settlement)[h.REASON_DETAIL] == detail


def test_an_outcome_of_another_family_is_a_bad_result() -> None:
    class Postpone(Outcome):
        pass

    assert reason_of(decided(incoming(), Decided(outcome=Postpone()), routes(5000))) is ParkReason.BAD_RESULT


# -- schedules


def test_a_schedule_is_read_at_the_attempts_made_and_ends_in_parking() -> None:
    where = routes(5000, 30_000, 300_000)
    tiers = [tier_of(decided(retried(made), failed(), where)) for made in range(3)]
    assert tiers == ["orders.retry.5s", "orders.retry.30s", "orders.retry.5m"]
    last = decided(retried(3), failed(), where)
    assert reason_of(last) is ParkReason.EXHAUSTED
    assert headers_of(last)[h.ATTEMPT] == 4


def test_without_retries_the_first_failure_parks() -> None:
    assert reason_of(decided(incoming(), failed(), routes())) is ParkReason.EXHAUSTED


def test_the_first_rule_that_matches_decides() -> None:
    where = routes(
        5000,
        rules=[
            rule("TimeoutError", delays=[1000, 10_000]),
            rule("ValueError", park="invalid"),
            rule("TimeoutError", "ValueError", "OSError", park="never"),
        ],
    )
    assert tier_of(decided(incoming(), failed("TimeoutError"), where)) == "orders.retry.1s"
    parked = decided(incoming(), failed("ValueError"), where)
    assert reason_of(parked) is ParkReason.PERMANENT
    assert headers_of(parked)[h.REASON_DETAIL] == "invalid"
    assert headers_of(decided(incoming(), failed("OSError"), where))[h.REASON_DETAIL] == "never"
    assert tier_of(decided(incoming(), failed("KeyError"), where)) == "orders.retry.5s"


def test_when_the_error_changes_the_other_schedule_goes_on_at_the_attempts_made_in_all() -> None:
    where = routes(5000, 30_000, rules=[rule("TimeoutError", delays=[1000, 10_000, 60_000])])
    assert tier_of(decided(retried(1), failed("TimeoutError"), where)) == "orders.retry.10s"
    assert tier_of(decided(retried(1), failed(), where)) == "orders.retry.30s"
    assert tier_of(decided(retried(2), failed("TimeoutError"), where)) == "orders.retry.1m"
    assert reason_of(decided(retried(2), failed(), where)) is ParkReason.EXHAUSTED


@pytest.mark.parametrize(("choice", "tier"), [(0.0, "4500ms"), (0.25, "4650ms"), (0.5, "4800ms"), (0.999, "5s")])
def test_jitter_is_one_of_the_step_s_tiers(choice: float, tier: str) -> None:
    where = routes((4500, 4650, 4800, 5000))
    assert tier_of(decided(incoming(), failed(), where, choice=choice)) == f"orders.retry.{tier}"


def test_give_up_after_is_passed_only_beyond_it() -> None:
    """First failure at NOW - 1000; the next retry would come back at NOW + 5000."""
    assert tier_of(decided(retried(1), failed(), routes(1000, 5000, give_up_after_ms=6000)))
    assert reason_of(decided(retried(1), failed(), routes(1000, 5000, give_up_after_ms=5999))) is ParkReason.GAVE_UP
    # a first failure counts from now
    assert tier_of(decided(incoming(), failed(), routes(5000, give_up_after_ms=5000)))
    assert reason_of(decided(incoming(), failed(), routes(5000, give_up_after_ms=4999))) is ParkReason.GAVE_UP


# -- Retry


def test_retry_takes_the_schedule_s_next_step() -> None:
    settlement = decided(retried(1), Decided(outcome=Retry(reason="busy")), routes(1000, 5000))
    assert tier_of(settlement) == "orders.retry.5s"
    headers = headers_of(settlement)
    assert (headers[h.ERROR_TYPE], headers[h.ERROR_MESSAGE]) == ("Retry", "busy")


@pytest.mark.parametrize("native", [False, True])
def test_the_reason_of_a_retry_that_was_raised_from_an_error_is_kept_in_parking(native: bool) -> None:
    where = replace(routes(), native=NativeRetry(min_ms=1, max_ms=1, retries=0)) if native else routes()
    verdict = Decided(outcome=Retry(reason="busy"), error=ErrorRecord(type="OSError", message="down"))
    parked = decided(incoming(), verdict, where)
    assert isinstance(parked, ToParking)
    assert (parked.reason, parked.detail) == (ParkReason.EXHAUSTED, "busy")
    assert headers_of(parked)[h.ERROR_MESSAGE] == "down"
    alone = decided(incoming(), Decided(outcome=Retry(reason="busy")), where)
    assert isinstance(alone, ToParking)
    assert (alone.detail, headers_of(alone)[h.ERROR_MESSAGE]) == (None, "busy")


def test_retry_raised_from_an_error_records_the_error() -> None:
    verdict = Decided(outcome=Retry(), error=ErrorRecord(type="OSError", message="down"))
    assert headers_of(decided(incoming(), verdict, routes(1000)))[h.ERROR_TYPE] == "OSError"


@pytest.mark.parametrize(
    ("after", "tier", "due"),
    [
        (0, "1s", 1000),
        (0.3, "1s", 1000),
        (1, "1s", 1000),
        (1.001, "5s", 5000),
        (timedelta(seconds=5), "5s", 5000),
        (3600, "30s", 3_600_000),
    ],
)
def test_retry_after_takes_the_smallest_tier_that_is_long_enough_or_the_longest(
    after: Any, tier: str, due: int
) -> None:
    # tiers of rules count as well: 30s is one
    where = routes(1000, 5000, rules=[rule("OSError", delays=[30_000])])
    settlement = decided(incoming(), Decided(outcome=Retry(after=after)), where)
    assert tier_of(settlement) == f"orders.retry.{tier}"
    assert headers_of(settlement)[h.DUE_AT] == NOW + due
    assert headers_of(settlement)[h.ATTEMPT] == 1


def test_retry_after_counts_as_an_attempt() -> None:
    where = routes(1000, 5000)
    assert reason_of(decided(retried(2), Decided(outcome=Retry(after=1)), where)) is ParkReason.EXHAUSTED


def test_retry_after_is_parked_when_that_is_past_giving_up() -> None:
    where = routes(1000, give_up_after_ms=60_000)
    assert reason_of(decided(incoming(), Decided(outcome=Retry(after=61)), where)) is ParkReason.GAVE_UP
    assert tier_of(decided(incoming(), Decided(outcome=Retry(after=60)), where))


def test_past_the_longest_tier_a_message_goes_round_uncounted_until_it_is_due() -> None:
    where = routes(1000, 5000)
    settlement = decided(incoming(), Decided(outcome=Retry(after=12, reason="later")), where)
    back = comes_back(publish_of(settlement))
    first = decide_early(back, at(where, now=NOW + 5000))
    assert isinstance(first, ToTier)
    assert first.tier.queue == "orders.retry.5s"  # 7 s to go: the longest again
    assert first.attempt == 1
    assert headers_of(first) == headers_of(settlement)
    second = decide_early(comes_back(publish_of(first)), at(where, now=NOW + 10_500))
    assert isinstance(second, ToTier)
    assert second.tier.queue == "orders.retry.5s"  # 1.5 s to go: the smallest that is long enough
    assert decide_early(comes_back(publish_of(second)), at(where, now=NOW + 12_000)) is None


def test_an_ordinary_retry_never_goes_round_whatever_the_clock_says() -> None:
    where = routes(1000, 5000)
    back = comes_back(publish_of(decided(incoming(), failed(), where)))
    for clock in (NOW - 3_600_000, NOW, NOW + 999, NOW + 3_600_000):
        assert decide_early(back, at(where, now=clock)) is None


def test_going_round_without_a_tier_calls_the_handler_early() -> None:
    where = routes(1000)
    back = comes_back(publish_of(decided(incoming(), Decided(outcome=Retry(after=60)), where)))
    assert decide_early(back, at(where), missing=frozenset({"orders.retry.1s"})) is None
    assert decide_early(back, at(routes())) is None


def test_a_wait_is_shortened_to_ten_thousand_rounds_of_the_longest_tier() -> None:
    where = routes(1000, 5000)
    settlement = decided(incoming(), Decided(outcome=Retry(after=timedelta(days=3650))), where)
    assert headers_of(settlement)[h.DUE_AT] == NOW + 10_000 * 5000
    assert isinstance(decide_early(comes_back(publish_of(settlement)), at(where, now=NOW + 5000)), ToTier)


@pytest.mark.parametrize(
    "forged",
    [
        {h.DUE_AT: 2**53 - 1, h.FAILED_AT: 1},
        {h.DUE_AT: NOW + 10_000 * 5000, h.FAILED_AT: NOW - 1},
        {h.DUE_AT: NOW + 100_000, h.FAILED_AT: NOW + 1},
        {h.DUE_AT: 2**53 - 1, h.FAILED_AT: 2**53 - 10_000},
        {h.DUE_AT: NOW + 60_001, h.FAILED_AT: NOW},
        {h.DUE_AT: NOW + 60_001, h.FAILED_AT: NOW, h.FIRST_FAILED_AT: NOW + 10**9},
        {h.DUE_AT: NOW + 50_000, h.FAILED_AT: NOW, h.FIRST_FAILED_AT: NOW - 10_001},
        {h.DUE_AT: NOW + 50_000, h.FAILED_AT: -5},
        {h.DUE_AT: NOW + 50_000},
    ],
)
def test_a_wait_that_no_settlement_asks_for_is_not_waited_for(forged: dict[str, Any]) -> None:
    where = routes(1000, 5000, give_up_after_ms=60_000)
    usual = {h.QUEUE: "orders", h.HOP: "m/0/1", h.ATTEMPT: 1}
    assert isinstance(decide_early(incoming({**usual, h.DUE_AT: NOW + 60_000, h.FAILED_AT: NOW}), at(where)), ToTier)
    assert decide_early(incoming({**usual, **forged}), at(where)) is None


def test_a_first_failure_in_the_future_does_not_put_off_giving_up() -> None:
    where = routes(1000, 5000, 5000, give_up_after_ms=6000)
    forged = {h.QUEUE: "orders", h.HOP: "m/0/1", h.ATTEMPT: 1, h.FIRST_FAILED_AT: NOW + 10**9}
    settlement = decided(incoming(forged), failed(), where)
    assert headers_of(settlement)[h.FIRST_FAILED_AT] == NOW
    later = comes_back(publish_of(settlement))
    assert reason_of(decided(later, failed(), where, now=NOW + 6000)) is ParkReason.GAVE_UP


@pytest.mark.parametrize("attempts", [-1, -(2**63), 2**63 - 1, 1_000_001, True, 1.5, "2"])
def test_a_count_of_attempts_that_is_none_is_a_first_attempt_and_is_used_up_like_one(attempts: Any) -> None:
    where = routes(1000, 5000)
    message = incoming({h.QUEUE: "orders", h.HOP: "m/0/1", h.ATTEMPT: attempts})
    made = 0
    while isinstance(settlement := decided(message, failed(), where), ToTier):
        made += 1
        message = comes_back(publish_of(settlement))
    assert made == 2


@pytest.mark.parametrize("attempts", [2, 1_000_000])
def test_a_huge_count_of_attempts_is_parked_at_once(attempts: int) -> None:
    message = incoming({h.QUEUE: "orders", h.HOP: "m" * 300 + "/0/1", h.ATTEMPT: attempts})
    assert reason_of(decided(message, failed(), routes(1000, 5000))) is ParkReason.EXHAUSTED


# -- missing tiers


def test_a_missing_tier_is_replaced_by_the_next_longer_one_and_at_last_by_parking() -> None:
    where = routes(1000, 5000, 30_000)
    assert tier_of(decided(incoming(), failed(), where, missing=["orders.retry.1s"])) == "orders.retry.5s"
    two = ["orders.retry.1s", "orders.retry.5s"]
    settlement = decided(incoming(), failed(), where, missing=two)
    assert tier_of(settlement) == "orders.retry.30s"
    assert headers_of(settlement)[h.DUE_AT] == NOW + 30_000
    assert headers_of(settlement)[h.HISTORY][-1]["tier"] == "orders.retry.30s"
    parked = decided(incoming(), failed(), where, missing=[*two, "orders.retry.30s"])
    assert reason_of(parked) is ParkReason.NO_ROUTE
    assert "orders.retry.5s" in headers_of(parked)[h.REASON_DETAIL]
    assert headers_of(parked)[h.ERROR_TYPE] == "ValueError"


def test_a_missing_tier_is_never_replaced_by_a_shorter_one() -> None:
    where = routes(1000, 5000)
    missing = ["orders.retry.5s"]
    assert reason_of(decided(retried(1), failed(), where, missing=missing)) is ParkReason.NO_ROUTE


def test_going_round_takes_the_next_longer_tier_too() -> None:
    where = routes(1000, 5000)
    back = comes_back(publish_of(decided(incoming(), Decided(outcome=Retry(after=6)), where)))
    again = decide_early(back, at(where, now=NOW + 5500), missing=frozenset({"orders.retry.1s"}))
    assert isinstance(again, ToTier)
    assert again.tier.queue == "orders.retry.5s"
