"""Check whether foreign policies and bindings break a guarantee, before building and before consuming.

Arguments do not always win: of numbers the smaller works, and for the overflow of a quorum queue the policy (fact
11.6). So the settings that work on every queue of ours are worked out, and those that another program decides judged.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from amqpflow.model.resources import Policy, Queue
from amqpflow.model.routes import CompiledTopology
from amqpflow.model.units import plural
from amqpflow.planning.ownership.ownership import Ownership
from amqpflow.planning.policies.effective import Contender, Effective, Origin, effective
from amqpflow.planning.policies.matching import applies
from amqpflow.planning.values.findings import Finding, Ref, refuse, warn
from amqpflow.planning.values.observation import Observation

from .foreign_bindings import foreign_bindings

_PARKING, _TIER, _WORK = "parking", "tier", "work"
HELD_MS = 600_000  #: how long a reader of a parking queue holds a message when no consumer timeout is shorter


def preflight(desired: CompiledTopology, observed: Observation) -> tuple[Finding, ...]:
    """Return everything foreign that would break a guarantee of `desired`, as it is or will be on the broker.

    Severity ERROR is what apply refuses to build on and a consumer should not trust; WARNING is for people to know.
    Over AMQP alone nothing of this can be seen. What holds for `existing` queues `guarantees` tells.
    """
    if not observed.complete:
        return ()
    state = observed.state
    ours = desired.desired.policies
    owns = Ownership.of(desired, observed)
    users = [p for p in state.policies.values() if p.name not in ours and not owns.of_policy(p)]
    operators = [*state.operator_policies.values()]
    foreign = [*users, *operators]
    effects: dict[_Effect, list[str]] = {}
    for queue in desired.desired.queues.values():
        if not any(applies(policy, queue, observed.version) for policy in foreign):
            continue
        works = effective(queue, [*users, *ours.values()], operators, version=observed.version, topology=desired.name)
        role = role_of(queue, desired)
        for setting in works.settings.values():
            for each in setting.possible:
                for effect in _effects(setting.key, each, queue, role, desired):
                    effects.setdefault(effect, []).append(queue.name)
    return (
        *(effect.on(queues) for effect, queues in effects.items()),
        *foreign_bindings(desired, owns, users),
        *_retained(desired, observed),
    )


def role_of(queue: Queue, desired: CompiledTopology) -> str:
    """Return what a queue of the topology is for: parking, work or tier."""
    if queue.name in desired.parking_queues:
        return _PARKING
    return _WORK if queue.name in desired.routes else _TIER


@dataclass(frozen=True, slots=True, kw_only=True)
class _Effect:
    """What one key of a foreign policy does to queues of ours; equal for all queues that it does the same to."""

    policy: str
    pattern: str
    certain: bool
    setting: str
    lift: int | None  #: the policy priority above which a policy of ours would shield the queues
    breaks: str | None  #: which guarantee
    weakens: str | None

    def on(self, queues: list[str]) -> Finding:
        ref = Ref.of("queue", queues)
        doubt = "" if self.certain else f" (if its pattern {self.pattern} matches, which only RabbitMQ can tell)"
        text = f"{self.policy} sets {self.setting}{doubt}: {self.breaks or self.weakens}"
        if self.breaks is None:
            return warn("foreign-policy-limits", ref, text)
        narrow = f"take {ref} out of its pattern {self.pattern}"
        if self.lift is not None:
            narrow = (
                f"write `policy_priority: {self.lift}` at the top of the file, so that a policy of amqpflow shields "
                f"{ref} from it; or {narrow}"
            )
        return refuse("foreign-policy", ref, text, narrow)


def breaking(queue: Queue, role: str, works: Effective, policy: Policy) -> dict[str, str]:
    """Return the keys of a foreign policy that, as it works on a queue of ours, break a guarantee: key -> which."""
    found: dict[str, str] = {}
    for key, setting in works.settings.items():
        for each in setting.possible:
            if each.source.policy == policy and (why := _breaks(key, each.value, queue, role)):
                found[key] = why
    return found


def _effects(key: str, works: Contender, queue: Queue, role: str, desired: CompiledTopology) -> Iterator[_Effect]:
    policy: Policy | None = works.source.policy
    if not works.source.foreign or policy is None or key not in policy.definition:
        return
    breaks, weakens = _breaks(key, works.value, queue, role), _weakens(key, works.value, role)
    if breaks or weakens:
        yield _Effect(
            policy=works.source.label,
            pattern=policy.pattern,
            certain=works.source.certain,
            setting=f"{key} {works.value!r}",
            lift=_lift(works, policy, desired),
            breaks=breaks,
            weakens=weakens,
        )


def _lift(works: Contender, policy: Policy, desired: CompiledTopology) -> int | None:
    """Return a priority above that of a foreign user policy, where the topology may write policies."""
    if works.source.origin is not Origin.POLICY or desired.settings == "arguments":
        return None
    return max(int(policy.priority) + 1, 0) if policy.priority >= desired.policy_priority else None


def _breaks(key: str, value: Any, queue: Queue, role: str) -> str | None:
    """Return which guarantee a foreign value that works takes away from a queue of ours; None when it does not."""
    arguments = queue.arguments
    match key:
        case "expires":
            return "an unused queue is deleted with its messages"
        case "message-ttl":
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
        case "delivery-limit" if role == _PARKING:
            return "reading a parked message could delete it"
        case "dead-letter-exchange":
            return "messages could go to a destination that amqpflow does not know"
        case "dead-letter-routing-key" if "x-dead-letter-exchange" in arguments:
            return "dead letters would go elsewhere"
    return None


def _weakens(key: str, value: Any, role: str) -> str | None:
    match key:
        case "delivery-limit" if role == _WORK:
            return f"messages are parked after {value} failed deliveries"
        case "max-length" | "max-length-bytes" if role == _TIER:
            return "while it is full, failed messages wait in their work queue"
        case "consumer-timeout" if role == _PARKING and isinstance(value, int) and 0 < value < 2 * HELD_MS:
            return "reading ends after half of that: of many parked messages not all can be listed or replayed at once"
    return None


def _retained(desired: CompiledTopology, observed: Observation) -> Iterator[Finding]:
    """Warn of messages that RabbitMQ retains because dead-lettering fails (fact 4.5), or that it counts none."""
    if not observed.statistics:
        yield warn(
            "no-statistics",
            Ref(observed.product, observed.release),
            "its statistics are switched off (management_agent.disable_metrics_collector): consumers, rates and sizes "
            "are not known, and of messages that are neither ready nor unacked only how many there are",
            "switch them on to see which messages RabbitMQ retains",
        )
    names = {*desired.desired.queues, *desired.required_queues}
    for name, count in sorted(observed.retained.items()):
        if count > 0 and name in names:
            yield warn(
                "retained",
                Ref("queue", name),
                f"RabbitMQ retains {plural(count, 'message')} whose dead-lettering did not succeed (messages_dlx, "
                "statistics that are up to 10 s old): their target is missing, full or not bound",
                "repair the target: RabbitMQ tries again every 3 minutes",
            )
