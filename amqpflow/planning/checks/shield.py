"""Policies of ours that keep foreign ones off the queues that a topology declares.

A platform often has a policy for every queue: a TTL, a length, a dead-letter exchange. On a parking queue that deletes
parked messages. Of all policies that match a queue one works, as a whole (fact 11.6b): a policy of ours with a higher
priority, which says what is harmless of the foreign one, takes its place. Operator policies are merged into whatever
works, and nothing keeps them off.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from amqpflow.model.own_policies import policies_for
from amqpflow.model.resources import Policy, Queue
from amqpflow.model.routes import CompiledTopology
from amqpflow.planning.ownership.ownership import Ownership, is_own_policy
from amqpflow.planning.policies.effective import effective
from amqpflow.planning.policies.matching import applies, may_work
from amqpflow.planning.values.observation import Observation

from .preflight import breaking, role_of

_ANY = "-"  #: the name of a queue that no policy is written for
_NEVER_REACHED = 1_000_000  #: a delivery limit that no message reaches


def shielded(topology: CompiledTopology, observed: Observation) -> CompiledTopology:
    """Return the topology with a shield for each queue of its own on which a foreign policy would break a guarantee.

    A policy that matches nothing but queues of the topology is meant for them, and is not displaced. Queues that left
    the file are shielded too, since they may hold messages. A queue that has a policy of ours anyway needs none.
    """
    if not observed.complete or topology.settings == "arguments":
        return topology
    owns = Ownership.of(topology, observed)
    foreign = [each for each in observed.state.policies.values() if not owns.of_policy(each)]
    broad = broad_policies(topology, observed)
    if not broad:
        return topology
    wanted: dict[str, tuple[str, Mapping[str, Any]]] = {}
    for queue in _queues(topology, owns):
        above = may_work(foreign, queue, observed.version)
        if not above or any(each.priority >= topology.policy_priority or each.name not in broad for each in above):
            continue
        if any(applies(each, queue, observed.version) for each in topology.desired.policies.values()):
            continue
        operators, role = observed.state.operator_policies.values(), _role(queue, topology)
        harm = [
            breaking(queue, role, effective(queue, [each], operators, version=observed.version), each) for each in above
        ]
        if any(harm):
            wanted[queue.name] = (queue.type, _harmless(queue, above[0], harm[0]))
    if not wanted:
        return topology
    shields = policies_for(topology.name, wanted, priority=topology.policy_priority, shield=True)
    policies = {**topology.desired.policies, **shields}
    return replace(topology, desired=replace(topology.desired, policies=policies))


def broad_policies(topology: CompiledTopology, observed: Observation) -> frozenset[str]:
    """Name the foreign policies that match more than the topology's queues, or that RabbitMQ alone can match."""
    owns = Ownership.of(topology, observed)
    others = [
        queue
        for queue in observed.state.queues.values()
        if queue.name not in topology.desired.queues and not owns.of_queue(queue)
    ]
    others += [Queue(name=_ANY, arguments={"x-queue-type": kind}) for kind in ("quorum", "classic")]
    return frozenset(
        policy.name
        for policy in observed.state.policies.values()
        if not owns.of_policy(policy) and any(applies(policy, each, observed.version) for each in others)
    )


def with_policies_as_they_are(topology: CompiledTopology, observed: Observation) -> CompiledTopology:
    """Return the topology with the policies of its own that are on the broker, shields included, and no others."""
    own = {name: each for name, each in observed.state.policies.items() if is_own_policy(name, topology.name)}
    return replace(topology, desired=replace(topology.desired, policies=own))


def _queues(topology: CompiledTopology, owns: Ownership) -> Iterator[Queue]:
    yield from topology.desired.queues.values()
    for queue in owns.there.queues.values():
        if owns.of_queue(queue) and queue.name not in topology.desired.queues:
            yield queue


def _role(queue: Queue, topology: CompiledTopology) -> str:
    """Treat a queue that left the file as a parking queue, unless it dead-letters."""
    if queue.name in topology.desired.queues:
        return role_of(queue, topology)
    return "tier" if "x-dead-letter-exchange" in queue.arguments else "parking"


def _harmless(queue: Queue, policy: Policy, harm: Mapping[str, str]) -> Mapping[str, Any]:
    """Return the keys of a foreign policy that break no guarantee; RabbitMQ refuses an empty policy."""
    kept = {
        key: value
        for key, value in policy.definition.items()
        # the arguments direct our dead letters, and an alternate exchange is for exchanges
        if key not in harm and not key.startswith("dead-letter-") and key != "alternate-exchange"
    }
    if kept:
        return kept
    if queue.type == "quorum":
        return {"delivery-limit": queue.arguments.get("x-delivery-limit", _NEVER_REACHED)}
    return {"overflow": queue.arguments.get("x-overflow", "drop-head")}
