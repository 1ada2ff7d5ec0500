"""What is in the queues into which messages are put back."""

from __future__ import annotations

from collections.abc import Collection

from amqpflow.errors import BrokerError, NotAppliedError, PermissionDeniedError, RefusedError
from amqpflow.parking.digest_multiset import DigestMultiset
from amqpflow.parking.parked import ParkedMessage
from amqpflow.parking.selection import Selection
from amqpflow.rabbitmq.observe import Broker
from amqpflow.rabbitmq.translate import translate
from amqpflow.services.loading.topology import no_topology
from amqpflow.services.reading.options import ReadOptions
from amqpflow.services.reading.target import ReadTarget

from .scan import scan


async def require_queues(broker: Broker, queues: Collection[str]) -> None:
    """Raise NotAppliedError, naming all queues that are not there; BrokerError for one whose node is down."""
    missing = []
    for queue in sorted(queues):
        channel = await broker.connection.open_channel()
        try:
            await channel.queue_depth(queue)
        except BrokerError as error:
            if not error.missing:
                raise
            missing.append(f"there is no queue {queue}")
        finally:
            await channel.close()
    if missing:
        raise NotAppliedError(
            "the messages have no place to go back to; nothing was done",
            problems=missing,
            hint="apply the topology, or name another queue with --to",
        )


async def still_parked(broker: Broker, queue: str, options: ReadOptions) -> tuple[DigestMultiset, tuple[str, ...]]:
    """
    Return what the queue holds now, and what a person should know of the look.

    The caller has its reading lock. Everything goes back to its place.

    Raises:
        RefusedError: that cannot be found out.
    """
    known = DigestMultiset()
    channel = await broker.connection.admin_channel()
    try:
        with translate():
            counts = await channel.queue_declare(queue, passive=True)
    finally:
        await channel.close()
    if counts.consumer_count:
        raise _unseen(queue, f"it has {counts.consumer_count} consumers, and what they hold is not seen")
    if not counts.message_count:
        return known, ()
    target = ReadTarget(broker=broker, compiled=no_topology(), queues=(queue,), options=options, locked=True)
    try:
        done = await scan(target, Selection(), make=_digest, emit=known.add)
    except (RefusedError, PermissionDeniedError) as error:
        raise _unseen(queue, str(error)) from error
    for reading in done.queues:
        if not reading.complete and not target.is_stopped:
            raise _unseen(queue, f"it was not read to its end: {reading.ended_early}")
    known.recall()
    return known, done.notes


def _unseen(queue: str, why: str) -> RefusedError:
    return RefusedError(
        f"what of the export is still in {queue} cannot be found out; nothing was done: {why}",
        hint="--duplicates restores all that was not restored before, without looking",
    )


def _digest(parked: ParkedMessage) -> bytes:
    return parked.digest
