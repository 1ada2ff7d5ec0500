"""`amqpflow parked export`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from amqpflow.cli.exit_codes import INTERRUPTED, PARTLY_DONE
from amqpflow.cli.options.connection import FILE, connection_options, output_option
from amqpflow.cli.options.reading import read_options
from amqpflow.cli.options.selection import selection_options
from amqpflow.cli.reading import GIVING_BACK, read
from amqpflow.cli.render.notes import show_readings
from amqpflow.cli.safe import safe
from amqpflow.cli.topology_file import load_place

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
    help="Write to this new file, or to a new directory (PATH/), or to standard output (-).",
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

    With --to PATH/ each message becomes a file in a new directory. `amqpflow parked restore` restores the messages byte
    for byte. The file appears only when it is complete. On standard output an export is complete if it has its end
    line, and the report goes to standard error.
    """
    import shutil
    import sys
    import tempfile
    from contextlib import nullcontext

    from amqpflow import connect
    from amqpflow.cli.render.parked_json import export_object
    from amqpflow.cli.render.values import as_document

    piped = target == "-"
    topology, address = load_place(file, options, address)
    # a slow reader of the standard output must not hold up the broker: what it gets waits on the disk
    with tempfile.TemporaryFile() if piped else nullcontext(target) as file_or_path:
        report, stopped = read(
            lambda how: connect(address).parked.export(topology, file_or_path, selection=selection, options=how),
            options,
            verb="Exporting",
            says=f"the messages read so far are written, {GIVING_BACK}",
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
    return 0 if report.complete else PARTLY_DONE
