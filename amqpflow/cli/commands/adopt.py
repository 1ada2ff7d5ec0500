"""`amqpflow adopt FILE KIND NAME...` and `amqpflow disown FILE KIND NAME...`: what is recorded as a topology's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from amqpflow.cli.apply_view import ApplyView, carry_out, lock_option
from amqpflow.cli.options.connection import FILE, connection_options, output_option
from amqpflow.cli.render import colors
from amqpflow.cli.topology_file import at_virtual_host

if TYPE_CHECKING:
    from amqpflow.rabbitmq.address import BrokerAddress

F = TypeVar("F", bound=Callable[..., Any])

_KIND = click.Choice(["queue", "exchange", "binding", "policy"])


def _objects(function: F) -> F:
    """Add the arguments and options of adopt and disown."""
    for option in (
        click.option("--color", type=click.Choice(colors.CHOICES), default="auto", help="Colours. Also: NO_COLOR."),
        output_option("text", "json"),
        connection_options,
        lock_option,
        click.argument("names", nargs=-1, required=True, metavar="NAME..."),
        click.argument("kind", type=_KIND),
        click.argument("file", type=FILE),
    ):
        function = option(function)
    return function


@click.command()
@_objects
def adopt(**given: Any) -> int:
    """
    Take over existing queues, exchanges, bindings or policies as the topology's own.

    The record is kept on the broker; nothing else is changed, but for one exchange of the topology that is created
    where nothing carries its stamp yet. A queue, exchange or binding must be as FILE says, or it is refused with the
    difference (exit code 4); from then on apply takes it for its own, and --prune and destroy remove it. A policy must
    match nothing but the topology's queues and exchanges; --prune removes it. A binding is named as the plan shows it:
    'events -> orders (order.placed)'. `amqpflow disown` undoes it.
    """

    return _record("adopt", **given)


@click.command()
@_objects
def disown(**given: Any) -> int:
    """
    Give up queues, exchanges or policies that were adopted, and bindings; they stay on the broker as they are.

    From then on neither --prune nor destroy removes them. What amqpflow declared carries the topology's stamp and
    cannot be given up (exit code 4). A binding may also be one that apply made; it is named as the plan shows it:
    'events -> orders (order.placed)'.
    """

    return _record("disown", **given)


def _record(
    call: str,
    *,
    file: str,
    kind: str,
    names: tuple[str, ...],
    lock_timeout: float,
    address: BrokerAddress,
    output: str,
    color: str,
) -> int:
    from amqpflow import Topology, connect

    topology = Topology.load(file)
    broker = connect(at_virtual_host(topology, address))
    record = broker.adopt if call == "adopt" else broker.disown
    return carry_out(
        lambda options: record(topology, kind, names, **options), ApplyView(output, color, lock_timeout=lock_timeout)
    )
