"""`amqpflow parked export`."""

from __future__ import annotations

import click

from amqpflow.cli.reading import REQUEUED
from amqpflow.cli.safe import safe

from .source import Source, conclude, source_options


@click.command()
@click.option(
    "--to",
    "target",
    required=True,
    type=click.Path(dir_okay=False, allow_dash=True),
    help="Write to this new file, or to a new directory (PATH/), or to standard output (-).",
)
@source_options("text", "json")
def export(source: Source, target: str, output: str) -> int:
    """Write the parked messages of FILE's work queues to a file of JSON lines; they stay parked.

    With --to PATH/ each message becomes a file in a new directory. `amqpflow parked restore` restores the messages byte
    for byte. The file appears only when it is complete. On standard output an export is complete if it has its end
    line, and the report goes to standard error.
    """
    import shutil
    import sys
    import tempfile
    from contextlib import nullcontext

    from amqpflow.cli.render.parked_json import export_object
    from amqpflow.cli.render.values import as_document

    piped = target == "-"
    # a slow reader of the standard output must not hold up the broker: what it gets waits on the disk
    with tempfile.TemporaryFile() if piped else nullcontext(target) as file_or_path:
        report, stopped = source.read(
            lambda parked, topology, how: parked.export(topology, file_or_path, **how),
            verb="Exporting",
            says=f"the messages read so far are written, {REQUEUED}",
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
    return conclude(report, stopped=stopped)
