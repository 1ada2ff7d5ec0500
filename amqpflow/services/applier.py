"""Apply: carry out a plan, one change after another, and say what became of it, however it ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from amqpflow.errors import AmqpflowError, PartlyDone, Refused
from amqpflow.planning.changes import Change
from amqpflow.planning.plan import Plan
from amqpflow.planning.report import ApplyReport, Failure


class Executor(Protocol):
    """Does a change on a broker. Raises an AmqpflowError when it cannot."""

    async def execute(self, change: Change) -> None: ...


OnStep = Callable[[int, Change, bool], None]
"""Called with the number of a step from 0, its change, and False before it, True after it."""


class Application:
    """
    One run of a plan. `report` is right at any time, also after an interruption in the middle of a change.

    Changes are done one by one: a channel is serial in the broker, and the order is what makes every prefix safe.
    """

    def __init__(self, plan: Plan, on_step: OnStep | None = None) -> None:
        self._plan = plan
        self._on_step = on_step or (lambda *_: None)
        self._done = 0
        self._begun = 0
        self._error: AmqpflowError | None = None

    @property
    def report(self) -> ApplyReport:
        changes = self._plan.changes
        failed = interrupted = None
        if self._error is not None:
            failed = Failure(change=changes[self._done], reason=str(self._error), hint=self._error.hint)
        elif self._begun > self._done:
            interrupted = changes[self._done]
        return ApplyReport(
            plan=self._plan,
            done=changes[: self._done],
            failed=failed,
            interrupted=interrupted,
            remaining=changes[max(self._begun, self._done) :],
        )

    async def run(self, executor: Executor) -> ApplyReport:
        """
        Carry the plan out, up to the first failure.

        Raises:
            Refused: the plan has refusals; nothing was done.
        """
        check(self._plan)
        for number, change in enumerate(self._plan.changes):
            self._on_step(number, change, False)
            self._begun = number + 1
            try:
                await executor.execute(change)
            except AmqpflowError as error:
                self._error = error
                break
            self._done = number + 1
            self._on_step(number, change, True)
        return self.report

    def raise_failure(self) -> None:
        """
        Raise what stopped the run, if something did.

        Raises:
            PartlyDone: something was done before; `report` is among its attributes.
            AmqpflowError: what the first change failed with; nothing was done.
        """
        if self._error is None:
            return
        if self._done:
            raise PartlyDone(
                str(self.report), hint="apply again when the cause is mended: it goes on from here", report=self.report
            ) from self._error
        raise self._error


def check(plan: Plan) -> None:
    """Raise Refused with all reasons when a plan must not be carried out."""
    if plan.refusals:
        raise Refused(
            f"topology {plan.topology.name} is not applied to virtual host {plan.vhost}: nothing was done",
            problems=[str(each) for each in plan.refusals],
        )
