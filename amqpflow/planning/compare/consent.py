"""What a plan removes, and what of it was not agreed to: a name consents to that one object, a word to all."""

from __future__ import annotations

from collections.abc import Iterator

from amqpflow.planning.checks.message_loss import at_stake
from amqpflow.planning.ownership.ownership import is_own_policy
from amqpflow.planning.values.approvals import Approval, Approvals
from amqpflow.planning.values.changes import Change, DeleteExchange, DeleteQueue, RemovePolicy, Unbind, ref_of
from amqpflow.planning.values.findings import Ref
from amqpflow.planning.values.plan import Plan

from .replacement import stand_in_name

_KINDS = ("queue", "exchange", "policy", "binding")


def missing_approvals(plan: Plan, approvals: Approvals) -> tuple[Approval, ...]:
    """Return what of `Plan.needs` is still needed: the word `delete` is not when every removal was named."""
    needs = [need for need in plan.needs if need not in approvals]
    return tuple(each for each in needs if each != Approval("delete") or unapproved_removals(plan, approvals))


def unapproved_removals(plan: Plan, approvals: Approvals) -> list[Change]:
    """Return the removals that were not named, queues first. A binding goes with a removed queue or exchange."""
    removed = {ref_of(change) for change in removals(plan)}
    found = []
    for change in removals(plan):
        ends: set[Ref] = set()
        if isinstance(change, Unbind):
            binding = change.binding
            ends = {Ref(binding.destination_type, binding.destination), Ref("exchange", binding.source)}
        one = Approval("delete", ref_of(change))
        if ends.isdisjoint(removed) and one not in plan.needs and one not in approvals:
            found.append(change)
    return sorted(found, key=lambda change: _KINDS.index(change.kind))


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


def unused_approvals(plan: Plan, approvals: Approvals) -> tuple[str, ...]:
    """Return the names that were allowed and that the plan does not remove: misspelled, or gone already."""
    known = {*map(ref_of, plan.changes), *(Ref("queue", each.queue) for each in at_stake(plan.changes))}
    known |= {each.ref for each in plan.refusals}
    return tuple(sorted(str(each.ref) for each in approvals if each.ref is not None and each.ref not in known))
