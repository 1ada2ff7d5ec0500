"""The settings that work on a queue: each with its value, where that comes from, and what it overruled.

A queue's arguments, one user policy and one operator policy meet in RabbitMQ, and each key has its own rule for who
wins (fact 11.6). Of the user policies that match only one works (11.6b); one that holds a key the queue's type does not
know is passed over as a whole (11.6d). https://www.rabbitmq.com/docs/policies
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from amqpflow.model.resources import Policy, Queue
from amqpflow.planning.ownership.ownership import is_own_policy
from amqpflow.planning.values.differences import same_value
from amqpflow.planning.values.observation import Observation

from .matching import alternatives, applies, may_work, passed_over, surely_matches
from .precedence import ARGUMENT_ONLY, ROUTING, SMALLER, argument_wins, default, no_effect, smaller

CORE = (
    "queue-type",
    "message-ttl",
    "expires",
    "max-length",
    "max-length-bytes",
    "overflow",
    "dead-letter-exchange",
    "dead-letter-routing-key",
    "dead-letter-strategy",
    "delivery-limit",
    "consumer-timeout",
    "max-priority",
    "single-active-consumer",
)
"""Keys that are always shown, in this order, where the queue's type knows them."""

_QUORUM_ONLY = ("delivery-limit", "dead-letter-strategy")


class Origin(StrEnum):
    """Where a value comes from."""

    ARGUMENT = "argument"
    OUR_POLICY = "our policy"
    POLICY = "policy"  #: a foreign one
    OPERATOR_POLICY = "operator policy"
    VHOST_DEFAULT = "virtual host default"
    BROKER_DEFAULT = "broker default"
    UNSEEN = "not known"  #: a policy may decide, and policies cannot be seen


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where a value comes from, by name."""

    origin: Origin
    name: str = ""  #: of the argument or the policy
    policy: Policy | None = None
    certain: bool = True  #: False: whether the policy's pattern matches is not known here

    @property
    def foreign(self) -> bool:
        """Return whether neither amqpflow nor RabbitMQ set it."""
        return self.origin in (Origin.POLICY, Origin.OPERATOR_POLICY)

    @property
    def phrase(self) -> str:
        """Return it as part of a sentence: the policy ops; our policy amqpflow.shop...; RabbitMQ's default."""
        match self.origin:
            case Origin.OUR_POLICY:
                return str(self)
            case Origin.BROKER_DEFAULT:
                return "RabbitMQ's default"
            case _:
                return f"the {self}"

    @property
    def label(self) -> str:
        """Return it as a label: policy ops"""
        return f"{self.origin} {self.name}".rstrip()

    def __str__(self) -> str:
        return self.label + ("" if self.certain else " (if its pattern matches)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """A value that a source gives a key. `why` says why it does not work, when it does not."""

    value: Any
    source: Source
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One key of a queue."""

    key: str
    possible: tuple[Contender, ...]
    """What works. Several where policies share the highest priority, or RabbitMQ alone can read the pattern of one."""
    overruled: tuple[Contender, ...] = ()

    @property
    def value(self) -> Any:
        """Return what works; None: nothing sets it, and RabbitMQ has no default. The first of several possible ones."""
        return self.possible[0].value

    @property
    def source(self) -> Source:
        return self.possible[0].source

    @property
    def certain(self) -> bool:
        return len(self.possible) == 1 and self.known

    @property
    def known(self) -> bool:
        """Return False when what works cannot be seen; `overruled` holds what may."""
        return self.source.origin is not Origin.UNSEEN

    def is_surely(self, value: Any) -> bool:
        """Return whether this value works whichever policy does."""
        return all(same_value(each.value, value) for each in self.possible)


@dataclass(frozen=True, slots=True, kw_only=True)
class PassedOver:
    """A policy that matches and has no effect at all: it holds keys that the queue's type does not know."""

    policy: Policy
    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Effective:
    """All that works on one queue."""

    queue: Queue
    settings: Mapping[str, Setting]
    policies: tuple[Policy, ...] = ()  #: the user policy that works; several when that is not known
    operator_policies: tuple[Policy, ...] = ()
    hidden: tuple[Policy, ...] = ()  #: user policies that match and have a lower priority
    passed_over: tuple[PassedOver, ...] = ()

    def value(self, key: str) -> Any:
        """Return the value that works, of a key that may not be set at all."""
        setting = self.settings.get(key)
        return None if setting is None else setting.value

    def surely(self, key: str, value: Any) -> bool:
        setting = self.settings.get(key)
        return value is None if setting is None else setting.is_surely(value)

    @property
    def at_least_once(self) -> bool:
        """Return whether its dead-lettering cannot lose, whichever policy wins a tie (fact 4.4)."""
        return self.surely("dead-letter-strategy", "at-least-once")


def effective(
    queue: Queue,
    policies: Iterable[Policy],
    operator_policies: Iterable[Policy] = (),
    *,
    version: tuple[int, ...] = (),
    topology: str = "",
    default_queue_type: str | None = None,
) -> Effective:
    """Work out what works on a queue, by every user and operator policy of its virtual host.

    Args:
        version: of the broker; () is taken for a new one.
        topology: whose policies are ours.
        default_queue_type: of the virtual host, when it is known and another program declared the queue, for which
            RabbitMQ 4 may have filled in x-queue-type (fact 7.13).
    """
    users, operators = tuple(policies), tuple(operator_policies)
    active, operating = may_work(users, queue, version), may_work(operators, queue, version)
    pairs = [(user, each) for user in alternatives(active, queue) for each in alternatives(operating, queue)]
    matching = [each for each in users if applies(each, queue, version)]
    hidden = tuple(each for each in matching if each not in active)
    known = (key for key in CORE if queue.type == "quorum" or key not in _QUORUM_ONLY)
    keys = dict.fromkeys((*known, *_mentioned(queue, (*matching, *operating))))
    settings = {}
    for key in keys:
        outcomes = [_resolve(key, queue, *each, version, topology, default_queue_type) for each in pairs]
        beaten = []
        for policy in hidden:
            if key in policy.definition:
                over = f"({active[0].priority} over {policy.priority})"
                why = f"policy {active[0].name} has the higher priority {over}, and one policy works alone"
                source = _of_policy(policy, topology, queue)
                beaten.append(Contender(value=policy.definition[key], source=source, why=why))
        settings[key] = _merged(key, outcomes, beaten)
    return Effective(
        queue=queue,
        settings=_at_least_once_or_not(settings),
        policies=active,
        operator_policies=operating,
        hidden=hidden,
        passed_over=tuple(
            PassedOver(policy=policy, keys=unknown)
            for policy in (*users, *operators)
            if (unknown := passed_over(policy, queue, version))
        ),
    )


def effective_in(
    observed: Observation, queue: Queue, *, topology: str, policies: Iterable[Policy] | None = None
) -> Effective:
    """Return what works on a queue of a virtual host; `policies` take the place of its user policies."""
    users = observed.state.policies.values() if policies is None else policies
    operators = observed.state.operator_policies.values()
    return effective(queue, users, operators, version=observed.version, topology=topology)


def _mentioned(queue: Queue, policies: Iterable[Policy]) -> Iterator[str]:
    yield from (name.removeprefix("x-") for name in queue.arguments if name.startswith("x-") and "amqpflow" not in name)
    for policy in policies:
        yield from policy.definition


def _resolve(
    key: str,
    queue: Queue,
    user: Policy | None,
    operator: Policy | None,
    version: tuple[int, ...],
    topology: str,
    default_queue_type: str | None,
) -> tuple[Contender, tuple[Contender, ...]]:
    """Return what works when this user policy and this operator policy do, and what does not."""
    contenders: list[Contender] = []
    argument = queue.arguments.get(f"x-{key}")
    if argument is not None:
        source = Source(origin=Origin.ARGUMENT, name=f"x-{key}")
        if key == "queue-type" and argument == default_queue_type:
            source = Source(origin=Origin.VHOST_DEFAULT)
        contenders.append(Contender(value=argument, source=source))
    if user is not None and key in user.definition:
        contenders.append(Contender(value=user.definition[key], source=_of_policy(user, topology, queue)))
    if operator is not None and key in operator.definition:
        certain = surely_matches(operator, queue)
        source = Source(origin=Origin.OPERATOR_POLICY, name=operator.name, policy=operator, certain=certain)
        contenders.append(Contender(value=operator.definition[key], source=source))
    best: Contender | None = None
    beaten: list[Contender] = []
    for each in contenders:
        is_argument = each.source.origin in (Origin.ARGUMENT, Origin.VHOST_DEFAULT)
        if why := no_effect(key, queue.type, version, argument=is_argument):
            beaten.append(replace(each, why=why))
        elif best is None:
            best = each
        else:
            winner, loser, why = _duel(key, queue.type, best, each, version)
            beaten.append(replace(loser, why=why))
            best = winner
    if best is None:
        value = queue.type if key == "queue-type" else default(key, queue.type, version)
        best = Contender(value=value, source=Source(origin=Origin.BROKER_DEFAULT))
    return best, tuple(beaten)


def _duel(
    key: str, queue_type: str, earlier: Contender, later: Contender, version: tuple[int, ...]
) -> tuple[Contender, Contender, str]:
    """Return winner, loser and why. They come in the order argument, user policy, operator policy."""
    if key in SMALLER:
        if smaller(key, earlier.value, later.value, version):
            return earlier, later, f"of two numbers the smaller works: that of {earlier.source.phrase}"
        return later, earlier, f"of two numbers the smaller works: that of {later.source.phrase}"
    if earlier.source.origin is not Origin.ARGUMENT:
        return later, earlier, f"{later.source.phrase} goes before it"
    if key in ARGUMENT_ONLY or argument_wins(key, queue_type):
        return earlier, later, f"for {key} on a {queue_type} queue the argument overrides any policy"
    return later, earlier, f"for {key} on a {queue_type} queue {later.source.phrase} goes before the argument"


def _merged(key: str, outcomes: list[tuple[Contender, tuple[Contender, ...]]], hidden: list[Contender]) -> Setting:
    possible: list[Contender] = []
    overruled: list[Contender] = []
    for best, beaten in outcomes:
        if not any(same_value(best.value, each.value) for each in possible):
            possible.append(best)
        overruled += [each for each in beaten if each not in overruled]
    return Setting(key=key, possible=tuple(possible), overruled=(*overruled, *hidden))


def _at_least_once_or_not(settings: dict[str, Setting]) -> dict[str, Setting]:
    """Switch at-least-once off without reject-publish or a dead-letter exchange, as RabbitMQ does (fact 4.4)."""
    strategy = settings.get("dead-letter-strategy")
    if strategy is None or not any(each.value == "at-least-once" for each in strategy.possible):
        return settings
    hindrances = []
    if not settings["overflow"].is_surely("reject-publish"):
        cause = next(each for each in settings["overflow"].possible if each.value != "reject-publish")
        hindrances.append((cause.source, f"at-least-once needs overflow reject-publish, and {cause.value} works"))
    if settings[ROUTING[0]].value is None:
        hindrances.append((settings[ROUTING[0]].source, "there is no dead-letter exchange"))
    if not hindrances:
        return settings
    source, why = hindrances[0]
    switched_off = (replace(each, why=why) for each in strategy.possible if each.value == "at-least-once")
    settings["dead-letter-strategy"] = Setting(
        key="dead-letter-strategy",
        possible=(Contender(value="at-most-once", source=source),),
        overruled=(*switched_off, *strategy.overruled),
    )
    return settings


def _of_policy(policy: Policy, topology: str, queue: Queue) -> Source:
    ours = bool(topology) and is_own_policy(policy.name, topology)
    origin = Origin.OUR_POLICY if ours else Origin.POLICY
    return Source(origin=origin, name=policy.name, policy=policy, certain=surely_matches(policy, queue))
