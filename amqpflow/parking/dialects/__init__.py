"""How other frameworks mark the messages they park: one module each, asked in the order of DIALECTS.

A dialect is a module with `read(delivery) -> Foreign | None`: None when the message does not bear its marks. The next
one is a copy of any of these files, a line here, and a sample of real headers in `tests/data/dialects/`.
"""

from __future__ import annotations

from collections.abc import Callable

from amqpflow.model.message import Delivery
from amqpflow.parking.foreign import Foreign, within_limits

from . import dead_letter, dramatiq, folk, masstransit, nservicebus, rascal, spring_amqp

DIALECTS: tuple[Callable[[Delivery], Foreign | None], ...] = (
    nservicebus.read,
    masstransit.read,
    spring_amqp.read,
    rascal.read,
    dramatiq.read,
    folk.read,  # names that anybody may use: after those that are somebody's own
    dead_letter.read,  # what RabbitMQ itself says of queues that are in no topology file
)


def read_foreign(delivery: Delivery) -> Foreign | None:
    """Return what the first dialect that knows the message reads from it."""
    for read in DIALECTS:
        found = read(delivery)
        if found is not None:
            return within_limits(found)
    return None
