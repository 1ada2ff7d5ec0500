"""`amqpflow drift FILE`: what was changed on the broker behind the file's back."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import click

from amqpflow.cli.exit_codes import DIFFERENCES, REFUSED
from amqpflow.cli.options.connection import FILE, connection_options, output_option
from amqpflow.cli.render import colors
from amqpflow.cli.topology_file import at_virtual_host, load

if TYPE_CHECKING:
    from amqpflow.rabbitmq.address import BrokerAddress


@click.command()
@click.argument("file", type=FILE)
@connection_options
@output_option("text", "json")
@click.option("--color", type=click.Choice(colors.CHOICES), default="auto", help="Colours. Also: NO_COLOR.")
@click.option("--partial", is_flag=True, help="Exit with 0 also when not everything could be compared.")
def drift(file: str, address: BrokerAddress, output: str, color: str, partial: bool) -> int:
    """
    Show what is otherwise on the broker than FILE says, and change nothing.

    Missing and changed exchanges, queues, bindings and policies, attribute by attribute; what is this topology's but
    not in FILE; foreign policies and bindings that break what FILE promises. Exit code 0: all is as FILE says; 2: it
    is not; 4: no difference was found, but not everything could be seen, as over AMQP alone (with --partial: 0).
    """
    from amqpflow import connect
    from amqpflow.cli.asynchronous import run_async

    topology = load(file)
    report = run_async(connect(at_virtual_host(topology, address)).drift(topology))
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
