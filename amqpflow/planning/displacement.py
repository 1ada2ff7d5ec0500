"""One policy works on a queue: would ours push a foreign one aside, tie with it, or be hidden by it? (fact 11.6b)

What would be lost is told from the settings that work: a key counts when another value, or none, would work without the
foreign policy. Each such key comes with the place in the file where ours carries it.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass

from amqpflow.model.resources import Policy, Queue

from .carrying import Carrying, carrying
from .findings import Finding, named, refuse, warn
from .policies import applies, working


@dataclass(frozen=True, slots=True, kw_only=True)
class _Clash:
    ours: Policy
    foreign: Policy
    already: bool  #: a policy of ours works instead of the foreign one as it is
    carry: Carrying


def clashes(
    queues: Iterable[Queue],
    ours: Iterable[Policy],
    foreign: Iterable[Policy],
    present: Iterable[Policy],
    *,
    version: tuple[int, ...] = (),
    existing: Container[str] = (),
) -> tuple[Finding, ...]:
    """
    Compare our policies with foreign ones, queue by queue.

    Args:
        queues: those of the topology.
        ours: the policies the topology wants.
        foreign: those on the broker that are not ours.
        present: ours that are on the broker now: what they displace already is not displaced anew.
        version: of the broker.
        existing: names of queues that an application declared.
    """
    mine, theirs, before = tuple(ours), tuple(foreign), tuple(present)
    found: list[tuple[_Clash, list[str]]] = []
    for queue in queues:
        foreign_here = working(theirs, queue, version)
        if not foreign_here:
            continue
        for own in (policy for policy in mine if applies(policy, queue, version)):
            for other in foreign_here:
                already = any(applies(each, queue, version) and each.priority > other.priority for each in before)
                carry = carrying(queue, own, other, version, existing=queue.name in existing)
                clash = _Clash(ours=own, foreign=other, already=already, carry=carry)
                names = next((names for known, names in found if known == clash), None)
                if names is None:
                    found.append((clash, [queue.name]))
                else:
                    names.append(queue.name)
    return tuple(finding for clash, names in found for finding in _judge(clash, names))


def _judge(clash: _Clash, queues: list[str]) -> Iterable[Finding]:
    ours, foreign, carry = clash.ours, clash.foreign, clash.carry
    object_, where = f"policy {ours.name}", named("queue", queues)
    narrow = f"take {where} out of its pattern {foreign.pattern}, or write `settings: arguments` in the file"
    lost = f"; lost there: {', '.join(carry.lost)}" if carry.lost else ""
    advice = f"{_offer(carry, where)}or {narrow}"
    above = f"write `policy_priority: {_above(foreign)}` at the top of the file"
    if carry.lost:
        above += f" and carry what would be lost: {carry.place(where)}" if carry.possible else ""
    if foreign.priority > ours.priority:
        yield warn(
            "policy-hidden",
            object_,
            f"policy {foreign.name} has the higher priority ({foreign.priority} over {ours.priority}) on {where}: "
            f"{', '.join(sorted(ours.definition))} of the file will have no effect there",
            f"{above}; or {narrow}",
        )
    elif foreign.priority == ours.priority:
        yield refuse(
            "policy-tie",
            object_,
            f"policy {foreign.name} has the same priority ({foreign.priority}) on {where}, and which of the two wins "
            "differs between RabbitMQ's releases",
            f"{above}; or {narrow}",
        )
    elif clash.already:
        if carry.lost:
            yield warn(
                "policy-displaces", object_, f"it works instead of policy {foreign.name} on {where}{lost}", advice
            )
    elif carry.lost:
        yield refuse(
            "policy-displaces",
            object_,
            f"it would displace policy {foreign.name} (priority {foreign.priority} under {ours.priority}) on {where}"
            f"{lost}",
            advice,
        )
    else:
        yield warn(
            "policy-displaces",
            object_,
            f"it will work instead of policy {foreign.name} (priority {foreign.priority} under {ours.priority}) on "
            f"{where}; nothing is lost there, since the file carries its keys or they have no effect",
        )


def _offer(carry: Carrying, where: str) -> str:
    cannot = "".join(f"{key} cannot be carried: {why}; " for key, why in carry.impossible)
    return f"carry them: {carry.place(where)}; {cannot}" if carry.possible else cannot


def _above(foreign: Policy) -> int:
    return max(int(foreign.priority) + 1, 0)
