"""Schedules: delays, backoff, jitter."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqpflow.model.diagnostic import Place
from amqpflow.topology.compile.schedule import backoff_delays, spread
from amqpflow.topology.language.types import MAX_DELAY_MS
from amqpflow.topology.reading.spec import BackoffSpec
from tests.topology_files import compiled

PLACE = Place(file="f")
S, M, H = 1000, 60_000, 3_600_000


def backoff(initial: int, multiplier: float, retries: int, longest: int | None = None) -> tuple[int, ...]:
    return backoff_delays(
        BackoffSpec(place=PLACE, initial_ms=initial, multiplier=multiplier, max_ms=longest, retries=retries)
    )


def test_a_backoff_grows_to_its_longest_delay() -> None:
    assert backoff(10 * S, 4, 6, 2 * H) == (10 * S, 40 * S, 160 * S, 640 * S, 2560 * S, 2 * H)
    assert backoff(1 * S, 2, 4) == (1 * S, 2 * S, 4 * S, 8 * S)
    assert backoff(5 * S, 1, 3) == (5 * S, 5 * S, 5 * S)


def test_a_backoff_is_reckoned_in_decimals() -> None:
    assert backoff(100, 1.1, 4) == (100, 110, 121, 133)
    assert backoff(100, 1.5, 5) == (100, 150, 225, 338, 506)


@given(st.integers(1, MAX_DELAY_MS), st.floats(1, 1000), st.integers(1, 50), st.none() | st.integers(1, MAX_DELAY_MS))
def test_a_backoff_never_shrinks_nor_passes_its_longest(
    initial: int, multiplier: float, retries: int, longest: int | None
) -> None:
    delays = backoff(initial, multiplier, retries, longest)
    assert len(delays) == retries
    assert list(delays) == sorted(delays)
    assert delays[-1] <= (longest or MAX_DELAY_MS)


def test_jitter_makes_four_queues_of_a_delay() -> None:
    assert spread(10 * S, Fraction(10, 100)) == (9000, 9333, 9667, 10000)
    assert spread(60 * S, Fraction(50, 100)) == (30000, 40000, 50000, 60000)
    assert spread(60 * S, Fraction(0)) == (60000,)


def test_jitter_of_a_short_delay_makes_fewer() -> None:
    assert spread(1, Fraction(1, 2)) == (1,)
    assert spread(3, Fraction(1, 10)) == (3,)


@given(st.integers(1, MAX_DELAY_MS), st.fractions(0, Fraction(1, 2)))
def test_jitter_stays_below_the_delay_and_above_its_share(delay: int, jitter: Fraction) -> None:
    tiers = spread(delay, jitter)
    assert 1 <= len(tiers) <= 4
    assert tiers == tuple(sorted(set(tiers)))
    assert tiers[-1] == delay
    assert tiers[0] >= max(1, (1 - jitter) * delay - 1)


def test_steps_of_equal_delay_share_one_queue() -> None:
    topology = compiled("""
        retry_policies:
          p:
            delays: [{delay: 5s, times: 3}, 30s]
            on:
              - {errors: [ValueError], delays: [30s, 5m]}
        queues: {q: {retry: p}}
    """)
    routes = topology.routes["q"]
    assert [step.delay_ms for step in routes.steps] == [5 * S, 5 * S, 5 * S, 30 * S]
    assert [tier.queue for tier in routes.tiers] == ["q.retry.5s", "q.retry.30s", "q.retry.5m"]
    assert sum(name.startswith("q.retry") for name in topology.desired.queues) == 3


def test_a_step_with_jitter_offers_its_four_queues() -> None:
    topology = compiled("""
        retry_policies: {p: {delays: [1s, 10s], jitter: 10%}}
        queues: {q: {retry: p}}
    """)
    first, second = topology.routes["q"].steps
    assert (first.delay_ms, [tier.delay_ms for tier in first.tiers]) == (1000, [900, 933, 967, 1000])
    assert [tier.queue for tier in second.tiers] == [
        "q.retry.9s",
        "q.retry.9333ms",
        "q.retry.9667ms",
        "q.retry.10s",
    ]


def test_rules_keep_their_order() -> None:
    topology = compiled("""
        retry_policies:
          p:
            delays: []
            on:
              - {errors: [a.B, C], park: bad}
              - {errors: [D], backoff: {initial: 1s, multiplier: 2, retries: 2}}
              - {errors: [E], delays: []}
        queues: {q: {retry: p}}
    """)
    bad, growing, never = topology.routes["q"].rules
    assert (bad.errors, bad.park, bad.steps) == (("a.B", "C"), "bad", None)
    assert growing.steps is not None
    assert [step.delay_ms for step in growing.steps] == [1000, 2000]
    assert (never.steps, never.park) == ((), None)
    assert topology.routes["q"].steps == ()


@pytest.mark.parametrize(("text", "milliseconds"), [("give_up_after: 24h, ", 24 * H), ("", None)])
def test_give_up_after_is_in_the_routes(text: str, milliseconds: int | None) -> None:
    topology = compiled(f"retry_policies: {{p: {{{text}delays: [1s]}}}}\nqueues: {{q: {{retry: p}}}}\n")
    assert topology.routes["q"].give_up_after_ms == milliseconds
