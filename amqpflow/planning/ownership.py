"""What is ours: told by the stamp among an object's arguments, by a policy's name, and by the manifest for the rest."""

from __future__ import annotations

import re
from dataclasses import dataclass

from amqpflow.model.resources import Binding, BrokerState, Exchange, Policy, Queue
from amqpflow.model.routes import CompiledTopology

from .changes import STANDS_IN
from .manifest import Manifest

_AFTER_TOPOLOGY = re.compile(r"\.(classic|quorum)-[0-9a-f]{8}(\.[0-9a-f]{8})?(\.[0-9]+)?", re.ASCII)


def is_own_policy(name: str, topology: str) -> bool:
    """
    Whether a policy of this name was made for this topology.

    The whole name is looked at, so that the topology orders does not claim the policies of orders.eu.
    """
    prefix = f"amqpflow.{topology}"
    return name.startswith(prefix) and _AFTER_TOPOLOGY.fullmatch(name, len(prefix)) is not None


def topology_of_policy(name: str) -> str | None:
    """The topology that a policy of this name was made for; None for a foreign policy."""
    for found in _AFTER_TOPOLOGY.finditer(name):
        if found.end() == len(name) and name.startswith("amqpflow."):
            return name[len("amqpflow.") : found.start()] or None
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ownership:
    """
    Decides for each object of a virtual host whether a topology owns it.

    Everything that is not surely ours is foreign. What bears the stamp of another topology is never ours, whatever a
    manifest says.
    """

    topology: CompiledTopology
    there: BrokerState
    manifest: Manifest | None = None

    @property
    def _adopted(self) -> frozenset[tuple[str, str]]:
        return self.manifest.adopted if self.manifest is not None else frozenset()

    def of_exchange(self, exchange: Exchange) -> bool:
        return self._of("exchange", exchange)

    def of_queue(self, queue: Queue) -> bool:
        return self._of("queue", queue)

    def _of(self, kind: str, thing: Exchange | Queue) -> bool:
        if thing.owner is None:
            return (kind, thing.name) in self._adopted
        return thing.owner == self.topology.name

    def of_policy(self, policy: Policy) -> bool:
        return is_own_policy(policy.name, self.topology.name) or ("policy", policy.name) in self._adopted

    def bindings(self) -> tuple[Binding, ...]:
        """
        The bindings on the broker that are ours: recorded ones, those of the file, and those of our own two exchanges.

        The latter are known without a record: in them a queue of ours is bound by its name, by nobody else.
        """
        known = {each.identity for each in self.topology.desired.bindings}
        if self.manifest is not None:
            known |= {each.identity for each in self.manifest.bindings}
        return tuple(each for each in self.there.bindings if each.identity in known or self.is_internal(each))

    def is_internal(self, binding: Binding) -> bool:
        """Whether it binds a queue of ours to one of the topology's own two exchanges."""
        if binding.source not in (self.topology.retry_exchange, self.topology.parking_exchange):
            return False
        source = self.there.exchanges.get(binding.source)
        queue = self.there.queues.get(binding.destination) if binding.destination_type == "queue" else None
        if source is None or queue is None:
            return False
        return self.of_exchange(source) and self.of_queue(queue) and bound_by_name(binding, queue)


def bound_by_name(binding: Binding, queue: Queue) -> bool:
    """Whether the key is the queue's own name, or the name of the retry queue that it stands in for."""
    return not binding.arguments and binding.routing_key in (queue.name, queue.arguments.get(STANDS_IN))


def recorded(topology: CompiledTopology, observed: BrokerState, before: Manifest | None) -> Manifest:
    """
    The manifest as it should be before a plan begins: what is ours already, and what the plan will bind.

    Recorded before it is made, so that nothing of ours is ever without an owner. What is gone from the broker is
    dropped.
    """
    old = before or Manifest(topology=topology.name, vhost="")
    there = {each.identity for each in observed.bindings}
    wanted = {each.identity: each for each in topology.desired.bindings if not _known_without(each, topology)}
    wanted |= {each.identity: each for each in old.bindings if each.identity in there}
    return Manifest(
        topology=topology.name,
        vhost=old.vhost,
        bindings=tuple(wanted.values()),
        adopted=frozenset(each for each in old.adopted if _exists(each, observed)),
        retiring={queue: since for queue, since in old.retiring.items() if queue in observed.queues},
    )


def _known_without(binding: Binding, topology: CompiledTopology) -> bool:
    own = binding.source in (topology.retry_exchange, topology.parking_exchange) and not binding.arguments
    return own and binding.destination in topology.desired.queues


def _exists(thing: tuple[str, str], observed: BrokerState) -> bool:
    kind, name = thing
    return name in {"queue": observed.queues, "exchange": observed.exchanges, "policy": observed.policies}[kind]
