"""RabbitMQ's own dead-lettering, from a queue that is in no topology file: the header x-death.

https://www.rabbitmq.com/docs/dlx#effects. RabbitMQ 4 names the last queue in x-last-death-queue. Before, entries are in
no order of time (fact 1.1): a queue where the message was rejected or given up goes before one where it merely waited
for its time, which is what a retry queue does; among several the latest.
"""

from __future__ import annotations

from amqpflow.model.message import Delivery
from amqpflow.parking.deaths import Death, read_deaths
from amqpflow.parking.foreign import Foreign, headers_of, text

_WAITED = "expired"


def read(delivery: Delivery) -> Foreign | None:
    """Read the message if RabbitMQ dead-lettered it from another queue than the one it is in."""
    return _latest(delivery, _deaths(delivery))


def read_failure(delivery: Delivery) -> Foreign | None:
    """Read the same of the queues where the message failed: an expiry beside a framework's marks is a retry's delay."""
    return _latest(delivery, [death for death in _deaths(delivery) if death.reason != _WAITED])


def _deaths(delivery: Delivery) -> list[Death]:
    return [death for death in read_deaths(headers_of(delivery)) if death.queue != delivery.queue]


def _latest(delivery: Delivery, deaths: list[Death]) -> Foreign | None:
    if not deaths:
        return None
    last = text(headers_of(delivery), "x-last-death-queue")
    death = max(deaths, key=lambda each: (each.queue == last, each.reason != _WAITED, each.at or 0))
    return Foreign(
        dialect="rabbitmq",
        queue=death.queue,
        exchange=death.exchange,
        routing_key=death.routing_keys[0] if death.routing_keys else None,
        # a rejection is counted once for each time that a consumer gave the message up
        attempts=death.count if death.reason in ("rejected", "delivery_limit") else 0,
        failed_at=death.at,
        died_of=death.reason,
    )
