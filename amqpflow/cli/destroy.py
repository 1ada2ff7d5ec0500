"""`amqpflow destroy FILE`: remove from the broker what a topology owns."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .carrying_out import Wishes, allow_options, allowance_of, carry_out, lock_option
from .options import FILE, at_virtual_host, connection_options, output_option
from .render import colors

if TYPE_CHECKING:
    from amqpflow.planning.values.plan import Plan
    from amqpflow.rabbitmq.address import BrokerAddress
    from amqpflow.rabbitmq.observe import Broker


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
    from amqpflow import Topology

    from .asynchronous import run_async

    allowance = allowance_of(allow)
    topology = Topology.load(file)

    async def make(broker: Broker) -> Plan:
        from amqpflow.services.provisioning.planner import make_destruction

        return await make_destruction(topology.compiled, broker, allowance=allowance)

    wishes = Wishes(
        allowance=allowance,
        wait=wait,
        lock_timeout=lock_timeout,
        as_json=output == "json",
        color=colors.wanted(color),
    )
    return run_async(carry_out(at_virtual_host(topology, address), "destroy", topology.name, make, wishes))
