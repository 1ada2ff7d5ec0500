"""`amqpflow parked restore`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from amqpflow.cli.exit_codes import INTERRUPTED, PARTLY_DONE
from amqpflow.cli.options.connection import connection_options, output_option
from amqpflow.cli.options.reading import prefetch_option
from amqpflow.cli.reading import read
from amqpflow.cli.render.notes import show_notes
from amqpflow.cli.safe import safe, said

if TYPE_CHECKING:
    from amqpflow.rabbitmq.address import BrokerAddress
    from amqpflow.services.reading.options import ReadOptions

_NAMED = 10  #: messages that are listed


@click.command()
@click.argument("export", type=click.Path(allow_dash=True), metavar="EXPORT")
@click.option("--to", metavar="QUEUE", help="Restore all messages to this queue instead of their own.")
@click.option(
    "--strip", is_flag=True, help="Remove user_id, CC, BCC and x-opt-delivery-time where RabbitMQ would act on them."
)
@click.option(
    "--again", is_flag=True, help="Restore messages again that were restored before, unless they are still parked."
)
@click.option(
    "--duplicates", is_flag=True, help="Restore messages even if they are still parked, without reading the queues."
)
@prefetch_option
@connection_options
@output_option("text", "json")
def restore(
    export: str,
    to: str | None,
    strip: bool,
    again: bool,
    duplicates: bool,
    options: ReadOptions,
    address: BrokerAddress,
    output: str,
) -> int:
    """Restore the messages of EXPORT to their parking queues, byte for byte; - reads standard input.

    A message that is still parked is skipped. After a discard an equal parked message is another one, unless the
    discard was killed before its ack was certain. EXPORT.restored records what was restored to which broker, virtual
    host and queue, so after a crash the same command continues.
    """
    import sys

    from amqpflow import connect
    from amqpflow.cli.render.parked_json import restore_object
    from amqpflow.cli.render.values import as_document

    source = sys.stdin.buffer if export == "-" else export
    report, _ = read(
        lambda how: connect(address).parked.restore(
            source, to=to, strip=strip, again=again, duplicates=duplicates, options=how
        ),
        options,
        verb="Restoring",
        says="waiting for outstanding confirms",
    )
    if output == "json":
        click.echo(as_document(restore_object(report)))
    else:
        where = ", ".join(f"{count} in {safe(queue)}" for queue, count in report.queues.items())
        click.echo(f"{report.restored} of {report.messages} messages restored{': ' + where if where else ''}.")
        if report.before:
            click.echo(f"{report.before} were restored before; --again restores those that are not parked any more.")
        if report.still_parked:
            click.echo(f"{report.still_parked} are still parked and were left alone; --duplicates restores them too.")
    show_notes(report.notes)
    if left := report.failed + report.in_doubt:
        doubt = f", {report.in_doubt} of them in doubt: the next restore looks for them" if report.in_doubt else ""
        click.echo(f"Not restored: {left}{doubt}", err=True)
        for each in report.left_behind[:_NAMED]:
            name = safe(each.message_id or "(no message id)")
            click.echo(f"  message {each.number}  {name}: {said(each.why)}", err=True)
        if left > _NAMED:
            click.echo(f"  ... and {left - _NAMED} more", err=True)
    if report.changed:
        click.echo(f"Note: {report.changed} were restored without user_id, CC, BCC or x-opt-delivery-time.", err=True)
    if report.cut_off:
        click.echo(f"Line {report.cut_off} of the export is cut off; its message was not restored.", err=True)
    if not report.finished:
        click.echo(
            "The export is incomplete: its writer was stopped (the remaining messages are still parked), "
            "or the copy was cut off.",
            err=True,
        )
    if report.stopped:
        click.echo(f"Stopped: {said(report.stopped)}", err=True)
    if report.interrupted:
        return INTERRUPTED
    return 0 if report.complete else PARTLY_DONE
