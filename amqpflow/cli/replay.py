"""`amqpflow replay FILE --queue Q`: bring parked messages back to their work queue."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from .options import FILE, at_virtual_host, connection_options, output_option
from .parked import GIVING_BACK, PARTLY, load, show_notes, unverified_option
from .progress import progress
from .safe import safe

if TYPE_CHECKING:
    from amqpflow.rabbitmq.address import BrokerAddress
    from amqpflow.services.replay_plan import ReplayPlan
    from amqpflow.services.topology import Topology

REFUSED = 4


@click.command()
@click.argument("file", type=FILE)
@click.option("--queue", required=True, help="The work queue whose parked messages to replay.")
@click.option("--limit", type=click.IntRange(min=1), help="At most so many messages, oldest first.")
@click.option("--keep-attempts", is_flag=True, help="Go on counting attempts, instead of from the first.")
@click.option("--dry-run", is_flag=True, help="Say what would be replayed, and do nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@unverified_option
@connection_options
@output_option("text", "json")
def replay(
    file: str,
    queue: str,
    limit: int | None,
    keep_attempts: bool,
    dry_run: bool,
    yes: bool,
    unverified: bool,
    address: BrokerAddress,
    output: str,
) -> int:
    """
    Publish the parked messages of a work queue of FILE to it again, oldest first.

    Each is published, confirmed, and only then taken out of the parking queue. Stopping at any point loses nothing;
    what cannot be published stays parked (exit code 3). What fails again meanwhile is not replayed again.
    """
    from amqpflow import api
    from amqpflow.errors import Refused

    from .render.parked_json import plan_object, report_object
    from .render.replay import plan_lines, report_lines
    from .render.values import as_document
    from .stopping import INTERRUPTED, run_until_stopped, wait_message

    topology = load(file)
    address = at_virtual_host(topology, address)
    ask = not (yes or dry_run)
    if ask and not sys.stdin.isatty():
        raise Refused(
            "replay asks before it moves messages, and there is no terminal to ask on; nothing was done",
            hint="--yes replays without asking, --dry-run says what would be replayed",
        )
    only = None
    if not yes or dry_run:
        plan, stopped = _plan(topology, address, queue, limit, unverified)
        if dry_run and output == "json":
            click.echo(as_document(plan_object(plan)))
        else:
            for line in plan_lines(plan, keep_attempts=keep_attempts):
                click.echo(line, err=output == "json")
        show_notes(plan.notes)
        if stopped:
            return INTERRUPTED
        if dry_run or (not plan.selected and output == "text"):
            return 0 if plan.complete else PARTLY
        if plan.selected and not click.confirm("Replay them?", err=True):
            click.echo("Nothing was done.", err=True)
            return REFUSED
        only = plan.only
    with progress("Replaying", at_most=limit if only is None else len(only)) as on_progress:
        report, stopped = run_until_stopped(
            lambda stop: api.replay(
                topology,
                address,
                queue=queue,
                limit=limit,
                keep_attempts=keep_attempts,
                only=only,
                unverified=unverified,
                stop=stop,
                on_progress=on_progress,
                on_wait=wait_message,
            ),
            says=f"what is in flight is settled, {GIVING_BACK}",
        )
    if output == "json":
        click.echo(as_document(report_object(report)))
    else:
        for line in report_lines(report):
            click.echo(line)
    show_notes(report.notes)
    if report.stopped:
        click.echo(f"Stopped: {safe(report.stopped)}", err=True)
        if report.hint:
            click.echo(f"  {safe(report.hint)}", err=True)
    if stopped and report.interrupted:
        return INTERRUPTED
    return 0 if report.complete else PARTLY


def _plan(
    topology: Topology, address: BrokerAddress, queue: str, limit: int | None, unverified: bool
) -> tuple[ReplayPlan, bool]:
    from amqpflow import api

    from .stopping import run_until_stopped, wait_message

    with progress("Reading") as on_progress:
        return run_until_stopped(
            lambda stop: api.plan_replay(
                topology,
                address,
                queue=queue,
                limit=limit,
                unverified=unverified,
                stop=stop,
                on_progress=on_progress,
                on_wait=wait_message,
            ),
            says=GIVING_BACK,
        )
