"""Compiled topologies for tests of what works on them, and the plain declares that put one on a broker.

The compiler and `apply` have tests of their own; here a topology is a value, so that a test of the consumer fails
for the consumer's reasons.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from amqpflow.model.resources import STAMP, Binding, BrokerState, Exchange, Queue
from amqpflow.model.routes import (
    DEFAULT_CRASH_LIMIT,
    CompiledTopology,
    NativeRetry,
    QueueRoutes,
    RetryRule,
    RetryStep,
    RetryTier,
)
from amqpflow.model.units import format_duration
from amqpflow.rabbitmq.address import BrokerAddress
from amqpflow.rabbitmq.connection import Connection, connect

NAME = "shop"


def steps(queue: str, delays: Sequence[int | Sequence[int]]) -> tuple[RetryStep, ...]:
    """A schedule; a step that is a sequence has one tier for each of its delays, as jitter makes them."""
    made = []
    for each in delays:
        spread = (each,) if isinstance(each, int) else tuple(each)
        tiers = tuple(RetryTier(delay_ms=delay, queue=f"{queue}.retry.{format_duration(delay)}") for delay in spread)
        made.append(RetryStep(delay_ms=max(spread), tiers=tiers))
    return tuple(made)


def topology(
    queues: Mapping[str, Sequence[int | Sequence[int]]],
    *,
    vhost: str,
    queue_type: str = "quorum",
    rules: Sequence[RetryRule] = (),
    give_up_after_ms: int | None = None,
    parking: str | None = None,
    arguments: Mapping[str, object] | None = None,
    delivery_limit: int = 50,
    crash_limit: int = DEFAULT_CRASH_LIMIT,
    consumer_timeout_ms: int | None = None,
    native: NativeRetry | None = None,
) -> CompiledTopology:
    """Work queues with their delays in milliseconds, or all native; `parking` is one parking queue for all of them."""
    stamp = {STAMP: NAME}
    exchanges = {
        name: Exchange(name=name, type="direct", arguments=stamp) for name in (f"{NAME}.retry", f"{NAME}.parking")
    }
    marker = f"{NAME}.native" if native else None
    if marker:
        exchanges[marker] = Exchange(name=marker, type="direct", arguments=stamp)
    declared: dict[str, Queue] = {}
    bindings: list[Binding] = []
    routes: dict[str, QueueRoutes] = {}
    for queue, delays in queues.items():
        parked_in = parking or f"{queue}.parking"
        declared[parked_in] = Queue(
            name=parked_in, arguments={"x-queue-type": "quorum", "x-delivery-limit": 1_000_000, **stamp}
        )
        bindings.append(Binding(source=f"{NAME}.parking", destination=parked_in, routing_key=parked_in))
        work = {
            "x-queue-type": queue_type,
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": parked_in,
            **stamp,
            **(arguments or {}),
        }
        if queue_type == "quorum":
            work |= {
                "x-dead-letter-strategy": "at-least-once",
                "x-overflow": "reject-publish",
                "x-delivery-limit": delivery_limit,
            }
        if native is not None:
            work |= {
                "x-delayed-retry-type": "failed",
                "x-delayed-retry-min": native.min_ms,
                "x-delayed-retry-max": native.max_ms,
            }
        declared[queue] = Queue(name=queue, arguments=work)
        bindings.append(Binding(source=f"{NAME}.retry", destination=queue, routing_key=queue))
        routes[queue] = QueueRoutes(
            queue=queue,
            queue_type=queue_type,
            retry_exchange=f"{NAME}.retry",
            parking_exchange=f"{NAME}.parking",
            parking_queue=parked_in,
            steps=() if native else steps(queue, delays),
            native=native,
            rules=tuple(rules),
            give_up_after_ms=give_up_after_ms,
            at_least_once=queue_type == "quorum",
            consumer_timeout_ms=consumer_timeout_ms,
            crash_limit=crash_limit,
        )
        for tier in routes[queue].tiers:
            declared[tier.queue] = Queue(
                name=tier.queue,
                arguments={
                    "x-queue-type": "quorum",
                    "x-message-ttl": tier.delay_ms,
                    "x-dead-letter-exchange": "",
                    "x-dead-letter-routing-key": queue,
                    "x-dead-letter-strategy": "at-least-once",
                    "x-overflow": "reject-publish",
                    **stamp,
                },
            )
            bindings.append(Binding(source=f"{NAME}.retry", destination=tier.queue, routing_key=tier.queue))
    return CompiledTopology(
        name=NAME,
        vhost=vhost,
        file="shop.yaml",
        retry_exchange=f"{NAME}.retry",
        parking_exchange=f"{NAME}.parking",
        desired=BrokerState(exchanges=exchanges, queues=declared, bindings=tuple(bindings)),
        routes=routes,
        parking_queues=tuple(sorted({each.parking_queue for each in routes.values()})),
        settings="arguments" if native else "policies",
        native_marker=marker,
    )


async def declare(connection: Connection, compiled: CompiledTopology) -> None:
    """Put the topology on the broker."""
    channel = await connection.admin_channel()
    for exchange in compiled.desired.exchanges.values():
        await channel.exchange_declare(
            exchange.name, exchange_type=exchange.type, durable=True, arguments=dict(exchange.arguments)
        )
    for queue in compiled.desired.queues.values():
        await channel.queue_declare(queue.name, durable=True, arguments=dict(queue.arguments))
    for binding in compiled.desired.bindings:
        await channel.queue_bind(binding.destination, binding.source, binding.routing_key)
    await channel.close()


async def connected(address: BrokerAddress, compiled: CompiledTopology) -> Connection:
    """A connection to a broker that holds the topology."""
    connection = await connect(address, name="amqpflow test")
    await declare(connection, compiled)
    return connection
