"""The order in which every prefix of a plan is safe.

Whatever is cut off in the middle, nothing is bound to, or dead-letters into, what does not exist: a dead letter without
a queue is lost silently (fact 4.1). Parking comes before the queues that park, tiers are bound before anybody retries,
and the bindings that let messages in come last, but for the marker that lets native consumers start.

Steps of one rank do not need each other, and may be done at the same time, but for two kinds: an exchange after its
alternate exchange (`needs`), and a deletion after those it waits for (`waits_for`). The ranks of additions are those of
`_rank`; a swap's are in `TierReplacement.steps`; a removal goes level by level, see `removal`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import assert_never

from amqpflow.model.resources import Policy
from amqpflow.model.routes import CompiledTopology
from amqpflow.planning.ownership.ownership import is_shield
from amqpflow.planning.policies.index import named_exactly
from amqpflow.planning.values.changes import (
    Addition,
    Bind,
    Change,
    CreateExchange,
    CreateQueue,
    DeleteQueue,
    Drain,
    EnsureBinding,
    PutPolicy,
    Rebind,
    RemovePolicy,
    Unbind,
)

from .delayed_retry import is_native
from .leftovers import Thing
from .replacement import TierReplacement

_REMOVAL = 7  #: the rank of a policy that goes


def ordered(changes: Iterable[Addition], topology: CompiledTopology) -> tuple[Addition, ...]:
    """Sort by rank, then pull forward what a change needs: the result is right even where the ranks were not."""
    changes = [*changes]
    ranks = _without_gaps(changes, {id(change): _rank(change, topology) for change in changes})
    ranked = sorted(changes, key=lambda change: (ranks[id(change)], bool(_let_go(change))))
    makers = {made: change for change in ranked if (made := makes(change)) is not None}
    result: list[Addition] = []
    seen: set[int] = set()

    for change in ranked:
        # depth first without recursion: (change, its needs still to look at)
        stack: list[tuple[Addition, Iterator[Thing]]] = []
        if id(change) not in seen:
            seen.add(id(change))
            stack.append((change, needs(change)))
        while stack:
            current, wanted = stack[-1]
            for thing in wanted:
                maker = makers.get(thing)
                if maker is not None and id(maker) not in seen:  # a circle of alternate exchanges is cut here
                    seen.add(id(maker))
                    stack.append((maker, needs(maker)))
                    break
            else:
                result.append(current)
                stack.pop()
    return tuple(result)


def replacement_steps(swaps: Iterable[TierReplacement]) -> tuple[Change, ...]:
    """Return all swaps step by step together: there is one wait for all old queues, and one for all stand-ins."""
    ranked = [(rank, change) for swap in swaps for rank, change in swap.steps()]
    return tuple(change for _, change in sorted(ranked, key=lambda each: each[0]))


def waits_for(change: Change) -> frozenset[str]:
    """Return the queues that must be drained, or gone, before a change, which is postponed with them."""
    match change:
        case DeleteQueue(queue=queue, fed_by=fed_by):
            return frozenset({queue.name, *fed_by})
        case CreateQueue(queue=queue) | Drain(queue=queue):
            return frozenset({queue.name})
        case Rebind(binding=binding, replaces=replaced):
            return frozenset({binding.destination, replaced.destination})
        case Unbind(binding=binding, after=after) if binding.destination_type == "queue":
            return frozenset({binding.destination, *after})
        case RemovePolicy(after=after):
            return frozenset(after)
        case _:
            return frozenset()


def holds(change: Change) -> frozenset[str]:
    """Return the queues that stay as they are when a change is postponed; what waits for them is postponed too."""
    match change:
        case DeleteQueue(queue=queue) | Drain(queue=queue):
            return frozenset({queue.name})
        case Rebind(replaces=replaced):
            return frozenset({replaced.destination})  # it keeps the key, and so gets messages
        case Unbind(binding=binding) if binding.destination_type == "queue":
            return frozenset({binding.destination})
        case _:
            return frozenset()


def independent_runs(changes: Sequence[Change], topology: CompiledTopology) -> Iterator[range]:
    """Cut a plan into runs whose changes may be done at once, in any order: queues, or bindings, of one rank.

    None of a run needs what another of it makes, so whichever of them are done when it stops, that is as safe as a
    prefix. What deletes, waits or is written over HTTP is a run of its own.
    """
    begin, made, kind = 0, set[Thing](), None
    for number, change in enumerate(changes):
        alike = None
        if isinstance(change, CreateQueue | Bind | EnsureBinding):
            alike = type(change), _rank(change, topology)
            if kind == alike and not made.isdisjoint(needs(change)):
                kind = None
        if number > begin and (alike is None or kind != alike):
            yield range(begin, number)
            begin, made = number, set()
        kind = alike
        if (thing := makes(change)) is not None:
            made.add(thing)
    if begin < len(changes):
        yield range(begin, len(changes))


def makes(change: Change) -> Thing | None:
    """Return what exists after a change that did not before."""
    return (change.kind, change.name) if isinstance(change, CreateExchange | CreateQueue) else None


def needs(change: Addition) -> Iterator[Thing]:
    """Yield what must exist before a change, or messages could be lost after it."""
    match change:
        case CreateExchange(exchange=exchange):
            if exchange.alternate_exchange:
                yield ("exchange", exchange.alternate_exchange)
        case CreateQueue(queue=queue):
            target = queue.arguments.get("x-dead-letter-exchange")
            if target:
                yield ("exchange", target)
            elif target == "":
                yield ("queue", queue.arguments.get("x-dead-letter-routing-key", ""))
        case Bind(binding=binding) | EnsureBinding(binding=binding):
            yield ("exchange", binding.source)
            yield (binding.destination_type, binding.destination)
        case PutPolicy() | RemovePolicy():
            return
        case _:
            assert_never(change)


def _without_gaps(changes: Iterable[Addition], ranks: Mapping[int, int]) -> Mapping[int, int]:
    """Let a policy take queues over before another of ours lets them go: in between a foreign policy would work on
    them.

    The one that lets go comes after all that take over, and where it takes over others itself, after those of its rank.
    """
    puts = [change for change in changes if isinstance(change, PutPolicy)]
    found = dict(ranks)
    for change in puts:
        if not (lost := _let_go(change)):
            continue
        if not _taken_over(change):
            found[id(change)] = _REMOVAL
            continue
        for other in puts:
            waits = "dead-letter-exchange" in other.policy.definition  # for its target
            if other is not change and lost & _taken_over(other) and not waits:
                found[id(other)] = min(found[id(other)], found[id(change)])
    return found


def _let_go(change: Addition) -> frozenset[str]:
    """Return the queues that a policy covers until it is written again."""
    return _names(change.replaces) - _names(change.policy) if isinstance(change, PutPolicy) else frozenset()


def _taken_over(change: PutPolicy) -> frozenset[str]:
    return _names(change.policy) - _names(change.replaces)


def _names(policy: Policy | None) -> frozenset[str]:
    return frozenset(named_exactly(policy.pattern) or ()) if policy is not None else frozenset()


def _rank(change: Addition, topology: CompiledTopology) -> int:
    match change:
        case CreateExchange(exchange=exchange):
            return 9 if exchange.name == topology.native_marker else 0
        case CreateQueue(queue=queue):
            if queue.name in topology.parking_queues:
                return 1
            return 3 if queue.name in topology.routes else 4
        case Bind(binding=binding) | EnsureBinding(binding=binding):
            return {topology.parking_exchange: 2, topology.retry_exchange: 5}.get(binding.source, 8)
        case PutPolicy(policy=policy):
            # a native queue is born with its delay: what a consumer of it rejects must not come back at once; and
            # what a foreign policy would delete or lose must not be there a moment without its shield
            return 0 if is_native(policy) or is_shield(policy.name, topology.name) else 6
        case RemovePolicy():
            return _REMOVAL
        case _:
            assert_never(change)
