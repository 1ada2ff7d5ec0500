"""Wiring: what the commands do, as functions that return values."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .services.topology import Topology

if TYPE_CHECKING:
    from .model.routes import CompiledTopology
    from .planning.plan import Plan
    from .planning.report import ApplyReport
    from .rabbitmq.address import BrokerAddress
    from .services.applier import OnStep


async def plan(
    topology: Topology | CompiledTopology, url: str | BrokerAddress | None = None, *, management_url: str | None = None
) -> Plan:
    """
    Look at a broker and say what `apply` would do there, in that order. Nothing is changed.

    Args:
        topology: as `Topology.load` returns it. The virtual host it names is used, else the one in the URL.
        url: AMQP URL; None: as for the commands, AMQPFLOW_URL, RABBITMQ_URL, CLOUDAMQP_URL, else localhost.
        management_url: of the management API; None: AMQPFLOW_MANAGEMENT_URL, else derived from `url`.

    Returns:
        A plan. `plan.refusals` holds every reason why it cannot be applied as it stands; empty when it can.

    Raises:
        BrokerUnavailable, AuthenticationFailed, VirtualHostMissing, TlsFailed: no connection.
        PermissionDenied, ManagementUnavailable, BrokerError: looking failed.
        WrongUsage: a URL that is none.
    """
    from .rabbitmq.observe import open_broker
    from .services.planner import make_plan

    compiled, address = _target(topology, url, management_url)
    async with open_broker(address, name=f"amqpflow plan {compiled.name}") as broker:
        return await make_plan(compiled, broker)


async def apply(
    plan: Plan | Topology | CompiledTopology,
    url: str | BrokerAddress | None = None,
    *,
    management_url: str | None = None,
    on_step: OnStep | None = None,
) -> ApplyReport:
    """
    Make the broker hold a topology: what is missing is created, what can be changed in place is changed.

    Nothing is deleted, and no queue is replaced. Stopping in the middle is safe; applying again goes on from there.

    Args:
        plan: a topology, or what `plan` returned. A plan is made again first, and refused when that differs.
        url: as for `plan`; a plan remembers its own.
        management_url: as for `plan`.
        on_step: called before and after each step, see `amqpflow.services.applier.OnStep`.

    Raises:
        Refused: something stands in the way, `problems` names all of it; or the plan is stale. Nothing was done.
        PartlyDone: stopped at a failure, which is its `__cause__`; `report` says what was done and what remains.
        AmqpflowError: as for `plan`, or the first step failed; nothing was done.
    """
    from .errors import Refused
    from .planning.plan import Plan
    from .rabbitmq.admin import Admin
    from .rabbitmq.observe import open_broker
    from .services.applier import Application
    from .services.planner import make_plan

    if isinstance(plan, Plan):
        compiled, address = _target(plan.topology, url or plan.address, management_url)
    else:
        compiled, address = _target(plan, url, management_url)
    async with open_broker(address, name=f"amqpflow apply {compiled.name}") as broker:
        current = await make_plan(compiled, broker)
        if isinstance(plan, Plan) and (current.changes, current.refusals) != (plan.changes, plan.refusals):
            raise Refused(
                f"the plan for {compiled.name} is stale: the broker changed since it was made; nothing was done",
                hint="plan again",
            )
        application = Application(current, on_step)
        report = await application.run(Admin(broker))
        application.raise_failure()
        return report


def _target(
    topology: Topology | CompiledTopology, url: str | BrokerAddress | None, management_url: str | None
) -> tuple[CompiledTopology, BrokerAddress]:
    """The compiled topology, and the address of the virtual host it belongs to."""
    from .model.routes import CompiledTopology
    from .rabbitmq.address import BrokerAddress, resolve_address

    compiled = topology if isinstance(topology, CompiledTopology) else topology.compiled
    address = url if isinstance(url, BrokerAddress) else resolve_address(url, management_url)
    return compiled, address.with_vhost(compiled.vhost) if compiled.vhost else address
