"""Tell what is ours: by the stamp among an object's arguments, a policy's name, and the manifest for the rest."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from amqpflow.model.resources import Binding, BrokerState, Exchange, Policy, Queue
from amqpflow.model.routes import CompiledTopology
from amqpflow.model.units import plural
from amqpflow.planning.values.changes import STANDS_IN
from amqpflow.planning.values.findings import Finding, Ref, warn
from amqpflow.planning.values.manifest import Manifest
from amqpflow.planning.values.observation import Observation

Origin = Literal["ours", "unproven", "foreign"]
"""Whose a binding is; unproven: amqpflow may have made it, and it is between two foreign objects."""

Identity = tuple[str, str, str, str, str]

_AFTER_TOPOLOGY = re.compile(r"\.(classic|quorum)(-shield)?-[0-9a-f]{8}(\.[0-9a-f]{8})?(\.[0-9]+)?", re.ASCII)


def is_own_policy(name: str, topology: str) -> bool:
    """Return whether a policy was made for this topology, by all of its name: orders does not claim orders.eu's."""
    prefix = f"amqpflow.{topology}"
    return name.startswith(prefix) and _AFTER_TOPOLOGY.fullmatch(name, len(prefix)) is not None


def is_shield(name: str, topology: str) -> bool:
    """Return whether a policy of this name was made for this topology to keep foreign policies off its queues."""
    found = _AFTER_TOPOLOGY.fullmatch(name, len(f"amqpflow.{topology}")) if is_own_policy(name, topology) else None
    return found is not None and found[2] is not None


def topology_of_policy(name: str) -> str | None:
    """Return the topology that a policy of this name was made for; None for a foreign policy."""
    for found in _AFTER_TOPOLOGY.finditer(name):
        if found.end() == len(name) and name.startswith("amqpflow."):
            return name[len("amqpflow.") : found.start()] or None
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ownership:
    """Decides for each object of a virtual host whether a topology owns it.

    Everything that is not surely ours is foreign. What carries the stamp of another topology is never ours, whatever a
    manifest says. A manifest is believed only while something in the virtual host carries the topology's stamp: it is
    kept outside of the virtual host, and outlives one that is deleted.
    """

    topology: CompiledTopology
    there: BrokerState
    manifest: Manifest | None = None  #: as it was read
    marked: bool = field(init=False)  #: something carries the topology's stamp
    believed: Manifest | None = field(init=False)  #: the manifest, or None where it is of another virtual host
    _recorded: frozenset[Identity] = field(init=False)
    _unproven: frozenset[Identity] = field(init=False)
    _known: frozenset[Identity] = field(init=False)

    @classmethod
    def of(cls, topology: CompiledTopology, observed: Observation) -> Ownership:
        return cls(topology=topology, there=observed.state, manifest=observed.recorded)

    def __post_init__(self) -> None:
        things: Iterable[Exchange | Queue] = (*self.there.exchanges.values(), *self.there.queues.values())
        marked = any(each.owner == self.topology.name for each in things)
        believed = self.manifest if marked else None
        set_field = object.__setattr__  # the dataclass is frozen
        set_field(self, "marked", marked)
        set_field(self, "believed", believed)
        listed = [each for each in self.topology.desired.bindings if not _known_without(each, self.topology)]
        recorded: list[Binding] = [] if believed is None else [*believed.bindings]
        unproven: list[Binding] = [] if believed is None else [*believed.unproven]
        # without a manifest, what the file lists may be ours where the topology was applied
        told = listed if marked and believed is None else unproven
        # nothing else binds in our own two exchanges; of an old format an end has to tell
        older = believed is not None and believed.older
        likely = [each for each in told if self._in_own(each) or (older and any(self.own_ends(each)))]
        recorded += likely
        taken = {each.identity for each in likely}
        unproven = [each for each in told if each.identity not in taken]
        known = (*listed, *(believed.found if believed is not None else ()))
        set_field(self, "_recorded", frozenset(each.identity for each in recorded))
        set_field(self, "_unproven", frozenset(each.identity for each in unproven) - self._recorded)
        set_field(self, "_known", frozenset(each.identity for each in known))

    @property
    def disbelieved(self) -> Manifest | None:
        """Return a manifest that claims something here, and is not believed."""
        stale = self.manifest if self.believed is None else None
        return stale if stale is not None and (stale.adopted or stale.claimed) else None

    @property
    def _adopted(self) -> frozenset[tuple[str, str]]:
        return self.believed.adopted if self.believed is not None else frozenset()

    def of_exchange(self, exchange: Exchange) -> bool:
        return self.of_thing("exchange", exchange)

    def of_queue(self, queue: Queue) -> bool:
        return self.of_thing("queue", queue)

    def of_thing(self, kind: str, thing: Exchange | Queue) -> bool:
        """Return whether a queue or an exchange is ours."""
        if thing.owner is None:
            return (kind, thing.name) in self._adopted
        return thing.owner == self.topology.name

    def of_policy(self, policy: Policy) -> bool:
        return is_own_policy(policy.name, self.topology.name) or ("policy", policy.name) in self._adopted

    def of_binding(self, binding: Binding) -> Origin:
        """Tell whose a binding on the broker is.

        Ours is what apply made or a person adopted, and what binds a queue of ours by its name in our own two
        exchanges. Of what a manifest of format 1 recorded, that is ours which has an end that is.
        """
        if binding.identity in self._recorded or self._is_internal(binding):
            return "ours"
        return "unproven" if binding.identity in self._unproven else "foreign"

    def knows(self, binding: Binding) -> bool:
        """Return whether the file lists a binding, or did when it was last applied, whoever made it."""
        return binding.identity in self._known

    def listed(self, binding: Binding) -> bool:
        """Return whether the file lists a binding."""
        return any(each.identity == binding.identity for each in self.topology.desired.bindings)

    def is_recorded(self, binding: Binding) -> bool:
        """Return whether the manifest has it as ours, or as what may be."""
        return binding.identity in self._recorded or self.is_unproven(binding)

    def is_unproven(self, binding: Binding) -> bool:
        """Return whether apply may have made it, which nothing proves."""
        return binding.identity in self._unproven

    def own_ends(self, binding: Binding) -> Iterator[tuple[str, str]]:
        """Yield the ends of a binding that are ours, as (kind, name)."""
        source = self.there.exchanges.get(binding.source)
        if source is not None and self.of_exchange(source):
            yield "exchange", source.name
        destination = self.there.things(binding.destination_type).get(binding.destination)
        if destination is not None and self.of_thing(binding.destination_type, destination):
            yield binding.destination_type, binding.destination

    def _in_own(self, binding: Binding) -> bool:
        """Return whether it is one in the topology's own two exchanges."""
        source = self.there.exchanges.get(binding.source)
        own = binding.source in (self.topology.retry_exchange, self.topology.parking_exchange)
        return own and source is not None and self.of_exchange(source)

    def _is_internal(self, binding: Binding) -> bool:
        """Return whether it binds a queue of ours to one of our own two exchanges: known without a record."""
        queue = self.there.queues.get(binding.destination) if binding.destination_type == "queue" else None
        if queue is None or not self._in_own(binding) or not self.of_queue(queue):
            return False
        # the key is the queue's own name, or the name of the retry queue that it stands in for
        return not binding.arguments and binding.routing_key in (queue.name, queue.arguments.get(STANDS_IN))

    def recorded(self, vhost: str, binding: Iterable[Binding] = ()) -> Manifest:
        """Return the manifest as it should be before a plan begins that is about to make these bindings.

        What is gone from the broker is dropped, what the file lists and was there before is noted as found.
        """
        topology, state = self.topology, self.there
        kinds = {"queue": state.queues, "exchange": state.exchanges, "policy": state.policies}
        old = self.believed or Manifest(topology=topology.name, vhost=vhost)
        there = {each.identity: each for each in state.bindings}
        listed = {each.identity for each in topology.desired.bindings if not _known_without(each, topology)}
        ours = tuple(there[one] for one in self._recorded if one in there)
        unproven = {one: there[one] for one in self._unproven if one in there}
        unproven |= {each.identity: each for each in binding if not _known_without(each, topology)}
        kept = {each.identity for each in old.found if any(self.own_ends(each))}
        known = {each.identity for each in ours} | unproven.keys()
        return Manifest(
            topology=topology.name,
            vhost=vhost,
            bindings=ours,
            unproven=tuple(unproven.values()),
            found=tuple(each for one, each in there.items() if one in listed | kept and one not in known),
            adopted=frozenset((kind, name) for kind, name in old.adopted if name in kinds[kind]),
            retiring={queue: since for queue, since in old.retiring.items() if queue in state.queues},
        )


def outlived(stale: Manifest) -> Finding:
    """Say what a manifest recorded that is not believed here."""
    told = [f"{kind} {name}" for kind, name in sorted(stale.adopted)]
    if count := len(stale.claimed):
        told.append(plural(count, "binding"))
    return warn(
        "manifest-outdated",
        Ref("global parameter", stale.name),
        f"nothing here carries the stamp of topology {stale.topology}, so what it records is not taken for the "
        f"topology's own: {', '.join(told)}. It is of an earlier virtual host of this name, or an adopt or a destroy "
        "was interrupted",
        "adopt again what belongs to the topology, or run destroy again to finish it",
    )


def _known_without(binding: Binding, topology: CompiledTopology) -> bool:
    own = binding.source in (topology.retry_exchange, topology.parking_exchange) and not binding.arguments
    return own and binding.destination in topology.desired.queues
