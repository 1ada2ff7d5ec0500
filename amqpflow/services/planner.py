"""Plan: look at the broker, compare."""

from __future__ import annotations

from dataclasses import replace

from amqpflow.model.routes import CompiledTopology
from amqpflow.planning.diff import diff
from amqpflow.planning.plan import Plan
from amqpflow.rabbitmq.observe import Broker, observe


async def make_plan(topology: CompiledTopology, broker: Broker) -> Plan:
    """
    What apply would do, with every reason against it among the plan's findings. Nothing is changed.

    Raises:
        PermissionDenied, BrokerError, BrokerUnavailable, ManagementUnavailable: looking failed.
    """
    plan = diff(topology, await observe(topology, broker))
    return replace(plan, address=broker.address, cluster=broker.connection.cluster_name)
