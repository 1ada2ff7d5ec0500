"""`amqpflow replay FILE`: replay parked messages to the work queues they failed in."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from amqpflow.cli.exit_codes import INTERRUPTED, PARTLY_DONE, REFUSED
from amqpflow.cli.options.connection import FILE, connection_options, output_option
from amqpflow.cli.options.reading import safety_options
from amqpflow.cli.options.replay import how_options
from amqpflow.cli.options.selection import selection_options
from amqpflow.cli.reading import read
from amqpflow.cli.render.notes import show_notes
from amqpflow.cli.safe import said
from amqpflow.cli.topology_file import client_of, load

if TYPE_CHECKING:
    from amqpflow import ReadOptions, ReplayRequest, Selection
    from amqpflow.rabbitmq.address import BrokerAddress
    from amqpflow.services.replaying.plan import ReplayPlan
    from amqpflow.services.replaying.report import ReplayReport


@click.command()
@click.argument("file", type=FILE, required=False)
@selection_options
@how_options
@click.option("--dry-run", is_flag=True, help="Show what would be replayed, and do nothing.")
@click.option("--watch", is_flag=True, help="Watch afterwards until no replayed message is in a work or retry queue.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--journal", type=click.Path(file_okay=False), help="Keep journals in this directory.")
@click.option("--resume", metavar="ID", help="Resume the interrupted replay with this id, with its own options.")
@click.option("--history", is_flag=True, help="List the replays that have a journal on this machine.")
@click.option("--prune", is_flag=True, help="With --history: remove the journals of finished replays.")
@safety_options
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
    prune: bool,
    options: ReadOptions,
    address: BrokerAddress,
    output: str,
) -> int:
    """Publish the parked messages of FILE to their work queues again, in the order of the parking queue.

    A message leaves the parking queue only when its publish is confirmed. Stopping at any point loses nothing. A
    message that cannot be published stays parked (exit code 3). A message that fails again meanwhile is not replayed
    twice. A journal records what was sent, so the next replay resumes an interrupted one.
    """
    import gc

    from amqpflow.api.replaying import resumed_replay
    from amqpflow.cli.options.replay import choice_of
    from amqpflow.errors import RefusedError

    gc.set_threshold(20_000, 20, 20)  # a sixth of the time went into looking for cycles, of which there are none
    if prune and not history:
        raise click.UsageError("--prune needs --history: it removes journals, not messages")
    if history:
        return _prune(journal, selection, output) if prune else _history(journal, output)
    if file is None:
        raise click.UsageError("Missing argument 'FILE'.")
    topology = load(file)
    broker = client_of(topology, address)
    choice = choice_of(topology, selection, how)
    queues: tuple[str, ...] | None = selection.queues or None
    if resume is not None:
        queues, choice = resumed_replay(topology, resume, queue=queues, choice=choice, journal=journal)
    if not (yes or dry_run) and not sys.stdin.isatty():
        raise RefusedError(
            "replay asks before it moves messages, and standard input is not a terminal; nothing was done",
            hint="use --yes to replay without asking, or --dry-run to see what would be replayed",
        )
    if not yes or dry_run:
        plan, stopped = read(
            lambda how: broker.plan_replay(topology, queue=queues, choice=choice, options=how), options
        )
        _show_plan(plan, choice, output, dry_run=dry_run)
        show_notes((*plan.notes, *_notes_of(choice)))
        if stopped:
            return INTERRUPTED
        if dry_run or (not plan.selected and output == "text"):
            return 0 if plan.complete and (dry_run or not plan.unknown_origin) else PARTLY_DONE
        if plan.selected and not click.confirm("Replay them?", err=True):
            click.echo("Nothing was done.", err=True)
            return REFUSED
        from dataclasses import replace

        choice = replace(choice, only=plan.only)
    on_watch = _watched if watch else None
    report, stopped = read(
        lambda how: broker.replay(
            topology, queue=queues, choice=choice, journal=journal, resume=resume, options=how, on_watch=on_watch
        ),
        options,
        verb="Replaying",
        says="messages in flight are settled, all others are requeued",
        at_most=choice.limit if choice.only is None else sum(choice.only.values()),
    )
    return _show(report, _notes_of(choice) if yes else (), output, stopped=stopped)


def _notes_of(choice: ReplayRequest) -> tuple[str, ...]:
    """Return the notes of the selection, which are complete when all messages were read."""
    from amqpflow.parking.selection import Matcher

    return choice.select.notes if isinstance(choice.select, Matcher) else ()


def _show_plan(plan: ReplayPlan, choice: ReplayRequest, output: str, *, dry_run: bool) -> None:
    from amqpflow.cli.render.parked_json import plan_object
    from amqpflow.cli.render.replay import plan_lines
    from amqpflow.cli.render.values import as_document

    if dry_run and output == "json":
        click.echo(as_document(plan_object(plan)))
        return
    for line in plan_lines(plan, keep_attempts=choice.keep_attempts):
        click.echo(line, err=output == "json")


def _watched(on_its_way: int, parked: int) -> None:
    click.echo(f"{on_its_way} in work and retry queues, {parked} parked.", err=True)


def _show(report: ReplayReport, notes: tuple[str, ...], output: str, *, stopped: bool) -> int:
    from amqpflow.cli.render.parked_json import report_object
    from amqpflow.cli.render.replay import report_lines
    from amqpflow.cli.render.values import as_document

    if output == "json":
        click.echo(as_document(report_object(report)))
    else:
        for line in report_lines(report):
            click.echo(line)
    show_notes((*report.notes, *notes))
    if report.stopped:
        click.echo(f"Stopped: {said(report.stopped)}", err=True)
        if report.hint:
            click.echo(f"  {said(report.hint)}", err=True)
    if stopped and report.interrupted:
        return INTERRUPTED
    if report.guarded:
        return REFUSED
    return 0 if report.complete else PARTLY_DONE


def _prune(journal: str | None, selection: Selection, output: str) -> int:
    from datetime import timedelta

    from amqpflow.api import replaying
    from amqpflow.cli.render.values import as_document
    from amqpflow.model.units import parse_duration
    from amqpflow.parking.selection import Selection

    if selection != Selection(older_than=selection.older_than):
        raise click.UsageError("--history --prune takes no selection but --older-than, the age of the replays")
    age = timedelta(milliseconds=parse_duration(selection.older_than)) if selection.older_than is not None else None
    removed = replaying.prune_replay_history(journal, older_than=age)
    if output == "json":
        click.echo(as_document({"version": 1, "removed": list(removed)}))
    else:
        click.echo(f"Removed {len(removed)} journal{'' if len(removed) == 1 else 's'} of finished replays.")
    return 0


def _history(journal: str | None, output: str) -> int:
    from amqpflow.api import replaying
    from amqpflow.cli.render.replay import history_lines, history_object
    from amqpflow.cli.render.values import as_document

    states = replaying.replay_history(journal)
    if output == "json":
        click.echo(as_document({"version": 1, "replays": [history_object(each) for each in states]}))
    else:
        for line in history_lines(states):
            click.echo(line)
    return 0
