"""Which retry queue a failed message takes. A schedule is read at the number of attempts made in all."""

from __future__ import annotations

from amqpflow.model.routes import QueueRoutes, RetryRule, RetryStep, RetryTier


def rule_for(routes: QueueRoutes, matches: frozenset[str]) -> RetryRule | None:
    """Return the first rule that names the error."""
    return next((rule for rule in routes.rules if not matches.isdisjoint(rule.errors)), None)


def step_tier(steps: tuple[RetryStep, ...], attempts_made: int, choice: float) -> RetryTier | None:
    """Return the tier for the retry after `attempts_made` earlier attempts, None past the schedule's end.

    `choice`, from 0 up to but not including 1, picks among the tiers that jitter spread a step over.
    """
    if attempts_made >= len(steps):
        return None
    tiers = steps[attempts_made].tiers
    return tiers[int(choice * len(tiers))]


def tier_for_delay(tiers: tuple[RetryTier, ...], delay_ms: int) -> RetryTier | None:
    """Return the smallest tier that is long enough, else the longest; None without tiers."""
    return next((tier for tier in tiers if tier.delay_ms >= delay_ms), tiers[-1] if tiers else None)


def next_longer(tiers: tuple[RetryTier, ...], wanted: RetryTier, missing: frozenset[str]) -> RetryTier | None:
    """Return the tier to take instead of those whose publish was returned: the next longer one that is not missing."""
    if wanted.queue not in missing:
        return wanted
    return next((tier for tier in tiers if tier >= wanted and tier.queue not in missing), None)
