"""Another retry policy for a queue, in the retry queues that the queue has."""

from __future__ import annotations

from dataclasses import replace

from amqpflow.model.routes import QueueRoutes, RetryPolicy, RetryRule, RetryStep, RetryTier


class RetryQueuesMissingError(Exception):
    """The queue has no retry queues for some delays of the policy."""

    def __init__(self, delays: tuple[int, ...]) -> None:
        super().__init__(f"no retry queues for {delays}")
        self.delays = delays  #: milliseconds


def with_policy(routes: QueueRoutes, policy: RetryPolicy) -> QueueRoutes:
    """Return the routes of a queue with another policy. Raises RetryQueuesMissingError."""
    tiers = {tier.delay_ms: tier for tier in routes.tiers}
    wanted = {tier.delay_ms for step in policy.all_steps for tier in step.tiers}
    if missing := wanted - tiers.keys():
        raise RetryQueuesMissingError(tuple(sorted(missing)))

    def own(steps: tuple[RetryStep, ...]) -> tuple[RetryStep, ...]:
        return tuple(replace(step, tiers=tuple(_tier(tiers, tier) for tier in step.tiers)) for step in steps)

    def own_rule(rule: RetryRule) -> RetryRule:
        return rule if rule.steps is None else replace(rule, steps=own(rule.steps))

    return replace(
        routes,
        steps=own(policy.steps),
        rules=tuple(map(own_rule, policy.rules)),
        give_up_after_ms=policy.give_up_after_ms,
    )


def _tier(tiers: dict[int, RetryTier], wanted: RetryTier) -> RetryTier:
    return tiers[wanted.delay_ms]
