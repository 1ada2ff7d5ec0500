"""Observations and plans for tests: a model of what executing changes does to a virtual host."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from amqpflow.model.resources import BrokerState, Exchange, Policy
from amqpflow.model.routes import CompiledTopology
from amqpflow.planning.values.changes import (
    Bind,
    Change,
    CreateExchange,
    CreateQueue,
    DeleteExchange,
    DeleteQueue,
    Drain,
    EnsureBinding,
    PutManifest,
    PutPolicy,
    Rebind,
    RemoveManifest,
    RemovePolicy,
    Unbind,
)
from amqpflow.planning.values.manifest import Absent, Manifest, ManifestState, Recorded
from amqpflow.planning.values.observation import Observation

PREDECLARED = {
    name: Exchange(name=name, type=kind)
    for name, kind in {
        "amq.direct": "direct",
        "amq.fanout": "fanout",
        "amq.headers": "headers",
        "amq.match": "headers",
        "amq.topic": "topic",
    }.items()
}


def observation(state: BrokerState | None = None, version: tuple[int, ...] = (4, 3, 6)) -> Observation:
    """What the management API shows of a virtual host that holds `state`."""
    state = state or BrokerState()
    return Observation(
        version=version,
        vhost="/",
        state=replace(state, exchanges={**PREDECLARED, **state.exchanges}),
        source="http://localhost:15672",
        exchange_types=frozenset({"direct", "fanout", "headers", "topic"}),
        user="deploy",
        tags=frozenset({"policymaker"}),
    )


def after(state: BrokerState, changes: Iterable[Change]) -> BrokerState:
    """What a virtual host holds after changes."""
    exchanges, queues, policies = dict(state.exchanges), dict(state.queues), dict(state.policies)
    bindings = {binding.identity: binding for binding in state.bindings}
    for change in changes:
        match change:
            case CreateExchange(exchange=exchange):
                exchanges[exchange.name] = exchange
            case CreateQueue(queue=queue):
                queues[queue.name] = queue
            case Bind(binding=binding) | EnsureBinding(binding=binding):
                bindings[binding.identity] = binding
            case PutPolicy(policy=policy):
                policies[policy.name] = policy
            case RemovePolicy(policy=policy):
                del policies[policy.name]
            case Unbind(binding=binding):
                del bindings[binding.identity]
            case Rebind(binding=binding, replaces=replaced):
                del bindings[replaced.identity]
                bindings[binding.identity] = binding
            case DeleteQueue(queue=queue):
                del queues[queue.name]
                bindings = {
                    key: each
                    for key, each in bindings.items()
                    if (each.destination_type, each.destination) != ("queue", queue.name)
                }
            case DeleteExchange(exchange=exchange):
                assert not any(each.source == exchange.name for each in bindings.values()), "if-unused"
                del exchanges[exchange.name]
                bindings = {
                    key: each
                    for key, each in bindings.items()
                    if (each.destination_type, each.destination) != ("exchange", exchange.name)
                }
            case Drain() | PutManifest() | RemoveManifest():
                pass
    return replace(state, exchanges=exchanges, queues=queues, bindings=tuple(bindings.values()), policies=policies)


def state_of(manifest: Manifest | None) -> ManifestState:
    """What an observation says of a manifest that is there, or of none."""
    return Absent() if manifest is None else Recorded(manifest=manifest)


def manifest_after(before: Manifest | None, changes: Iterable[Change]) -> Manifest | None:
    """What is recorded after changes."""
    for change in changes:
        match change:
            case PutManifest(manifest=manifest):
                before = manifest
            case RemoveManifest():
                before = None
    return before


def assert_nothing_dangles(state: BrokerState) -> None:
    """Nothing is bound to, or dead-letters into, what does not exist; no key of ours has two queues."""
    for binding in state.bindings:
        ends = state.queues if binding.destination_type == "queue" else state.exchanges
        assert binding.destination in ends, binding
        assert binding.source in state.exchanges, binding
    for queue in state.queues.values():
        exchange = queue.arguments.get("x-dead-letter-exchange")
        if exchange:
            assert exchange in state.exchanges, queue
        elif exchange == "":
            assert queue.arguments.get("x-dead-letter-routing-key") in state.queues, queue
    for exchange in state.exchanges.values():
        assert exchange.alternate_exchange is None or exchange.alternate_exchange in state.exchanges, exchange
    keys = Counter(
        (each.source, each.routing_key) for each in state.bindings if each.source in ("shop.retry", "shop.parking")
    )
    assert not [key for key, count in keys.items() if count > 1]


def with_objects(topology: CompiledTopology, **parts: object) -> CompiledTopology:
    """The topology with other parts of its desired state: exchanges, queues, bindings, policies."""
    return replace(topology, desired=replace(topology.desired, **parts))  # type: ignore[arg-type]


def limits(
    queue: str, priority: int = 100, name: str = "amqpflow.shop.quorum-0123abcd", **definition: object
) -> Policy:
    """A policy as the compiler writes them: for one queue, exact."""
    pattern = "^(" + queue.replace(".", "\\.") + ")$"
    keys = {key.replace("_", "-"): value for key, value in definition.items()} or {"max-length": 10}
    return Policy(name=name, pattern=pattern, definition=keys, priority=priority)
