"""`amqpflow parked show`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from amqpflow.cli.exit_codes import FAILED, INTERRUPTED
from amqpflow.cli.options.connection import connection_options, output_option
from amqpflow.cli.options.reading import read_options
from amqpflow.cli.safe import safe

from .source import Source

if TYPE_CHECKING:
    from amqpflow.rabbitmq.address import BrokerAddress
    from amqpflow.services.reading.options import ReadOptions


@click.command()
@click.argument("names", nargs=-1, metavar="[FILE] ID")
@click.option("--queue", "queues", multiple=True, help="Search only the parking queue of this work queue.")
@read_options
@connection_options
@output_option("text", "json")
def show(
    names: tuple[str, ...],
    queues: tuple[str, ...],
    options: ReadOptions,
    address: BrokerAddress,
    output: str,
) -> int:
    """Show a parked message of FILE in full: failure record, history, headers and body.

    ID is an id from `parked list` or its beginning, a message id or a hop id. All matches are shown.
    """
    from amqpflow.cli.render.parked_json import message_object
    from amqpflow.cli.render.parked_message import message_lines
    from amqpflow.cli.render.values import as_document
    from amqpflow.parking.selection import Selection

    if len(names) != (1 if options.from_queues and len(names) < 2 else 2):
        raise click.UsageError("Name a topology file and an ID, or --from QUEUE and an ID.")
    wanted, file = names[-1], names[0] if len(names) == 2 else None
    source = Source(file, Selection(queues=queues), options, address)
    found, stopped = source.read(lambda parked, topology, how: parked.find(topology, wanted, **how))
    if output == "json":
        click.echo(as_document({"version": 1, "messages": [message_object(each) for each in found]}))
    else:
        click.echo("\n\n".join("\n".join(message_lines(each)) for each in found), nl=bool(found))
    if stopped:
        return INTERRUPTED
    if not found:
        click.echo(f"Error: no parked message {safe(wanted)}", err=True)
        if file is not None:
            click.echo(f"  amqpflow parked list {safe(file)} lists the parked messages", err=True)
        return FAILED
    return 0
