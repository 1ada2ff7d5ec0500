"""Explain a queue: look at the broker, work out what works."""

from __future__ import annotations

from amqpflow.errors import UsageError
from amqpflow.model.routes import CompiledTopology
from amqpflow.planning.reports.explain import Explanation, explain, queues_of
from amqpflow.rabbitmq.observe import Broker, observe


async def explain_on(topology: CompiledTopology, queue: str, broker: Broker) -> Explanation:
    """Return what works on a queue of the topology.

    Raises:
        UsageError: the file has no such queue.
        PermissionDeniedError, BrokerError, BrokerUnavailableError, ManagementUnavailableError: looking failed.
    """
    require_known(topology, queue)
    observed = await observe(topology, broker)
    kind = None
    if broker.management is not None:
        found = (await broker.management.vhost(broker.address.vhost)).get("default_queue_type")
        kind = found if isinstance(found, str) and found != "undefined" else None
    return explain(topology, queue, observed, default_queue_type=kind)


def require_known(topology: CompiledTopology, queue: str) -> None:
    """Raise UsageError, with the nearest name, when a topology neither declares nor uses a queue."""
    known = queues_of(topology)
    if queue not in known:
        from difflib import get_close_matches

        close = get_close_matches(queue, known, n=1)
        raise UsageError(
            f"{topology.file} has no queue {queue}",
            hint=f"did you mean {close[0]}?" if close else f"its work queues are {', '.join(topology.routes)}",
        )
