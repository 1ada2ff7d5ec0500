"""Foreign bindings and alternate exchanges on the two exchanges of ours: they turn a returned publish into a confirmed
one, or copy messages."""

from __future__ import annotations

from collections.abc import Iterator

from amqpflow.model.resources import Exchange, Policy
from amqpflow.model.routes import CompiledTopology
from amqpflow.planning.ownership.ownership import Ownership
from amqpflow.planning.policies.matching import may_work, surely_matches
from amqpflow.planning.values.findings import Finding, Ref, refuse


def foreign_bindings(desired: CompiledTopology, owns: Ownership, policies: list[Policy]) -> Iterator[Finding]:
    """Yield what stands on the retry and the parking exchange, or would by these foreign user policies."""
    for name in (desired.retry_exchange, desired.parking_exchange):
        exchange = desired.desired.exchanges.get(name)
        if exchange is not None:
            yield from _alternate_exchanges(exchange, policies)
            yield from _foreign_bindings(name, desired, owns)


def _alternate_exchanges(exchange: Exchange, policies: list[Policy]) -> Iterator[Finding]:
    for policy in may_work(policies, exchange):
        if "alternate-exchange" in policy.definition:
            sure = surely_matches(policy, exchange)
            doubt = "" if sure else " (if its pattern matches, which only RabbitMQ can tell)"
            yield refuse(
                "foreign-alternate-exchange",
                Ref("exchange", exchange.name),
                f"policy {policy.name}{doubt} gives it the alternate exchange "
                f"{policy.definition['alternate-exchange']}: a retry that finds no queue would be confirmed instead of "
                "returned",
                f"take {exchange.name} out of its pattern {policy.pattern}",
            )


def _foreign_bindings(exchange: str, desired: CompiledTopology, owns: Ownership) -> Iterator[Finding]:
    state = owns.there
    known = {binding.identity for binding in desired.desired.bindings}
    for binding in state.bindings:
        if binding.source != exchange or binding.identity in known:
            continue
        # a tier that left the file stays bound until it is pruned: it is ours, and its key is its own name
        ours = owns.of_binding(binding) == "ours"
        # an existing queue that left the file: not ours, and bound by us; no program publishes with its key any more
        queue = state.queues.get(binding.destination) if binding.destination_type == "queue" else None
        left = queue is not None and queue.owner is None and exchange == desired.retry_exchange
        if ours or (left and binding.routing_key == binding.destination and not binding.arguments):
            continue
        yield refuse(
            "foreign-binding",
            Ref("exchange", exchange),
            f"{binding.destination_type} {binding.destination} is bound to it with the key "
            f"{binding.routing_key!r}, which amqpflow did not do: messages would be copied there",
            "remove that binding",
        )
