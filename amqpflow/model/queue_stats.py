"""Numbers of a queue at one moment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class QueueCounts(NamedTuple):
    """The exact answer of a passive declare. It counts neither unacked nor retained messages (fact 11.7)."""

    ready: int  #: messages
    consumers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueStats:
    """What a queue holds and what goes through it; None is what could not be seen.

    RabbitMQ's statistics are 2 to 9 s behind (fact 11.7); with `exact`, `ready` is not, nor `consumers`.
    """

    ready: int | None = None  #: may be delivered now; of a retry queue: waits for its delay to end
    exact: bool = False
    unacked: int | None = None
    hidden: int | None = None  #: neither ready nor unacked: retained or delayed
    retained: int | None = None  #: messages_dlx: RabbitMQ cannot dead-letter them and keeps them, unseen (fact 4.5)
    delayed: int | None = None  #: messages_delayed: they wait in RabbitMQ 4.3's delayed retry (fact 8.8)
    next_delayed_at: int | None = None  #: ms since the epoch
    consumers: int | None = None
    publish_rate: float | None = None  #: messages a second
    deliver_rate: float | None = None
    growth: float | None = None  #: messages a second; below zero it shrinks
