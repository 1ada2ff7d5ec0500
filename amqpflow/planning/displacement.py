"""One policy works on a queue: would ours push a foreign one aside, tie with it, or be hidden by it? (fact 11.6b)"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from amqpflow.model.resources import Policy, Queue

from .equality import same_value
from .findings import Finding, named, refuse, warn
from .policies import applies, working


@dataclass(frozen=True, slots=True, kw_only=True)
class _Clash:
    ours: Policy
    foreign: Policy
    already: bool  #: a policy of ours works instead of the foreign one as it is


def clashes(
    queues: Iterable[Queue], ours: Iterable[Policy], foreign: Iterable[Policy], present: Iterable[Policy]
) -> tuple[Finding, ...]:
    """
    Compare our policies with foreign ones, queue by queue.

    Args:
        queues: those of the topology.
        ours: the policies the topology wants.
        foreign: those on the broker that are not ours.
        present: ours that are on the broker now: what they displace already is not displaced anew.
    """
    mine, theirs, before = tuple(ours), tuple(foreign), tuple(present)
    found: list[tuple[_Clash, list[str]]] = []
    for queue in queues:
        foreign_here = working(theirs, queue)
        if not foreign_here:
            continue
        for own in (policy for policy in mine if applies(policy, queue)):
            for other in foreign_here:
                already = any(applies(each, queue) and each.priority > other.priority for each in before)
                clash = _Clash(ours=own, foreign=other, already=already)
                names = next((names for known, names in found if known == clash), None)
                if names is None:
                    found.append((clash, [queue.name]))
                else:
                    names.append(queue.name)
    return tuple(_judge(clash, names) for clash, names in found)


def _judge(clash: _Clash, queues: list[str]) -> Finding:
    ours, foreign = clash.ours, clash.foreign
    object_, where = f"policy {ours.name}", named("queue", queues)
    advice = f"take {where} out of its pattern {foreign.pattern}, or write `settings: arguments` in the file"
    if foreign.priority > ours.priority:
        return warn(
            "policy-hidden",
            object_,
            f"policy {foreign.name} has the higher priority ({foreign.priority} over {ours.priority}) on {where}: "
            f"{', '.join(sorted(ours.definition))} of the file will have no effect there",
            advice,
        )
    if foreign.priority == ours.priority:
        return refuse(
            "policy-tie",
            object_,
            f"policy {foreign.name} has the same priority ({foreign.priority}) on {where}, and which of the two wins "
            "differs between RabbitMQ's releases",
            advice,
        )
    lost = [
        key for key in sorted(foreign.definition) if not same_value(foreign.definition[key], ours.definition.get(key))
    ]
    keys = f"; lost there: {', '.join(lost)}" if lost else ""
    if clash.already:
        return warn("policy-displaces", object_, f"it works instead of policy {foreign.name} on {where}{keys}", advice)
    return refuse(
        "policy-displaces",
        object_,
        f"it would displace policy {foreign.name} (priority {foreign.priority} under {ours.priority}) on {where}{keys}",
        advice,
    )
