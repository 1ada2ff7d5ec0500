"""Apply a plan, one change after another, and report what was done, however it ends."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from typing import Protocol

from amqpflow.errors import (
    AmqpflowError,
    BrokerError,
    LockLostError,
    PartlyDoneError,
    PermissionDeniedError,
    RefusedError,
)
from amqpflow.model.units import first_few
from amqpflow.planning.checks.message_loss import at_stake
from amqpflow.planning.compare.consent import missing_approvals, unapproved_removals, unused_approvals
from amqpflow.planning.compare.order import holds, independent_runs, waits_for
from amqpflow.planning.ownership.manifest_steps import so_far
from amqpflow.planning.values.apply_report import ApplyReport, Failure, Postponed
from amqpflow.planning.values.approvals import Approval, Approvals, allow_flag
from amqpflow.planning.values.changes import (
    Change,
    DeleteExchange,
    DeleteQueue,
    Drain,
    PutManifest,
    PutPolicy,
    RemoveManifest,
    RemovePolicy,
    label,
)
from amqpflow.planning.values.findings import Ref
from amqpflow.planning.values.plan import Plan

from .apply_lock import ApplyLock
from .drain import DrainMonitor, Remaining

_AT_ONCE = 16  #: changes; more gain nothing on two cores, and each has a channel
_WORTH_A_CHANNEL = 4  #: changes


class Executor(Protocol):
    """Does changes on a broker, several at once. Raises an AmqpflowError when it cannot."""

    async def execute(self, change: Change) -> None: ...


OnStep = Callable[[int, Change, bool], None]
"""Called with the number of a step from 0, its change, and False before it, True after it. Up to 16 are under way."""


class ApplyRun:
    """One run of a plan. `report` is right at any time, also after an interruption in the middle of a change.

    The order is what makes every prefix safe. Where many changes in a row do not depend on one another, 16 are under
    way at once: RabbitMQ serves a channel serially, and channels side by side. A retry queue that has messages is not
    waited for unless `wait`: its `Drain`, and what depends on it, is postponed.
    """

    def __init__(
        self,
        plan: Plan,
        on_step: OnStep | None = None,
        *,
        lock: ApplyLock | None = None,
        monitor: DrainMonitor | None = None,
        wait: bool = False,
    ) -> None:
        self._plan = plan
        self._on_step = on_step or (lambda *_: None)
        self._lock, self._monitor, self._wait = lock, monitor, wait
        self._done: set[int] = set()
        self._begun: set[int] = set()
        self._under_way: set[int] = set()
        self._failed: Change | None = None
        self._error: AmqpflowError | None = None
        self._postponed: list[Postponed] = []
        self._held: dict[str, Remaining | None] = {}
        self._looked: set[int] = set()

    @property
    def report(self) -> ApplyReport:
        failed = None
        if self._error is not None and self._failed is not None:
            failed = Failure(change=self._failed, reason=str(self._error), hint=self._error.hint)
        return ApplyReport(
            plan=self._plan,
            done=self._numbered(self._done),
            failed=failed,
            interrupted=self._numbered(self._under_way),
            remaining=self._numbered(set(range(len(self._plan.changes))) - self._begun),
            postponed=tuple(self._postponed),
        )

    def _numbered(self, numbers: Iterable[int]) -> tuple[Change, ...]:
        return tuple(self._plan.changes[number] for number in sorted(numbers))

    async def run(self, executor: Executor) -> ApplyReport:
        """Carry the plan out, up to the first failure. Raises RefusedError: the plan has refusals; nothing was done."""
        check(self._plan)
        for numbers in independent_runs(self._plan.changes, self._plan.topology):
            pending = iter(numbers)
            at_once = 1 if self._held else min(_AT_ONCE, -(-len(numbers) // _WORTH_A_CHANNEL))
            if at_once == 1:
                await self._take(pending, executor)
            else:
                await _all(self._take(pending, executor) for _ in range(at_once))
            if self._error is not None:
                break
        await self._record_so_far(executor)
        return self.report

    async def _take(self, numbers: Iterator[int], executor: Executor) -> None:
        """Do one change after another until there is none left, or one has failed."""
        for number in numbers:
            if not await self._do(number, self._plan.changes[number], executor) or self._error is not None:
                return

    async def _do(self, number: int, change: Change, executor: Executor) -> bool:
        self._begun.add(number)
        if self._is_held(change):
            self._postpone(change)
            return True
        self._under_way.add(number)
        self._on_step(number, change, False)
        try:
            if self._lock is not None:
                await self._lock.check(ask=change.action in ("delete", "drain") or isinstance(change, PutManifest))
            if not await self._guarded(number, change):
                self._under_way.remove(number)
                self._postpone(change)
                return True
            await executor.execute(change)
        except AmqpflowError as error:
            self._under_way.remove(number)
            if self._error is None:
                self._error, self._failed = error, change
            else:
                self._begun.discard(number)  # the next apply reports it
            return False
        self._under_way.remove(number)
        self._done.add(number)
        self._on_step(number, change, True)
        return True

    def _is_held(self, change: Change) -> bool:
        if not self._held:
            return False
        if isinstance(change, DeleteExchange | PutManifest | RemoveManifest):
            return True  # an exchange may be in use by what is still there, and the manifest records it
        return bool(waits_for(change) & self._held.keys())

    def _postpone(self, change: Change) -> None:
        remaining = self._held.get(change.name) if isinstance(change, Drain) else None
        self._postponed.append(Postponed(change=change, messages=remaining.messages if remaining else 0))
        for name in holds(change):
            self._held.setdefault(name, None)

    async def _guarded(self, number: int, change: Change) -> bool:
        """Look before messages could be lost, at a whole run of changes at once. False: not now."""
        if self._monitor is None:
            return True
        if number in self._looked:
            return change.name not in self._held
        if isinstance(change, Drain):
            run = self._run_of(number, Drain)
            drains = [each for each in run if isinstance(each, Drain)]
            self._held |= await self._monitor.drained(drains, wait=self._wait)
            return change.name not in self._held
        if isinstance(change, DeleteQueue) and not change.forced:
            drained = {each.name for each in self._plan.changes[:number] if isinstance(each, Drain)}
            run = self._run_of(number, DeleteQueue)
            names = [each.name for each in run if not (isinstance(each, DeleteQueue) and each.forced)]
            if remaining := await self._monitor.remaining([each for each in names if each not in drained]):
                problems = [f"queue {name} has {left}" for name, left in sorted(remaining.items())]
                flags = (allow_flag(Approval("delete", Ref("queue", name))) for name in sorted(remaining))
                raise RefusedError("; ".join(problems), hint=f"to lose them add {' '.join(flags)}")
        if isinstance(change, PutPolicy | RemovePolicy):
            stakes = list(at_stake(self._run_of(number, PutPolicy, RemovePolicy)))
            if stakes and (found := await self._monitor.objections(stakes)):
                raise RefusedError("; ".join(map(str, dict.fromkeys(found))))
        return True

    def _run_of(self, number: int, *kinds: type[Change]) -> Sequence[Change]:
        """Return the changes from here on that are of these kinds and carried out now: they are looked at together."""
        run = []
        for later, change in enumerate(self._plan.changes[number:], number):
            if not isinstance(change, kinds):
                break
            if not self._is_held(change):
                run.append(change)
                self._looked.add(later)
        return run

    async def _record_so_far(self, executor: Executor) -> None:
        """Write the closing manifest also when a plan stops in the middle, for what was done."""
        if not (self._error is None or isinstance(self._error, RefusedError | BrokerError | PermissionDeniedError)):
            return
        change = so_far(self._plan.changes, self._numbered(self._done))
        if change is not None:
            try:
                if self._lock is not None:
                    await self._lock.check(ask=True)
                await executor.execute(change)
            except AmqpflowError:
                pass  # the next apply records it

    def raise_failure(self) -> None:
        """Raise what stopped the run, if something did.

        Raises:
            PartlyDoneError: something was done before, or the lock was lost. AmqpflowError: the first change failed.
        """
        if self._error is None:
            return
        if self._done or isinstance(self._error, LockLostError):
            raise PartlyDoneError(
                str(self.report), hint="fix the cause and apply again: it resumes from here", report=self.report
            ) from self._error
        raise self._error


async def _all(coroutines: Iterable[Coroutine[None, None, None]]) -> None:
    try:
        async with asyncio.TaskGroup() as group:
            for each in coroutines:
                group.create_task(each)
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None


def check(plan: Plan, approvals: Approvals | None = None) -> None:
    """Raise RefusedError with all reasons not to carry out a plan. `approvals` None: they are not looked at."""
    problems = [str(each) for each in plan.refusals]
    missing = missing_approvals(plan, approvals) if approvals is not None else ()
    if Approval("replace") in missing:
        problems += [
            f"queue {name}: {', '.join(map(str, differences)) or 'its replacement has begun'}; "
            "`allow` replace permits replacing it through a stand-in queue"
            for name, differences in sorted(plan.replaced.items())
        ]
    if approvals is not None and Approval("delete") in missing:
        removed = [label(change) for change in unapproved_removals(plan, approvals)]
        problems.append(f"{first_few(removed, 5)} would be removed; `allow` delete permits it")
    problems += [
        f"{need.ref} would be removed, and amqpflow cannot tell whether it created it or found it: "
        f"{allow_flag(need)} removes it; to keep it: amqpflow disown FILE {need.ref.kind} {shlex.quote(need.ref.name)}"
        for need in missing
        if need.ref is not None
    ]
    if problems and approvals is not None:
        problems += [
            f"`allow` names an object that this plan does not remove: {one}"
            for one in unused_approvals(plan, approvals)
        ]
    if problems:
        raise RefusedError(
            f"topology {plan.topology.name}, virtual host {plan.vhost}: refused, and nothing was done",
            problems=problems,
        )
