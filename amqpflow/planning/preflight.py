"""Does anything of somebody else's switch off what amqpflow promises? Checked before building and before consuming.

Structure lives in arguments, and arguments do not always win: of numbers the smaller works, and for the overflow of a
quorum queue the policy (fact 11.6). So every foreign policy and operator policy that works on a queue of ours is read
for the keys that break a guarantee there. Foreign bindings and alternate exchanges on the two exchanges of ours turn a
returned publish into a confirmed one, or copy messages.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from amqpflow.model.resources import STAMP, BrokerState, Exchange, Policy, Queue
from amqpflow.model.routes import CompiledTopology

from .findings import Finding, named, refuse, warn
from .observation import Observation
from .ownership import is_own_policy
from .policies import readable, working

_PARKING, _TIER, _WORK = "parking", "tier", "work"
_HELD_MS = 600_000  # how long a reader of a parking queue holds a message when no consumer timeout is shorter


def preflight(desired: CompiledTopology, observed: Observation) -> tuple[Finding, ...]:
    """
    Everything foreign that would break a guarantee of `desired`, as it is or will be on the broker.

    Severity ERROR is what apply refuses to build on and a consumer should not trust; WARNING is for people to know.
    Over AMQP alone nothing of this can be seen, and the answer is empty.
    """
    if not observed.complete:
        return ()
    state = observed.state
    ours = desired.desired.policies
    users = [p for p in state.policies.values() if p.name not in ours and not is_own_policy(p.name, desired.name)]
    effects: dict[_Effect, list[str]] = {}
    for queue in desired.desired.queues.values():
        role = _role(queue, desired)
        for kind, policy in _foreign(queue, users, list(ours.values()), list(state.operator_policies.values())):
            for effect in _effects(kind, policy, queue, role):
                effects.setdefault(effect, []).append(queue.name)
    findings = [effect.on(queues) for effect, queues in effects.items()]
    for name in (desired.retry_exchange, desired.parking_exchange):
        exchange = desired.desired.exchanges.get(name)
        if exchange is not None:
            findings += _alternate_exchanges(exchange, users)
            findings += _foreign_bindings(name, desired, state)
    return tuple(findings)


def _foreign(
    queue: Queue, users: list[Policy], ours: list[Policy], operators: list[Policy]
) -> Iterator[tuple[str, Policy]]:
    """The foreign policies that work on a queue: those of users where ours does not work instead, and operators'."""
    found = working(users, queue)
    if found and any(each.priority > found[0].priority for each in working(ours, queue)):
        found = ()
    yield from (("policy", policy) for policy in found)
    yield from (("operator policy", policy) for policy in working(operators, queue))


def _role(queue: Queue, desired: CompiledTopology) -> str:
    if queue.name in desired.parking_queues:
        return _PARKING
    return _WORK if queue.name in desired.routes else _TIER


@dataclass(frozen=True, slots=True, kw_only=True)
class _Effect:
    """What one key of a foreign policy does to queues of ours; equal for all queues that it does the same to."""

    policy: str
    pattern: str
    readable: bool
    setting: str
    breaks: str | None  #: which guarantee
    weakens: str | None

    def on(self, queues: list[str]) -> Finding:
        object_ = named("queue", queues)
        doubt = "" if self.readable else f" (whether its pattern {self.pattern!r} matches cannot be told here)"
        text = f"{self.policy} sets {self.setting}{doubt}: {self.breaks or self.weakens}"
        if self.breaks is None:
            return warn("foreign-policy-limits", object_, text)
        return refuse("foreign-policy", object_, text, f"take {object_} out of its pattern {self.pattern}")


def _effects(kind: str, policy: Policy, queue: Queue, role: str) -> Iterator[_Effect]:
    for key, value in sorted(policy.definition.items()):
        breaks, weakens = _breaks(key, value, queue, role), _weakens(key, value, queue, role)
        if breaks or weakens:
            yield _Effect(
                policy=f"{kind} {policy.name}",
                pattern=policy.pattern,
                readable=readable(policy),
                setting=f"{key} {value!r}",
                breaks=breaks,
                weakens=weakens,
            )


def _breaks(key: str, value: Any, queue: Queue, role: str) -> str | None:
    """Which guarantee a foreign policy key takes away from a queue of ours; None when it does not."""
    arguments = queue.arguments
    match key:
        case "expires":
            return "an unused queue is deleted with its messages"
        case "message-ttl" if not _at_least(value, arguments.get("x-message-ttl")):
            return {
                _PARKING: "parked messages are deleted when it is over",
                _TIER: "messages come back before their delay is over",
                _WORK: "messages are parked unhandled when it is over",
            }[role]
        case "overflow" if queue.type == "quorum" and arguments.get("x-overflow") == "reject-publish" != value:
            return (
                "on a quorum queue it beats the argument reject-publish and switches at-least-once dead-lettering off"
            )
        case "max-length" | "max-length-bytes" if role == _PARKING:
            return "a full parking queue deletes its oldest messages, or takes no more"
        case "delivery-limit" if role == _PARKING and not _at_least(value, arguments.get("x-delivery-limit")):
            return "looking at a parked message could delete it"
        case "dead-letter-exchange" if "x-dead-letter-exchange" not in arguments:
            return "messages could leave for a place that amqpflow does not know"
        case "dead-letter-routing-key" if (
            "x-dead-letter-exchange" in arguments and "x-dead-letter-routing-key" not in arguments
        ):
            return "dead letters would take another way"
    return None


def _weakens(key: str, value: Any, queue: Queue, role: str) -> str | None:
    arguments = queue.arguments
    match key:
        case "delivery-limit" if role == _WORK and not _at_least(value, arguments.get("x-delivery-limit")):
            return f"messages are parked after {value} failed deliveries"
        case "max-length" | "max-length-bytes" if role == _TIER:
            return "while it is full, failed messages wait in their work queue"
        case "consumer-timeout" if role == _PARKING and isinstance(value, int) and 0 < value < 2 * _HELD_MS:
            return "reading ends after half of that: of many parked messages not all can be listed or replayed at once"
    return None


def _at_least(value: Any, own: Any) -> bool:
    """Whether a number in a policy leaves ours in effect: the smaller of the two works, below zero is no limit."""
    if not isinstance(value, int) or isinstance(value, bool):
        return False
    return value < 0 or (isinstance(own, int) and value >= own)


def _alternate_exchanges(exchange: Exchange, policies: list[Policy]) -> Iterator[Finding]:
    for policy in working(policies, exchange):
        if "alternate-exchange" in policy.definition:
            yield refuse(
                "foreign-alternate-exchange",
                f"exchange {exchange.name}",
                f"policy {policy.name} gives it the alternate exchange {policy.definition['alternate-exchange']}: "
                "a retry that finds no queue would be confirmed instead of returned",
                f"take {exchange.name} out of its pattern {policy.pattern}",
            )


def _foreign_bindings(exchange: str, desired: CompiledTopology, state: BrokerState) -> Iterator[Finding]:
    known = {binding.identity for binding in desired.desired.bindings}
    for binding in state.bindings:
        if binding.source != exchange or binding.identity in known:
            continue
        # a tier that left the file stays bound until it is pruned: it is ours, and its key is its own name
        queue = state.queues.get(binding.destination) if binding.destination_type == "queue" else None
        stamped = queue is not None and queue.arguments.get(STAMP) == desired.name
        if stamped and binding.routing_key == binding.destination and not binding.arguments:
            continue
        yield refuse(
            "foreign-binding",
            f"exchange {exchange}",
            f"{binding.destination_type} {binding.destination} is bound to it with the key "
            f"{binding.routing_key!r}, which amqpflow did not do: messages would be copied there",
            "remove that binding",
        )
