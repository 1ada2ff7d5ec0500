"""`amqpflow apply FILE`: make the broker hold what the file says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from amqpflow.cli.apply_view import ApplyView, allow_options, carry_out, lock_option
from amqpflow.cli.options.connection import FILE, connection_options, output_option
from amqpflow.cli.render import colors
from amqpflow.cli.safe import safe
from amqpflow.cli.topology_file import at_virtual_host

if TYPE_CHECKING:
    from amqpflow.rabbitmq.address import BrokerAddress


@click.command()
@click.argument("file", type=FILE)
@click.option("--prune", is_flag=True, help="Remove what the topology owns and FILE no longer has.")
@allow_options
@lock_option
@connection_options
@output_option("text", "json")
@click.option("--color", type=click.Choice(colors.CHOICES), default="auto", help="Colours. Also: NO_COLOR.")
def apply(
    file: str,
    prune: bool,
    allow: tuple[str, ...],
    wait: bool,
    lock_timeout: float,
    address: BrokerAddress,
    output: str,
    color: str,
) -> int:
    """
    Create what FILE asks for and the broker lacks, in an order in which stopping anywhere is safe.

    Without --prune nothing is deleted, and no question is asked unless a retry queue has to be replaced. What replaces
    or deletes asks on a terminal, and elsewhere needs --allow, without which nothing at all is done. `--allow delete`
    permits every removal of the plan, `--allow delete:QUEUE` that of one queue. A queue with messages or consumers is
    removed only when it is named; a retry queue returns its messages first, and stays for another time (exit code 3)
    unless --wait.

    What stands in the way is refused before anything is done (4). A failure in the middle tells what was done and what
    remains (3); apply again goes on from there. Another apply of the same topology is waited for with --lock-timeout,
    else the exit code is 5. The virtual host is that of FILE, else that of the URL. FILE may also be a plan that
    `amqpflow plan --out` saved: it is carried out exactly as it is, or refused (4) with what changed on the broker
    since.
    """
    from amqpflow import Topology, connect
    from amqpflow.services.provisioning.plan_files import load_plan

    saved = load_plan(file)
    topology = Topology.load(file) if saved is None else Topology(compiled=saved.topology)
    for warning in topology.warnings:
        click.echo(safe(warning), err=True)
    broker = connect(at_virtual_host(topology, address))
    return carry_out(
        lambda options: broker.apply(saved or topology, prune=prune, allow=allow, **options),
        ApplyView(output, color, lock_timeout=lock_timeout, wait=wait),
    )
