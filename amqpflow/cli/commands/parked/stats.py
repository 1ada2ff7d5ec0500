"""`amqpflow parked stats`."""

from __future__ import annotations

import click

from .source import Source, conclude, source_options

_BY = ("queue", "parking-queue", "reason", "error-type", "fingerprint", "routing-key", "parked-by", "hour")


@click.command()
@click.option(
    "--by",
    default="queue,reason,error-type",
    show_default=True,
    metavar="NAMES",
    help=f"Group by these, separated by commas: {', '.join(_BY)}.",
)
@source_options("text", "json")
def stats(source: Source, by: str, output: str) -> int:
    """Count the parked messages of FILE's work queues by what they have in common, most first.

    Each group shows its count, when its first and last messages were parked, and the id of the oldest as a sample.
    """
    from amqpflow.cli.render.parked_stats import stats_lines, stats_object
    from amqpflow.cli.render.values import as_document

    names = tuple(dict.fromkeys(each.strip() for each in by.split(",") if each.strip()))
    found, stopped = source.read(lambda parked, topology, how: parked.stats(topology, by=names, **how))
    if output == "json":
        click.echo(as_document(stats_object(found)))
    else:
        for line in stats_lines(found):
            click.echo(line)
    return conclude(found, stopped=stopped)
