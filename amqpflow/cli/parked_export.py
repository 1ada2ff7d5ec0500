"""`amqpflow parked export`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .options import FILE, connection_options, output_option
from .parked import PARTLY, load_place, read_options, show_readings
from .reading import GIVING_BACK, read
from .safe import safe
from .selection import selection_options

if TYPE_CHECKING:
    from amqpflow.parking.selection import Selection
    from amqpflow.rabbitmq.address import BrokerAddress
    from amqpflow.services.reading.options import ReadOptions


@click.command()
@click.argument("file", type=FILE, required=False)
@click.option(
    "--to",
    "target",
    required=True,
    type=click.Path(dir_okay=False, allow_dash=True),
    help="Write a new file; PATH/: a new directory; -: the standard output.",
)
@selection_options
@read_options
@connection_options
@output_option("text", "json")
def export(
    file: str | None,
    target: str,
    selection: Selection,
    options: ReadOptions,
    address: BrokerAddress,
    output: str,
) -> int:
    """
    Write the parked messages of FILE's work queues to a file of JSON lines; they stay parked.

    With a slash at its end it is a directory, a message a file. `amqpflow parked restore` puts them back, byte by byte.
    It appears when it is whole. On the standard output it is whole when it has its end line; the report is then on
    standard error.
    """
    import shutil
    import sys
    import tempfile
    from contextlib import nullcontext

    from amqpflow import connect

    from .render.parked_json import export_object
    from .render.values import as_document
    from .stopping import INTERRUPTED

    piped = target == "-"
    topology, address = load_place(file, options, address)
    # a slow reader of the standard output must not hold up the broker: what it gets waits on the disk
    with tempfile.TemporaryFile() if piped else nullcontext(target) as file_or_path:
        report, stopped = read(
            lambda how: connect(address).parked.export(topology, file_or_path, selection=selection, options=how),
            options,
            verb="Exporting",
            says=f"what was read so far is written, {GIVING_BACK}",
        )
        if not isinstance(file_or_path, str):
            file_or_path.seek(0)
            shutil.copyfileobj(file_or_path, sys.stdout.buffer)
            sys.stdout.buffer.flush()
    if output == "json":
        click.echo(as_document(export_object(report)), err=piped)
    else:
        where = "standard output" if piped else safe(target)
        click.echo(f"{report.selected} messages written to {where}.", err=piped)
    show_readings(report.notes, report.queues)
    if stopped:
        return INTERRUPTED
    return 0 if report.complete else PARTLY
