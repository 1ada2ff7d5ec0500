"""Plan, or explain a queue: look at the broker, compare."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from amqpflow.errors import BrokerError, PermissionDeniedError
from amqpflow.model.routes import CompiledTopology
from amqpflow.planning.compare.adoption import adoption
from amqpflow.planning.compare.diff import candidates, destruction, diff
from amqpflow.planning.compare.disowning import disowning
from amqpflow.planning.reports.explain import Explanation, explain, queues_of
from amqpflow.planning.values.approvals import NOTHING, Approvals
from amqpflow.planning.values.observation import Depth, Observation
from amqpflow.planning.values.plan import Plan
from amqpflow.rabbitmq.observe import Broker, observe
from amqpflow.rabbitmq.translate import translate
from amqpflow.services.loading.topology import unknown_queue

CLUSTER_ID = "internal_cluster_id"
MAY_READ_PARAMETERS = frozenset({"policymaker", "administrator"})  #: tags
_COUNTED = 20  #: queues whose ready messages are counted one by one for a number in a text
_COUNTED_TO_DECIDE = 1000  #: where a removal or a limit depends on it, 0.2 to 0.5 ms each (fact 11.10)


async def make_plan(
    topology: CompiledTopology, broker: Broker, *, prune: bool = False, approvals: Approvals = NOTHING
) -> Plan:
    """Return what apply would do, with every reason against it among the plan's findings. Nothing is changed.

    `prune` plans also to remove what the topology owns and its file no longer has; `approvals` name queues that may be
    removed with messages or consumers. Errors as for `Client.plan`.
    """
    observed = await _observed(topology, broker, prune=prune)
    return await _addressed(diff(topology, observed, prune=prune, approvals=approvals), broker)


async def make_destruction(topology: CompiledTopology, broker: Broker, *, approvals: Approvals = NOTHING) -> Plan:
    """Return what destroy would do: arguments and errors as for `make_plan`."""
    observed = await _observed(topology, broker, prune=True, destroy=True)
    return await _addressed(destruction(topology, observed, approvals=approvals), broker)


async def make_adoption(topology: CompiledTopology, broker: Broker, wanted: Sequence[tuple[str, str]]) -> Plan:
    """Return what adopt would record: arguments and errors as for `make_plan`."""
    return await _addressed(adoption(topology, await observe(topology, broker), wanted), broker)


async def make_disowning(topology: CompiledTopology, broker: Broker, wanted: Sequence[tuple[str, str]]) -> Plan:
    """Return what disown would give up: arguments and errors as for `make_plan`."""
    return await _addressed(disowning(topology, await observe(topology, broker), wanted), broker)


async def explain_on(topology: CompiledTopology, queue: str, broker: Broker) -> Explanation:
    """Return what works on a queue of the topology. Errors as for `make_plan`."""
    observed = await observe(topology, broker)
    kind = None
    if broker.management is not None:
        found = (await broker.management.vhost(broker.address.vhost)).get("default_queue_type")
        kind = found if isinstance(found, str) and found != "undefined" else None
    return explain(topology, queue, observed, default_queue_type=kind)


def require_known(topology: CompiledTopology, queue: str) -> None:
    """Raise UsageError, with the nearest name, when a topology neither declares nor uses a queue."""
    if queue not in (known := queues_of(topology)):
        raise unknown_queue(topology, queue, known)


async def _observed(topology: CompiledTopology, broker: Broker, *, prune: bool, destroy: bool = False) -> Observation:
    observed = await observe(topology, broker)
    names = candidates(topology, observed, prune=prune, destroy=destroy)
    if names and broker.management is not None:
        depths = dict(await broker.management.depths(observed.vhost, names))
        for name, ready in (await _ready(sorted(names), broker, at_most=_COUNTED_TO_DECIDE)).items():
            # statistics do not know what came in the last seconds
            depth = depths.get(name, Depth(messages=None))
            if ready > (depth.messages or 0):
                depth = replace(depth, messages=ready)
            depths[name] = replace(depth, ready=ready)
        observed = replace(observed, depths=depths)
    return observed


async def _addressed(plan: Plan, broker: Broker) -> Plan:
    return replace(
        plan,
        address=broker.address,
        cluster=broker.connection.cluster_name,
        cluster_id=await _cluster_id(broker),
        depths=await _depths(plan, broker),
    )


async def _cluster_id(broker: Broker) -> str:
    """Return RabbitMQ's id of the cluster (fact 16), empty where this user may not read it."""
    if broker.management is None or broker.overview is None or not broker.overview.tags & MAY_READ_PARAMETERS:
        return ""
    value = (await broker.management.global_parameters(CLUSTER_ID)).get(CLUSTER_ID)
    return value if isinstance(value, str) else ""


async def _depths(plan: Plan, broker: Broker) -> dict[str, int]:
    """Return ready messages of the queues that would have to be replaced, where they are few: one by one."""
    names = dict.fromkeys(
        each.ref.name for each in plan.refusals if each.code == "differs" and each.ref.kind == "queue"
    )
    return await _ready(list(names), broker)


async def _ready(names: Sequence[str], broker: Broker, *, at_most: int = _COUNTED) -> dict[str, int]:
    """Return ready messages, now, where the queues are few: one by one."""
    depths: dict[str, int] = {}
    if not names or len(names) > at_most:
        return depths
    channel = await broker.connection.admin_channel()
    try:
        for name in names:
            depths[name] = (await channel.queue_counts(name)).ready
    except (BrokerError, PermissionDeniedError):
        pass  # gone meanwhile, or not ours to read: the plan does without the number
    finally:
        with translate():
            await channel.close()
    return depths
