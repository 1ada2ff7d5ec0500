"""`amqpflow apply FILE`: make the broker hold what the file says."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from .options import FILE, at_virtual_host, connection_options, output_option
from .render import colors
from .safe import safe

if TYPE_CHECKING:
    from amqpflow.planning.plan import Plan
    from amqpflow.rabbitmq.address import BrokerAddress
    from amqpflow.services.applier import Application, OnStep
    from amqpflow.services.topology import Topology


@click.command()
@click.argument("file", type=FILE)
@connection_options
@output_option("text", "json")
@click.option("--color", type=click.Choice(colors.CHOICES), default="auto", help="Colours. Also: NO_COLOR.")
def apply(file: str, address: BrokerAddress, output: str, color: str) -> int:
    """
    Create what FILE asks for and the broker lacks, in an order in which stopping anywhere is safe.

    Nothing is deleted and no queue is replaced, so no question is asked. What stands in the way is refused before
    anything is done (exit code 4). A failure in the middle tells what was done and what remains (3); apply again goes
    on from there. The virtual host is that of FILE, else that of the URL. FILE may also be a plan that `amqpflow plan
    --out` saved: it is carried out exactly as it is, or refused (4) with what changed on the broker since.
    """
    from amqpflow import Topology
    from amqpflow.services.saved_plans import load_plan

    from .asynchronous import run_async

    saved = load_plan(file)
    topology = Topology.load(file) if saved is None else Topology(compiled=saved.topology)
    for warning in topology.warnings:
        click.echo(safe(warning), err=True)
    address = at_virtual_host(topology, address)
    return run_async(_apply(topology, saved, address, output == "json", colors.wanted(color)))


async def _apply(topology: Topology, saved: Plan | None, address: BrokerAddress, as_json: bool, color: bool) -> int:
    from amqpflow.rabbitmq.admin import Admin
    from amqpflow.rabbitmq.observe import open_broker
    from amqpflow.services.applier import Application, check
    from amqpflow.services.planner import make_plan
    from amqpflow.services.saved_plans import require_unmoved

    from .render.plan import applied_summary, plan_text
    from .render.plan_json import plan_object

    async with open_broker(address, name=f"amqpflow apply {topology.name}") as broker:
        plan = await make_plan(topology.compiled, broker)
        if saved is not None:
            require_unmoved(saved, plan, cluster=plan.cluster)
        if as_json:
            if plan.refusals:
                click.echo(json.dumps(plan_object(plan), indent=2))
        else:
            click.echo(plan_text(plan, color=color), color=color)
        check(plan)
        with _progress(plan, as_json) as on_step:
            application = Application(plan, on_step)
            try:
                report = await application.run(Admin(broker))
            finally:
                _account(application, as_json, color)
        application.raise_failure()
        if not as_json:
            click.echo(applied_summary(plan, report.done))
        return 0


def _account(application: Application, as_json: bool, color: bool) -> None:
    """Say how far it got: as JSON always, as text when it did not get to its end, Ctrl-C included."""
    from .render.plan_json import applied_object
    from .render.report import stopped_text

    report = application.report
    if as_json:
        click.echo(json.dumps(applied_object(report), indent=2))
    elif not report.complete:
        click.echo(stopped_text(report, color=color), err=True, color=color)


@contextmanager
def _progress(plan: Plan, as_json: bool) -> Iterator[OnStep | None]:
    """A progress bar on a terminal, on standard error so that standard output stays what it is."""
    if as_json or not plan.changes or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from amqpflow.planning.changes import Change, label

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=len(plan.changes))

        def on_step(number: int, change: Change, done: bool) -> None:
            progress.update(task, completed=number + done, description=safe(label(change)))

        yield on_step
