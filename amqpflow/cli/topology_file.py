"""Load the topology file of a command, and find its virtual host."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .safe import safe

if TYPE_CHECKING:
    from amqpflow import Client, Topology
    from amqpflow.rabbitmq.address import BrokerAddress


def load(file: str) -> Topology:
    """Load a topology file, and print its warnings on standard error."""
    from amqpflow import Topology

    topology = Topology.load(file)
    for warning in topology.warnings:
        click.echo(safe(warning), err=True)
    return topology


def client_of(topology: Topology, address: BrokerAddress) -> Client:
    """Return a client in the virtual host of the file, else of the URL; report it if both name another one."""
    from amqpflow import connect

    if address.vhost not in ("/", topology.vhost or address.vhost):
        used, named = safe(topology.vhost), safe(address.vhost)
        click.echo(f"Using virtual host {used} of {safe(topology.file)}; the URL names {named}.", err=True)
    return connect(address.with_vhost(topology.vhost) if topology.vhost else address)
