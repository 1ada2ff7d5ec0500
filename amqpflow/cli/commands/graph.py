"""`amqpflow graph FILE`: draw a topology, from the file alone, or with the messages in its queues."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING

import click

from amqpflow.cli.options.connection import FILE, connection_options
from amqpflow.cli.safe import safe
from amqpflow.cli.topology_file import client_of, load

if TYPE_CHECKING:
    from amqpflow.picture.graph import Graph
    from amqpflow.rabbitmq.address import BrokerAddress

FORMATS = ("text", "mermaid", "dot", "svg")


@click.command()
@click.argument("file", type=FILE)
@click.option(
    "--format", "form", type=click.Choice(FORMATS), default="text", show_default=True, help="Draw in this format."
)
@click.option("--out", type=click.Path(dir_okay=False), help="Write to this file instead of standard output.")
@click.option("--live", is_flag=True, help="Connect to the broker, and show how many messages each queue holds.")
@connection_options
def graph(file: str, form: str, out: str | None, live: bool, address: BrokerAddress) -> int:
    """Draw FILE's topology: exchanges, work queues, retry queues with their delays, parking queues.

    Without --live no broker is needed, and the connection options have no effect. Use svg for a finished picture that
    suits light and dark pages, mermaid for Markdown, dot for Graphviz.
    """
    from amqpflow.picture.graph import build_graph

    topology = load(file)
    numbers = asyncio.run(client_of(topology, address).queue_counts(topology)) if live else {}
    depths = {name: each.ready for name, each in numbers.items() if each.ready is not None}
    delayed = {name: each.delayed for name, each in numbers.items() if each.delayed is not None}
    text = _drawn(build_graph(topology.compiled, depths if live else None, delayed=delayed, show=safe), form)
    if out is None:
        click.echo(text)
    else:
        _write(Path(out), text + "\n")
    return 0


def _drawn(picture: Graph, form: str) -> str:
    if form == "svg":
        from amqpflow.picture.svg import render_svg

        return render_svg(picture)
    if form == "dot":
        from amqpflow.picture.dot import render_dot

        return render_dot(picture)
    if form == "mermaid":
        from amqpflow.picture.mermaid import MAX_EDGES, count_edges, render_mermaid

        if (edges := count_edges(picture)) > MAX_EDGES:
            click.echo(
                f"Warning: {edges} edges: Mermaid draws {MAX_EDGES} unless its configuration raises maxEdges; "
                "--format svg has no limit",
                err=True,
            )
        return render_mermaid(picture)
    from amqpflow.picture.plain_text import render_text

    return render_text(picture)


def _write(path: Path, text: str) -> None:
    """Write the file completely or not at all: half a picture is worse than the old one."""
    from amqpflow.errors import AmqpflowError

    try:
        with NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}.", delete=False, encoding="utf-8") as file:
            temporary = Path(file.name)
            file.write(text)
        # mkstemp makes files for their owner alone; what a user asked for is as open as all they write
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        temporary.replace(path)
    except OSError as error:
        raise AmqpflowError(f"cannot write {path}: {error.strerror}") from error
    click.echo(f"Written: {safe(path)}", err=True)
    sys.stderr.flush()
