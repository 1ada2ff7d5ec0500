"""The queues that messages are restored into."""

from __future__ import annotations

from collections.abc import Collection

from amqpflow.errors import BrokerError, NotAppliedError, PermissionDeniedError, RefusedError
from amqpflow.parking.digest_multiset import DigestMultiset
from amqpflow.parking.selection import Selection
from amqpflow.rabbitmq.observe import Broker
from amqpflow.services.loading.topology import no_topology
from amqpflow.services.reading.options import ReadOptions
from amqpflow.services.reading.target import ReadTarget

from .scan import scan


async def require_queues(broker: Broker, queues: Collection[str]) -> None:
    """Raise NotAppliedError, naming all queues that are not there; BrokerError for one whose node is down."""
    missing = []
    for queue in sorted(queues):
        try:
            await broker.connection.queue_counts(queue)
        except BrokerError as error:
            if not error.missing:
                raise
            missing.append(f"there is no queue {queue}")
    if missing:
        raise NotAppliedError(
            "the messages have no queue to go to; nothing was done",
            problems=missing,
            hint="apply the topology, or name another queue with `to`",
        )


async def still_parked(broker: Broker, queue: str, options: ReadOptions) -> tuple[DigestMultiset, tuple[str, ...]]:
    """Return the messages that the queue, whose reading lock the caller has, holds now, and notes for people.
    Everything goes back to its place. Raises RefusedError: not all of them can be seen.
    """
    known = DigestMultiset()
    counts = await broker.connection.queue_counts(queue)
    if counts.consumers:
        raise _unseen(queue, f"it has {counts.consumers} consumers, and the messages that they hold are not seen")
    if not counts.ready:
        return known, ()
    target = ReadTarget(broker=broker, compiled=no_topology(), queues=(queue,), options=options, locked=True)
    try:
        done = await scan(target, Selection(), make=lambda parked: parked.digest, emit=known.add)
    except (RefusedError, PermissionDeniedError) as error:
        raise _unseen(queue, str(error)) from error
    for reading in done.queues:
        if not reading.complete and not target.is_stopped:
            raise _unseen(queue, f"it was not read to its end: {reading.ended_early}")
    known.recall()
    return known, done.notes


def _unseen(queue: str, why: str) -> RefusedError:
    return RefusedError(
        f"cannot find out which messages of the export are still in {queue}; nothing was done: {why}",
        hint="`duplicates` restores all that was not restored before, without looking",
    )
