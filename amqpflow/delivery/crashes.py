"""Distinguish messages that kill their consumer from their neighbours, by what RabbitMQ counts.

A quorum queue counts every delivery that ended without an answer: of the message that killed its process, of whatever
was unacked beside it, of all that a lost connection had, and before RabbitMQ 4.3 of what was requeued (facts 3.3,
3.8). So a count proves nothing by itself. A message that was lost a few times is a *suspect*: from then on it is
handled alone, and while another is handled alone it is not held. What its count rises by then is its own doing.

A classic queue counts nothing: its messages cannot be distinguished.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from zlib import crc32

from amqpflow.model.routes import QueueRoutes

from .incoming import Incoming

SUSPECT = 3  #: deliveries without an answer after which a message is handled alone

Identity = tuple[str, str | None, int]  #: queue, message id, hash of the body


class Suspicion(Enum):
    """The meaning of a delivery's count for its message."""

    NONE = "none"
    ALONE = "alone"  #: a suspect: it is handled alone
    CRASHED = "crashed"  #: it was lost `crash_limit` times: it is parked
    UNCERTAIN = "uncertain"  #: other queues, or requeues, may have counted as well: its count must start again


def losses(incoming: Incoming, routes: QueueRoutes) -> int:
    """Return how many deliveries of a message ended without an answer, for certain, since its last attempt that had
    one.

    On a native queue RabbitMQ counts retries as well: only what is beyond them is certain.
    """
    if routes.queue_type != "quorum":
        return 0
    record = incoming.record
    before = min(record.lost, routes.crash_limit) if record else 0
    return max(0, before + incoming.deliveries_lost - (routes.native.retries if routes.native is not None else 0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Survived:
    """Losses of a message that this process lived through, so that the message is not their cause."""

    held: int = 0  #: it was held when a connection or a channel ended
    unseen: int = 0  #: it may have been on its way then

    @property
    def all(self) -> int:
        return self.held + self.unseen


NONE_SURVIVED = Survived()


def carried(incoming: Incoming, routes: QueueRoutes, *, survived: Survived = NONE_SURVIVED) -> int:
    """Return what a copy of a message, for the end of its queue, says of losses before it: less than parks it."""
    if incoming.count_may_be_another_queue_s and incoming.record is None:
        return 0
    most = routes.crash_limit if is_moved(incoming) else routes.crash_limit - 1
    return max(0, min(losses(incoming, routes) - survived.all, most))


def suspicion(
    incoming: Incoming,
    routes: QueueRoutes,
    *,
    survived: Survived = NONE_SURVIVED,
    excused: bool = False,
    requeues_count: bool = False,
) -> Suspicion:
    """Decide what to do about a delivery before its handler is called.

    Args:
        survived: losses that this process lived through. Those in which the message was perhaps unseen keep it from
            being parked, but not from being handled alone: else a killer that comes from another process would be
            handled beside others, which are lost with it.
        excused: a message that killed was parked while this one was held beside it, so that its count may be due to
            that one.
        requeues_count: RabbitMQ counts what is requeued like a loss (before 4.3), and consumers that stop requeue. A
            copy of ours is moved then, so that its count is of losses.
    """
    lost = losses(incoming, routes)
    if not lost:
        return Suspicion.NONE
    # a copy that was beside a killer, before that one was a suspect, has one loss more than is its own doing
    limit = routes.crash_limit + (requeues_count and is_moved(incoming))
    # a forged header alone does not reach the limit: there has to be a delivery that was really lost
    if lost - survived.all >= limit and incoming.deliveries_lost and not excused:
        uncertain = incoming.count_may_be_another_queue_s or (requeues_count and not is_moved(incoming))
        return Suspicion.UNCERTAIN if uncertain else Suspicion.CRASHED
    first = 1 if routes.native is not None else min(SUSPECT, routes.crash_limit - 1)
    return Suspicion.ALONE if lost - survived.held >= first else Suspicion.NONE


def is_moved(incoming: Incoming) -> bool:
    """Return whether it is a copy of ours that says how often the message was lost before."""
    return incoming.record is not None and incoming.record.lost > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspect:
    """A message that was lost before and is being handled, for a search for the cause of a process's death."""

    queue: str
    message: str  #: the message id; without one a hash of the body
    lost: int  #: deliveries that ended without an answer before this one
    alone: bool  #: nothing of its queue, and no other suspect, is handled beside it


def suspect(incoming: Incoming, lost: int, *, alone: bool) -> Suspect:
    """Return what a delivery is called."""
    delivery = incoming.delivery
    name = incoming.message_id or f"without id, of {len(delivery.body)} bytes, {crc32(delivery.body):08x}"
    return Suspect(queue=delivery.queue, message=name, lost=lost, alone=alone)


def identity(incoming: Incoming) -> Identity:
    """Return what tells a message of a queue from others when it is delivered again."""
    return incoming.delivery.queue, incoming.message_id, hash(incoming.delivery.body)
