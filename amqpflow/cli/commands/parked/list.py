"""`amqpflow parked list`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from amqpflow.cli.exit_codes import INTERRUPTED, PARTLY_DONE
from amqpflow.cli.options.connection import FILE, connection_options, output_option
from amqpflow.cli.options.reading import read_options
from amqpflow.cli.options.selection import selection_options
from amqpflow.cli.reading import read
from amqpflow.cli.render.notes import show_readings
from amqpflow.cli.topology_file import load_place

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

    A message must match every option given; for an option given twice, any of its values. -o jsonl prints one object
    per line.
    """
    from amqpflow import connect
    from amqpflow.cli.render.parked import listing_lines
    from amqpflow.cli.render.parked_json import listing_pieces, row_object
    from amqpflow.cli.render.values import as_line
    from amqpflow.cli.spool import Spool

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
    return 0 if listing.complete else PARTLY_DONE
