"""Queues that a topology uses and does not declare: an application's (`existing`), another topology's (`external`)."""

from __future__ import annotations

from collections.abc import Iterator

from amqpflow.model.own_policies import LENGTHS
from amqpflow.model.resources import BrokerState, Queue
from amqpflow.model.routes import CompiledTopology, NativeRetry, QueueRoutes
from amqpflow.planning.checks.existing_queues import dead_letter_findings
from amqpflow.planning.checks.guarantees import as_planned
from amqpflow.planning.ownership.ownership import topology_of_policy
from amqpflow.planning.policies.effective import effective_in
from amqpflow.planning.policies.matching import applies
from amqpflow.planning.values.findings import Finding, Ref, refuse, warn
from amqpflow.planning.values.observation import Observation

from .delayed_retry import definition_of

_ONE_OWNER = "only one topology can own it: remove it from one of the two files; external: true uses what another owns"


def needed_exchanges(topology: CompiledTopology) -> frozenset[str]:
    """Return exchanges of other topologies through which external queues are settled."""
    external = [each for each in topology.routes.values() if each.external]
    return frozenset({name for each in external for name in (each.retry_exchange, each.parking_exchange)} - {""})


def needed_queues(topology: CompiledTopology) -> frozenset[str]:
    """Return retry and parking queues that other topologies have declared for external queues."""
    external = [each for each in topology.routes.values() if each.external]
    return frozenset(name for each in external for name in (each.parking_queue, *(tier.queue for tier in each.tiers)))


def undeclared_queue_findings(topology: CompiledTopology, observed: Observation) -> Iterator[Finding]:
    """Yield every objection to using a queue that another program declared; a missing one is reported elsewhere."""
    if not observed.complete:
        return
    for routes in topology.routes.values():
        queue = observed.state.queues.get(routes.queue)
        if queue is None or not (routes.existing or routes.external):
            continue
        yield from _existing(topology, observed, queue, routes) if routes.existing else _owned_by(queue, routes)


def _existing(
    topology: CompiledTopology, observed: Observation, queue: Queue, routes: QueueRoutes
) -> Iterator[Finding]:
    ref = Ref("queue", queue.name)
    if queue.owner not in (None, topology.name):
        yield refuse("other-owner", ref, f"it is owned by the topology {queue.owner}", _ONE_OWNER)
    elif first := _first_owner(topology, observed, queue):
        yield refuse(
            "other-owner", ref, f"the topology {first} has retry and parking queues for it already", _ONE_OWNER
        )
    if queue.type != routes.queue_type:
        stream = queue.type not in ("classic", "quorum")
        hint = "a stream has no retries" if stream else f"write type: {queue.type} under {queue.name} in the file"
        yield refuse("other-type", ref, f"it is a {queue.type} queue, and {routes.queue_type} for the file", hint)
    if routes.native is not None and not _delays(topology, observed, queue, routes.native):
        yield refuse(
            "native-hidden",
            ref,
            "RabbitMQ's delayed retry has no effect on it: a rejected message would come back at once",
            "use engine: tiers; amqpflow explain FILE QUEUE shows what works there",
        )
    yield from dead_letter_findings(topology, observed, queue)
    yield from _publishers(topology, observed, queue)
    if queue.exclusive:
        text = "it is exclusive: only the connection that declared it may consume it"
        yield refuse("exclusive", ref, text, "leave it out")


def _publishers(topology: CompiledTopology, observed: Observation, queue: Queue) -> Iterator[Finding]:
    """Warn when overflow becomes reject-publish, which publishers notice when the queue is full."""
    now = effective_in(observed, queue, topology=topology.name)
    then = as_planned(topology, observed, queue)
    limited = any(then.value(key) is not None for key in LENGTHS)
    before = now.value("overflow")
    if limited and then.value("overflow") == "reject-publish" != before and then.settings["overflow"].certain:
        parks = queue.type == "quorum" and then.at_least_once
        why = "which at-least-once dead-lettering needs" if parks else "which is what limits have by default"
        yield warn(
            "overflow-changes",
            Ref("queue", queue.name),
            f"its overflow becomes reject-publish ({before} before), {why}: while "
            "it is full, publishers get a basic.nack instead of the oldest message being dropped",
            "see that its publishers use confirms",
        )


def _delays(topology: CompiledTopology, observed: Observation, queue: Queue, native: NativeRetry) -> bool:
    works = as_planned(topology, observed, queue)
    return all(works.surely(key, value) for key, value in definition_of(native).items())


def _owned_by(queue: Queue, routes: QueueRoutes) -> Iterator[Finding]:
    said = routes.owner
    if said is not None and queue.owner is not None and queue.owner != said:
        yield refuse(
            "other-owner",
            Ref("queue", queue.name),
            f"it is owned by the topology {queue.owner}, and the file says owner: {said}",
            f"write owner: {queue.owner}",
        )


def _first_owner(topology: CompiledTopology, observed: Observation, queue: Queue) -> str | None:
    """Return another topology that lists the queue as existing: its retry exchange is bound, or its policy works."""
    state = observed.state
    for binding in state.bindings:
        if binding.destination == queue.name == binding.routing_key and binding.destination_type == "queue":
            source = state.exchanges.get(binding.source)
            owner = source.owner if source is not None and source.type == "direct" else None
            if owner not in (None, topology.name) and _is_retry_exchange(state, binding.source, owner):
                return owner
    for policy in state.policies.values():
        owner = topology_of_policy(policy.name)
        if owner not in (None, topology.name) and applies(policy, queue, observed.version):
            return owner
    return None


def _is_retry_exchange(state: BrokerState, exchange: str, owner: str) -> bool:
    """Recognise a retry exchange by its default name, or by another queue of its topology bound by its own name."""
    return exchange == f"{owner}.retry" or any(
        each.source == exchange
        and each.routing_key == each.destination
        and each.destination in state.queues
        and state.queues[each.destination].owner == owner
        for each in state.bindings
    )
