"""What apply, destroy, adopt and disown share: show the plan, ask, draw progress, report."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

import click

from amqpflow.cli.exit_codes import PARTLY_DONE

from .options.connection import color_option, connection_options, output_option
from .options.quantities import DURATION_OR_SECONDS
from .render import colors
from .safe import safe

if TYPE_CHECKING:
    from amqpflow.api.provisioning import ApplyOptions
    from amqpflow.planning.values.apply_report import ApplyReport
    from amqpflow.planning.values.approvals import Approval, Approvals
    from amqpflow.planning.values.changes import Change
    from amqpflow.planning.values.plan import Plan

F = TypeVar("F", bound=Callable[..., Any])


_QUESTIONS = {
    "replace": "Replace {replaced}, by way of other queues?",
    "delete": "Remove {removed}?",
}


def allow_options(function: F) -> F:
    """Add --allow and --wait."""
    for option in (
        click.option("--wait", is_flag=True, help="Wait until retry queues that are removed or replaced are empty."),
        click.option(
            "--allow",
            multiple=True,
            metavar="WORDS",
            help="Permit a destructive step: replace, delete, or one object alone: delete:QUEUE (even with messages or "
            "consumers), 'delete:exchange NAME', 'delete:SOURCE -> QUEUE (KEY)'; drop:QUEUE lets a tighter limit drop "
            "its messages. May be repeated.",
        ),
    ):
        function = option(function)
    return function


def view_options(function: F) -> F:
    """Add --lock-timeout, what connects, -o and --color; the command receives `address` and one `view: ApplyView`."""

    @wraps(function)
    def with_view(*args: Any, output: str, color: str, lock_timeout: float, wait: bool = False, **kwargs: Any) -> Any:
        return function(*args, view=ApplyView(output, color, lock_timeout=lock_timeout, wait=wait), **kwargs)

    for option in (
        color_option,
        output_option("text", "json"),
        connection_options,
        click.option(
            "--lock-timeout",
            type=DURATION_OR_SECONDS,
            default=0.0,
            metavar="DURATION",
            help="Wait this long for another apply of the same topology, then exit with 5. Default: do not wait.",
        ),
    ):
        with_view = option(with_view)
    return with_view  # type: ignore[return-value]


def carry_out(call: Callable[[ApplyOptions], Awaitable[ApplyReport]], view: ApplyView) -> int:
    """Run a call of the client that changes a broker, and show what it does.

    Args:
        call: is given who is notified.
        view: shows it.

    Returns:
        The exit code: 0, or 3 when something waits for messages to leave a retry queue.
    """

    async def run() -> ApplyReport:
        with view:
            return await call(view.options)

    return view.conclude(asyncio.run(run()))


class ApplyView:
    """Shows a plan, asks, draws a progress bar, and reports what was done."""

    def __init__(self, output: str, color: str, *, lock_timeout: float, wait: bool = False) -> None:
        self.lock_timeout, self.wait = lock_timeout, wait
        self.as_json = output == "json"
        self.color = colors.wanted(color)
        self._bar = ExitStack()
        self._update: Callable[[Change, bool], None] | None = None
        self._draining: Callable[[str, int, int], None] | None = None
        self._plan: Plan | None = None

    def __enter__(self) -> ApplyView:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    @property
    def options(self) -> ApplyOptions:
        """The options of the call: how it waits, and the callbacks of this view."""
        return {
            "wait": self.wait,
            "lock_timeout": self.lock_timeout,
            "on_wait": self._waits,
            "on_plan": self._planned,
            "on_step": self._step,
            "on_drain": self._drain,
            "on_report": self._report,
        }

    def _waits(self, holder: str) -> None:
        click.echo(f"Waiting: {safe(holder)}.", err=True)

    def _planned(self, plan: Plan, approvals: Approvals) -> Approvals:
        """Show the plan, ask on a terminal for what is not allowed yet, and return what is allowed."""
        from amqpflow.planning.compare.consent import missing_approvals

        from .render.plan import plan_text
        from .render.plan_json import plan_object
        from .render.values import as_document

        self._plan = plan
        missing = missing_approvals(plan, approvals)
        if not self.as_json:
            click.echo(plan_text(plan, color=self.color), color=self.color)
        elif plan.refusals or missing:
            click.echo(as_document(plan_object(plan)))
        if plan.refusals or self.as_json or not (sys.stdin.isatty() and sys.stderr.isatty()):
            return approvals
        for need in missing:
            if not click.confirm(safe(_question(need, plan, approvals)), err=True):
                break
            approvals |= {need}
        return approvals

    def _step(self, _: int, change: Change, done: bool) -> None:
        if self._update is None:
            self._draw()
        if self._update is not None:
            self._update(change, done)

    def _drain(self, what: str, gone: int, in_all: int) -> None:
        if self._draining is not None:
            self._draining(what, gone, in_all)

    def _draw(self) -> None:
        """Draw a progress bar on a terminal, on standard error so that standard output stays what it is."""
        if self.as_json or self._plan is None or not sys.stderr.isatty():
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        from amqpflow.planning.values.changes import label

        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}", markup=False))
        progress = self._bar.enter_context(Progress(*columns, console=Console(stderr=True), transient=True))
        task = progress.add_task("", total=len(self._plan.changes))
        draining = progress.add_task("", total=None, visible=False)

        def update(change: Change, done: bool) -> None:
            progress.update(task, advance=int(done), description=safe(label(change)))
            if done:
                progress.update(draining, visible=False)

        def drain(what: str, gone: int, in_all: int) -> None:
            text = safe(f"messages of {what} back in their work queues")
            progress.update(draining, completed=gone, total=in_all, description=text, visible=True)

        self._update, self._draining = update, drain

    def _report(self, report: ApplyReport) -> None:
        """Report what was done: as JSON always, as text if the run was stopped, Ctrl-C included."""
        from .render.plan_json import applied_object
        from .render.report import stopped_text
        from .render.values import as_document

        self._bar.close()
        if self.as_json:
            click.echo(as_document(applied_object(report)))
        elif not report.complete and not report.only_postponed:
            click.echo(stopped_text(report, color=self.color), err=True, color=self.color)

    def conclude(self, report: ApplyReport) -> int:
        """Sum up a run that was not stopped, and return the exit code."""
        from .render.plan import applied_summary
        from .render.report import postponed_text

        if not self.as_json:
            click.echo(applied_summary(report.plan, report.done))
            if report.postponed:
                click.echo(postponed_text(report), err=True)
        return PARTLY_DONE if report.postponed else 0


def _question(need: Approval, plan: Plan, approvals: Approvals) -> str:
    from amqpflow.planning.values.findings import Ref

    if need.ref is not None:
        return f"Remove {need.ref}?"
    replaced = Ref.of("queue", sorted(plan.replaced))
    return _QUESTIONS[need.word].format(replaced=replaced, removed=_removed(plan, approvals))


def _removed(plan: Plan, approvals: Approvals) -> str:
    from amqpflow.planning.compare.consent import unapproved_removals

    from .render.plan_rows import counted

    kinds = Counter(change.kind for change in unapproved_removals(plan, approvals))
    parts = [counted(kinds[kind], kind) for kind in ("queue", "exchange", "binding", "policy") if kinds[kind]]
    return ", ".join(parts)
