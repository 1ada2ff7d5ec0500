"""How many messages are ready in the queues of a replay."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from amqpflow.model.routes import QueueRoutes
from amqpflow.parking.replay import Destination
from amqpflow.rabbitmq.connection import Connection


class Depths:
    """Asks RabbitMQ for the ready messages of queues. `to`: the destination instead of these, if there is one."""

    def __init__(
        self,
        connection: Connection,
        routes: Sequence[QueueRoutes],
        to: Destination | None,
        parking_queues: Sequence[str],
    ) -> None:
        self._connection = connection
        self._parking_queues = parking_queues
        if to is None:
            self._destinations = [each.queue for each in routes]
            self._retry_queues = [tier.queue for each in routes for tier in each.tiers]
        else:
            self._destinations, self._retry_queues = [to.queue] if to.queue else [], []

    async def fullest(self) -> int:
        return max([await self._total([queue]) for queue in self._destinations], default=0)

    async def on_the_way(self) -> int:
        return await self._total([*self._destinations, *self._retry_queues])

    async def parked(self) -> int:
        return await self._total(self._parking_queues)

    async def _total(self, queues: Iterable[str]) -> int:
        return sum([(await self._connection.queue_counts(queue)).ready for queue in queues])
