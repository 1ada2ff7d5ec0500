"""Explain a change to people who approve it: how it is done, and what happens to messages and consumers.

One value for each change and for each attribute that stands in the way, so that text, JSON and markdown say the same.
The prose rests on measured facts: a deadline is fixed at enqueue (5.3), a policy works within 40 ms (11.6e), a limit
that shrinks takes messages out at once (11.6f).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from amqpflow.model.resources import Policy
from amqpflow.planning.checks.message_loss import leaving, sentence
from amqpflow.planning.ownership.ownership import is_own_policy
from amqpflow.planning.policies.index import covered
from amqpflow.planning.values.changes import Change, DeleteQueue, PutPolicy, RemovePolicy
from amqpflow.planning.values.differences import Difference, same_value
from amqpflow.planning.values.findings import Finding, Ref
from amqpflow.planning.values.plan import Plan
from amqpflow.planning.values.queue_risk import QueueRisk

from .effects import Effect, effect_of_change, effect_of_key

_QUEUES_TOLD = 3


class Danger(IntEnum):
    """How much to think before agreeing."""

    NONE = 0
    CARE = 1  #: behaviour of something that exists changes
    DANGER = 2  #: messages may leave a queue, or something is deleted or cannot be done


@dataclass(frozen=True, slots=True, kw_only=True)
class Consequence:
    """One change of a plan, or one object that would have to be replaced, with all there is to say about it."""

    symbol: str  #: Terraform's: + ~ - -/+; ? for what is made again since it cannot be seen, … for waiting
    step: int | None  #: from 1, in the order in which apply works; None: it is not done
    action: str  #: create, update, delete, ensure, replace ...
    kind: str  #: exchange, queue, binding, policy ...
    name: str
    attributes: tuple[Difference, ...] = ()  #: what is there, and what will be
    reason: str = ""  #: why it cannot be changed in place, or why it goes; empty when there is nothing to say
    how: str = ""
    effects: Effect
    danger: Danger = Danger.NONE
    change: Change | None = None  #: None: nothing is done about it
    queues: tuple[str, ...] = ()  #: of a policy: those of the topology it will work on, or worked on


SYMBOLS: Mapping[str, str] = {
    "create": "+",
    "update": "~",
    "delete": "-",
    "ensure": "?",
    "replace": "-/+",
    "drain": "…",
}
"""By action. Terraform's, and two for what Terraform does not know."""


def replaced_queues(changes: Iterable[Change]) -> tuple[str, ...]:
    """Return queues that a plan deletes and declares again under the same name, in several steps."""
    made: dict[str, set[str]] = {"create": set(), "delete": set()}
    for change in changes:
        if change.kind == "queue" and change.action in made:
            made[change.action].add(change.name)
    return tuple(sorted(made["create"] & made["delete"]))


def consequences(plan: Plan) -> tuple[Consequence, ...]:
    """Return everything a plan does, in that order, and then what would have to be replaced, which it does not do."""
    made = _Consequences(plan)
    steps = [made.of(number, change) for number, change in enumerate(plan.changes, 1)]
    return (*steps, *made.replacements())


class _Consequences:
    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        topology = plan.topology
        there, self.version = plan.observed.state, plan.observed.version
        left = {q.name: q for q in there.queues.values() if q.owner == topology.name}
        self.there = there.queues.keys()
        self.queues = {**left, **topology.desired.queues}
        wanted = topology.desired.policies
        own = (p for p in there.policies.values() if p.name in wanted or is_own_policy(p.name, topology.name))
        self.before = self._by_queue(own)
        self.after = self._by_queue(topology.desired.policies.values())

    def _covered(self, policy: Policy) -> tuple[str, ...]:
        return tuple(queue.name for queue in covered(policy, self.queues, self.version))

    def _by_queue(self, policies: Iterable[Policy]) -> dict[str, Mapping[str, Any]]:
        return {name: policy.definition for policy in policies for name in self._covered(policy)}

    def of(self, number: int, change: Change) -> Consequence:
        attributes: tuple[Difference, ...] = ()
        queues: tuple[str, ...] = ()
        if isinstance(change, PutPolicy | RemovePolicy):
            queues = self._covered(change.policy)
            attributes, effect = self._policy(change, queues)
        else:
            effect = effect_of_change(change, self.plan)
            if isinstance(change, DeleteQueue):
                attributes = self.plan.replaced.get(change.name, ())
        return Consequence(
            symbol=SYMBOLS[change.action],
            step=number,
            action=change.action,
            kind=change.kind,
            name=change.name,
            attributes=attributes,
            reason=effect.reason,
            how=effect.how,
            effects=effect,
            danger=Danger.DANGER if effect.dangerous else Danger.CARE if effect.notable else Danger.NONE,
            change=change,
            queues=queues,
        )

    def _policy(
        self, change: PutPolicy | RemovePolicy, queues: tuple[str, ...]
    ) -> tuple[tuple[Difference, ...], Effect]:
        """Compare the policy that existing queues had, whatever its name, with this one."""
        how, definition = "DELETE of the policy, in place", dict[str, Any]()
        found: dict[str, Difference] = {}
        if isinstance(change, PutPolicy):
            how, definition = "PUT of the policy, in place", dict(change.policy.definition)
            found = {repr(each): each for each in change.differences}
        else:
            # where another policy of ours takes over, the step of that one says it
            queues = tuple(name for name in queues if name not in self.after)
        told: dict[str, dict[str, None]] = {"messages": {}, "consumers": {}, "when": {}}
        told["messages"] |= dict.fromkeys(self._lost(change.at_stake))
        dangerous = bool(change.at_stake)
        counted = {(stake.queue, str(stake.risk)) for stake in change.at_stake}
        for name in queues:
            if name not in self.there:
                continue
            before = self.before.get(name, {})
            for key in sorted(before.keys() | definition.keys()):
                old, new = before.get(key), definition.get(key)
                if same_value(old, new):
                    continue
                difference = Difference(key=key, observed=old, desired=new)
                found.setdefault(repr(difference), difference)
                effect = effect_of_key(key, old, new, self.queues[name])
                dangerous = dangerous or effect.dangerous
                for where, texts in told.items():
                    if (text := getattr(effect, where)) and (where != "messages" or (name, key) not in counted):
                        texts[text] = None
        texts_of = {where: "; ".join(texts) for where, texts in told.items()}
        notable = bool(told["messages"] or told["consumers"])
        return tuple(found.values()), Effect(how=how, dangerous=dangerous, notable=notable, **texts_of)

    def _lost(self, stakes: Sequence[QueueRisk]) -> Iterator[str]:
        """Yield what the first queues of a policy lose, by what was counted, and how many more there are."""
        depths = self.plan.observed.depths
        for stake in stakes[:_QUEUES_TOLD]:
            depth = depths.get(stake.queue)
            yield f"queue {stake.queue}: {sentence(stake, leaving(stake, depth), depth)}"
        if (more := len(stakes) - _QUEUES_TOLD) > 0:
            yield f"and {more} more queues, see the warnings"

    def replacements(self) -> Iterator[Consequence]:
        """Yield objects that differ in what cannot be changed in place, each once, with all its attributes."""
        found: dict[Ref, list[Finding]] = {}
        for finding in self.plan.refusals:
            if finding.code == "differs":
                found.setdefault(finding.ref, []).append(finding)
        for ref, findings in found.items():
            differences = tuple(f.difference for f in findings if f.difference is not None)
            yield Consequence(
                symbol="-/+",
                step=None,
                action="replace",
                kind=ref.kind,
                name=ref.name,
                attributes=differences,
                reason=(_fixed(ref.kind, differences) if differences else findings[0].message) + self._owned(ref),
                how=self._refused(ref),
                effects=_nothing(ref.kind),
                danger=Danger.DANGER,
            )

    def _owned(self, ref: Ref) -> str:
        state = self.plan.observed.state
        there = state.exchanges.get(ref.name) if ref.kind == "exchange" else state.queues.get(ref.name)
        if there is None or there.owner in (None, self.plan.topology.name):
            return ""
        return f"; it is owned by the topology {there.owner}"

    def _refused(self, ref: Ref) -> str:
        if ref.kind == "exchange":
            return (
                "refused, nothing is done. By hand: declare an exchange of another name, bind it alike, let publishers "
                "move, delete this one"
            )
        held = self.plan.depths.get(ref.name)
        messages = "its messages" if held is None else f"{held} ready messages" if held else "no message"
        if held == 0:
            return (
                "refused, nothing is done. It holds no ready message now: once no consumer is left it can be deleted, "
                "and apply declares it again"
            )
        return (
            f"refused, nothing is done. Migrating would declare a queue of another name, move {messages} there by "
            "publish, confirm, ack, let consumers follow, and delete the old one once it is empty"
        )


def _fixed(kind: str, differences: tuple[Difference, ...]) -> str:
    keys = [difference.key for difference in differences]
    if kind == "exchange":
        return f"RabbitMQ fixes {_and(keys)} of an exchange when it is declared"
    if keys == ["x-queue-type"]:
        return "RabbitMQ fixes the type of a queue when it is declared"
    word = "it" if len(keys) == 1 else "them"
    return f"RabbitMQ fixes {_and(keys)} when a queue is declared: no redeclare and no policy changes {word}"


def _nothing(kind: str) -> Effect:
    if kind == "exchange":
        return Effect(bindings="stay as they are, since nothing is done")
    return Effect(messages="stay where they are, since nothing is done", consumers="continue with the queue as it is")


def _and(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
