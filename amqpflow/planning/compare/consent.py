"""What a plan removes, and what of it was not agreed to: a name consents to that one object, a word to all."""

from __future__ import annotations

from collections.abc import Iterator

from amqpflow.planning.checks.dropping import at_stake
from amqpflow.planning.ownership.ownership import is_own_policy
from amqpflow.planning.values.approvals import Allowance
from amqpflow.planning.values.changes import Change, DeleteExchange, DeleteQueue, RemovePolicy, Unbind, label
from amqpflow.planning.values.plan import Plan

from .replacement import stand_in_name

_KINDS = ("queue", "exchange", "policy", "binding")


def lacking(plan: Plan, allowance: Allowance) -> tuple[str, ...]:
    """
    Return what of `Plan.required` is still needed.

    A need that names one object (`delete:binding events -> orders (placed)`) is met by that name alone. The word
    `delete` is not needed when every removal was named.
    """
    return tuple(need for need in plan.required if not _met(need, plan, allowance))


def _met(need: str, plan: Plan, allowance: Allowance) -> bool:
    word, colon, one = need.partition(":")
    if colon:
        return allowance.names(word, one)
    return word in allowance.words or (word == "delete" and not unnamed(plan, allowance))


def unnamed(plan: Plan, allowance: Allowance) -> list[Change]:
    """Return the removals that were not named, queues first. A binding goes with a removed queue or exchange."""
    return sorted(_unnamed(plan, allowance), key=lambda change: _KINDS.index(change.kind))


def _unnamed(plan: Plan, allowance: Allowance) -> Iterator[Change]:
    removed = {label(change) for change in removals(plan)}
    for change in removals(plan):
        ends: set[str] = set()
        if isinstance(change, Unbind):
            binding = change.binding
            ends = {f"{binding.destination_type} {binding.destination}", f"exchange {binding.source}"}
        own_need = f"delete:{label(change)}" in plan.required
        if ends.isdisjoint(removed) and not own_need and not allowance.names("delete", label(change)):
            yield change


def removals(plan: Plan) -> Iterator[Change]:
    """Yield the changes that need consent as removals; what a swap removes on its way is agreed to by `replace`."""
    swapped = {*plan.replaced, *map(stand_in_name, plan.replaced)}
    for change in plan.changes:
        match change:
            case DeleteQueue(queue=queue) if queue.name not in swapped:
                yield change
            case Unbind(binding=binding) if binding.destination not in swapped:
                yield change
            case DeleteExchange():
                yield change
            case RemovePolicy(policy=policy):
                # a policy of our name is a setting, which any apply changes or removes in place
                if plan.purpose == "destroy" or not is_own_policy(policy.name, plan.topology.name):
                    yield change


def idle_names(plan: Plan, allowance: Allowance) -> tuple[str, ...]:
    """Return the names that were allowed and that the plan does not remove: misspelled, or gone already."""
    there = {label(change) for change in plan.changes} | {f"queue {each.queue}" for each in at_stake(plan.changes)}
    refused = {each.object for each in plan.refusals}
    return tuple(sorted(one for _, one in allowance.named if one not in there | refused))
