"""Explain every setting that works on one queue, and what the file asks for without effect."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from amqpflow.model.resources import Queue
from amqpflow.model.routes import CompiledTopology
from amqpflow.planning.checks.dead_letter_targets import leads_nowhere
from amqpflow.planning.checks.existing_queues import around_existing
from amqpflow.planning.checks.guarantees import guarantees
from amqpflow.planning.checks.shield import shielded
from amqpflow.planning.compare.release_support import adapt_to_release
from amqpflow.planning.ownership.ownership import is_own_policy
from amqpflow.planning.policies.effective import Contender, Effective, Origin, Setting, Source, effective
from amqpflow.planning.policies.matching import working
from amqpflow.planning.policies.precedence import ARGUMENT_ONLY, SMALLER, argument_wins
from amqpflow.planning.values.differences import same_value
from amqpflow.planning.values.guarantee import Guarantee
from amqpflow.planning.values.observation import Observation

UNSEEN_POLICIES = (
    "policies and operator policies cannot be seen over AMQP alone: one may make any number smaller, and decide what "
    "is not known here"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unmet:
    """A setting that the file asks for and that is not in effect."""

    key: str
    wanted: Any
    works: Any
    why: str
    hint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What works on a queue."""

    queue: str
    role: str  #: work queue, retry queue, parking queue
    work_queues: tuple[str, ...]  #: those that it belongs to; itself for a work queue
    exists: bool | None  #: None: the broker was not read
    effective: Effective
    unmet: tuple[Unmet, ...]
    guarantees: tuple[Guarantee, ...]  #: of an existing queue
    notes: tuple[str, ...]
    observed: Observation  #: the look at the virtual host that it rests on


def queues_of(topology: CompiledTopology) -> tuple[str, ...]:
    """Return every queue that a topology declares or uses."""
    names = dict.fromkeys(topology.routes)
    for routes in topology.routes.values():
        names |= dict.fromkeys((*(tier.queue for tier in routes.tiers), routes.parking_queue))
    return tuple(names)


def explain(
    topology: CompiledTopology, name: str, observed: Observation, *, default_queue_type: str | None = None
) -> Explanation:
    """Explain a queue of a topology, one of `queues_of`.

    `observed` is for the file alone one without objects and source that is not complete. The default queue type is that
    of the virtual host, when it is known.
    """
    return _Explainer(topology, name, observed, default_queue_type).run()


class _Explainer:
    def __init__(
        self, topology: CompiledTopology, name: str, seen: Observation, default_queue_type: str | None
    ) -> None:
        fitting, _ = adapt_to_release(topology.desired, seen.version)
        self.topology = shielded(around_existing(replace(topology, desired=fitting), seen), seen)
        self.name, self.seen, self.desired = name, seen, self.topology.desired
        self.looked = seen.complete or bool(seen.source)  # a look over AMQP alone says why it is no better
        self.declared = fitting.queues.get(name)
        self.there = seen.state.queues.get(name)
        self.default_queue_type = default_queue_type
        self.blind = self.looked and not seen.complete and self.there is not None
        self.routes = [
            each
            for each in topology.routes.values()
            if name in (each.queue, each.parking_queue) or any(tier.queue == name for tier in each.tiers)
        ]

    def run(self) -> Explanation:
        works = self._works()
        own = self.routes[0] if self.routes else None
        existing = own is not None and own.existing and own.queue == self.name
        promised = guarantees(self.topology, self.seen) if existing else ()
        return Explanation(
            queue=self.name,
            role=self._role(),
            work_queues=tuple(each.queue for each in self.routes),
            exists=self.there is not None if self.looked else None,
            effective=works,
            unmet=tuple(self._unmet(works)),
            guarantees=tuple(each for each in promised if each.queue == self.name),
            notes=tuple(self._notes(works)),
            observed=self.seen,
        )

    def _role(self) -> str:
        if self.name in self.topology.routes:
            return "work queue"
        return "parking queue" if any(each.parking_queue == self.name for each in self.routes) else "retry queue"

    def _queue(self) -> Queue:
        """Return the queue as it is; else as it will be declared; else with the type that the file says."""
        if self.there is not None and (self.seen.complete or self.declared is not None):
            return self.there
        if self.declared is not None:
            return self.declared
        kind = self.topology.routes[self.name].queue_type if self.name in self.topology.routes else "quorum"
        return Queue(name=self.name, arguments={"x-queue-type": kind})

    def _works(self) -> Effective:
        if self.blind:
            return self._unseen()
        policies = list(self.seen.state.policies.values())
        if self.there is None or not self.seen.complete:
            theirs = [each for each in policies if not is_own_policy(each.name, self.topology.name)]
            policies = [*theirs, *self.desired.policies.values()]
        foreign = self.declared is None
        return effective(
            self._queue(),
            policies,
            self.seen.state.operator_policies.values(),
            version=self.seen.version,
            topology=self.topology.name,
            default_queue_type=self.default_queue_type if foreign else None,
        )

    def _unseen(self) -> Effective:
        """Return what arguments settle on a queue that is there; all else is not known without its policies."""
        queue, version = self._queue(), self.seen.version
        alone = effective(queue, (), version=version, topology=self.topology.name)
        asked = effective(queue, self.desired.policies.values(), version=version, topology=self.topology.name)
        settings: dict[str, Setting] = {}
        for key in dict.fromkeys((*alone.settings, *asked.settings)):
            setting = alone.settings.get(key)
            if setting is not None and self._settled(key, queue):
                settings[key] = setting
                continue
            told = [] if setting is None or setting.source.origin is not Origin.ARGUMENT else [*setting.possible]
            told += [each for each in asked.settings[key].possible if each.source.origin is Origin.OUR_POLICY]
            nobody = Contender(value=None, source=Source(origin=Origin.UNSEEN))
            perhaps = tuple(replace(each, why=self._doubt(each)) for each in told)
            settings[key] = Setting(key=key, possible=(nobody,), overruled=perhaps)
        return replace(alone, settings=settings)

    def _settled(self, key: str, queue: Queue) -> bool:
        """Return whether arguments, seen of our own queues alone, decide a key or bound it from above."""
        if self.declared is None or key == "dead-letter-strategy":  # this one needs the overflow, too
            return False
        has = queue.arguments.get(f"x-{key}") is not None
        return key in ARGUMENT_ONLY or (has and (key in SMALLER or argument_wins(key, queue.type)))

    def _doubt(self, each: Contender) -> str:
        if each.source.origin is Origin.OUR_POLICY:
            return "the file asks for it; whether the policy is there cannot be seen"
        return "if no policy decides" if self.declared is not None else "the file says so; it cannot be seen"

    def _wanted(self) -> Mapping[str, tuple[Any, str]]:
        """Return by key the value, and the policy of ours that carries it, "" for an argument."""
        wanted: dict[str, tuple[Any, str]] = {}
        queue = self._queue()
        for policy in working(self.desired.policies.values(), queue, self.seen.version):
            wanted |= {key: (value, policy.name) for key, value in policy.definition.items()}
        if self.declared is not None:
            wanted |= {
                key.removeprefix("x-"): (value, "")
                for key, value in self.declared.arguments.items()
                if key.startswith("x-") and not key.startswith("x-amqpflow-")
            }
        return wanted

    def _unmet(self, works: Effective) -> Iterator[Unmet]:
        if self.looked and self.there is None:
            return
        for key, (value, policy) in self._wanted().items():
            setting = works.settings.get(key)
            if self.blind and (policy or setting is None or not setting.known):
                continue  # nothing is known to be missing
            possible = setting.possible if setting is not None else ()
            wrong = next((each for each in possible if not same_value(each.value, value)), None)
            if setting is None:
                yield Unmet(key=key, wanted=value, works=None, why="nothing sets it", hint=self._apply())
            if setting is None or wrong is None:
                continue
            overruled = next((each for each in setting.overruled if same_value(each.value, value)), None)
            if not setting.certain:
                why = "policies of the same priority differ about it, and which works differs between releases"
                if any(not each.source.certain for each in possible):
                    why = "only RabbitMQ can evaluate the pattern of a policy that decides it"
            elif overruled is not None:
                why = overruled.why
            else:
                why = f"{wrong.source.phrase} says otherwise"
            yield Unmet(key=key, wanted=value, works=wrong.value, why=why, hint=self._hint(wrong, overruled, policy))
        if self.seen.complete and (lost := self._lost(works)):
            yield lost

    def _hint(self, wrong: Contender, overruled: Contender | None, policy: str) -> str:
        if policy and self.looked and policy not in self.seen.state.policies:
            return self._apply()
        if wrong.source.origin is Origin.ARGUMENT and self.declared is None:
            return "the argument belongs to the program that declares the queue, and stays"
        other = wrong.source.policy
        if other is None and overruled is not None:
            # no foreign source has a value for the key: a policy of ours or the release hides it
            works = working(self.seen.state.policies.values(), self._queue(), self.seen.version)
            other = next(iter(works), None)
            if other is None or is_own_policy(other.name, self.topology.name):
                return "leave it out of the file, or use a release or queue type that has it"
        if wrong.source.origin is Origin.OPERATOR_POLICY and other is not None:
            return f"operator policies are the administrator's: take {self.name} out of its pattern {other.pattern}"
        if other is not None:
            return (
                f"take {self.name} out of the pattern {other.pattern} of policy {other.name}; amqpflow apply says how "
                "to carry its keys instead"
            )
        if wrong.source.origin is Origin.ARGUMENT:
            return "an argument cannot be changed in place: amqpflow apply says what that takes"
        return self._apply()

    def _lost(self, works: Effective) -> Unmet | None:
        exchange, key = works.value("dead-letter-exchange"), works.value("dead-letter-routing-key")
        if exchange is None or not leads_nowhere(self.seen.state, self.seen.state, self.name, exchange, key):
            return None
        where = f"exchange {exchange or '(default)'}, key {key if key is not None else 'of the message'}"
        return Unmet(
            key="dead-letter-exchange",
            wanted="a queue",
            works=where,
            why="no queue is there or bound: messages that RabbitMQ dead-letters are deleted",
            hint=self._apply() if self.declared is not None else "create the queue or the binding",
        )

    def _apply(self) -> str:
        return f"amqpflow apply {self.topology.file}"

    def _notes(self, works: Effective) -> Iterator[str]:
        if self.looked and self.there is None:
            yield "it does not exist yet; this is what will work once the file is applied"
        if self.looked and not self.seen.complete:
            yield UNSEEN_POLICIES
            if self.there is not None and self.declared is None:
                yield "another program declared it, and its arguments cannot be seen over AMQP alone either"
        if not self.looked:
            yield "computed from the file only; policies on the broker may override it"
            if self.declared is None:
                yield "another program declares it: its arguments are not in the file"
        possible = [each for setting in works.settings.values() for each in setting.possible]
        if any(each.source.policy is not None and not each.source.certain for each in possible):
            yield "only RabbitMQ can evaluate the pattern of a policy: it is assumed to match"
        timeout = works.settings.get("consumer-timeout")
        if timeout and timeout.value is not None and timeout.source.origin is Origin.BROKER_DEFAULT:
            yield "rabbitmq.conf may set another consumer_timeout for the whole node, which is not visible from outside"
        if count := self.seen.retained.get(self.name):
            yield f"RabbitMQ retains {count} messages whose dead-lettering did not succeed (statistics, up to 10 s old)"
        if works.queue.type == "quorum" and (own := self.topology.routes.get(self.name)) is not None:
            beyond = " beyond its retries" if own.native is not None else ""
            yield (
                f"crash_limit {own.crash_limit}: after so many deliveries without an ack or reject{beyond} the "
                "consumer parks a message (crashed)"
            )
        for each in works.passed_over:
            lacks = f"a {works.queue.type} queue does not know {', '.join(each.keys)}"
            yield f"policy {each.policy.name} matches and has no effect at all: {lacks}"
