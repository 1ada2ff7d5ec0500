"""References: what a name refers to is defined."""

from __future__ import annotations

from amqpflow.model.diagnostic import Place
from amqpflow.topology.compile.naming import Names
from amqpflow.topology.language.codes import Code
from amqpflow.topology.language.keys import NO_RETRY
from amqpflow.topology.reading.problems import Problems
from amqpflow.topology.reading.spec import TopologySpec

PREDECLARED = {
    "amq.direct": "direct",
    "amq.topic": "topic",
    "amq.fanout": "fanout",
    "amq.headers": "headers",
    "amq.match": "headers",
    "amq.rabbitmq.trace": "topic",
}
"""Exchanges that every virtual host has, with their types."""


def exchanges_of_bindings(spec: TopologySpec, problems: Problems) -> None:
    """Check that queues are bound to exchanges of this file, or to predeclared ones."""
    for queue in spec.queues.values():
        for binding in queue.bindings:
            if binding.exchange is not None:
                _check_exchange(spec, binding.exchange, binding.at("exchange"), problems)


def alternate_exchanges(spec: TopologySpec, problems: Problems) -> None:
    """Check that alternate exchanges are defined: RabbitMQ takes any name, and silently drops messages there."""
    for exchange in spec.exchanges.values():
        if exchange.alternate_exchange is not None:
            _check_exchange(spec, exchange.alternate_exchange, exchange.at("alternate_exchange"), problems)


def _check_exchange(spec: TopologySpec, name: str, place: Place, problems: Problems) -> None:
    names = Names(topology=spec.name, naming=spec.naming)
    if not name:
        message = "the default exchange has no bindings: every queue is bound there by its name"
        problems.error(Code.UNUSABLE_EXCHANGE, place, message, "remove it; publish with the queue's name as key")
    elif name in (names.retry_exchange, names.parking_exchange):
        message = (
            f"{name} is this topology's own: with a binding there RabbitMQ confirms retries that reach no retry queue"
        )
        problems.error(Code.UNUSABLE_EXCHANGE, place, message, "define an exchange of your own under exchanges")
    elif name not in spec.exchanges and name not in PREDECLARED and name not in spec.unreadable:
        known = problems.nearest(name, [*spec.exchanges, *PREDECLARED] if name.startswith("amq.") else spec.exchanges)
        hint = known or "define it under exchanges; external: true if another program declares it"
        problems.error(Code.UNDEFINED_EXCHANGE, place, f"exchange {name[:255]!r} is not defined", hint)


def retry_policies(spec: TopologySpec, problems: Problems) -> None:
    """Check that `retry` names a policy of this file, or none."""
    default = spec.default_retry
    named = [(default.value, default.place)] if default is not None else []
    named += [(each.retry, each.at("retry")) for each in spec.queues.values() if each.retry and "retry" in each.places]
    for name, place in named:
        if name != NO_RETRY and name not in spec.policies and name not in spec.unreadable:
            hint = problems.nearest(name, [*spec.policies, NO_RETRY])
            problems.error(Code.UNDEFINED_POLICY, place, f"retry policy {name[:255]!r} is not defined", hint)


def retry_is_said(spec: TopologySpec, problems: Problems) -> None:
    """Warn about queues without a retry policy, which may be an oversight: their first failure parks."""
    first = next(iter(spec.policies), None)
    choice = f"write retry: {first} here or under defaults, or" if first is not None else "write"
    for queue in spec.queues.values():
        if queue.retry is None and not queue.says("retry"):
            hint = f"{choice} retry: {NO_RETRY} if intended"
            message = f"queue {queue.name} names no retry policy: its first failure parks a message"
            problems.warning(Code.NO_RETRY_NAMED, queue.place, message, hint)


def unused_policies(spec: TopologySpec, problems: Problems) -> None:
    """Warn about policies that no queue names: they have no effect."""
    used = {queue.retry for queue in spec.queues.values()}
    if spec.default_retry is not None:
        used.add(spec.default_retry.value)
    for policy in spec.policies.values():
        if policy.name not in used:
            message = f"no queue uses retry policy {policy.name[:255]}"
            hint = f"retry: {policy.name[:80]} in a queue, or remove it"
            problems.warning(Code.UNUSED_POLICY, policy.place, message, hint)


RULES = (exchanges_of_bindings, alternate_exchanges, retry_policies, retry_is_said, unused_policies)
