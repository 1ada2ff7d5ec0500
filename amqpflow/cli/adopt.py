"""`amqpflow adopt FILE KIND NAME...`: take over what amqpflow did not create."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .carrying_out import Wishes, allowance_of, carry_out, lock_option
from .options import FILE, at_virtual_host, connection_options, output_option
from .render import colors

if TYPE_CHECKING:
    from amqpflow.planning.plan import Plan
    from amqpflow.rabbitmq.address import BrokerAddress
    from amqpflow.rabbitmq.observe import Broker


@click.command()
@click.argument("file", type=FILE)
@click.argument("kind", type=click.Choice(["queue", "exchange", "policy"]))
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@lock_option
@connection_options
@output_option("text", "json")
@click.option("--color", type=click.Choice(colors.CHOICES), default="auto", help="Colours. Also: NO_COLOR.")
def adopt(
    file: str,
    kind: str,
    names: tuple[str, ...],
    lock_timeout: float,
    address: BrokerAddress,
    output: str,
    color: str,
) -> int:
    """
    Take over existing queues, exchanges or policies as the topology's own.

    It is recorded on the broker, and nothing else is changed. A queue or exchange must be as FILE says, or it is
    refused with the difference (exit code 4); from then on apply takes it for its own, and --prune and destroy remove
    it. A policy must match nothing but the topology's queues and exchanges; --prune removes it.
    """
    from amqpflow import Topology

    from .asynchronous import run_async

    topology = Topology.load(file)

    async def make(broker: Broker) -> Plan:
        from amqpflow.services.planner import make_adoption

        return await make_adoption(topology.compiled, broker, [(kind, name) for name in names])

    wishes = Wishes(
        allowance=allowance_of(()), lock_timeout=lock_timeout, as_json=output == "json", color=colors.wanted(color)
    )
    return run_async(carry_out(at_virtual_host(topology, address), "adopt", topology.name, make, wishes))
