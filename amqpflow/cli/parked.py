"""`amqpflow parked`: look at parked messages. Looking changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .options import FILE, at_virtual_host, connection_options, output_option
from .progress import progress
from .safe import safe

if TYPE_CHECKING:
    from amqpflow.rabbitmq.address import BrokerAddress
    from amqpflow.services.topology import Topology

GIVING_BACK = "everything goes back to its place"
PARTLY = 3
FAILED = 1

unverified_option = click.option(
    "--unverified",
    is_flag=True,
    help="Read also where it cannot be found out that reading uses nothing up (no management API, no permission).",
)


@click.group()
def parked() -> None:
    """
    Look at parked messages.

    Looking changes neither the size nor the order of a parking queue, also when it is stopped or killed.
    """


@parked.command(name="list")
@click.argument("file", type=FILE)
@click.option("--queue", help="A work queue or a parking queue. Default: all parking queues of FILE.")
@click.option("--limit", type=click.IntRange(min=1), help="At most so many messages, oldest first.")
@unverified_option
@connection_options
@output_option("text", "json")
def list_(
    file: str, queue: str | None, limit: int | None, unverified: bool, address: BrokerAddress, output: str
) -> int:
    """List the parked messages of FILE's work queues, oldest first."""
    from amqpflow import api

    from .render.parked import listing_lines
    from .render.parked_json import listing_object
    from .render.values import as_document
    from .stopping import INTERRUPTED, run_until_stopped, wait_message

    topology = load(file)
    address = at_virtual_host(topology, address)
    with progress("Reading") as on_progress:
        listing, stopped = run_until_stopped(
            lambda stop: api.parked(
                topology,
                address,
                queue=queue,
                limit=limit,
                unverified=unverified,
                stop=stop,
                on_progress=on_progress,
                on_wait=wait_message,
            ),
            says=GIVING_BACK,
        )
    if output == "json":
        click.echo(as_document(listing_object(listing)))
    else:
        for line in listing_lines(listing):
            click.echo(line)
    show_notes(listing.notes)
    for each in listing.queues:
        if each.ended_early:
            click.echo(f"Not all of {safe(each.parking_queue)} was read: {safe(each.ended_early)}.", err=True)
    if stopped:
        return INTERRUPTED
    return 0 if listing.complete else PARTLY


@parked.command()
@click.argument("file", type=FILE)
@click.argument("wanted", metavar="ID")
@click.option("--queue", help="Look in the parking queue of this work queue only.")
@unverified_option
@connection_options
@output_option("text", "json")
def show(file: str, wanted: str, queue: str | None, unverified: bool, address: BrokerAddress, output: str) -> int:
    """
    Show all of a parked message of FILE: failure record, history, headers and body.

    ID is that of `parked list`, or its beginning, or the message id, or the hop. All matches are shown.
    """
    from amqpflow import api

    from .render.parked import message_lines
    from .render.parked_json import message_object
    from .render.values import as_document
    from .stopping import INTERRUPTED, run_until_stopped, wait_message

    topology = load(file)
    address = at_virtual_host(topology, address)
    with progress("Reading") as on_progress:
        found, stopped = run_until_stopped(
            lambda stop: api.parked_message(
                topology,
                wanted,
                address,
                queue=queue,
                unverified=unverified,
                stop=stop,
                on_progress=on_progress,
                on_wait=wait_message,
            ),
            says=GIVING_BACK,
        )
    if output == "json":
        click.echo(as_document({"messages": [message_object(each) for each in found]}))
    else:
        click.echo("\n\n".join("\n".join(message_lines(each)) for each in found), nl=bool(found))
    if stopped:
        return INTERRUPTED
    if not found:
        click.echo(f"Error: no parked message {safe(wanted)}", err=True)
        click.echo(f"  amqpflow parked list {safe(file)} shows those there are", err=True)
        return FAILED
    return 0


def load(file: str) -> Topology:
    """Load a topology file, and print its warnings on standard error."""
    from amqpflow import Topology

    topology = Topology.load(file)
    for warning in topology.warnings:
        click.echo(safe(warning), err=True)
    return topology


def show_notes(notes: tuple[str, ...] | list[str]) -> None:
    """What a person should know, on standard error."""
    for note in notes:
        click.echo(f"Note: {safe(note)}.", err=True)
