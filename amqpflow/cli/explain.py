"""`amqpflow explain FILE QUEUE`: what works on a queue, and why."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import click

from .options import FILE, at_virtual_host, connection_options, output_option
from .render import colors
from .safe import safe

if TYPE_CHECKING:
    from amqpflow.planning.reports.explain import Explanation
    from amqpflow.planning.values.observation import Observation
    from amqpflow.rabbitmq.address import BrokerAddress
    from amqpflow.services.loading.topology import Topology


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
    from amqpflow import Topology

    if release is not None and not offline:
        raise click.UsageError("--release goes with --offline; a broker says what it is")
    topology = Topology.load(file)
    if offline:
        return _offline(topology, queue, release or (), output == "json", colors.wanted(color))
    from .asynchronous import run_async

    address = at_virtual_host(topology, address)
    return run_async(_online(topology, queue, address, output == "json", colors.wanted(color)))


def _offline(topology: Topology, queue: str, release: tuple[int, ...], as_json: bool, color: bool) -> int:
    from amqpflow.planning.reports.explain import explain as explain_queue
    from amqpflow.planning.values.observation import Observation
    from amqpflow.services.provisioning.explainer import require_known

    require_known(topology.compiled, queue)
    nobody = Observation(version=release, vhost=topology.vhost, complete=False)
    _print(topology, explain_queue(topology.compiled, queue, nobody), nobody, as_json, color)
    return 0


async def _online(topology: Topology, queue: str, address: BrokerAddress, as_json: bool, color: bool) -> int:
    from amqpflow.rabbitmq.observe import open_broker
    from amqpflow.services.provisioning.explainer import explain_on, require_known

    require_known(topology.compiled, queue)
    async with open_broker(address, name=f"amqpflow explain {topology.name}") as broker:
        explanation, observed = await explain_on(topology.compiled, queue, broker)
    _print(topology, explanation, observed, as_json, color)
    return 0


def _print(topology: Topology, explanation: Explanation, observed: Observation, as_json: bool, color: bool) -> None:
    from .render.explanation import explanation_object, explanation_text

    if as_json:
        click.echo(json.dumps(explanation_object(explanation, observed, topology), indent=2))
        return
    for warning in topology.warnings:
        click.echo(safe(warning), err=True)
    click.echo(explanation_text(explanation, observed, topology, color=color), color=color)
