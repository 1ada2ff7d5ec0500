"""The calls of a client that show what a topology is on the broker: settings, permissions, messages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from .connections import Connections, TopologyLike, compiled_of

if TYPE_CHECKING:
    from amqpflow.model.queue_stats import QueueStats
    from amqpflow.planning.reports.explain import Explanation
    from amqpflow.planning.reports.permissions import Grant
    from amqpflow.planning.reports.status import Status
    from amqpflow.services.status import StatusReader


def permissions(
    topology: TopologyLike, *, roles: Collection[str] = (), queues: Collection[str] = (), exact: bool = False
) -> tuple[Grant, ...]:
    """Return the least permissions for each kind of user of a topology. The broker is not asked.

    Args:
        roles: of `apply`, `consume`, `publish`, `replay`, `observe`; all when empty.
        queues: the work queues that the users who consume and replay work with; all when empty.
        exact: never widen a pattern, even if RabbitMQ 4.3 refuses its length (1024 bytes).

    Raises:
        UsageError: there is no such role, or the topology has no such work queue.
    """
    from amqpflow.errors import UsageError
    from amqpflow.planning.reports.permissions import ROLES, grants

    compiled = compiled_of(topology)
    if strange := [role for role in roles if role not in ROLES]:
        raise UsageError(f"unknown role {', '.join(strange)}; use {', '.join(ROLES)}")
    if unknown := [queue for queue in queues if queue not in compiled.routes]:
        raise UsageError(
            f"{compiled.file} has no work queue {', '.join(unknown)}", hint=f"it has {', '.join(compiled.routes)}"
        )
    return grants(compiled, roles=roles or ROLES, queues=queues, exact=exact)


class Reporting:
    """The calls of a client that change nothing: explain, permissions, status, watch, queue_counts."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    async def explain(self, topology: TopologyLike, queue: str) -> Explanation:
        """Return every setting in effect on a queue, where it comes from, and what it overrides. Nothing is changed.

        Args:
            queue: a work queue, a retry queue or a parking queue of the topology. Without the management API policies
                cannot be seen, and the notes say so.

        Raises:
            UsageError: the topology has no such queue.
        """
        from amqpflow.services.provisioning.planner import explain_on, require_known

        compiled = compiled_of(topology)
        require_known(compiled, queue)
        async with self._connections.broker(compiled, "explain") as (broker, _):
            return await explain_on(compiled, queue, broker)

    permissions = staticmethod(permissions)

    async def status(self, topology: TopologyLike, *, oldest: bool = False) -> Status:
        """Return how many messages are where, with alerts for what is stuck. No message is touched without `oldest`.

        With `oldest` the first message of each parking queue is read, and put back, to know how old it is.
        """
        async with self._status_reader(topology, "status") as reader:
            return await reader.read(oldest=oldest)

    async def watch(
        self,
        topology: TopologyLike,
        *,
        interval: float = 2.0,
        oldest: bool = False,
        stop: asyncio.Event | None = None,
        on_error: Callable[[Exception], None] | None = None,
    ) -> AsyncIterator[Status]:
        """Yield the status again and again. The growth of parking queues is counted from the first one.

        Args:
            oldest: as for `status`.
            interval: seconds between two of them.
            stop: set it to end.
            on_error: called with what failed after the first status; the next attempt follows after `interval`.

        Raises:
            AmqpflowError: the first status failed.
        """
        from amqpflow.errors import AmqpflowError

        stop, first = stop or asyncio.Event(), None
        while not stop.is_set():
            try:
                async with self._status_reader(topology, "status") as reader:
                    while not stop.is_set():
                        found = await reader.read(oldest=oldest, earlier=first)
                        first = first or found
                        yield found
                        await _pause(stop, interval)
            except AmqpflowError as error:
                if first is None:
                    raise
                if on_error is not None:
                    on_error(error)
                await _pause(stop, interval)

    async def queue_counts(self, topology: TopologyLike) -> dict[str, QueueStats]:
        """Return what each queue of a topology holds, by name. A queue that does not exist is left out."""
        async with self._status_reader(topology, "graph") as reader:
            return await reader.numbers()

    @asynccontextmanager
    async def _status_reader(self, topology: TopologyLike, purpose: str) -> AsyncIterator[StatusReader]:
        from amqpflow.services.status import StatusReader

        async with self._connections.broker(topology, purpose) as (broker, compiled):
            reader = StatusReader(broker, compiled)
            yield reader
            await reader.aclose()  # not after a failure, which closes the connection: it may not answer any more


def explain_offline(topology: TopologyLike, queue: str, *, release: tuple[int, ...] = ()) -> Explanation:
    """Return the settings of a queue, computed from the file only; policies on the broker may override them.

    Args:
        queue: as for `Client.explain`.
        release: of RabbitMQ, such as (4, 3); empty: any.

    Raises:
        UsageError: the topology has no such queue.
    """
    from amqpflow.planning.reports.explain import explain
    from amqpflow.planning.values.observation import Observation
    from amqpflow.services.provisioning.planner import require_known

    compiled = compiled_of(topology)
    require_known(compiled, queue)
    return explain(compiled, queue, Observation(version=release, vhost=compiled.vhost, complete=False))


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        pass
