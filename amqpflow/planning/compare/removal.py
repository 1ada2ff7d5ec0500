"""What a topology owns and its file no longer has: what hinders its removal, and the steps in their order.

First nothing comes in any more: bindings of ours go. Then, from the queues that feed others to those that are fed
(retry queues, work queues, parking queues), each is drained where it can be, looked at, and deleted; exchanges last.
So at no time does anything dead-letter into what does not exist. A policy goes after the queues that it covers, or a
platform's policy for everything would work on those that are left for the next run; before them where it sends messages
to one that goes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from amqpflow.model.resources import Binding, Policy, Queue
from amqpflow.model.routes import CompiledTopology
from amqpflow.model.units import first_few, plural
from amqpflow.planning.ownership.ownership import Identity, Ownership, is_own_policy
from amqpflow.planning.policies.index import covered
from amqpflow.planning.values.approvals import NOTHING, Approval, Approvals, allow_flag
from amqpflow.planning.values.changes import Change, DeleteExchange, DeleteQueue, Drain, RemovePolicy, Unbind
from amqpflow.planning.values.findings import Finding, Ref, refuse
from amqpflow.planning.values.observation import Observation

from .adoption import strangers_to
from .leftovers import Leftovers, Thing

FILE_LACKS_IT = "the file no longer has it"


@dataclass(slots=True, kw_only=True)
class Removal:
    """Plans the removal of leftovers. `hindrances` and `steps` are what it comes to."""

    owns: Ownership
    left: Leftovers
    observed: Observation
    approvals: Approvals = NOTHING
    why: str = FILE_LACKS_IT
    _senders: dict[Thing, list[Thing]] = field(init=False, default_factory=dict)  #: target -> what sends messages to it
    _bindings: dict[Thing, list[Binding]] = field(init=False, default_factory=dict)  #: by both of their ends
    _parking: set[str] = field(init=False, default_factory=set)  #: what is bound to the parking exchange

    def __post_init__(self) -> None:
        for user, targets in self._referring():
            for target in targets:
                self._senders.setdefault(target, []).append(user)
        for binding in self.observed.state.bindings:
            for end in {(binding.destination_type, binding.destination), ("exchange", binding.source)}:
                self._bindings.setdefault(end, []).append(binding)
            if binding.source == self.topology.parking_exchange:
                self._parking.add(binding.destination)

    @property
    def topology(self) -> CompiledTopology:
        return self.owns.topology

    def hindrances(self) -> Iterator[Finding]:
        """Yield every reason why the removal must not be begun."""
        mine = {each.identity for each in self.left.bindings}
        for queue in self.left.queues:
            yield from self._held(queue)
        yield from self._shared()
        levels = self._levels()
        for name in sorted(each.name for each in self.left.queues if ("queue", each.name) not in levels):
            yield refuse("still-used", Ref("queue", name), "queues that are to be deleted dead-letter into each other")
        leaving = self.left.things
        for thing in sorted(leaving):
            users = [*self._users(thing, leaving), *self._foreign_bindings(thing, mine)]
            if users and not (thing[0] == "queue" and self._forced(thing[1])):
                yield refuse(
                    "still-used",
                    Ref(*thing),
                    f"it is not deleted while others use it: {first_few(users, 3, '; ')}",
                    "change those first, or keep it in the file",
                )

    def _shared(self) -> Iterator[Finding]:
        """Yield what was ours alone when it was recorded, and is not any more."""
        going = self.left.things
        state = self.observed.state
        owners = {each.owner for each in state.exchanges.values()} | {each.owner for each in state.queues.values()}
        for other in self.observed.others:
            if other.topology not in owners:
                continue  # it is of an earlier virtual host of this name
            for binding in self.left.bindings:
                name = binding.name
                if binding.identity in other.listed and going.isdisjoint(self.owns.own_ends(binding)):
                    yield refuse(
                        "still-used",
                        Ref("binding", name),
                        f"the topology {other.topology} lists it too",
                        f"amqpflow disown {self.topology.file} binding '{name}', and adopt it there",
                    )
        for policy in self.left.policies:
            foreign = not is_own_policy(policy.name, self.topology.name)
            if foreign and (strangers := strangers_to(policy, self.owns, self.observed.version)):
                hint = f"narrow its pattern first, or amqpflow disown {self.topology.file} policy {policy.name}"
                yield refuse("still-used", Ref("policy", policy.name), strangers, hint)

    def _held(self, queue: Queue) -> Iterator[Finding]:
        depth = self.observed.depth(queue.name)
        if self._forced(queue.name):
            return
        flag = allow_flag(Approval("delete", Ref("queue", queue.name)))
        if depth.consumers:
            yield refuse(
                "in-use",
                Ref("queue", queue.name),
                f"{plural(depth.consumers, 'consumer')} would be cut off by its deletion",
                f"stop them first, or add {flag}",
            )
        if depth.messages and not self._drains(queue):
            yield refuse(
                "not-empty",
                Ref("queue", queue.name),
                f"{plural(depth.messages, 'message')} would be lost with it",
                f"consume or replay them first, or add {flag} to lose them",
            )

    def _users(self, thing: Thing, leaving: set[Thing]) -> Iterator[str]:
        state = self.observed.state
        for user in self._senders.get(thing, ()):
            if user not in leaving:
                yield f"{' '.join(user)} sends messages to it"
        kept = self.topology.desired.policies
        gone = {each.name for each in self.left.policies}
        # policies of our names that the file has no use for any more are removed by the same apply, before this
        gone |= {name for name in state.policies if is_own_policy(name, self.topology.name) and name not in kept}
        for policy in (*state.policies.values(), *state.operator_policies.values()):
            if policy.name not in gone and thing in _policy_targets(policy):
                yield f"policy {policy.name} sends messages to it"

    def _foreign_bindings(self, thing: Thing, mine: set[Identity]) -> Iterator[str]:
        for each in self._bindings.get(thing, ()):
            if each.identity not in mine:
                yield f"a foreign binding {each.source} -> {each.destination}"

    def _referring(self) -> Iterator[tuple[Thing, frozenset[Thing]]]:
        state = self.observed.state
        for queue in state.queues.values():
            yield ("queue", queue.name), _queue_targets(queue)
        for exchange in state.exchanges.values():
            if exchange.alternate_exchange:
                yield ("exchange", exchange.name), frozenset({("exchange", exchange.alternate_exchange)})

    def _levels(self) -> dict[Thing, int]:
        """Return how many deletions must come before each; what is in a circle is missing."""
        leaving = self.left.things
        feeds = {user: targets & leaving - {user} for user, targets in self._referring() if user in leaving}
        waiting = dict.fromkeys(leaving, 0)
        for targets in feeds.values():
            for target in targets:
                waiting[target] += 1
        levels: dict[Thing, int] = {}
        free, level = sorted(thing for thing, count in waiting.items() if not count), 0
        while free:
            following: set[Thing] = set()
            for thing in free:
                levels[thing] = level
                for target in feeds.get(thing, ()):
                    waiting[target] -= 1
                    if not waiting[target]:
                        following.add(target)
            free, level = sorted(following), level + 1
        return levels

    def steps(self) -> Iterator[Change]:
        """Yield the removal, for leftovers without hindrances. Nothing feeds a thing any more when it is deleted."""
        levels = self._levels()
        queues = {each.name: each for each in self.left.queues}
        internal = {each for each in queues if not self._drains(queues[each])}
        late: dict[str, list[Binding]] = {}
        for binding in sorted(self.left.bindings, key=lambda each: each.identity):
            by_name = binding.routing_key == binding.destination and not binding.arguments
            if binding.destination_type == "queue" and binding.destination in internal and by_name:
                # replay and consumers may use it as long as the queue is there
                late.setdefault(binding.destination, []).append(binding)
            else:
                unproven = binding.identity in self.left.unproven
                yield Unbind(binding=binding, why=self._why_unbound(binding, queues), unproven=unproven)
        covering = {each.name: names for each in self.left.policies if (names := self._stays_for(each, queues))}
        for policy in self.left.policies:
            if policy.name not in covering:
                yield RemovePolicy(policy=policy)
        fed: dict[str, list[str]] = {}
        for user, targets in self._referring():
            for kind, name in targets:
                if kind == "queue" and user[0] == "queue" and user[1] != name and user[1] in queues:
                    fed.setdefault(name, []).append(user[1])
        for level in range(max(levels.values(), default=-1) + 1):
            here = [queues[name] for (kind, name), at in levels.items() if kind == "queue" and at == level]
            here.sort(key=lambda queue: queue.name)
            feeders = {queue.name: tuple(sorted(fed.get(queue.name, ()))) for queue in here}
            for queue in here:
                why = f"queue {queue.name} is removed"
                yield from (
                    Unbind(binding=each, why=why, after=feeders[queue.name]) for each in late.get(queue.name, ())
                )
            yield from (self._drain(queue) for queue in here if self._drains(queue) and not self._forced(queue.name))
            yield from (self._delete(queue, feeders[queue.name]) for queue in here)
        for policy in self.left.policies:
            if policy.name in covering:  # what it keeps off would work on the queues as long as these are there
                yield RemovePolicy(policy=policy, after=covering[policy.name])
        exchanges = {each.name: each for each in self.left.exchanges}
        # the stamped ones last: the manifest is believed as long as there is one
        ordered = sorted(
            (exchanges[name].owner is not None, at, name) for (kind, name), at in levels.items() if kind == "exchange"
        )
        for *_, name in ordered:
            yield DeleteExchange(exchange=exchanges[name], why=self.why)

    def _stays_for(self, policy: Policy, queues: Mapping[str, Queue]) -> tuple[str, ...]:
        """Return the queues that a policy covers until they are gone: none if it sends messages to a leaving object."""
        if not self.left.things.isdisjoint(_policy_targets(policy)):
            return ()
        return tuple(sorted(each.name for each in covered(policy, queues, self.observed.version)))

    def _drains(self, queue: Queue) -> bool:
        """Return whether it is a retry queue, which empties by itself, and not a work queue with a TTL."""
        arguments = queue.arguments
        if "x-message-ttl" not in arguments or arguments.get("x-dead-letter-exchange") != "":
            return False
        target = arguments.get("x-dead-letter-routing-key")
        if target in self._parking or target in self.topology.parking_queues:
            return False
        return queue.name not in self.topology.routes

    def _why_unbound(self, binding: Binding, queues: dict[str, Queue]) -> str:
        if binding.destination in queues and self._drains(queues[binding.destination]):
            return f"queue {binding.destination} is retired: later retries take the next longer tier"
        return self.why

    def _forced(self, queue: str) -> bool:
        """Return whether a queue may be deleted with messages and consumers."""
        return Approval("delete", Ref("queue", queue)) in self.approvals

    def _drain(self, queue: Queue) -> Drain:
        return Drain(
            queue=queue,
            messages=self.observed.depth(queue.name).messages,
            since_ms=self.observed.unbound_at(queue.name),
            returns_to=str(queue.arguments.get("x-dead-letter-routing-key", "")),
        )

    def _delete(self, queue: Queue, fed_by: tuple[str, ...]) -> DeleteQueue:
        depth = self.observed.depth(queue.name)
        return DeleteQueue(
            queue=queue,
            messages=depth.messages,
            consumers=depth.consumers,
            forced=self._forced(queue.name),
            fed_by=fed_by,
            why=self.why,
        )


def _queue_targets(queue: Queue) -> frozenset[Thing]:
    """Return where its dead letters go. Without a key of its own a message keeps the one it came with."""
    exchange = queue.arguments.get("x-dead-letter-exchange")
    if exchange is None:
        return frozenset()
    key = queue.arguments.get("x-dead-letter-routing-key")
    return frozenset({("exchange", exchange)}) if exchange else frozenset({("queue", str(key))} if key else ())


def _policy_targets(policy: Policy) -> frozenset[Thing]:
    found, definition = set[Thing](), policy.definition
    if alternate := definition.get("alternate-exchange"):
        found.add(("exchange", str(alternate)))
    if exchange := definition.get("dead-letter-exchange"):
        found.add(("exchange", str(exchange)))
    elif key := definition.get("dead-letter-routing-key"):
        found.add(("queue", str(key)))
    return frozenset(found)
