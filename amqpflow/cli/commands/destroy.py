"""`amqpflow destroy FILE`: remove from the broker what a topology owns."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from amqpflow.cli.apply_view import ApplyView, allow_options, carry_out, lock_option
from amqpflow.cli.options.connection import FILE, connection_options, output_option
from amqpflow.cli.render import colors
from amqpflow.cli.topology_file import at_virtual_host

if TYPE_CHECKING:
    from amqpflow.rabbitmq.address import BrokerAddress


@click.command()
@click.argument("file", type=FILE)
@allow_options
@lock_option
@connection_options
@output_option("text", "json")
@click.option("--color", type=click.Choice(colors.CHOICES), default="auto", help="Colours. Also: NO_COLOR.")
def destroy(
    file: str,
    allow: tuple[str, ...],
    wait: bool,
    lock_timeout: float,
    address: BrokerAddress,
    output: str,
    color: str,
) -> int:
    """
    Remove everything that the topology in FILE owns, in an order in which stopping anywhere is safe.

    What it did not create or adopt stays as it is. Asks on a terminal; elsewhere --allow delete is needed, without
    which nothing at all is done (exit code 4). A queue with messages or consumers is removed only when --allow
    delete:QUEUE names it, besides; a retry queue returns its messages first, and stays for another time (3) unless
    --wait.
    """
    from amqpflow import Topology, connect

    topology = Topology.load(file)
    broker = connect(at_virtual_host(topology, address))
    return carry_out(
        lambda options: broker.destroy(topology, allow=allow, **options),
        ApplyView(output, color, lock_timeout=lock_timeout, wait=wait),
    )
