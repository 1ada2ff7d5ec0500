"""Schedules: from delays, backoff and jitter to steps and retry queues."""

from __future__ import annotations

from collections.abc import Callable
from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction

from amqpflow.model.routes import RetryRule, RetryStep, RetryTier
from amqpflow.topology.language.types import MAX_DELAY_MS
from amqpflow.topology.reading.spec import BackoffSpec, DelaySpec, PolicySpec, TopologySpec

_SPREAD = (Fraction(3, 3), Fraction(2, 3), Fraction(1, 3), Fraction(0))


def delays_of(delays: tuple[DelaySpec, ...] | None, backoff: BackoffSpec | None) -> tuple[int, ...]:
    """Return a schedule as milliseconds, one entry a retry; empty when there is none."""
    if delays is not None:
        return tuple(delay.delay_ms for delay in delays for _ in range(delay.times))
    return backoff_delays(backoff) if backoff is not None else ()


def backoff_delays(backoff: BackoffSpec) -> tuple[int, ...]:
    """Return initial, initial * multiplier, ... capped at max; whole milliseconds."""
    if backoff.initial_ms is None or backoff.retries is None:
        return ()
    longest = min(backoff.max_ms or MAX_DELAY_MS, MAX_DELAY_MS)
    # decimal, so that 100 ms times 1.1 is 110 ms and no queue's name ends in a rounding error of binary fractions
    factor = Decimal(str(backoff.multiplier))
    delays, delay = [], Decimal(backoff.initial_ms)
    for _ in range(backoff.retries):
        delays.append(min(int(delay.to_integral_value(ROUND_HALF_UP)), longest))
        if delay < longest:
            delay *= factor
    return tuple(delays)


def spread(delay_ms: int, jitter: Fraction) -> tuple[int, ...]:
    """Return the delays that jitter makes of one: four from (1 - jitter) to 1 times it, equal ones merged."""
    if not jitter:
        return (delay_ms,)
    return tuple(sorted({max(1, round(delay_ms * (1 - jitter * part))) for part in _SPREAD}))


def all_delays(policy: PolicySpec) -> tuple[int, ...]:
    """Return every delay of a policy that needs a queue, jitter included; each once."""
    if policy.native:
        return ()
    written = {*delays_of(policy.delays, policy.backoff)}
    for rule in policy.on:
        written |= {*delays_of(rule.delays, rule.backoff)}
    return tuple(sorted({each for delay in written for each in spread(delay, policy.jitter)}))


def delays_by_policy(spec: TopologySpec) -> dict[str | None, tuple[int, ...]]:
    """Return `all_delays` of each policy by its name."""
    return {name: all_delays(policy) for name, policy in spec.policies.items()}


def retries_in(delays: tuple[DelaySpec, ...] | None, backoff: BackoffSpec | None) -> int:
    """Return how long a schedule is, without making it."""
    if delays is not None:
        return sum(delay.times for delay in delays)
    return (backoff.retries or 0) if backoff is not None else 0


class QueueSchedule:
    """The steps of one work queue; equal delays share one step."""

    def __init__(self, jitter: Fraction, name: Callable[[int], str]) -> None:
        self._jitter = jitter
        self._name = name
        self._steps: dict[int, RetryStep] = {}

    def steps(self, delays: tuple[int, ...]) -> tuple[RetryStep, ...]:
        return tuple(self._step(delay) for delay in delays)

    def _step(self, delay_ms: int) -> RetryStep:
        step = self._steps.get(delay_ms)
        if step is None:
            tiers = tuple(RetryTier(delay_ms=each, queue=self._name(each)) for each in spread(delay_ms, self._jitter))
            step = self._steps[delay_ms] = RetryStep(delay_ms=delay_ms, tiers=tiers)
        return step

    def rules(self, policy: PolicySpec) -> tuple[RetryRule, ...]:
        """Return the policy's rules, in its order."""
        return tuple(
            RetryRule(
                errors=tuple(error.value for error in rule.errors),
                steps=self.steps(delays_of(rule.delays, rule.backoff)) if rule.park is None else None,
                park=rule.park,
            )
            for rule in policy.on
        )
