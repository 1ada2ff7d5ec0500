"""`amqpflow parked list`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from .options import FILE, connection_options, output_option
from .parked import PARTLY, load_place, read_options, show_readings
from .reading import read
from .selection import selection_options

if TYPE_CHECKING:
    from amqpflow.parking.selection import Selection
    from amqpflow.rabbitmq.address import BrokerAddress
    from amqpflow.services.reading.options import ReadOptions


@click.command(name="list")
@click.argument("file", type=FILE, required=False)
@selection_options
@read_options
@connection_options
@output_option("text", "json", "jsonl")
def list_(
    file: str | None,
    selection: Selection,
    options: ReadOptions,
    address: BrokerAddress,
    output: str,
) -> int:
    """
    List the parked messages of FILE's work queues, the oldest of each parking queue first.

    Options are combined with and; one that is given twice asks for any of its values. -o jsonl has one object a line.
    """
    from amqpflow import connect

    from .render.parked import listing_lines
    from .render.parked_json import listing_pieces, row_object
    from .render.values import as_line
    from .spool import Spool
    from .stopping import INTERRUPTED

    topology, address = load_place(file, options, address)
    with Spool() as spool:
        listing, stopped = read(
            lambda how: connect(address).parked.list(topology, selection=selection, options=how, on_row=spool.add),
            options,
        )
        spool.sort_by_age([each.parking_queue for each in listing.queues if each.by_priority])
        if output == "json":
            for piece in listing_pieces(listing, spool.rows()):
                click.echo(piece, nl=False)
        elif output == "jsonl":
            for row in spool.rows():
                click.echo(as_line(row_object(row)))
        else:
            for line in listing_lines(listing, spool.rows, spool.count, now=int(time.time() * 1000)):
                click.echo(line)
    show_readings(listing.notes, listing.queues)
    if stopped:
        return INTERRUPTED
    return 0 if listing.complete else PARTLY
