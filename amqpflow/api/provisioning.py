"""The calls of a client that plan and change what a broker holds of a topology."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, TypedDict, Unpack

from .connections import Connections, TopologyLike
from .options import require_known

if TYPE_CHECKING:
    from amqpflow.model.routes import CompiledTopology
    from amqpflow.planning.reports.drift import DriftReport
    from amqpflow.planning.values.apply_report import ApplyReport
    from amqpflow.planning.values.approvals import Approvals
    from amqpflow.planning.values.plan import Plan
    from amqpflow.rabbitmq.observe import Broker
    from amqpflow.services.provisioning.applier import OnStep
    from amqpflow.services.provisioning.drain import OnDrain

    Make = Callable[[CompiledTopology, Broker], Awaitable[Plan]]


class ApplyOptions(TypedDict, total=False):
    """How a plan is carried out, and the callbacks meanwhile."""

    wait: bool
    """Wait until the last message of retry queues that are removed or replaced is due. False (default): a retry queue
    that has messages stays for the next time, see `postponed` of the report."""
    lock_timeout: float  #: seconds to wait for another apply of the same topology; default: 0
    on_wait: Callable[[str], None] | None  #: called once, before waiting, with who holds the lock
    on_plan: Callable[[Plan, Approvals], Approvals] | None
    """Called with the plan and what is allowed before anything is done, the lock being held; returns what is allowed.

    When it allows more, the plan is made again, and refused if the broker changed meanwhile."""
    on_step: OnStep | None  #: called before and after each step, see `amqpflow.services.provisioning.applier.OnStep`
    on_drain: OnDrain | None  #: called while waiting: with what is waited for, messages gone, messages there were
    on_report: Callable[[ApplyReport], None] | None  #: called with what was done, however the run ends


class Provisioning:
    """The calls of a client that plan, apply, destroy, adopt and disown."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    async def plan(self, topology: TopologyLike, *, prune: bool = False, allow: Iterable[str] = ()) -> Plan:
        """Return what `apply` would do, step by step. Nothing is changed.

        Args:
            prune: plan also to remove what the topology owns and its file no longer has.
            allow: as for `apply`, which must be given the same: a queue named there may lose messages.

        Returns:
            A plan. `plan.refusals` holds every reason why it cannot be applied as it stands.

        Raises:
            BrokerUnavailableError, AuthenticationError, VirtualHostMissingError, TlsError: no connection.
            PermissionDeniedError, ManagementUnavailableError, BrokerError: the broker does not answer.
            RefusedError: the management URL is that of another broker.
            UsageError: `allow` has an unknown word. InvalidTopologyError: the file has errors.
        """
        from amqpflow.services.provisioning.planner import make_plan

        approvals = approvals_of(allow)
        async with self._connections.broker(topology, "plan") as (broker, compiled):
            return await make_plan(compiled, broker, prune=prune, approvals=approvals)

    async def drift(self, topology: TopologyLike) -> DriftReport:
        """Return what differs between broker and file, by object and attribute. Nothing is changed.

        `drifts` of the report is empty when nothing differs; `unseen` names what could not be compared, as over AMQP
        alone.
        """
        from amqpflow.planning.reports.drift import drift
        from amqpflow.services.provisioning.planner import make_plan

        async with self._connections.broker(topology, "drift") as (broker, compiled):
            return drift(await make_plan(compiled, broker))

    async def apply(
        self,
        plan: Plan | TopologyLike,
        *,
        prune: bool = False,
        allow: Iterable[str] = (),
        **options: Unpack[ApplyOptions],
    ) -> ApplyReport:
        """Create what a topology lacks on the broker, and change in place what can be changed.

        Without `prune` nothing is removed. Stopping at any point is safe, and the next apply continues. One apply of a
        topology runs at a time: it holds a lock, which ends with its process.

        Args:
            plan: a topology, or what `plan` returned. A plan is made again first, and refused if it differs.
            prune: remove what the topology owns and its file no longer has. A plan that was made with it remembers it.
            allow: what may be done beyond adding and changing in place: `replace` a retry queue whose arguments differ,
                `delete` what the file no longer has, `delete:QUEUE` that queue alone, even with its messages or
                consumers; `drop:QUEUE` lets a tighter limit drop messages of that queue.
            options: wait, lock_timeout (seconds), on_wait, on_plan, on_step, on_drain, on_report: see `ApplyOptions`.

        Raises:
            RefusedError: something stands in the way, or was not allowed, `problems` names all of it; or the plan is
                stale, `problems` says what changed since: which object, which attribute, from what to what. Nothing was
                done.
            LockedError: another apply of this topology runs; nothing was done.
            PartlyDoneError: stopped at a failure, its `__cause__`; `report` says what was done and what remains.
            UsageError: `allow` has an unknown word. AmqpflowError: the first step failed; nothing was done.
        """
        from amqpflow.planning.values.plan import Plan
        from amqpflow.services.provisioning.plan_files import require_current
        from amqpflow.services.provisioning.planner import make_plan

        given = plan if isinstance(plan, Plan) else None
        topology = plan.topology if isinstance(plan, Plan) else plan
        approvals = approvals_of(allow)
        prune = prune or (given is not None and given.purpose == "prune")

        async def make(compiled: CompiledTopology, broker: Broker) -> Plan:
            current = await make_plan(compiled, broker, prune=prune, approvals=approvals)
            if given is not None:
                require_current(given, current)
            return current

        return await self._carry_out("apply", topology, make, approvals, options)

    async def destroy(
        self, topology: TopologyLike, *, allow: Iterable[str] = (), **options: Unpack[ApplyOptions]
    ) -> ApplyReport:
        """Remove from the broker all that a topology owns: what it created, and what it adopted.

        A queue with messages or consumers is refused unless `allow` names it. The messages of a retry queue return to
        their work queue first. Arguments and errors as for `apply`; `allow` must hold `delete`.
        """
        from amqpflow.services.provisioning.planner import make_destruction

        approvals = approvals_of(allow)
        make = partial(make_destruction, approvals=approvals)
        return await self._carry_out("destroy", topology, make, approvals, options)

    async def adopt(
        self, topology: TopologyLike, kind: str, names: Iterable[str], **options: Unpack[ApplyOptions]
    ) -> ApplyReport:
        """Take over existing queues, exchanges, bindings or policies: from then on the topology owns them.

        Only the topology's manifest is written, and one of its two exchanges where nothing carries its stamp yet. A
        queue, exchange or binding must be in the file, as it is on the broker. A policy must match only what is the
        topology's.

        Args:
            kind: `queue`, `exchange`, `binding` or `policy`.
            names: of the objects; of a binding as the plan shows it: `events -> orders (order.placed)`.
            options: as for `apply`.

        Raises:
            RefusedError: one of them is missing, differs, or another topology owns it; nothing was done.
            UsageError: another kind. Else as `apply`.
        """
        from amqpflow.services.provisioning.planner import make_adoption

        make = partial(make_adoption, wanted=_objects(kind, names))
        return await self._carry_out("adopt", topology, make, approvals_of(()), options)

    async def disown(
        self, topology: TopologyLike, kind: str, names: Iterable[str], **options: Unpack[ApplyOptions]
    ) -> ApplyReport:
        """Give up what was adopted, or a binding that apply made: it stays, and amqpflow does not remove it.

        Only the topology's manifest is written. What amqpflow declared carries its stamp and cannot be given up.
        Arguments and errors as for `adopt`.

        Raises:
            RefusedError: one of them is missing, or carries a stamp; nothing was done.
        """
        from amqpflow.services.provisioning.planner import make_disowning

        make = partial(make_disowning, wanted=_objects(kind, names))
        return await self._carry_out("disown", topology, make, approvals_of(()), options)

    async def _carry_out(
        self, purpose: str, topology: TopologyLike, make: Make, approvals: Approvals, options: ApplyOptions
    ) -> ApplyReport:
        require_known(options, ApplyOptions)
        from amqpflow.rabbitmq.admin import Admin
        from amqpflow.services.provisioning.applier import ApplyRun, check
        from amqpflow.services.provisioning.apply_lock import apply_lock
        from amqpflow.services.provisioning.drain import DrainMonitor
        from amqpflow.services.provisioning.plan_files import require_current

        timeout, on_wait = options.get("lock_timeout", 0.0), options.get("on_wait")
        async with (
            self._connections.broker(topology, purpose) as (broker, compiled),
            apply_lock(broker, compiled.name, timeout=timeout, on_wait=on_wait) as lock,
        ):
            plan = await make(compiled, broker)
            on_plan = options.get("on_plan")
            agreed = approvals if on_plan is None else on_plan(plan, approvals)
            check(plan, agreed)
            if agreed != approvals:
                # during the question others may have made what the plan is about to make and record as ours
                require_current(plan, await make(compiled, broker))
            monitor = DrainMonitor(broker, lock.check, options.get("on_drain"))
            run = ApplyRun(plan, options.get("on_step"), lock=lock, monitor=monitor, wait=options.get("wait", False))
            async with Admin(broker, lock.name) as admin:
                try:
                    report = await run.run(admin)
                finally:  # before the channels are closed, which a broker that is silent now holds up
                    if on_report := options.get("on_report"):
                        on_report(run.report)
            run.raise_failure()
            return report


def approvals_of(allow: Iterable[str]) -> Approvals:
    """Return what the words of `allow` allow.

    Raises:
        UsageError: one of them is unknown.
    """
    from amqpflow.errors import UsageError
    from amqpflow.planning.values.approvals import parse_approvals

    try:
        return parse_approvals([allow] if isinstance(allow, str) else allow)
    except ValueError as error:
        raise UsageError(f"`allow`: {error}") from error


def _objects(kind: str, names: Iterable[str]) -> list[tuple[str, str]]:
    from amqpflow.errors import UsageError
    from amqpflow.planning.values.manifest import ADOPTABLE

    if kind not in ADOPTABLE:
        raise UsageError(f"unknown kind {kind!r}; use {', '.join(ADOPTABLE)}")
    return [(kind, name) for name in ([names] if isinstance(names, str) else names)]
