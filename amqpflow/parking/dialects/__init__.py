"""How other frameworks mark the messages they park: one module each, asked in the order of DIALECTS.

A dialect is a module with `read(delivery) -> Foreign | None`: None when the message does not have its marks. A header
that only one framework writes is a mark whatever its value: what cannot be read in it is None. A name that anyone may
use is a mark only with a value that can be read.

Beside an x-death, marks that a framework writes when it parks go first, with the queue that it names; one that names
none takes that of `dead_letter.read_failure`, where the message failed. Marks that travel with every attempt, such as a
count, come after a rejection: RabbitMQ parked the message then. An expiry beside marks names no queue: it is a delay.
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
