"""Wiring: what the commands do, as functions that return values."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from .services.loading.opening import opened as _opened
from .services.loading.topology import Topology

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
    from datetime import timedelta
    from pathlib import Path

    from .model.routes import CompiledTopology
    from .parking.journal import JournalState
    from .planning.reports.drift import DriftReport
    from .planning.reports.explain import Explanation
    from .planning.values.approvals import Allowance
    from .planning.values.plan import Plan
    from .planning.values.report import ApplyReport
    from .rabbitmq.address import BrokerAddress
    from .rabbitmq.observe import Broker
    from .services.provisioning.applier import OnStep
    from .services.provisioning.drain import OnDrain
    from .services.provisioning.lock import ApplyLock
    from .services.reading.options import Progress
    from .services.replaying.plan import ReplayPlan
    from .services.replaying.report import ReplayReport
    from .services.replaying.request import ReplayRequest


async def plan(
    topology: Topology | CompiledTopology,
    url: str | BrokerAddress | None = None,
    *,
    prune: bool = False,
    allow: Iterable[str] = (),
    management_url: str | None = None,
) -> Plan:
    """
    Look at a broker and say what `apply` would do there, in that order. Nothing is changed.

    Args:
        topology: as `Topology.load` returns it. The virtual host it names is used, else the one in the URL.
        url: AMQP URL; None: as for the commands, AMQPFLOW_URL, RABBITMQ_URL, CLOUDAMQP_URL, else localhost.
        prune: plan also to remove what the topology owns and its file no longer has.
        allow: as for `apply`, which must be given the same: a queue named there may lose messages.
        management_url: of the same broker's management API; None: AMQPFLOW_MANAGEMENT_URL if `url` is None, too, else
            derived from `url`.

    Returns:
        A plan. `plan.refusals` holds every reason why it cannot be applied as it stands; empty when it can.

    Raises:
        BrokerUnavailableError, AuthenticationError, VirtualHostMissingError, TlsError: no connection.
        PermissionDeniedError, ManagementUnavailableError, BrokerError: looking failed.
        RefusedError: the management URL is that of another broker.
        UsageError: a URL that is none.
    """
    from .services.provisioning.planner import make_plan

    async with _opened(topology, url, management_url, "plan") as (broker, compiled):
        return await make_plan(compiled, broker, prune=prune, allowance=_allowance(allow))


async def drift(
    topology: Topology | CompiledTopology, url: str | BrokerAddress | None = None, *, management_url: str | None = None
) -> DriftReport:
    """
    Look at a broker and say what is otherwise there than the file says, by object and attribute. Nothing is changed.

    Args:
        topology: as `Topology.load` returns it.
        url, management_url: as for `plan`.

    Returns:
        A report. `drifts` is empty when nothing differs; `unseen` says what could not be compared, as over AMQP alone.

    Raises:
        AmqpflowError: as for `plan`.
    """
    from .planning.reports.drift import drift as compare
    from .services.provisioning.planner import make_plan

    async with _opened(topology, url, management_url, "drift") as (broker, compiled):
        return compare(await make_plan(compiled, broker))


async def apply(
    plan: Plan | Topology | CompiledTopology,
    url: str | BrokerAddress | None = None,
    *,
    prune: bool = False,
    allow: Iterable[str] = (),
    wait: bool = False,
    lock_timeout: float = 0.0,
    management_url: str | None = None,
    on_step: OnStep | None = None,
    on_drain: OnDrain | None = None,
) -> ApplyReport:
    """
    Make the broker hold a topology: what is missing is created, what can be changed in place is changed.

    Without `prune` nothing is removed. Stopping in the middle is safe; applying again goes on from there. One apply of
    a topology runs at a time: it holds a lock, which is gone with its process.

    Args:
        plan: a topology, or what `plan` returned. A plan is made again first, and refused when that differs.
        url: as for `plan`; a plan remembers its own.
        prune: remove what the topology owns and its file no longer has. A plan that was made with it remembers it.
        allow: what may be done beyond adding and changing in place: `replace` a retry queue whose arguments differ,
            `delete` what the file no longer has, `delete:QUEUE` that queue alone, even with its messages or consumers;
            `drop:QUEUE` lets a tighter limit drop messages of that queue.
        wait: until the last message of retry queues that are removed or replaced is due. Without it a retry queue that
            has messages stays for the next time, see `postponed` of the report.
        lock_timeout: seconds to wait for another apply of the same topology.
        management_url: as for `plan`.
        on_step: called before and after each step, see `amqpflow.services.provisioning.applier.OnStep`.
        on_drain: told while waiting: what is waited for, messages gone, messages there were.

    Raises:
        RefusedError: something stands in the way, or was not allowed, `problems` names all of it; or the plan is stale,
            `problems` says what moved since: which object, which attribute, from what to what. Nothing was done.
        LockedError: another apply of this topology is under way; nothing was done.
        PartlyDoneError: stopped at a failure, which is its `__cause__`; `report` says what was done and what remains.
        UsageError: `allow` has something else in it.
        AmqpflowError: as for `plan`, or the first step failed; nothing was done.
    """
    from .planning.values.plan import Plan
    from .services.provisioning.plan_files import require_unmoved
    from .services.provisioning.planner import make_plan

    topology = plan.topology if isinstance(plan, Plan) else plan
    remembered = plan.address if isinstance(plan, Plan) else None
    pruning = prune or (isinstance(plan, Plan) and plan.purpose == "prune")
    allowance = _allowance(allow)
    async with (
        _opened(topology, url or remembered, management_url, "apply") as (broker, compiled),
        _locked(broker, compiled, lock_timeout) as lock,
    ):
        current = await make_plan(compiled, broker, prune=pruning, allowance=allowance)
        if isinstance(plan, Plan):
            require_unmoved(plan, current)
        return await _carried_out(broker, current, allowance, lock, wait, on_step, on_drain)


async def destroy(
    topology: Topology | CompiledTopology,
    url: str | BrokerAddress | None = None,
    *,
    allow: Iterable[str] = (),
    wait: bool = False,
    lock_timeout: float = 0.0,
    management_url: str | None = None,
    on_step: OnStep | None = None,
    on_drain: OnDrain | None = None,
) -> ApplyReport:
    """
    Remove from a broker everything that a topology owns: what it created, and what it adopted.

    A queue with messages or consumers is refused unless `allow` names it, but for retry queues, whose messages go back
    to their work queues first. Arguments and errors as for `apply`; `allow` must hold `delete`.
    """
    from .services.provisioning.planner import make_destruction

    allowance = _allowance(allow)
    async with (
        _opened(topology, url, management_url, "destroy") as (broker, compiled),
        _locked(broker, compiled, lock_timeout) as lock,
    ):
        current = await make_destruction(compiled, broker, allowance=allowance)
        return await _carried_out(broker, current, allowance, lock, wait, on_step, on_drain)


async def adopt(
    topology: Topology | CompiledTopology,
    kind: str,
    names: Iterable[str],
    url: str | BrokerAddress | None = None,
    *,
    lock_timeout: float = 0.0,
    management_url: str | None = None,
) -> ApplyReport:
    """
    Take over existing queues, exchanges, bindings or policies: they are the topology's own, to change and remove.

    Nothing but the topology's manifest is written, and one of its two exchanges where nothing carries its stamp yet. A
    queue, exchange or binding must be in the file, as it is on the broker; a policy must match nothing that is not the
    topology's.

    Args:
        topology: as `Topology.load` returns it.
        kind: `queue`, `exchange`, `binding` or `policy`.
        names: of the objects; of a binding as the plan shows it: `events -> orders (order.placed)`.
        url, management_url: as for `plan`.
        lock_timeout: as for `apply`.

    Raises:
        RefusedError: one of them is missing, differs, or is owned by another topology; nothing was done.
        UsageError: another kind.
        LockedError, AmqpflowError: as for `apply`.
    """
    from .services.provisioning.planner import make_adoption

    return await _record("adopt", make_adoption, topology, kind, names, url, lock_timeout, management_url)


async def disown(
    topology: Topology | CompiledTopology,
    kind: str,
    names: Iterable[str],
    url: str | BrokerAddress | None = None,
    *,
    lock_timeout: float = 0.0,
    management_url: str | None = None,
) -> ApplyReport:
    """
    Give up what was adopted, or a binding that apply made: it stays on the broker, and is not removed by amqpflow.

    Nothing but the topology's manifest is written. What amqpflow declared carries its stamp and cannot be given up.
    Arguments and errors as for `adopt`.

    Raises:
        RefusedError: one of them is missing, or carries a stamp; nothing was done.
    """
    from .services.provisioning.planner import make_disowning

    return await _record("disown", make_disowning, topology, kind, names, url, lock_timeout, management_url)


async def _record(
    purpose: str,
    make: Callable[[CompiledTopology, Broker, Sequence[tuple[str, str]]], Awaitable[Plan]],
    topology: Topology | CompiledTopology,
    kind: str,
    names: Iterable[str],
    url: str | BrokerAddress | None,
    lock_timeout: float,
    management_url: str | None,
) -> ApplyReport:
    """Carry out a plan that changes what is recorded as the topology's own."""
    from .errors import UsageError
    from .planning.values.manifest import ADOPTABLE

    if kind not in ADOPTABLE:
        raise UsageError(f"unknown kind {kind!r}; use {', '.join(ADOPTABLE)}")
    wanted = [(kind, name) for name in ([names] if isinstance(names, str) else names)]
    async with (
        _opened(topology, url, management_url, purpose) as (broker, compiled),
        _locked(broker, compiled, lock_timeout) as lock,
    ):
        current = await make(compiled, broker, wanted)
        return await _carried_out(broker, current, _allowance(()), lock, False, None, None)


def _allowance(allow: Iterable[str]) -> Allowance:
    from .errors import UsageError
    from .planning.values.approvals import parse_allowance

    try:
        return parse_allowance([allow] if isinstance(allow, str) else allow)
    except ValueError as error:
        raise UsageError(str(error)) from error


@asynccontextmanager
async def _locked(broker: Broker, compiled: CompiledTopology, timeout: float) -> AsyncIterator[ApplyLock]:
    from .services.provisioning.lock import applying_alone

    async with applying_alone(broker, compiled.name, timeout=timeout) as lock:
        yield lock


async def _carried_out(
    broker: Broker,
    plan: Plan,
    allowance: Allowance,
    lock: ApplyLock,
    wait: bool,
    on_step: OnStep | None,
    on_drain: OnDrain | None,
) -> ApplyReport:
    from .rabbitmq.admin import Admin
    from .services.provisioning.applier import Application, check
    from .services.provisioning.drain import Emptiness

    check(plan, allowance)
    emptiness = Emptiness(broker, lock.check, on_drain)
    application = Application(plan, on_step, lock=lock, emptiness=emptiness, wait=wait)
    report = await application.run(Admin(broker, lock.name))
    application.raise_failure()
    return report


async def explain(
    topology: Topology | CompiledTopology,
    queue: str,
    url: str | BrokerAddress | None = None,
    *,
    management_url: str | None = None,
) -> Explanation:
    """
    Work out every setting that works on a queue, where it comes from, and what it overruled. Nothing is changed.

    Args:
        topology: as `Topology.load` returns it.
        queue: a work queue, a retry queue or a parking queue of it.
        url: as for `plan`.
        management_url: as for `plan`. Without the management API policies cannot be seen, and the notes say so.

    Raises:
        UsageError: the file has no such queue. AmqpflowError: as for `plan`.
    """
    from .services.provisioning.explainer import explain_on

    async with _opened(topology, url, management_url, "explain") as (broker, compiled):
        explanation, _ = await explain_on(compiled, queue, broker)
        return explanation


async def plan_replay(
    topology: Topology | CompiledTopology,
    url: str | BrokerAddress | None = None,
    *,
    queue: str | Sequence[str] | None = None,
    choice: ReplayRequest | None = None,
    management_url: str | None = None,
    unverified: bool = False,
    prefetch: int | None = None,
    stop: asyncio.Event | None = None,
    on_progress: Progress | None = None,
    on_wait: Callable[[str], None] | None = None,
) -> ReplayPlan:
    """
    Count what `replay` would take, by reason, error and destination. Nothing is changed. Arguments and errors as for
    `replay`.
    """
    import asyncio

    from .services.reading.options import ReadOptions
    from .services.replaying.plan import plan_replay as plan_it

    options = ReadOptions(
        unverified=unverified,
        prefetch=prefetch,
        stop=stop or asyncio.Event(),
        on_progress=on_progress,
        on_wait=on_wait,
    )
    async with _opened(topology, url, management_url, "replay") as (broker, compiled):
        return await plan_it(
            broker,
            compiled,
            queue,
            choice=choice,
            options=options,
        )


async def replay(
    topology: Topology | CompiledTopology,
    url: str | BrokerAddress | None = None,
    *,
    queue: str | Sequence[str] | None = None,
    choice: ReplayRequest | None = None,
    journal: str | Path | None = None,
    resume: str | None = None,
    management_url: str | None = None,
    unverified: bool = False,
    prefetch: int | None = None,
    stop: asyncio.Event | None = None,
    on_progress: Progress | None = None,
    on_wait: Callable[[str], None] | None = None,
    on_watch: Callable[[int, int], None] | None = None,
) -> ReplayReport:
    """
    Bring parked messages back to the work queue they failed in: publish, await the confirm, ack.

    They go in the order in which RabbitMQ delivers them: oldest first, but higher priorities first on a quorum queue of
    RabbitMQ 4 and on a classic queue with x-max-priority.

    Killed at any point it loses nothing, and the journal knows what was sent: the next replay of the queue, or the
    same one with `resume`, sends nothing of that again. At most 4,000 messages are in doubt then; they are sent again
    with the hop id of the first copy, or held. What is parked while it runs is not replayed.

    Args:
        topology: as `Topology.load` returns it.
        url: as for `plan`.
        queue: a work queue, several, or (None) all.
        choice: which messages, where to, how fast, when to stop by itself; None: all, to where they failed.
        journal: directory of the journals; None: `$XDG_STATE_HOME/amqpflow/replays`, below `~/.local/state`.
        resume: id of an interrupted replay to resume, or the beginning of it. Its journal has what it was asked for,
            whoever began it: leave `queue` and `choice` out, but for `in_doubt`, which may differ, and `set_headers`,
            whose values a journal does not hold.
        management_url, unverified, prefetch, stop, on_progress, on_wait: as for `parked`. When `stop` is set, what is
            in flight is settled and the rest requeued.
        on_watch: watch afterwards, until nothing is on its way any more; told the ready messages in the destinations
            and their retry queues, and those in the parking queues.

    Returns:
        A report, also when it could not go on to its end: see `complete`, `stopped` and `left_behind`.

    Raises:
        UsageError: the file has no such work queue, or there is no such replay. NotAppliedError, RefusedError: as for
        `parked`, or the journal cannot be written; nothing was done.
        AmqpflowError: as for `plan`; nothing was done.
    """
    import asyncio

    from .services.reading.options import ReadOptions
    from .services.replaying.journal_files import journals_in
    from .services.replaying.replayer import replay_parked

    options = ReadOptions(
        unverified=unverified,
        prefetch=prefetch,
        stop=stop or asyncio.Event(),
        on_progress=on_progress,
        on_wait=on_wait,
    )
    journals = journals_in(journal)
    state = journals.load(resume) if resume is not None else None
    async with _opened(topology, url, management_url, "replay") as (broker, compiled):
        return await replay_parked(
            broker,
            compiled,
            queue,
            choice=choice,
            journals=journals,
            resume=state,
            options=options,
            on_watch=on_watch,
        )


def replay_history(journal: str | Path | None = None) -> tuple[JournalState, ...]:
    """
    The replays whose journals are kept on this machine, oldest first: who, when, what, and what came of it.

    Args:
        journal: directory of the journals, as for `replay`.

    Raises:
        RefusedError: the directory cannot be read, or another user may write in it. A file in it that is not a journal
            is left out.
    """
    from .services.replaying.journal_files import journals_in

    return tuple(journals_in(journal).all(lambda *_: None))


def prune_replay_history(journal: str | Path | None = None, *, older_than: timedelta | None = None) -> tuple[str, ...]:
    """
    Remove the journals of finished replays. Those of replays that can be resumed stay.

    Args:
        journal: directory of the journals, as for `replay`.
        older_than: only of replays that began at least so long ago; None: all.

    Returns:
        The ids of the replays, the oldest first.

    Raises:
        RefusedError: as for `replay_history`; or a journal cannot be removed.
    """
    import time

    from .services.replaying.journal_files import journals_in

    before = None if older_than is None else int((time.time() - older_than.total_seconds()) * 1000)
    return tuple(journals_in(journal).prune(before))
