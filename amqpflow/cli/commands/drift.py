"""`amqpflow drift FILE`: show how the broker differs from the file."""

from __future__ import annotations

import asyncio
import shutil
from typing import TYPE_CHECKING

import click

from amqpflow.cli.exit_codes import DIFFERENCES, REFUSED
from amqpflow.cli.options.connection import FILE, color_option, connection_options, output_option
from amqpflow.cli.render import colors
from amqpflow.cli.topology_file import client_of, load

if TYPE_CHECKING:
    from amqpflow.rabbitmq.address import BrokerAddress


@click.command()
@click.argument("file", type=FILE)
@connection_options
@output_option("text", "json")
@color_option
@click.option("--partial", is_flag=True, help="Exit with 0 even if some objects could not be compared.")
def drift(file: str, address: BrokerAddress, output: str, color: str, partial: bool) -> int:
    """Show how the broker differs from FILE, and change nothing.

    drift lists missing and changed exchanges, queues, bindings and policies, attribute by attribute, then objects of
    this topology that FILE does not have, then foreign policies and bindings that break what FILE promises. Exit code
    0: no difference. 2: differences. 4: no difference was found, but some objects could not be compared, as over AMQP
    alone (with --partial: 0).
    """
    topology = load(file)
    report = asyncio.run(client_of(topology, address).drift(topology))
    if output == "json":
        from amqpflow.cli.render.drift import drift_object
        from amqpflow.cli.render.values import as_document

        click.echo(as_document(drift_object(report)))
    else:
        from amqpflow.cli.render.drift import drift_text

        colored = colors.wanted(color)
        width = shutil.get_terminal_size((120, 24)).columns
        click.echo(drift_text(report, color=colored, width=width), color=colored)
    if report.drifts:
        return DIFFERENCES
    return REFUSED if report.unseen and not partial else 0
