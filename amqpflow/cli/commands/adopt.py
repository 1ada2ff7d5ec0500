"""`amqpflow adopt FILE KIND NAME...` and `amqpflow disown FILE KIND NAME...`: record what a topology owns."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from amqpflow.cli.apply_view import ApplyView, carry_out, view_options
from amqpflow.cli.options.connection import FILE
from amqpflow.cli.topology_file import client_of

if TYPE_CHECKING:
    from amqpflow.rabbitmq.address import BrokerAddress

F = TypeVar("F", bound=Callable[..., Any])

_KIND = click.Choice(["queue", "exchange", "binding", "policy"])


def _objects(function: F) -> F:
    """Add the arguments and options of adopt and disown."""
    for option in (
        view_options,
        click.argument("names", nargs=-1, required=True, metavar="NAME..."),
        click.argument("kind", type=_KIND),
        click.argument("file", type=FILE),
    ):
        function = option(function)
    return function


@click.command()
@_objects
def adopt(**given: Any) -> int:
    """Take over existing queues, exchanges, bindings or policies as the topology's own.

    The record is kept on the broker. Nothing else is changed, except that one exchange of the topology is created if
    none of its objects exists yet. A queue, exchange or binding must match FILE, or adopt refuses it and shows the
    difference (exit code 4). From then on apply treats it as its own, and --prune and destroy remove it. A policy must
    match only the topology's queues and exchanges; --prune removes it. Name a binding as the plan shows it:
    'events -> orders (order.placed)'. `amqpflow disown` reverses it.
    """

    return _record("adopt", **given)


@click.command()
@_objects
def disown(**given: Any) -> int:
    """Release adopted queues, exchanges or policies, and bindings. They stay on the broker unchanged.

    From then on neither --prune nor destroy removes them. Objects that amqpflow declared carry the topology's stamp and
    cannot be released (exit code 4). A binding may also be one that apply created. Name it as the plan shows it:
    'events -> orders (order.placed)'.
    """

    return _record("disown", **given)


def _record(call: str, *, file: str, kind: str, names: tuple[str, ...], address: BrokerAddress, view: ApplyView) -> int:
    from amqpflow import Topology

    topology = Topology.load(file)
    broker = client_of(topology, address)
    record = broker.adopt if call == "adopt" else broker.disown
    return carry_out(lambda options: record(topology, kind, names, **options), view)
