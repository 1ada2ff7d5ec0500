"""What a change of policy puts at stake: messages that RabbitMQ drops or moves because of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Risk(StrEnum):
    """What the change does to messages that are in the queue."""

    RETAINED = "dead-letter-strategy"  #: at-least-once ends: what RabbitMQ retains is deleted (fact 4.11)
    LENGTH = "max-length"  #: what is beyond it leaves at once, the oldest first (fact 11.6f)
    BYTES = "max-length-bytes"  #: the same
    EXPIRES = "expires"  #: the queue is deleted with all its messages once it is unused (fact 5.6)


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueRisk:
    """One queue whose messages a change may take away."""

    queue: str
    risk: Risk
    before: int | None = None  #: the number that worked before; None: nothing was dropped by it
    after: int | None = None
    target: str = ""  #: where what leaves goes, as in `queue orders.parking`; "": it is deleted
    delays: bool = False  #: RabbitMQ may hold delayed messages in the queue, which count for a length (fact 8.8)
    allowed: bool = False  #: `--allow drop:QUEUE` names the queue
