"""What the broker's release cannot do is left out of the plan, and said; what it refuses to declare is refused here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from amqpflow.model.resources import BrokerState, Policy, Queue

_PER_TYPE_POLICIES = (3, 12)
_CONSUMER_TIMEOUT = (3, 12)
_LOCATORS = (4, 0)
_MIRRORS = frozenset(
    {"ha-mode", "ha-params", "ha-sync-mode", "ha-sync-batch-size", "ha-promote-on-shutdown", "ha-promote-on-failure"}
)
_POLICY_KEYS: tuple[tuple[frozenset[str], Callable[[tuple[int, ...]], bool]], ...] = (
    (_MIRRORS, lambda version: version < (4, 0)),
    (frozenset({"queue-master-locator"}), lambda version: version < (4, 3)),
    (frozenset({"target-group-size"}), lambda version: version >= (3, 13)),
    (frozenset({"consumer-disconnected-timeout"}), lambda version: version >= (4, 3)),
)
"""Policy keys that a release refuses with 400 (fact 11.20)."""


def adapt_to_release(desired: BrokerState, version: tuple[int, ...]) -> tuple[BrokerState, tuple[str, ...]]:
    """Fit a desired state to a release.

    Returns:
        The state as this release can hold it, and a sentence for each thing that it cannot. An unknown version,
        (), is taken for a new one: what it refuses it refuses loudly.
    """
    policies: dict[str, Policy] = {}
    notes: list[str] = []
    for policy in desired.policies.values():
        fitting, said = _fit_policy(policy, version)
        notes += said
        if fitting.definition:
            policies[policy.name] = fitting
    notes += _ignored_arguments(desired, version)
    return replace(desired, policies=policies), tuple(notes)


def refused_arguments(queue: Queue, version: tuple[int, ...]) -> Iterator[str]:
    """Yield what a release refuses to declare a queue with (406), so that apply would stop at it in the middle."""
    locator = queue.arguments.get("x-queue-leader-locator")
    if locator is None or not version or version >= _LOCATORS:
        return
    if queue.type == "classic" or (queue.type == "quorum" and locator == "min-masters"):
        yield (
            f"x-queue-leader-locator {locator} on a {queue.type} queue was measured to be refused by RabbitMQ 3.10.8 "
            f"and taken by 4.0, this is {_dotted(version)}"
        )


def _fit_policy(policy: Policy, version: tuple[int, ...]) -> tuple[Policy, list[str]]:
    if not version:
        return policy, []
    notes = []
    definition: Mapping[str, object] = policy.definition
    if "consumer-timeout" in definition and version < _CONSUMER_TIMEOUT:
        definition = {key: value for key, value in definition.items() if key != "consumer-timeout"}
        notes.append(
            f"policy {policy.name}: consumer_timeout is left out, RabbitMQ {_dotted(version)} has it for a whole node "
            "only (consumer_timeout in rabbitmq.conf)"
        )
    for keys, known in _POLICY_KEYS:
        unknown = keys & definition.keys()
        if unknown and not known(version):
            definition = {key: value for key, value in definition.items() if key not in unknown}
            notes.append(
                f"policy {policy.name}: {', '.join(sorted(unknown))} left out, RabbitMQ {_dotted(version)} refuses it"
            )
    apply_to = policy.apply_to
    if apply_to in ("classic_queues", "quorum_queues") and version < _PER_TYPE_POLICIES:
        apply_to = "queues"  # 3.10 refuses the finer word (fact 11.4); our patterns name each queue anyway
    return replace(policy, definition=definition, apply_to=apply_to), notes


def _ignored_arguments(desired: BrokerState, version: tuple[int, ...]) -> Iterator[str]:
    if not version or version >= _CONSUMER_TIMEOUT:
        return
    for queue in desired.queues.values():
        if "x-consumer-timeout" in queue.arguments:
            yield f"queue {queue.name}: consumer_timeout has no effect before RabbitMQ 3.12, this is {_dotted(version)}"


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
