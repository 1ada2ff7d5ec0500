"""Look at a topology on a broker, again and again: a list of statistics, passive declares, and nothing is disturbed."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import replace

from amqpflow.errors import AmqpflowError, BrokerError, NotAppliedError, PermissionDeniedError, RefusedError
from amqpflow.model.queue_stats import QueueCounts, QueueStats
from amqpflow.model.resources import Queue
from amqpflow.model.routes import CompiledTopology
from amqpflow.parking.selection import Selection
from amqpflow.planning.checks.preflight import preflight
from amqpflow.planning.checks.shield import with_policies_as_they_are
from amqpflow.planning.reports.status import Status, assess
from amqpflow.planning.values.findings import Finding, Ref, warn
from amqpflow.planning.values.observation import Observation
from amqpflow.rabbitmq.observe import Broker, observe
from amqpflow.rabbitmq.rpc import RpcChannel
from amqpflow.rabbitmq.translate import translate

from .parked.listing import list_parked
from .reading.target import read_target

EXACT_AT_MOST = 1000
"""So many queues are asked for their exact depth, 0.2 to 0.5 ms each (fact 11.10); of more, statistics are shown."""

PREFLIGHT_EVERY = 30.0  #: seconds between two looks at policies and bindings while watching


class StatusReader:
    """Reads the status of one topology from one broker."""

    def __init__(self, broker: Broker, topology: CompiledTopology) -> None:
        self._broker = broker
        self._topology = topology
        self._names = _names(topology)
        self._channel: RpcChannel | None = None
        self._denied = False
        self._observed: Observation | None = None
        self._foreign: tuple[Finding, ...] = ()
        self._left: dict[str, tuple[str, int]] = {}
        self._looked_at = 0.0

    async def read(self, *, oldest: bool = False, earlier: Status | None = None) -> Status:
        """Look once; with `oldest` also at the first message of each parking queue, which goes back where it was.

        `earlier` is what to compare the parking queues with. Errors as for `Client.status`.
        """
        broker = self._broker
        taken_at = time.time_ns() // 1_000_000
        statistics: Mapping[str, QueueStats] | None = None
        if broker.management is not None:
            await self._look()
            statistics = await broker.management.queue_stats(broker.address.vhost)
        numbers = await self._numbers(statistics)
        problems: list[Finding] = []
        first = await self._oldest(numbers, problems) if oldest else {}
        connection = broker.connection
        return assess(
            self._topology,
            numbers,
            vhost=broker.address.vhost,
            broker=f"{connection.product} {'.'.join(map(str, connection.version))}",
            taken_at=taken_at,
            complete=statistics is not None,
            source=broker.source,
            left=self._left,
            oldest=first,
            foreign=(*self._foreign, *problems),
            earlier=earlier,
        )

    async def numbers(self) -> dict[str, QueueStats]:
        """Return what each queue holds, for a picture; what is missing is left out. Raises as `read` does."""
        management, vhost = self._broker.management, self._broker.address.vhost
        return await self._numbers(None if management is None else await management.queue_stats(vhost))

    async def _look(self) -> None:
        """Run preflight, and find retry queues that left the file."""
        if self._observed is not None and time.monotonic() < self._looked_at + PREFLIGHT_EVERY:
            return
        self._observed = await observe(self._topology, self._broker)
        self._looked_at = time.monotonic()
        self._foreign = preflight(with_policies_as_they_are(self._topology, self._observed), self._observed)
        self._left = _left(self._topology, self._observed.state.queues.values())

    async def _numbers(self, statistics: Mapping[str, QueueStats] | None) -> dict[str, QueueStats]:
        wanted = [*self._names, *self._left]
        found = {name: statistics[name] for name in wanted if statistics is not None and name in statistics}
        if statistics is not None and (self._denied or len(found) > EXACT_AT_MOST):
            return found
        for name in wanted if statistics is None else list(found):
            try:
                counts = await self._declared(name)
            except PermissionDeniedError:
                # RabbitMQ 4.3 wants some permission on the name (fact 7.4): who only looks has none
                if statistics is None:
                    raise
                self._denied = True
                return found
            except BrokerError as error:
                if error.code != 404:
                    raise
                found.setdefault(name, QueueStats())  # it is there, and its node is down: what it holds is not known
                continue
            if counts is None:
                found.pop(name, None)
                continue
            known = found.get(name, QueueStats())
            found[name] = replace(known, ready=counts.ready, consumers=counts.consumers, exact=True)
        return found

    async def _declared(self, name: str) -> QueueCounts | None:
        if self._channel is None or self._channel.is_closed:
            self._channel = await self._broker.connection.admin_channel()
        try:
            return await self._channel.queue_counts(name)
        except BrokerError as error:
            if not error.missing:
                raise
            return None

    async def _oldest(self, numbers: Mapping[str, QueueStats], problems: list[Finding]) -> dict[str, int]:
        found: dict[str, int] = {}
        for queue in self._topology.parking_queues:
            if not (queue in numbers and numbers[queue].ready):
                continue
            try:
                target = read_target(self._broker, self._topology, (queue,))
                listing = await list_parked(target, Selection(queues=(queue,), limit=1))
            except (PermissionDeniedError, RefusedError, NotAppliedError) as error:
                problems.append(
                    warn("oldest-unknown", Ref("queue", queue), f"its oldest message was not read: {error}")
                )
                continue
            for row in listing.messages:
                if row.failed_at is not None:
                    found[queue] = row.failed_at
                if row.priority is not None and any(each.by_priority for each in listing.queues):
                    why = f"it delivers higher priorities first, and its first message has priority {row.priority}"
                    problems.append(warn("oldest-unknown", Ref("queue", queue), f"{why}: others may be older"))
        return found

    async def aclose(self) -> None:
        if self._channel is not None and not self._channel.is_closed:
            try:
                with translate():
                    await self._channel.close()
            except AmqpflowError:
                pass


def _names(topology: CompiledTopology) -> tuple[str, ...]:
    """Return every queue that a status shows, once."""
    names: dict[str, None] = {}
    for routes in topology.routes.values():
        names |= dict.fromkeys((routes.queue, *(tier.queue for tier in routes.tiers)))
    return tuple(names | dict.fromkeys(topology.parking_queues))


def _left(topology: CompiledTopology, queues: Iterable[Queue]) -> dict[str, tuple[str, int]]:
    """Return retry queues with our stamp that are not in the file: their messages still come back."""
    found: dict[str, tuple[str, int]] = {}
    for queue in queues:
        target, delay = queue.arguments.get("x-dead-letter-routing-key"), queue.arguments.get("x-message-ttl")
        ours = queue.owner == topology.name and queue.name not in topology.desired.queues
        if ours and isinstance(delay, int) and target in topology.routes:
            found[queue.name] = (str(target), delay)
    return found
