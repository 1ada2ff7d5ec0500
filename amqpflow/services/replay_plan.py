"""What a replay would take, told before anything is taken."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass

from amqpflow.errors import WrongUsage
from amqpflow.model.routes import CompiledTopology, QueueRoutes
from amqpflow.parking.parked import ParkedMessage, read_parked
from amqpflow.rabbitmq.observe import Broker

from .parking import Progress, open_reading, unknown_queue
from .start_check import require_topology

Group = tuple[str, str]  #: reason and error type; for reason `broker` what RabbitMQ says


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayPlan:
    """What a replay would take, without having touched it."""

    queue: str
    parking_queue: str
    selected: int
    groups: tuple[tuple[Group, int], ...]  #: how many of which reason and error, most first
    others: int  #: messages of other work queues that stay
    misplaced: int  #: of these, those of work queues that are not parked here: no replay takes them
    only: frozenset[bytes]  #: digests of what is selected, so that the replay takes no other
    complete: bool
    ended_early: str | None
    notes: tuple[str, ...]


def group_of(parked: ParkedMessage) -> Group:
    """By what a person tells parked messages apart."""
    return parked.reason, (parked.detail if parked.death else parked.error_type) or ""


def is_misplaced(parked: ParkedMessage, compiled: CompiledTopology) -> bool:
    """It failed in a work queue that has another parking queue, or that the file does not have: no replay takes it."""
    routes = compiled.routes.get(parked.queue) if parked.queue is not None else None
    return parked.queue is not None and (routes is None or routes.parking_queue != parked.delivery.queue)


async def plan_replay(
    broker: Broker,
    compiled: CompiledTopology,
    queue: str,
    *,
    limit: int | None = None,
    unverified: bool = False,
    stop: asyncio.Event | None = None,
    on_progress: Progress | None = None,
    on_wait: Callable[[str], None] | None = None,
) -> ReplayPlan:
    """
    Look at what `replay` would take. Everything is given back.

    Raises:
        WrongUsage, NotApplied, Refused, Interrupted: as `replay` does.
    """
    stop = stop or asyncio.Event()
    routes = await ready_to_replay(broker, compiled, queue)
    groups: Counter[Group] = Counter()
    only: set[bytes] = set()
    others = misplaced = seen = 0
    async with open_reading(
        broker, compiled, routes.parking_queue, unverified=unverified, stop=stop, on_wait=on_wait
    ) as reading:
        reader = reading.reader
        async with aclosing(reader.deliveries(at_most=reader.ready)) as deliveries:
            async for delivery in deliveries:
                reader.keep(delivery)
                parked = read_parked(delivery, compiled.routes, unreadable=reader.unreadable.get(delivery.delivery_tag))
                if parked.queue != queue:
                    others += 1
                    misplaced += is_misplaced(parked, compiled)
                else:
                    only.add(parked.digest)
                    groups[group_of(parked)] += 1
                seen += 1
                if on_progress is not None:
                    on_progress(routes.parking_queue, seen, reader.ready)
                if groups.total() == limit:
                    break
    reader.raise_if_cancelled()
    return ReplayPlan(
        queue=queue,
        parking_queue=routes.parking_queue,
        selected=groups.total(),
        groups=tuple(groups.most_common()),
        others=others,
        misplaced=misplaced,
        only=frozenset(only),
        complete=reader.ended_early is None,
        ended_early=reader.ended_early,
        notes=tuple(reading.notes),
    )


async def ready_to_replay(broker: Broker, compiled: CompiledTopology, queue: str) -> QueueRoutes:
    """
    The routes of a work queue to which messages can be replayed.

    Raises:
        WrongUsage: the file has no such work queue. Refused: it is not built for yet.
        NotApplied: the queue or an exchange is missing on the broker.
    """
    routes = compiled.routes.get(queue)
    if routes is None:
        if queue in compiled.parking_queues:
            owners = [name for name, each in compiled.routes.items() if each.parking_queue == queue]
            raise WrongUsage(
                f"{queue} is a parking queue; --queue takes the work queue to replay to",
                hint=f"it holds messages of {', '.join(owners)}",
            )
        raise unknown_queue(compiled, queue, tuple(compiled.routes))
    await require_topology(broker.connection, compiled, (queue,))
    return routes
