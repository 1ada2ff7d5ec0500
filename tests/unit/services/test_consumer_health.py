"""What a consumer says of its queues: the first cause of each, and the next one once that is cleared."""

from __future__ import annotations

from amqpflow.services.consuming.health import BEFORE_A_SESSION, Cause, ConsumerHealth


def test_the_first_cause_is_shown_and_the_next_one_once_it_is_cleared() -> None:
    health = ConsumerHealth()
    problems = health.problems
    health.set("orders", Cause.BREAKER, "breaker open")
    health.set("orders", Cause.CONNECTION, "lost")
    health.set("audit", Cause.CONNECTION, "lost")
    assert problems == {"orders": "lost", "audit": "lost"}
    health.set("orders", Cause.CONNECTION, "cannot reconnect")
    assert problems["orders"] == "cannot reconnect"
    health.clear("orders", Cause.CONNECTION)
    health.clear("audit", Cause.CONNECTION)
    assert problems == {"orders": "breaker open"}
    health.clear("orders", Cause.BREAKER)
    assert problems == {}


def test_a_session_that_starts_leaves_an_open_breaker_and_nothing_else() -> None:
    health = ConsumerHealth()
    for each in Cause:
        health.set("orders", each, each.name)
    health.clear("orders", *BEFORE_A_SESSION)
    assert health.problems == {"orders": "BREAKER"}


def test_what_was_never_set_can_be_cleared() -> None:
    health = ConsumerHealth()
    health.clear("orders", Cause.HELD)
    health.set("orders", Cause.HELD, "held")
    health.clear("orders", Cause.ALONE)
    assert health.problems == {"orders": "held"}
