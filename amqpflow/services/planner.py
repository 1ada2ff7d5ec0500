"""Plan: look at the broker, compare."""

from __future__ import annotations

from dataclasses import replace

from amqpflow.errors import BrokerError, PermissionDenied
from amqpflow.model.routes import CompiledTopology
from amqpflow.planning.diff import diff
from amqpflow.planning.plan import Plan
from amqpflow.rabbitmq.observe import Broker, observe

_COUNTED = 100


async def make_plan(topology: CompiledTopology, broker: Broker) -> Plan:
    """
    What apply would do, with every reason against it among the plan's findings. Nothing is changed.

    Raises:
        PermissionDenied, BrokerError, BrokerUnavailable, ManagementUnavailable: looking failed.
    """
    plan = diff(topology, await observe(topology, broker))
    depths = await _depths(plan, broker)
    return replace(plan, address=broker.address, cluster=broker.connection.cluster_name, depths=depths)


async def _depths(plan: Plan, broker: Broker) -> dict[str, int]:
    """Ready messages of the queues that would have to be replaced, of the first hundred: few, so one by one."""
    names = dict.fromkeys(
        each.object.removeprefix("queue ")
        for each in plan.refusals
        if each.code == "differs" and each.object.startswith("queue ")
    )
    depths: dict[str, int] = {}
    if not names:
        return depths
    channel = await broker.connection.open_channel()
    try:
        for name in list(names)[:_COUNTED]:
            depths[name] = await channel.queue_depth(name)
    except (BrokerError, PermissionDenied):
        pass  # gone meanwhile, or not ours to read: the plan does without the number
    finally:
        await channel.close()
    return depths
