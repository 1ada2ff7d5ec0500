"""What apply, destroy and adopt share: the lock, the plan on the terminal, the question, the account."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import click

from .safe import safe

if TYPE_CHECKING:
    from amqpflow.planning.values.approvals import Allowance
    from amqpflow.planning.values.plan import Plan
    from amqpflow.planning.values.report import ApplyReport
    from amqpflow.rabbitmq.address import BrokerAddress
    from amqpflow.rabbitmq.observe import Broker
    from amqpflow.services.provisioning.applier import Application, OnStep
    from amqpflow.services.provisioning.drain import OnDrain

F = TypeVar("F", bound=Callable[..., Any])

PARTLY_DONE = 3

_QUESTIONS = {
    "replace": "Replace {replaced}, by way of other queues?",
    "delete": "Remove {removed}?",
    "migrate": "Move the messages of {replaced}?",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What the options said."""

    allowance: Allowance
    wait: bool = False
    lock_timeout: float = 0.0
    as_json: bool = False
    color: bool = False


def allow_options(function: F) -> F:
    """Add --allow and --wait."""
    for option in (
        click.option("--wait", is_flag=True, help="Wait until the retry queues that go are empty."),
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


def lock_option(function: F) -> F:
    """Add --lock-timeout."""
    return click.option(
        "--lock-timeout",
        type=click.FloatRange(min=0),
        default=0.0,
        metavar="SECONDS",
        help="Wait so long for another apply of the same topology; then exit with 5. Default: 0.",
    )(function)


def allowance_of(texts: tuple[str, ...]) -> Allowance:
    """Raises UsageError."""
    from amqpflow.errors import UsageError
    from amqpflow.planning.values.approvals import parse_allowance

    try:
        return parse_allowance(texts)
    except ValueError as error:
        raise UsageError(f"--allow: {error}") from error


async def carry_out(
    address: BrokerAddress, purpose: str, topology: str, make: Callable[[Broker], Awaitable[Plan]], wishes: Wishes
) -> int:
    """
    Lock, plan, show, ask, do, account.

    Args:
        address: the broker, at the topology's virtual host.
        purpose: apply, destroy or adopt: what the connection is named by.
        topology: its name.
        make: makes the plan when the lock is held.
        wishes: the options.

    Returns:
        The exit code: 0, or 3 when something waits for messages to leave a retry queue.
    """
    from amqpflow.rabbitmq.admin import Admin
    from amqpflow.rabbitmq.observe import open_broker
    from amqpflow.services.provisioning.applier import Application
    from amqpflow.services.provisioning.drain import Emptiness
    from amqpflow.services.provisioning.lock import applying_alone
    from amqpflow.services.provisioning.plan_files import require_unmoved

    def on_wait(holder: str) -> None:
        click.echo(f"Waiting: {safe(holder)}.", err=True)

    async with (
        open_broker(address, name=f"amqpflow {purpose} {topology}") as broker,
        applying_alone(broker, topology, timeout=wishes.lock_timeout, on_wait=on_wait) as lock,
    ):
        plan = await make(broker)
        _show(plan, wishes)
        if _agree(plan, wishes):
            # while a person thought about it, others may have made what the plan is about to make and record as ours
            require_unmoved(plan, await make(broker))
        with _progress(plan, wishes.as_json) as (on_step, on_drain):
            emptiness = Emptiness(broker, lock.check, on_drain)
            application = Application(plan, on_step, lock=lock, emptiness=emptiness, wait=wishes.wait)
            try:
                report = await application.run(Admin(broker, lock.name))
            finally:
                _account(application, wishes)
        application.raise_failure()
        return _conclude(plan, report, wishes)


def _show(plan: Plan, wishes: Wishes) -> None:
    from amqpflow.planning.compare.consent import lacking

    from .render.plan import plan_text
    from .render.plan_json import plan_object

    if not wishes.as_json:
        click.echo(plan_text(plan, color=wishes.color), color=wishes.color)
    elif plan.refusals or lacking(plan, wishes.allowance):
        click.echo(json.dumps(plan_object(plan), indent=2))


def _agree(plan: Plan, wishes: Wishes) -> bool:
    """Raise RefusedError unless all that is required was allowed, or is agreed to now. Return whether it asked."""
    from amqpflow.planning.compare.consent import lacking
    from amqpflow.services.provisioning.applier import check

    allowance = wishes.allowance
    missing = lacking(plan, allowance)
    asks = bool(missing) and not plan.refusals and not wishes.as_json and sys.stdin.isatty() and sys.stderr.isatty()
    if asks:
        for need in missing:
            if not click.confirm(safe(_question(need, plan, allowance)), err=True):
                break
            word, colon, one = need.partition(":")
            if colon:
                allowance = replace(allowance, named=allowance.named | {(word, one)})
            else:
                allowance = replace(allowance, words=allowance.words | {word})
    check(plan, allowance)
    return asks


def _question(need: str, plan: Plan, allowance: Allowance) -> str:
    from amqpflow.planning.values.findings import named

    word, colon, one = need.partition(":")
    if colon:
        return f"Remove {one}?"
    return _QUESTIONS[word].format(replaced=named("queue", sorted(plan.replaced)), removed=_removed(plan, allowance))


def _removed(plan: Plan, allowance: Allowance) -> str:
    from amqpflow.planning.compare.consent import unnamed

    from .render.plan_rows import counted

    kinds = Counter(change.kind for change in unnamed(plan, allowance))
    parts = [counted(kinds[kind], kind) for kind in ("queue", "exchange", "binding", "policy") if kinds[kind]]
    return ", ".join(parts)


def _account(application: Application, wishes: Wishes) -> None:
    """Say how far it got: as JSON always, as text when it did not get to its end, Ctrl-C included."""
    from .render.plan_json import applied_object
    from .render.report import stopped_text

    report = application.report
    if wishes.as_json:
        click.echo(json.dumps(applied_object(report), indent=2))
    elif not report.complete and not report.only_postponed:
        click.echo(stopped_text(report, color=wishes.color), err=True, color=wishes.color)


def _conclude(plan: Plan, report: ApplyReport, wishes: Wishes) -> int:
    from .render.plan import applied_summary
    from .render.report import postponed_text

    if not wishes.as_json:
        click.echo(applied_summary(plan, report.done))
        if report.postponed:
            click.echo(postponed_text(report), err=True)
    return PARTLY_DONE if report.postponed else 0


@contextmanager
def _progress(plan: Plan, as_json: bool) -> Iterator[tuple[OnStep | None, OnDrain | None]]:
    """A progress bar on a terminal, on standard error so that standard output stays what it is."""
    if as_json or not plan.changes or not sys.stderr.isatty():
        yield None, None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from amqpflow.planning.values.changes import Change, label

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=len(plan.changes))
        draining = progress.add_task("", total=None, visible=False)

        def on_step(_: int, change: Change, done: bool) -> None:
            progress.update(task, advance=int(done), description=safe(label(change)))
            if done:
                progress.update(draining, visible=False)

        def on_drain(what: str, gone: int, in_all: int) -> None:
            text = safe(f"messages of {what} back in their work queues")
            progress.update(draining, completed=gone, total=in_all, description=text, visible=True)

        yield on_step, on_drain
