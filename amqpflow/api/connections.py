"""The connections of a client. Each call has one to itself; the next call reuses it."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from amqpflow.model.routes import CompiledTopology
from amqpflow.services.loading.topology import Topology, no_topology

if TYPE_CHECKING:
    from amqpflow.rabbitmq.address import BrokerAddress
    from amqpflow.rabbitmq.observe import Broker

log = logging.getLogger("amqpflow.connection")

TopologyLike = Topology | CompiledTopology | str | os.PathLike[str]


def compiled_of(topology: TopologyLike | None) -> CompiledTopology:
    """Return what a topology compiles to, loading it when it is a path; an empty one for None.

    Raises:
        InvalidTopologyError: as `Topology.load`.
    """
    if topology is None:
        return no_topology()
    if isinstance(topology, str | os.PathLike):
        topology = Topology.load(topology)
    return topology.compiled if isinstance(topology, Topology) else topology


def address_of(url: str | BrokerAddress | None, management_url: str | None) -> BrokerAddress:
    """Return where a URL leads; None: AMQPFLOW_URL, RABBITMQ_URL, CLOUDAMQP_URL, else localhost.

    Raises:
        UsageError: a URL is malformed.
    """
    from amqpflow.rabbitmq.address import BrokerAddress, resolve_address

    if isinstance(url, BrokerAddress):
        return url
    address = resolve_address(url, management_url)
    if address.unused is not None:
        log.warning("%s is not used, because url is given: management_url names its management API", address.unused)
    return address


class Connections:
    """Connections to one broker, by the virtual host that a topology chose.

    A call that fails closes its own: no other inherits its state.
    """

    def __init__(self, address: BrokerAddress) -> None:
        self.address = address
        self.keep = False  #: keep a connection open after its call
        self._idle: dict[str | None, list[tuple[Broker, AsyncExitStack]]] = {}

    @asynccontextmanager
    async def broker(
        self, topology: TopologyLike | None, purpose: str
    ) -> AsyncIterator[tuple[Broker, CompiledTopology]]:
        """Yield a broker in the virtual host of a topology, and the compiled topology.

        Args:
            topology: None for queues that are in no file: the virtual host is that of the URL then.
            purpose: part of the name that the management UI shows for a new connection.

        Raises:
            AmqpflowError: as `amqpflow.rabbitmq.observe.open_broker`.
        """
        from amqpflow.rabbitmq.observe import open_broker

        compiled = compiled_of(topology)
        chosen = compiled.vhost  # not the address's: that of a URL that a function returns is known once it is called
        address = self.address.with_vhost(chosen) if chosen else self.address
        async with AsyncExitStack() as stack:
            broker = await self._reused(chosen, stack)
            if broker is None:
                name = f"amqpflow {purpose} {compiled.name}".strip()
                broker = await stack.enter_async_context(open_broker(address, name=name))
            yield broker, compiled
            if self.keep:
                self._idle.setdefault(chosen, []).append((broker, stack.pop_all()))

    async def _reused(self, chosen: str | None, stack: AsyncExitStack) -> Broker | None:
        """Return an idle open connection, with a fresh overview of the management API; None if there is none."""
        from amqpflow.errors import AmqpflowError

        while idle := self._idle.get(chosen):
            broker, held = idle.pop()
            try:
                if broker.connection.is_closed or await broker.connection.has_another_login():
                    await held.aclose()
                    continue
                if broker.management is not None:
                    broker = replace(broker, overview=await broker.management.overview())
            except AmqpflowError as error:
                log.info("the connection of an earlier call is not used again: %s", error)
                await held.aclose()
                continue
            except BaseException:
                await held.aclose()
                raise
            stack.push_async_exit(held)
            return broker
        return None

    async def close(self) -> None:
        """Close idle connections. A running call closes its own when it ends."""
        self.keep = False
        async with AsyncExitStack() as stack:
            for each in self._idle.values():
                for _, held in each:
                    stack.push_async_exit(held)
            self._idle.clear()
