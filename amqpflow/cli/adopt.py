"""`amqpflow adopt FILE KIND NAME...` and `amqpflow disown FILE KIND NAME...`: what is recorded as a topology's own."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import click

from .carrying_out import Wishes, allowance_of, carry_out, lock_option
from .options import FILE, at_virtual_host, connection_options, output_option
from .render import colors

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from amqpflow.model.routes import CompiledTopology
    from amqpflow.planning.values.plan import Plan
    from amqpflow.rabbitmq.address import BrokerAddress
    from amqpflow.rabbitmq.observe import Broker

_KIND = click.Choice(["queue", "exchange", "binding", "policy"])


@click.command()
@click.argument("file", type=FILE)
@click.argument("kind", type=_KIND)
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
    Take over existing queues, exchanges, bindings or policies as the topology's own.

    The record is kept on the broker; nothing else is changed, but for one exchange of the topology that is created
    where nothing carries its stamp yet. A queue, exchange or binding must be as FILE says, or it is refused with the
    difference (exit code 4); from then on apply takes it for its own, and --prune and destroy remove it. A policy must
    match nothing but the topology's queues and exchanges; --prune removes it. A binding is named as the plan shows it:
    'events -> orders (order.placed)'. `amqpflow disown` undoes it.
    """

    async def make(topology: CompiledTopology, broker: Broker) -> Plan:
        from amqpflow.services.provisioning.planner import make_adoption

        return await make_adoption(topology, broker, [(kind, name) for name in names])

    return _record(file, "adopt", make, lock_timeout, address, output, color)


@click.command()
@click.argument("file", type=FILE)
@click.argument("kind", type=_KIND)
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@lock_option
@connection_options
@output_option("text", "json")
@click.option("--color", type=click.Choice(colors.CHOICES), default="auto", help="Colours. Also: NO_COLOR.")
def disown(
    file: str,
    kind: str,
    names: tuple[str, ...],
    lock_timeout: float,
    address: BrokerAddress,
    output: str,
    color: str,
) -> int:
    """
    Give up queues, exchanges or policies that were adopted, and bindings; they stay on the broker as they are.

    From then on neither --prune nor destroy removes them. What amqpflow declared carries the topology's stamp and
    cannot be given up (exit code 4). A binding may also be one that apply made; it is named as the plan shows it:
    'events -> orders (order.placed)'.
    """

    async def make(topology: CompiledTopology, broker: Broker) -> Plan:
        from amqpflow.services.provisioning.planner import make_disowning

        return await make_disowning(topology, broker, [(kind, name) for name in names])

    return _record(file, "disown", make, lock_timeout, address, output, color)


def _record(
    file: str,
    purpose: str,
    make: Callable[[CompiledTopology, Broker], Awaitable[Plan]],
    lock_timeout: float,
    address: BrokerAddress,
    output: str,
    color: str,
) -> int:
    from amqpflow import Topology

    from .asynchronous import run_async

    topology = Topology.load(file)
    wishes = Wishes(
        allowance=allowance_of(()), lock_timeout=lock_timeout, as_json=output == "json", color=colors.wanted(color)
    )
    made = partial(make, topology.compiled)
    return run_async(carry_out(at_virtual_host(topology, address), purpose, topology.name, made, wishes))
