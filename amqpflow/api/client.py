"""A client: what the commands do, as calls that share connections."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from .connections import Connections, address_of
from .parked_client import ParkedClient
from .provisioning import Provisioning
from .replaying import Replaying
from .reporting import Reporting

if TYPE_CHECKING:
    from amqpflow.rabbitmq.address import BrokerAddress


class Client(Provisioning, Reporting, Replaying):
    """A broker to plan, apply, read and replay on; made by `connect`.

    Everywhere `topology` is a `Topology`, or the path of its file; its virtual host is used, else that of the URL. A
    call that asks the broker raises, besides its own errors, what `plan` raises.

    Inside of `async with` a connection stays open for the next call in the same virtual host; one that was lost is
    opened again by the next call. Calls may run at the same time: each has a connection of its own. Outside of
    `async with` every call opens and closes its own.
    """

    def __init__(self, address: BrokerAddress) -> None:
        super().__init__(Connections(address))
        self._parked = ParkedClient(self._connections)

    @property
    def parked(self) -> ParkedClient:
        """The calls that read, export, discard or restore parked messages."""
        return self._parked

    async def __aenter__(self) -> Self:
        self._connections.keep = True
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._connections.close()


def connect(url: str | BrokerAddress | None = None, *, management_url: str | None = None) -> Client:
    """Return a client of a broker: `async with amqpflow.connect(url) as broker: await broker.plan("topology.yaml")`.

    The first call connects, in the virtual host of its topology.

    Args:
        url: AMQP URL; None: as for the commands, AMQPFLOW_URL, RABBITMQ_URL, CLOUDAMQP_URL, else localhost.
        management_url: of the same broker's management API; None: AMQPFLOW_MANAGEMENT_URL if `url` is None, too, else
            derived from `url`.

    Raises:
        UsageError: a URL is malformed.
    """
    return Client(address_of(url, management_url))
