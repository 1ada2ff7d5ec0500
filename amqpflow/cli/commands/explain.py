"""`amqpflow explain FILE QUEUE`: what works on a queue, and why."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import click

from amqpflow.cli.options.connection import FILE, connection_options, output_option
from amqpflow.cli.render import colors
from amqpflow.cli.safe import safe
from amqpflow.cli.topology_file import at_virtual_host

if TYPE_CHECKING:
    from amqpflow.rabbitmq.address import BrokerAddress


def _release(_: click.Context, __: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    if value is None:
        return None
    if not re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,3}){1,2}", value, re.ASCII):
        raise click.BadParameter(f"{value!r} is no release of RabbitMQ; write 4.3 or 3.13.7")
    return tuple(map(int, value.split(".")))


@click.command()
@click.argument("file", type=FILE)
@click.argument("queue")
@connection_options
@click.option("--offline", is_flag=True, help="Do not look at a broker: what FILE alone gives.")
@click.option("--release", callback=_release, help="With --offline: for this release of RabbitMQ, for example 4.0.")
@output_option("text", "json")
@click.option("--color", type=click.Choice(colors.CHOICES), default="auto", help="Colours. Also: NO_COLOR.")
def explain(
    file: str,
    queue: str,
    address: BrokerAddress,
    offline: bool,
    release: tuple[int, ...] | None,
    output: str,
    color: str,
) -> int:
    """
    Show every setting that works on QUEUE, where it comes from, and what it overruled.

    QUEUE is a work queue, a retry queue or a parking queue of FILE. Arguments, our policies, policies of others,
    operator policies and defaults are weighed as RabbitMQ weighs them. What FILE wants and does not get is listed, with
    what to do. Nothing is changed. Without the management API policies cannot be seen, and the answer says so.
    """
    from amqpflow import Topology, connect
    from amqpflow.api import explain_offline
    from amqpflow.cli.asynchronous import run_async
    from amqpflow.cli.render.explanation import explanation_object, explanation_text

    if release is not None and not offline:
        raise click.UsageError("--release goes with --offline; a broker says what it is")
    topology = Topology.load(file)
    if offline:
        explanation = explain_offline(topology, queue, release=release or ())
    else:
        explanation = run_async(connect(at_virtual_host(topology, address)).explain(topology, queue))
    if output == "json":
        click.echo(json.dumps(explanation_object(explanation, topology), indent=2))
        return 0
    for warning in topology.warnings:
        click.echo(safe(warning), err=True)
    colored = colors.wanted(color)
    click.echo(explanation_text(explanation, topology, color=colored), color=colored)
    return 0
