"""Load the topology file of a command, and find its virtual host."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .safe import safe

if TYPE_CHECKING:
    from amqpflow.rabbitmq.address import BrokerAddress
    from amqpflow.services.loading.topology import Topology


def load(file: str) -> Topology:
    """Load a topology file, and print its warnings on standard error."""
    from amqpflow import Topology

    topology = Topology.load(file)
    for warning in topology.warnings:
        click.echo(safe(warning), err=True)
    return topology


def at_virtual_host(topology: Topology, address: BrokerAddress) -> BrokerAddress:
    """Return the address in the virtual host of the file, else of the URL; report it if both differ."""
    if not topology.vhost or topology.vhost == address.vhost:
        return address
    if address.vhost != "/":
        used, named = safe(topology.vhost), safe(address.vhost)
        click.echo(f"Using virtual host {used} of {safe(topology.file)}; the URL names {named}.", err=True)
    return address.with_vhost(topology.vhost)
