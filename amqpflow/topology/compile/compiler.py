"""TopologySpec -> CompiledTopology: what the broker should hold, and where messages go. For a spec without errors."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from amqpflow.model.own_policies import policies_for
from amqpflow.model.resources import STAMP, Binding, BrokerState, Exchange, Queue
from amqpflow.model.routes import CompiledTopology, NativeRetry, QueueRoutes, RetryPolicy
from amqpflow.topology.reading.spec import ExchangeSpec, PolicySpec, QueueSpec, TopologySpec

from .declarations import (
    existing_queue_policy,
    limit_said,
    parking_arguments,
    policy_definition,
    tier_arguments,
    work_queue_arguments,
)
from .naming import Names
from .notes import notes_for
from .schedule import QueueSchedule, delays_of


def compile_topology(spec: TopologySpec) -> CompiledTopology:
    """Return everything the file means, as values; the same file gives the same values in the same order."""
    return _Compiler(spec).run()


class _Compiler:
    def __init__(self, spec: TopologySpec) -> None:
        self.spec = spec
        self.names = Names(topology=spec.name, naming=spec.naming)
        self.stamp = {STAMP: spec.name}
        self.exchanges: dict[str, Exchange] = {}
        self.queues: dict[str, Queue] = {}
        self.bindings: dict[tuple[str, ...], Binding] = {}
        self.routes: dict[str, QueueRoutes] = {}
        self.policies: dict[str, tuple[str, Mapping[str, Any]]] = {}

    def run(self) -> CompiledTopology:
        spec, names = self.spec, self.names
        for exchange in spec.exchanges.values():
            if not exchange.external:
                self.exchanges[exchange.name] = self._exchange(exchange)
        if any(not queue.external for queue in spec.queues.values()):
            self._own_exchange(names.retry_exchange)
            self._own_exchange(names.parking_exchange)
        for queue in spec.queues.values():
            self._queue(queue)
        native = any(routes.native for routes in self.routes.values())
        if native:
            self._own_exchange(names.native_marker)
        alone = {each.name for each in spec.queues.values() if each.existing}
        desired = BrokerState(
            exchanges=self.exchanges,
            queues=self.queues,
            bindings=tuple(self.bindings.values()),
            policies=policies_for(spec.name, self.policies, alone=alone, priority=spec.policy_priority),
        )
        return CompiledTopology(
            name=spec.name,
            vhost=spec.vhost,
            file=spec.file,
            retry_exchange=names.retry_exchange,
            parking_exchange=names.parking_exchange,
            desired=desired,
            routes=self.routes,
            parking_queues=tuple(dict.fromkeys(r.parking_queue for r in self.routes.values() if not r.external)),
            required_exchanges=tuple(each.name for each in spec.exchanges.values() if each.external),
            required_queues=tuple(each.name for each in spec.queues.values() if each.external or each.existing),
            notes=notes_for(spec),
            policies={name: _policy(policy) for name, policy in spec.policies.items()},
            settings=spec.settings,
            policy_priority=spec.policy_priority,
            native_marker=names.native_marker if native else None,
        )

    def _own_exchange(self, name: str) -> None:
        self.exchanges[name] = Exchange(name=name, type="direct", arguments=self.stamp)

    def _exchange(self, exchange: ExchangeSpec) -> Exchange:
        arguments = {name: argument.value for name, argument in exchange.arguments.items()}
        if exchange.alternate_exchange is not None:
            arguments["alternate-exchange"] = exchange.alternate_exchange
        return Exchange(
            name=exchange.name,
            type=exchange.type or "direct",
            durable=exchange.durable,
            arguments=arguments | self.stamp,
        )

    def _queue(self, queue: QueueSpec) -> None:
        policy = self.spec.policy_of(queue)
        routes = self.routes[queue.name] = self._routes(queue, policy)
        if queue.external:
            return
        if queue.existing:
            definition = existing_queue_policy(queue, policy, routes.parking_queue)
        else:
            definition = policy_definition(queue, policy)
            self._declare(queue.name, work_queue_arguments(queue, policy, routes.parking_queue, self.spec.settings))
        if self.spec.settings == "policies" and definition:
            self.policies[queue.name] = (queue.type, definition)
        for binding in queue.bindings:
            arguments = {name: argument.value for name, argument in binding.arguments.items()}
            self._bind(binding.exchange or "", queue.name, binding.routing_key, arguments)
        self._bind(routes.retry_exchange, queue.name, queue.name)
        for tier in routes.tiers:
            self._declare(tier.queue, tier_arguments(queue, tier.delay_ms))
            self._bind(routes.retry_exchange, tier.queue, tier.queue)
        if routes.parking_queue not in self.queues:  # it may be shared
            self._declare(routes.parking_queue, parking_arguments(queue.parking_type))
            self._bind(routes.parking_exchange, routes.parking_queue, routes.parking_queue)

    def _declare(self, name: str, arguments: dict[str, Any]) -> None:
        self.queues[name] = Queue(name=name, arguments=arguments | self.stamp)

    def _bind(self, source: str, queue: str, key: str, arguments: Mapping[str, Any] | None = None) -> None:
        binding = Binding(source=source, destination=queue, routing_key=key, arguments=arguments or {})
        self.bindings.setdefault(binding.identity, binding)

    def _routes(self, queue: QueueSpec, policy: PolicySpec | None) -> QueueRoutes:
        names, retry_exchange, parking_exchange = self.names, self.names.retry_exchange, self.names.parking_exchange
        if queue.external:
            # settled through its owner's exchanges; with the owner unknown through the default exchange, where every
            # queue is bound by its name
            names = Names(topology=queue.owner or self.spec.name, naming=self.spec.naming)
            retry_exchange = names.retry_exchange if queue.owner else ""
            parking_exchange = names.parking_exchange if queue.owner else ""
        jitter = policy.jitter if policy else Fraction(0)
        schedule = QueueSchedule(jitter, lambda delay_ms: names.retry_queue(queue.name, delay_ms))
        return QueueRoutes(
            queue=queue.name,
            queue_type=queue.type,
            retry_exchange=retry_exchange,
            parking_exchange=parking_exchange,
            parking_queue=queue.parking_queue or names.parking_queue(queue.name),
            steps=schedule.steps(delays_of(policy.delays, policy.backoff)) if policy and not policy.native else (),
            rules=schedule.rules(policy) if policy else (),
            give_up_after_ms=policy.give_up_after_ms if policy else None,
            native=_native(policy),
            at_least_once=queue.quorum and not (queue.existing or queue.external),  # of theirs a policy may decide
            consumer_timeout_ms=queue.consumer_timeout_ms if queue.quorum else None,
            crash_limit=queue.crash_limit,
            existing=queue.existing,
            dead_letters=queue.dead_letters if queue.existing else None,
            limit_said=queue.existing and limit_said(queue, policy),
            overflow_said=queue.existing and queue.says("overflow"),
            external=queue.external,
            owner=queue.owner if queue.external else None,
        )


def _policy(policy: PolicySpec) -> RetryPolicy:
    schedule = QueueSchedule(policy.jitter, lambda _: "")
    return RetryPolicy(
        steps=() if policy.native else schedule.steps(delays_of(policy.delays, policy.backoff)),
        rules=schedule.rules(policy),
        give_up_after_ms=policy.give_up_after_ms,
        native=_native(policy),
    )


def _native(policy: PolicySpec | None) -> NativeRetry | None:
    if policy is None or not policy.native or policy.native_delay is None:
        return None
    delay = policy.native_delay
    return NativeRetry(min_ms=delay.min_ms or 0, max_ms=delay.max_ms or 0, retries=policy.retries or 0)
