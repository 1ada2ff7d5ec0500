"""The broker that a function of the api works on, in the virtual host that its topology belongs to."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from .topology import Topology

if TYPE_CHECKING:
    from amqpflow.model.routes import CompiledTopology
    from amqpflow.rabbitmq.address import BrokerAddress
    from amqpflow.rabbitmq.observe import Broker

log = logging.getLogger("amqpflow.connection")


@asynccontextmanager
async def opened(
    topology: Topology | CompiledTopology | None,
    url: str | BrokerAddress | None,
    management_url: str | None,
    purpose: str,
) -> AsyncIterator[tuple[Broker, CompiledTopology]]:
    """
    The broker, and the compiled topology. None, for queues that are in no file, gives one that is empty.

    Raises:
        AmqpflowError: as `amqpflow.rabbitmq.observe.open_broker`; UsageError: a URL that is none.
    """
    from amqpflow.model.routes import CompiledTopology
    from amqpflow.rabbitmq.address import BrokerAddress, resolve_address
    from amqpflow.rabbitmq.observe import open_broker

    compiled = no_topology() if topology is None else getattr(topology, "compiled", topology)
    assert isinstance(compiled, CompiledTopology)  # noqa: S101 - for the type checker
    address = url if isinstance(url, BrokerAddress) else resolve_address(url, management_url)
    if address.unused is not None and not isinstance(url, BrokerAddress):
        log.warning("%s is not used, because url is given: management_url names its management API", address.unused)
    at_home = address.with_vhost(compiled.vhost) if compiled.vhost else address
    async with open_broker(at_home, name=f"amqpflow {purpose} {compiled.name}".strip()) as broker:
        yield broker, compiled


def no_topology() -> CompiledTopology:
    """What stands for the file where there is none."""
    from amqpflow.model.resources import BrokerState
    from amqpflow.model.routes import CompiledTopology

    return CompiledTopology(
        name="", vhost="", file="", retry_exchange="", parking_exchange="", desired=BrokerState(), routes={}
    )
