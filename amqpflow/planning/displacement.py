"""One policy works on a queue: would ours push a foreign one aside, tie with it, or be hidden by it? (fact 11.6b)"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from amqpflow.model.resources import Policy, Queue

from .equality import same_value
from .findings import Finding, named, refuse, warn
from .policies import applies, working


@dataclass(frozen=True, slots=True, kw_only=True)
class _Clash:
    ours: Policy
    foreign: Policy
    queue: str


def clashes(
    queues: Iterable[Queue], ours: Iterable[Policy], foreign: Iterable[Policy], present: Mapping[str, Policy]
) -> tuple[Finding, ...]:
    """
    Compare our policies with foreign ones, queue by queue.

    Args:
        queues: those of the topology.
        ours: the policies the topology wants.
        foreign: those on the broker that are not ours.
        present: ours as they are on the broker now: what one of them displaces already, it does not newly displace.
    """
    found: dict[tuple[str, str], list[_Clash]] = {}
    mine, theirs = tuple(ours), tuple(foreign)
    for queue in queues:
        for own in (policy for policy in mine if applies(policy, queue)):
            for other in working(theirs, queue):
                found.setdefault((own.name, other.name), []).append(_Clash(ours=own, foreign=other, queue=queue.name))
    return tuple(_judge(each, present) for each in found.values())


def _judge(clash: list[_Clash], present: Mapping[str, Policy]) -> Finding:
    ours, foreign = clash[0].ours, clash[0].foreign
    where = named("queue", [each.queue for each in clash])
    advice = f"take {where} out of its pattern {foreign.pattern}, or write `settings: arguments` in the file"
    if foreign.priority > ours.priority:
        return warn(
            "policy-hidden",
            f"policy {ours.name}",
            f"policy {foreign.name} has the higher priority ({foreign.priority} over {ours.priority}) on {where}: "
            f"{', '.join(sorted(ours.definition))} of the file will have no effect there",
            advice,
        )
    if foreign.priority == ours.priority:
        return refuse(
            "policy-tie",
            f"policy {ours.name}",
            f"policy {foreign.name} has the same priority ({foreign.priority}) on {where}, and which of the two wins "
            "differs between RabbitMQ's releases",
            advice,
        )
    lost = [
        key for key in sorted(foreign.definition) if not same_value(foreign.definition[key], ours.definition.get(key))
    ]
    keys = f"; lost there: {', '.join(lost)}" if lost else ""
    before = present.get(ours.name)
    if before is not None and (before.pattern, before.priority, before.apply_to) == (
        ours.pattern,
        ours.priority,
        ours.apply_to,
    ):
        return warn(
            "policy-displaces",
            f"policy {ours.name}",
            f"it works instead of policy {foreign.name} on {where}{keys}",
            advice,
        )
    return refuse(
        "policy-displaces",
        f"policy {ours.name}",
        f"it would displace policy {foreign.name} (priority {foreign.priority} under {ours.priority}) on {where}{keys}",
        advice,
    )
