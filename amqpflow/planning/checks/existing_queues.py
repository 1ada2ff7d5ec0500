"""Where the dead letters of an application's queue go, and what of it our policy leaves alone.

They are parked unless the application decides already: by a dead-letter exchange of its own, as an argument or by a
policy, or because the queue is configured to drop messages. Parking a ring buffer would fill a queue without a limit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from amqpflow.model.own_policies import LENGTHS, dead_letters_kept
from amqpflow.model.resources import BrokerState, Policy, Queue
from amqpflow.model.routes import CompiledTopology, QueueRoutes
from amqpflow.planning.ownership.ownership import is_own_policy
from amqpflow.planning.policies.effective import Effective, Origin, effective_in
from amqpflow.planning.policies.matching import applies, working
from amqpflow.planning.values.findings import Finding, Ref, refuse, warn
from amqpflow.planning.values.observation import Observation

from .guarantees import as_planned, duration_or_ms

_EXCHANGE = "x-dead-letter-exchange"


def existing_queues(topology: CompiledTopology, state: BrokerState) -> tuple[Queue, ...]:
    """Return the existing queues of a topology, as they are on the broker."""
    return tuple(
        state.queues[each.queue] for each in topology.routes.values() if each.existing and each.queue in state.queues
    )


def around_existing(topology: CompiledTopology, observed: Observation) -> CompiledTopology:
    """Return the topology with policies that leave alone what the application decides on its queues.

    Where the application named a dead-letter exchange by argument, ours would have no effect (fact 11.6), but our
    routing key would send its dead letters another way. A delivery limit that an argument or an operator policy sets
    would become tighter by ours, since the smaller works.
    """
    if not observed.complete:
        return topology
    policies = dict(topology.desired.policies)
    for queue in existing_queues(topology, observed.state):
        routes = topology.routes[queue.name]
        works = without_ours(topology, observed, queue)
        for name, policy in topology.desired.policies.items():
            if applies(policy, queue, observed.version):
                left = _beside(policy, routes, works)
                if left.definition:
                    policies[name] = left
                else:
                    del policies[name]
    return replace(topology, desired=replace(topology.desired, policies=policies))


def without_ours(topology: CompiledTopology, observed: Observation, queue: Queue) -> Effective:
    """Work out what works on a queue by its arguments and everybody else's policies."""
    theirs = [each for each in observed.state.policies.values() if not is_own_policy(each.name, topology.name)]
    return effective_in(observed, queue, topology=topology.name, policies=theirs)


def _beside(policy: Policy, routes: QueueRoutes, works: Effective) -> Policy:
    """Return our policy for an existing queue, as far as the application leaves it room."""
    if _keeps(routes, works):
        return replace(policy, definition=kept_by(policy, routes) | _overflow_today(policy, routes, works))
    limit = works.settings.get("delivery-limit")
    decided = limit is not None and limit.source.origin in (Origin.ARGUMENT, Origin.OPERATOR_POLICY)
    if decided and not routes.limit_said:
        return replace(policy, definition={k: v for k, v in policy.definition.items() if k != "delivery-limit"})
    return policy


def _overflow_today(policy: Policy, routes: QueueRoutes, works: Effective) -> dict[str, object]:
    """Return what a full queue does today, where it is limited already and the file does not say what it should do."""
    limited = any(works.value(key) is not None for key in LENGTHS) and policy.definition.keys() & set(LENGTHS)
    return {"overflow": works.value("overflow")} if limited and not routes.overflow_said else {}


def kept_by(policy: Policy, routes: QueueRoutes) -> dict[str, object]:
    """Return what is left of our policy where the dead letters of an existing queue stay as they are."""
    return dead_letters_kept(policy.definition, parking_queue=routes.parking_queue, limit_said=routes.limit_said)


def _keeps(routes: QueueRoutes, works: Effective) -> bool:
    """Return whether the application's word on the dead letters of its queue holds."""
    if _EXCHANGE in works.queue.arguments:
        return True
    if routes.dead_letters is not None:
        return routes.dead_letters == "keep"
    exchanges = works.settings["dead-letter-exchange"].possible
    return any(each.value is not None for each in exchanges) or any(_forgetting(works))


def _forgetting(works: Effective) -> Iterator[str]:
    """Yield each setting that may make messages leave the queue unhandled, when they are old or when it is full."""
    for each in works.settings["message-ttl"].possible:
        if each.value is not None:
            yield f"message-ttl {duration_or_ms(each.value)}, {each.source}"
    overflow = next((each for each in works.settings["overflow"].possible if each.value == "drop-head"), None)
    for key in LENGTHS:
        for each in works.settings[key].possible:
            if each.value is not None and overflow is not None:
                yield f"{key} {each.value}, {each.source}, with overflow drop-head, {overflow.source}"


def dead_letter_findings(topology: CompiledTopology, observed: Observation, queue: Queue) -> Iterator[Finding]:
    """Report where the dropped messages of an existing queue go, and refuse what no policy can do."""
    routes, ref = topology.routes[queue.name], Ref("queue", queue.name)
    if _EXCHANGE in queue.arguments:
        if routes.dead_letters == "park":
            yield refuse(
                "dead-letters-argument",
                ref,
                f"the file says dead_letters: park, but its argument {_EXCHANGE} overrides any policy",
                "write dead_letters: keep, or leave the key out",
            )
        return
    how = "; ".join(_forgetting(as_planned(topology, observed, queue)))
    if how and routes.dead_letters is None:
        parked = _parked_today(topology, observed, queue)
        # what was parked so far would be forgotten from now on: only the file can want that
        yield (refuse if parked else warn)(
            "dead-letters-kept",
            ref,
            f"it is configured to drop messages ({how}), so its dead letters stay as they are and "
            f"{'would not be parked any more' if parked else 'are not parked'}",
            f"write dead_letters: keep under {queue.name} in the file if intended, else dead_letters: park",
        )
    elif how and routes.dead_letters == "park":
        yield warn(
            "parking-floods",
            ref,
            f"it is configured to drop messages ({how}), and every dropped message goes to {routes.parking_queue}, "
            "which has no limit",
            f"write dead_letters: keep under {queue.name} in the file to leave them where they go today",
        )


def _parked_today(topology: CompiledTopology, observed: Observation, queue: Queue) -> bool:
    return any(
        is_own_policy(each.name, topology.name) and "dead-letter-exchange" in each.definition
        for each in working(observed.state.policies.values(), queue, observed.version)
    )
