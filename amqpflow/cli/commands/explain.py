"""`amqpflow explain FILE QUEUE`: show which settings are in effect on a queue, and why."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

import click

from amqpflow.cli.options.connection import FILE, color_option, connection_options, output_option
from amqpflow.cli.render import colors
from amqpflow.cli.topology_file import client_of, load

if TYPE_CHECKING:
    from amqpflow.rabbitmq.address import BrokerAddress


def _release(_: click.Context, __: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    if value is None:
        return None
    if not re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,3}){1,2}", value, re.ASCII):
        raise click.BadParameter(f"{value!r} is not a release of RabbitMQ; write 4.3 or 3.13.7")
    return tuple(map(int, value.split(".")))


@click.command()
@click.argument("file", type=FILE)
@click.argument("queue")
@connection_options
@click.option("--offline", is_flag=True, help="Compute from FILE only, without a broker.")
@click.option("--release", callback=_release, help="With --offline: assume this release of RabbitMQ, e.g. 4.0.")
@output_option("text", "json")
@color_option
def explain(
    file: str,
    queue: str,
    address: BrokerAddress,
    offline: bool,
    release: tuple[int, ...] | None,
    output: str,
    color: str,
) -> int:
    """Show every setting in effect on QUEUE, where it comes from, and what it overrides.

    QUEUE is a work queue, a retry queue or a parking queue of FILE. Arguments, policies of amqpflow and of others,
    operator policies and defaults take precedence as in RabbitMQ. explain lists what FILE asks for and does not get,
    with what to do. Nothing is changed. Without the management API policies are not visible, and the output says so.
    """
    from amqpflow.api.reporting import explain_offline
    from amqpflow.cli.render.explanation import explanation_object, explanation_text
    from amqpflow.cli.render.values import as_document

    if release is not None and not offline:
        raise click.UsageError("--release needs --offline: a broker reports its own release")
    topology = load(file)
    if offline:
        explanation = explain_offline(topology, queue, release=release or ())
    else:
        explanation = asyncio.run(client_of(topology, address).explain(topology, queue))
    if output == "json":
        click.echo(as_document(explanation_object(explanation, topology)))
        return 0
    colored = colors.wanted(color)
    click.echo(explanation_text(explanation, topology, color=colored), color=colored)
    return 0
