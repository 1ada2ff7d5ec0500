"""`amqpflow parked list`."""

from __future__ import annotations

import time

import click

from .source import Source, conclude, source_options


@click.command(name="list")
@source_options("text", "json", "jsonl")
def list_(source: Source, output: str) -> int:
    """List the parked messages of FILE's work queues, the oldest of each parking queue first.

    A message must match every option given; for an option given twice, any of its values. -o jsonl prints one object
    per line.
    """
    from amqpflow.cli.render.parked import listing_lines
    from amqpflow.cli.render.parked_json import listing_pieces, row_object
    from amqpflow.cli.render.values import as_line
    from amqpflow.cli.spool import Spool

    with Spool() as spool:
        listing, stopped = source.read(lambda parked, topology, how: parked.list(topology, on_row=spool.add, **how))
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
    return conclude(listing, stopped=stopped)
