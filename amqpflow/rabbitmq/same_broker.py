"""Make sure that the management API belongs to the broker on the other end of the AMQP connection.

Cluster names prove nothing. Unrelated brokers often have the same one: containers with the host name `rabbitmq`,
clusters of one name in two namespaces. The nodes of one cluster have different ones, unless a name was set. A queue
that exists on one side for a moment proves it: the management API knows it at once, on every node of the cluster, also
with its statistics switched off.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from amqpflow.errors import AmqpflowError, BrokerError, PermissionDeniedError, RefusedError

from .connection import IDENTITY, Connection
from .management import Management, Overview
from .translate import translate

DECLARED_WITHIN = 5.0  #: seconds for the broker to declare the queue; a cluster without a majority cannot
LISTED_WITHIN = 2.0  #: seconds until every node of the cluster knows the queue
CONNECTION_LISTED_WITHIN = 8.0  #: seconds until statistics list a connection; they are collected every 5 s


async def require_same_broker(connection: Connection, management: Management, overview: Overview) -> None:
    """Refuse the management API of another broker.

    An exclusive queue with a name from the broker is declared over AMQP, looked up through the management API, and
    deleted. Where the user lacks the configure permission for such a name (`amq.gen-...`), the cluster names are
    compared; if they differ, as they do between the nodes of a cluster without a name, our own connection must be
    listed.

    Raises:
        RefusedError: they are two brokers; the text names both.
        PermissionDeniedError: the management API denies access to the virtual host.
        BrokerUnavailableError, BrokerError, ManagementUnavailableError: reading failed.
    """
    channel = await connection.admin_channel()
    queue = await _declared(channel)
    if queue is not None:
        try:
            await require_listed(connection, management, overview, queue)
        finally:
            await _deleted(channel, queue)
    elif connection.cluster_name not in ("", overview.cluster_name):

        async def is_listed() -> bool:
            return await management.has_connection(IDENTITY, connection.identity)

        if not await _comes_true(is_listed, CONNECTION_LISTED_WITHIN):
            raise _two_brokers(connection, management, overview, "the AMQP connection is unknown to the management API")


async def require_listed(
    connection: Connection,
    management: Management,
    overview: Overview,
    queue: str,
    arguments: Mapping[str, Any] | None = None,
) -> None:
    """Refuse a management API that does not know a queue of the connection's virtual host.

    Args:
        connection: the AMQP side.
        management, overview: the other side.
        queue: exists on the AMQP side, under a name that is not expected on other brokers.
        arguments: distinguish it from another queue of the same name.

    Raises:
        RefusedError: it does not know the queue; the text names both sides.
        PermissionDeniedError, BrokerError, ManagementUnavailableError: reading failed.
    """
    vhost = connection.address.vhost

    async def is_listed() -> bool:
        found = await management.queue_arguments(vhost, queue)
        return found is not None and all(found.get(key) == value for key, value in (arguments or {}).items())

    if not await _comes_true(is_listed, LISTED_WITHIN):
        reason = f"a queue declared over AMQP in virtual host {vhost} is unknown to the management API"
        raise _two_brokers(connection, management, overview, reason)


async def _comes_true(look: Callable[[], Awaitable[bool]], within: float) -> bool:
    deadline = asyncio.get_running_loop().time() + within
    while not await look():
        if asyncio.get_running_loop().time() >= deadline:
            return False
        await asyncio.sleep(0.1)
    return True


def _two_brokers(connection: Connection, management: Management, overview: Overview, reason: str) -> RefusedError:
    ours = f"{connection.address} (cluster {connection.cluster_name or 'without a name'})"
    theirs = f"{management.url} (cluster {overview.cluster_name})"
    hint = "use the management URL of the same cluster, or leave it out: it is derived from the AMQP URL then"
    if "/" in connection.address.vhost and connection.cluster_name == overview.cluster_name:
        hint += "; a proxy that decodes %2F gives the same answer"
    return RefusedError(f"{ours} and {theirs} are two brokers: {reason}", hint=hint)


async def _declared(channel: Any) -> str | None:
    """Return the name that the broker chose, None when it declares no such queue for this user, or not in time."""
    try:
        async with asyncio.timeout(DECLARED_WITHIN):
            with translate():
                # classic, whatever the default queue type of the virtual host
                declared = await channel.queue_declare("", exclusive=True, arguments={"x-queue-type": "classic"})
    except (PermissionDeniedError, BrokerError, TimeoutError):
        return None
    return str(declared.queue)


async def _deleted(channel: Any, queue: str) -> None:
    """Delete it before the virtual host is read; if that fails it ends with its connection."""
    try:
        async with asyncio.timeout(DECLARED_WITHIN):
            with translate():
                await channel.queue_delete(queue)
                await channel.close()
    except (AmqpflowError, TimeoutError):
        pass
