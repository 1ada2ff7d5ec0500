"""`amqpflow parked`: look at parked messages, keep them elsewhere, and bring them back. What its commands share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import fields
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

import click

from .main import LazyGroup
from .safe import safe

if TYPE_CHECKING:
    from amqpflow.rabbitmq.address import BrokerAddress
    from amqpflow.services.loading.topology import Topology
    from amqpflow.services.parked.scan import QueueReading
    from amqpflow.services.reading.options import ReadOptions

F = TypeVar("F", bound=Callable[..., Any])

PARTLY = 3
FAILED = 1
REFUSED = 4

ORIGIN_HELP = "Assert this work queue for messages that do not say where they failed."

COMMANDS = {
    "list": ("parked_list", "list_", "One line for each message."),
    "show": ("parked_show", "show", "All of one message: record, history, headers and body."),
    "stats": ("parked_stats", "stats", "How many there are of which kind."),
    "export": ("parked_export", "export", "Write messages to a file."),
    "restore": ("parked_restore", "restore", "Put the messages of a file back."),
    "discard": ("parked_discard", "discard", "Take messages out of their queue, into a file."),
}

_unverified = click.option(
    "--unverified",
    is_flag=True,
    help="Read also where it cannot be found out that reading uses nothing up (no management API, no permission), and "
    "queues that drop their oldest messages.",
)

_prefetch = click.option(
    "--prefetch",
    type=click.IntRange(min=1, max=65_535),
    metavar="N",
    help="Hold at most N messages unacked at once, for a broker that closes connections with more.",
)


@click.group(cls=LazyGroup, lazy=COMMANDS)
def parked() -> None:
    """
    Look at parked messages, and export, restore or discard them.

    list, show, stats and export change neither the size nor the order of a parking queue, also when they are stopped
    or killed.
    """


_origin = click.option("--origin", metavar="QUEUE", help=ORIGIN_HELP)

_from = click.option(
    "--from",
    "from_queues",
    multiple=True,
    metavar="QUEUE",
    help="Read this queue, whoever made it, instead of the parking queues of FILE, which may be left out then.",
)


def _read_options(*options: Callable[[F], F]) -> Callable[[F], F]:
    """Add options, of which the command receives one `options: ReadOptions`."""

    def add(function: F) -> F:
        @wraps(function)
        def with_options(*args: Any, **kwargs: Any) -> Any:
            from amqpflow.services.reading.options import ReadOptions

            given = {each.name: kwargs.pop(each.name) for each in fields(ReadOptions) if each.name in kwargs}
            return function(*args, options=ReadOptions(**given), **kwargs)

        added: Any = with_options
        for option in options:
            added = option(added)
        return added  # type: ignore[no-any-return]

    return add


read_options = _read_options(_prefetch, _unverified, _origin, _from)
safety_options = _read_options(_prefetch, _unverified)
prefetch_option = _read_options(_prefetch)


def load(file: str) -> Topology:
    """Load a topology file, and print its warnings on standard error."""
    from amqpflow import Topology

    topology = Topology.load(file)
    for warning in topology.warnings:
        click.echo(safe(warning), err=True)
    return topology


def load_place(file: str | None, options: ReadOptions, address: BrokerAddress) -> tuple[Topology | None, BrokerAddress]:
    """The topology, if there is one, and the broker's address in its virtual host."""
    from .options import at_virtual_host

    if file is None:
        if not options.from_queues:
            raise click.UsageError("Name a topology file, or a queue with --from.")
        return None, address
    topology = load(file)
    return topology, at_virtual_host(topology, address)


def show_notes(notes: tuple[str, ...] | list[str]) -> None:
    """What a person should know, on standard error."""
    for note in notes:
        click.echo(f"Note: {safe(note)}.", err=True)


def show_readings(notes: tuple[str, ...], readings: Iterable[QueueReading]) -> None:
    """Notes, and which queues were not read to their end, on standard error."""
    show_notes(notes)
    for each in readings:
        if each.ended_early:
            click.echo(f"Not all of {safe(each.parking_queue)} was read: {safe(each.ended_early)}.", err=True)
