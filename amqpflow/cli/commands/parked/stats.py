"""`amqpflow parked stats`."""

from __future__ import annotations

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

_BY = ("queue", "parking-queue", "reason", "error-type", "fingerprint", "routing-key", "parked-by", "hour")


@click.command()
@click.argument("file", type=FILE, required=False)
@click.option(
    "--by",
    default="queue,reason,error-type",
    show_default=True,
    metavar="NAMES",
    help=f"Group by these, separated by commas: {', '.join(_BY)}.",
)
@selection_options
@read_options
@connection_options
@output_option("text", "json")
def stats(
    file: str | None,
    by: str,
    selection: Selection,
    options: ReadOptions,
    address: BrokerAddress,
    output: str,
) -> int:
    """
    Count the parked messages of FILE's work queues by what they have in common, most first.

    Each group shows its count, when its first and last messages were parked, and the id of the oldest as a sample.
    """
    from amqpflow import connect
    from amqpflow.cli.render.parked_stats import stats_lines, stats_object
    from amqpflow.cli.render.values import as_document

    names = tuple(dict.fromkeys(each.strip() for each in by.split(",") if each.strip()))
    topology, address = load_place(file, options, address)
    found, stopped = read(
        lambda how: connect(address).parked.stats(topology, by=names, selection=selection, options=how), options
    )
    if output == "json":
        click.echo(as_document(stats_object(found)))
    else:
        for line in stats_lines(found):
            click.echo(line)
    show_readings(found.notes, found.queues)
    if stopped:
        return INTERRUPTED
    return 0 if found.complete else PARTLY_DONE
