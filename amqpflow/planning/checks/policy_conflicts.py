"""One policy works on a queue: would ours push a foreign one aside, tie with it, or be hidden by it? (fact 11.6b)

The settings that work tell what would be lost: a key counts when another value, or none, would work without the
foreign policy. Each such key comes with the place in the file where ours carries it.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass

from amqpflow.model.resources import Policy, Queue
from amqpflow.model.routes import CompiledTopology
from amqpflow.planning.policies.effective import effective
from amqpflow.planning.policies.matching import applies, may_work, surely_matches, working
from amqpflow.planning.values.findings import Finding, Ref, refuse, warn

from .existing_queues import kept_by
from .lost_keys import LostKeys, lost_keys
from .preflight import breaking, role_of


@dataclass(frozen=True, slots=True, kw_only=True)
class _Conflict:
    ours: Policy
    foreign: Policy
    certain: bool  #: the pattern of the foreign policy is known to match
    already: bool  #: a policy of ours works instead of the foreign one as it is, and the same keys are lost by it
    carry: LostKeys
    harmful: tuple[str, ...]  #: keys of the foreign policy that would break a guarantee on a queue of ours
    avoidable: bool  #: with dead_letters: keep there would be no policy of ours on the queue


def policy_conflicts(
    queues: Iterable[Queue],
    ours: Iterable[Policy],
    foreign: Iterable[Policy],
    present: Iterable[Policy],
    *,
    version: tuple[int, ...] = (),
    topology: CompiledTopology,
    operators: Iterable[Policy] = (),
    broad: Container[str] = (),
) -> tuple[Finding, ...]:
    """Compare the policies that the topology wants with foreign ones, queue by queue.

    Args:
        present: ours that are on the broker now: what is lost by them already is not refused again.
        broad: names of foreign policies that match more than the topology's queues: what of them would break a
            guarantee is kept off, and not lost.
    """
    mine, theirs, before, merged = tuple(ours), tuple(foreign), tuple(present), tuple(operators)
    found: list[tuple[_Conflict, list[str]]] = []
    for queue in queues:
        foreign_here = may_work(theirs, queue, version)
        if not foreign_here:
            continue
        own = topology.routes.get(queue.name)
        own = own if own is not None and own.existing else None
        for wanted in (policy for policy in mine if applies(policy, queue, version)):
            now = working(before, queue, version)
            for other in foreign_here:
                works = effective(queue, [other], merged, version=version)
                keep_off = own is None and other.name in broad
                harm = () if not keep_off else tuple(breaking(queue, role_of(queue, topology), works, other))
                # the arguments of our queues direct their dead letters
                kept_off = {*harm, *(key for key in other.definition if keep_off and key.startswith("dead-letter-"))}
                carry = lost_keys(queue, wanted, other, version, own=own, operators=merged, harmful=kept_off)
                lost_now = [
                    set(lost_keys(queue, each, other, version, own=own, operators=merged, harmful=kept_off).lost)
                    for each in now
                    if each.priority > other.priority
                ]
                clash = _Conflict(
                    ours=wanted,
                    foreign=other,
                    certain=surely_matches(other, queue),
                    already=any(lost.issuperset(carry.lost) for lost in lost_now),
                    carry=carry,
                    harmful=harm,
                    avoidable=own is not None and not kept_by(wanted, own),
                )
                names = next((names for known, names in found if known == clash), None)
                if names is None:
                    found.append((clash, [queue.name]))
                else:
                    names.append(queue.name)
    return tuple(finding for clash, names in found for finding in _judge(clash, names))


def _judge(clash: _Conflict, queues: list[str]) -> Iterable[Finding]:
    ours, foreign, carry = clash.ours, clash.foreign, clash.carry
    ref, where = Ref("policy", ours.name), str(Ref.of("queue", queues))
    narrow = f"take {where} out of its pattern {foreign.pattern}, or write `settings: arguments` in the file"
    if clash.avoidable:
        narrow = (
            f"write `dead_letters: keep` under {where} in the file, so that its dead letters stay as they are and "
            f"amqpflow writes no policy for it; or {narrow}"
        )
    lost = f"; lost there: {', '.join(carry.lost)}" if carry.lost else ""
    advice = f"{_offer(carry, where)}or {narrow}"
    above = f"write `policy_priority: {max(int(foreign.priority) + 1, 0)}` at the top of the file"
    doubt = "" if clash.certain else f" (if its pattern {foreign.pattern} matches, which only RabbitMQ can tell)"
    if carry.lost:
        above += f" and carry what would be lost: {carry.place(where)}" if carry.possible else ""
    if foreign.priority > ours.priority:
        yield warn(
            "policy-hidden",
            ref,
            f"policy {foreign.name} has the higher priority ({foreign.priority} over {ours.priority}) on {where}"
            f"{doubt}: {', '.join(sorted(ours.definition))} of the file will have no effect there",
            f"{above}; or {narrow}",
        )
    elif foreign.priority == ours.priority:
        yield refuse(
            "policy-tie",
            ref,
            f"policy {foreign.name} has the same priority ({foreign.priority}) on {where}{doubt}, and which of the two "
            "wins differs between RabbitMQ's releases",
            f"{above}; or {narrow}",
        )
    elif clash.already:
        if carry.lost:
            text = f"it works instead of policy {foreign.name} on {where}{doubt}{lost}"
            yield warn("policy-displaces", ref, text, advice)
    elif carry.lost:
        yield refuse(
            "policy-displaces",
            ref,
            f"it {'would' if clash.certain else 'may'} displace policy {foreign.name} (priority {foreign.priority} "
            f"under {ours.priority}) on {where}{doubt}{lost}",
            advice,
        )
    else:
        kept = "nothing is lost there, since the file carries its keys or they have no effect"
        if clash.harmful:
            kept = f"{', '.join(clash.harmful)} would break a guarantee there, and nothing else is lost"
        elif carry.tightened:
            kept = f"{', '.join(carry.tightened)}, as the file says; nothing else is lost there"
        yield warn(
            "policy-displaces",
            ref,
            f"it will work instead of policy {foreign.name} (priority {foreign.priority} under {ours.priority}) on "
            f"{where}{doubt}; {kept}",
        )


def _offer(carry: LostKeys, where: str) -> str:
    cannot = "".join(
        f"{key} {'cannot be carried' if key in carry.lost else 'becomes reject-publish'}: {why}; "
        for key, why in carry.impossible
    )
    return f"carry them: {carry.place(where)}; {cannot}" if carry.possible else cannot
