"""`amqpflow apply FILE`: create on the broker what the file declares."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from amqpflow.cli.apply_view import ApplyView, allow_options, carry_out, view_options
from amqpflow.cli.options.connection import FILE
from amqpflow.cli.safe import safe
from amqpflow.cli.topology_file import client_of

if TYPE_CHECKING:
    from amqpflow.rabbitmq.address import BrokerAddress


@click.command()
@click.argument("file", type=FILE)
@click.option("--prune", is_flag=True, help="Remove objects that the topology owns and FILE no longer has.")
@allow_options
@view_options
def apply(file: str, prune: bool, allow: tuple[str, ...], address: BrokerAddress, view: ApplyView) -> int:
    """Create what FILE declares and the broker lacks, in an order that is safe to stop at any point.

    Applying again is a no-op. Without --prune nothing is deleted, and amqpflow asks only if a retry queue has to be
    replaced. A step that replaces or deletes asks on a terminal. Elsewhere it needs --allow; without it nothing is
    done. `--allow delete` permits every removal in the plan, `--allow delete:QUEUE` that of one queue. A queue with
    messages or consumers is removed only by name. A retry queue returns its messages first; without --wait it is left
    for the next apply (exit code 3).

    If a change would replace or override something, apply refuses, names both sides and changes nothing (4). A failure
    halfway reports what was done and what remains (3); apply again to continue. --lock-timeout waits for another apply
    of the same topology, else the exit code is 5. The virtual host is that of FILE, else that of the URL. FILE may also
    be a plan saved by `amqpflow plan --out`: it is carried out exactly, or refused (4) with what changed on the broker.
    """
    from amqpflow import Topology
    from amqpflow.services.provisioning.plan_files import load_plan

    saved = load_plan(file)
    topology = Topology.load(file) if saved is None else Topology(compiled=saved.topology)
    for warning in topology.warnings:
        click.echo(safe(warning), err=True)
    broker = client_of(topology, address)
    return carry_out(lambda options: broker.apply(saved or topology, prune=prune, allow=allow, **options), view)
