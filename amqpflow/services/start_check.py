"""Before a consumer trusts a broker: is the topology there, and is it the one in the file?"""

from __future__ import annotations

import shlex
from collections.abc import Awaitable, Callable, Iterable
from functools import partial

from amqpflow.errors import BrokerError, NotApplied, PermissionDenied, Refused
from amqpflow.model.routes import CompiledTopology
from amqpflow.rabbitmq.channel import Channel
from amqpflow.rabbitmq.connection import Connection


def refuse_deferred(compiled: CompiledTopology, queues: Iterable[str]) -> None:
    """Raise Refused when a handler's queue uses what this version validates but does not consume yet."""
    wanted = {f"queue {queue}" for queue in queues}
    problems = [
        f"{each.object}: {each.feature} is not consumed by this version"
        for each in compiled.deferred
        if each.object in wanted
    ]
    if problems:
        raise Refused(f"{compiled.file} uses features that are not built yet", problems=problems)


async def require_topology(connection: Connection, compiled: CompiledTopology, queues: Iterable[str]) -> None:
    """
    Passive declares of the work queues and the two exchanges.

    A passive declare proves existence alone (fact 7.3); arguments are compared where the management API is configured.

    Raises:
        NotApplied: what is missing, all of it, with the command that mends it.
        PermissionDenied, BrokerUnavailable.
    """
    problems: list[str] = []
    exchanges: set[str] = set()
    for queue in queues:
        routes = compiled.routes[queue]
        exchanges |= {routes.retry_exchange, routes.parking_exchange}
        if await _is_missing(connection, partial(Channel.queue_depth, queue=queue)):
            problems.append(f"queue {queue} is missing")
    for exchange in sorted(exchanges):
        if await _is_missing(connection, partial(Channel.require_exchange, exchange=exchange)):
            problems.append(f"exchange {exchange} is missing")
    if problems:
        raise NotApplied(
            f"the topology {compiled.name} is not on the broker: {', '.join(problems)} "
            f"in virtual host {connection.address.vhost}",
            problems=(),
            hint=f"amqpflow apply {shlex.quote(compiled.file)}",
        )


async def _is_missing(connection: Connection, look: Callable[[Channel], Awaitable[object]]) -> bool:
    channel = await connection.open_channel()
    try:
        await look(channel)
    except BrokerError as error:
        if error.code != 404:
            raise
        return True
    except PermissionDenied:
        # it exists: RabbitMQ 4.3 wants some permission on a name before it says more (fact 7.4)
        return False
    finally:
        await channel.close()
    return False
