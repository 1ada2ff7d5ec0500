"""`amqpflow replay FILE`: bring parked messages back to where they failed."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from .options import FILE, at_virtual_host, connection_options, output_option
from .parked import GIVING_BACK, PARTLY, load, show_notes, unverified_option
from .progress import progress
from .replay_options import how_options
from .safe import safe
from .selection import selection_options

if TYPE_CHECKING:
    from amqpflow.parking.selection import Selection
    from amqpflow.rabbitmq.address import BrokerAddress
    from amqpflow.services.replay_choice import ReplayChoice
    from amqpflow.services.replay_plan import ReplayPlan
    from amqpflow.services.replay_report import ReplayReport
    from amqpflow.services.topology import Topology

REFUSED = 4


@click.command()
@click.argument("file", type=FILE, required=False)
@selection_options
@how_options
@click.option("--dry-run", is_flag=True, help="Say what would be replayed, and do nothing.")
@click.option("--watch", is_flag=True, help="Afterwards watch until nothing of it is on its way any more.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--journal", type=click.Path(file_okay=False), help="Where journals are kept.")
@click.option("--resume", metavar="ID", help="Go on with an interrupted replay, as it was asked for.")
@click.option("--history", is_flag=True, help="List the replays whose journals are kept here.")
@unverified_option
@connection_options
@output_option("text", "json")
def replay(
    file: str | None,
    selection: Selection,
    how: dict[str, Any],
    dry_run: bool,
    watch: bool,
    yes: bool,
    journal: str | None,
    resume: str | None,
    history: bool,
    unverified: bool,
    address: BrokerAddress,
    output: str,
) -> int:
    """
    Publish the parked messages of FILE to their work queues again, oldest first.

    Each is published, confirmed, and only then taken out of the parking queue. Stopping at any point loses nothing;
    what cannot be published stays parked (exit code 3). What fails again meanwhile is not replayed again. A journal
    knows what was sent, so that a replay that was interrupted is gone on with by the next one.
    """
    import gc

    from amqpflow.errors import Refused

    from .replay_options import asked_for, choice_of, selection_of

    gc.set_threshold(20_000, 20, 20)  # a sixth of the time went into looking for cycles, of which there are none
    if history:
        return _history(journal, output)
    if file is None:
        raise click.UsageError("Missing argument 'FILE'.")
    topology = load(file)
    address = at_virtual_host(topology, address)
    if resume is not None:
        from amqpflow.services.journal import journals_in

        if not selection.is_all or how.keys() - {"in_doubt"}:
            raise click.UsageError("--resume goes on as it was asked for; leave the other options out")
        head = journals_in(journal).load(resume).head
        selection, how = selection_of(head.selection), {**head.options, **how}
    choice, matcher = choice_of(topology, selection, how)
    if not (yes or dry_run) and not sys.stdin.isatty():
        raise Refused(
            "replay asks before it moves messages, and there is no terminal to ask on; nothing was done",
            hint="--yes replays without asking, --dry-run says what would be replayed",
        )
    if not yes or dry_run:
        plan, stopped = _plan(topology, address, selection, choice, unverified)
        _show_plan(plan, choice, output, dry_run=dry_run)
        show_notes((*plan.notes, *matcher.notes))
        if stopped:
            from .stopping import INTERRUPTED

            return INTERRUPTED
        if dry_run or (not plan.selected and output == "text"):
            return 0 if plan.complete and (dry_run or not plan.unknown_origin) else PARTLY
        if plan.selected and not click.confirm("Replay them?", err=True):
            click.echo("Nothing was done.", err=True)
            return REFUSED
        from dataclasses import replace

        choice = replace(choice, only=plan.only)
    report, stopped = _replay(
        topology, address, selection, choice, unverified, journal, resume, asked_for(selection, how), watch=watch
    )
    return _show(report, matcher.notes if yes else (), output, stopped=stopped)


def _plan(
    topology: Topology, address: BrokerAddress, selection: Selection, choice: ReplayChoice, unverified: bool
) -> tuple[ReplayPlan, bool]:
    from amqpflow import api

    from .stopping import run_until_stopped, wait_message

    with progress("Reading") as on_progress:
        return run_until_stopped(
            lambda stop: api.plan_replay(
                topology,
                address,
                queue=selection.queues or None,
                choice=choice,
                unverified=unverified,
                stop=stop,
                on_progress=on_progress,
                on_wait=wait_message,
            ),
            says=GIVING_BACK,
        )


def _show_plan(plan: ReplayPlan, choice: ReplayChoice, output: str, *, dry_run: bool) -> None:
    from .render.parked_json import plan_object
    from .render.replay import plan_lines
    from .render.values import as_document

    if dry_run and output == "json":
        click.echo(as_document(plan_object(plan)))
        return
    for line in plan_lines(plan, keep_attempts=choice.keep_attempts):
        click.echo(line, err=output == "json")


def _replay(
    topology: Topology,
    address: BrokerAddress,
    selection: Selection,
    choice: ReplayChoice,
    unverified: bool,
    journal: str | None,
    resume: str | None,
    asked: dict[str, Any],
    *,
    watch: bool,
) -> tuple[ReplayReport, bool]:
    from amqpflow import api

    from .stopping import run_until_stopped, wait_message

    at_most = choice.limit if choice.only is None else len(choice.only)
    with progress("Replaying", at_most=at_most) as on_progress:
        return run_until_stopped(
            lambda stop: api.replay(
                topology,
                address,
                queue=selection.queues or None,
                choice=choice,
                journal=journal,
                resume=resume,
                asked=asked,
                unverified=unverified,
                stop=stop,
                on_progress=on_progress,
                on_wait=wait_message,
                on_watch=_watched if watch else None,
            ),
            says=f"what is in flight is settled, {GIVING_BACK}",
        )


def _watched(on_its_way: int, parked: int) -> None:
    click.echo(f"{on_its_way} in work and retry queues, {parked} parked.", err=True)


def _show(report: ReplayReport, notes: tuple[str, ...], output: str, *, stopped: bool) -> int:
    from .render.parked_json import report_object
    from .render.replay import report_lines
    from .render.values import as_document
    from .stopping import INTERRUPTED

    if output == "json":
        click.echo(as_document(report_object(report)))
    else:
        for line in report_lines(report):
            click.echo(line)
    show_notes((*report.notes, *notes))
    if report.stopped:
        click.echo(f"Stopped: {safe(report.stopped)}", err=True)
        if report.hint:
            click.echo(f"  {safe(report.hint)}", err=True)
    if stopped and report.interrupted:
        return INTERRUPTED
    if report.guarded:
        return REFUSED
    return 0 if report.complete else PARTLY


def _history(journal: str | None, output: str) -> int:
    from amqpflow import api

    from .render.replay import history_lines, history_object
    from .render.values import as_document

    states = api.replay_history(journal)
    if output == "json":
        click.echo(as_document({"version": 1, "replays": [history_object(each) for each in states]}))
    else:
        for line in history_lines(states):
            click.echo(line)
    return 0
