"""`amqpflow parked stats`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .options import FILE, connection_options, output_option
from .parked import GIVING_BACK, PARTLY, load_place, place_options, show_readings
from .progress import progress
from .selection import selection_options

if TYPE_CHECKING:
    from amqpflow.parking.selection import Selection
    from amqpflow.rabbitmq.address import BrokerAddress

_BY = ("queue", "parking-queue", "reason", "error-type", "fingerprint", "routing-key", "parked-by", "hour")


@click.command()
@click.argument("file", type=FILE, required=False)
@click.option(
    "--by",
    default="queue,reason,error-type",
    show_default=True,
    metavar="NAMES",
    help=f"What to group by, separated by commas: {', '.join(_BY)}.",
)
@selection_options
@place_options
@connection_options
@output_option("text", "json")
def stats(
    file: str | None,
    by: str,
    selection: Selection,
    from_queues: tuple[str, ...],
    origin: str | None,
    unverified: bool,
    prefetch: int | None,
    address: BrokerAddress,
    output: str,
) -> int:
    """
    Count the parked messages of FILE's work queues by what they have in common, most first.

    Each group has its count, when its first and its last message was parked, and the id of the oldest as a sample.
    """
    from amqpflow import api_parked

    from .render.parked_stats import stats_lines, stats_object
    from .render.values import as_document
    from .stopping import INTERRUPTED, run_until_stopped, wait_message

    names = tuple(dict.fromkeys(each.strip() for each in by.split(",") if each.strip()))
    topology, address = load_place(file, from_queues, address)
    with progress("Reading") as on_progress:
        found, stopped = run_until_stopped(
            lambda stop: api_parked.parked_stats(
                topology,
                address,
                by=names,
                selection=selection,
                from_queues=from_queues,
                origin=origin,
                unverified=unverified,
                prefetch=prefetch,
                stop=stop,
                on_progress=on_progress,
                on_wait=wait_message,
            ),
            says=GIVING_BACK,
        )
    if output == "json":
        click.echo(as_document(stats_object(found)))
    else:
        for line in stats_lines(found):
            click.echo(line)
    show_readings(found.notes, found.queues)
    if stopped:
        return INTERRUPTED
    return 0 if found.complete else PARTLY
