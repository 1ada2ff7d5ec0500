"""Find what a topology owns and its file no longer has, and note that a plain apply leaves it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from amqpflow.model.resources import Binding, BrokerState, Exchange, Policy, Queue
from amqpflow.model.routes import CompiledTopology
from amqpflow.planning.ownership.ownership import Identity, Ownership

Thing = tuple[str, str]  #: ("queue", name) or ("exchange", name)
UNPROVEN = "amqpflow cannot tell whether it created it or found it"
PARKED_UNSEEN = "`amqpflow parked list` no longer lists the messages parked in it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Leftovers:
    """What is ours and not wanted any more."""

    exchanges: tuple[Exchange, ...] = ()
    queues: tuple[Queue, ...] = ()
    bindings: tuple[Binding, ...] = ()  #: those of the queues and exchanges above included
    policies: tuple[Policy, ...] = ()
    unproven: frozenset[Identity] = frozenset()  #: of `bindings`: those that may be an application's

    @property
    def things(self) -> set[Thing]:
        return {("queue", each.name) for each in self.queues} | {("exchange", each.name) for each in self.exchanges}

    def __bool__(self) -> bool:
        return bool(self.exchanges or self.queues or self.bindings or self.policies)


def leftovers(owns: Ownership, kept: BrokerState, needed: frozenset[Thing] = frozenset()) -> Leftovers:
    """Return everything owned that is neither `kept` (the file's objects, or none) nor `needed` by the file."""
    there = owns.there
    exchanges = tuple(
        each
        for each in there.exchanges.values()
        if each.name not in kept.exchanges and ("exchange", each.name) not in needed and owns.of_exchange(each)
    )
    queues = tuple(
        each
        for each in there.queues.values()
        if each.name not in kept.queues and ("queue", each.name) not in needed and owns.of_queue(each)
    )
    going = Leftovers(exchanges=exchanges, queues=queues).things
    wanted = {each.identity for each in kept.bindings}
    bindings, unproven = [], set()
    for binding in there.bindings:
        if binding.identity in wanted:
            continue
        origin = owns.of_binding(binding)
        # no matter who made it, a binding goes with a queue or exchange of ours, if the file knew of it
        goes = not going.isdisjoint(owns.own_ends(binding))
        if origin != "foreign" or (goes and owns.knows(binding)):
            bindings.append(binding)
        if origin == "unproven" and not goes:
            unproven.add(binding.identity)
    return Leftovers(
        exchanges=exchanges,
        queues=queues,
        bindings=tuple(bindings),
        policies=tuple(
            each for each in there.policies.values() if each.name not in kept.policies and owns.of_policy(each)
        ),
        unproven=frozenset(unproven),
    )


def left_alone(left: Leftovers, topology: CompiledTopology, there: BrokerState) -> Iterator[str]:
    """Yield what this topology created once and the file no longer has: it stays until it is pruned."""
    bound = {(each.source, each.destination) for each in there.bindings if each.destination_type == "queue"}
    gone = {name for _, name in left.things}
    for exchange in sorted(left.exchanges, key=lambda each: each.name):
        yield f"exchange {exchange.name} is no longer in the file; apply leaves it unchanged."
    for queue in sorted(left.queues, key=lambda each: each.name):
        parked = f"; {PARKED_UNSEEN}" if (topology.parking_exchange, queue.name) in bound else ""
        yield f"queue {queue.name} is no longer in the file; apply leaves it unchanged{parked}."
    for binding in left.bindings:
        if binding.destination not in gone and binding.source not in gone:
            doubt = f", and {UNPROVEN}" if binding.identity in left.unproven else ""
            yield f"binding {binding.name} is no longer in the file; apply leaves it unchanged{doubt}."
    for policy in left.policies:
        yield f"policy {policy.name}, which was adopted, is not in the file; apply leaves it unchanged."
    if left:
        yield "`amqpflow apply --prune` removes what the file no longer has."
