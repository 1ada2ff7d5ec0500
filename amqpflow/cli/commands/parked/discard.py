"""`amqpflow parked discard`."""

from __future__ import annotations

import sys
from datetime import UTC, datetime

import click

from amqpflow.cli.exit_codes import INTERRUPTED, PARTLY_DONE, REFUSED
from amqpflow.cli.render.notes import show_readings
from amqpflow.cli.safe import safe

from .source import Source, source_options


@click.command()
@click.option("--all", "everything", is_flag=True, help="Discard all messages, without a filter.")
@click.option("--export", "target", type=click.Path(dir_okay=False), help="Keep the messages in this new file.")
@click.option("--no-export", is_flag=True, help="Keep no copy: the messages are lost.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@source_options("text", "json")
def discard(source: Source, everything: bool, target: str | None, no_export: bool, yes: bool, output: str) -> int:
    """Move parked messages out of their queue into a file from which `parked restore` can restore them.

    A message leaves its queue only when it is in the file and the file is synced to disk. Without --export the file is
    named after the time.
    """
    from amqpflow.cli.render.parked_json import export_object
    from amqpflow.cli.render.values import as_document
    from amqpflow.errors import RefusedError

    if target and no_export:
        raise click.UsageError("--export and --no-export cannot be combined.")
    if target == "-":
        raise click.UsageError("--export needs a file: standard output cannot confirm that a message is on disk.")
    selection = source.selection
    if not (selection.filters or selection.limit or selection.sample or everything):
        raise click.UsageError("Select messages by a filter, or give --all.")
    if not yes and not sys.stdin.isatty():
        raise RefusedError(
            "discard asks before it takes messages out, and standard input is not a terminal; nothing was done",
            hint="use --yes to discard without asking; `amqpflow parked list` with the same options shows the messages",
        )
    if not (target or no_export):
        target = f"discarded-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.jsonl"
    chosen = None
    if not yes:
        chosen, stopped = source.read(lambda parked, topology, how: parked.choose(topology, **how))
        if stopped:
            return INTERRUPTED
        if not chosen.count:
            click.echo("No message is selected; nothing was done.", err=True)
            return 0
        kept = "without a copy" if target is None else f"after writing them to {safe(target)}"
        if not click.confirm(f"Discard {chosen.count} messages {kept}?", err=True):
            click.echo("Nothing was done.", err=True)
            return REFUSED
    report, stopped = source.read(
        lambda parked, topology, how: parked.discard(topology, target, chosen=chosen, **how),
        verb="Discarding",
        says="messages in the file are discarded, all others are requeued",
    )
    if output == "json":
        click.echo(as_document(export_object(report)))
    else:
        click.echo(
            f"{report.discarded} messages discarded{'; they are in ' + safe(report.file) if report.file else ''}."
        )
    if report.selected > report.discarded:
        click.echo(f"Note: {report.selected - report.discarded} are in the file and also still parked.", err=True)
    show_readings(report.notes, report.queues)
    if stopped:
        return INTERRUPTED
    return 0 if report.complete and report.selected == report.discarded else PARTLY_DONE
