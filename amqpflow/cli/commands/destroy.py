"""`amqpflow destroy FILE`: remove from the broker what a topology owns."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from amqpflow.cli.apply_view import ApplyView, allow_options, carry_out, view_options
from amqpflow.cli.options.connection import FILE
from amqpflow.cli.topology_file import client_of

if TYPE_CHECKING:
    from amqpflow.rabbitmq.address import BrokerAddress


@click.command()
@click.argument("file", type=FILE)
@allow_options
@view_options
def destroy(file: str, allow: tuple[str, ...], address: BrokerAddress, view: ApplyView) -> int:
    """Remove everything that the topology in FILE owns, in an order that is safe to stop at any point.

    What the topology did not create or adopt stays. destroy asks on a terminal. Elsewhere it needs --allow delete;
    without it nothing is done (exit code 4). A queue with messages or consumers also needs --allow delete:QUEUE. A
    retry queue returns its messages first; without --wait it is left for the next destroy (3).
    """
    from amqpflow import Topology

    topology = Topology.load(file)
    broker = client_of(topology, address)
    return carry_out(lambda options: broker.destroy(topology, allow=allow, **options), view)
