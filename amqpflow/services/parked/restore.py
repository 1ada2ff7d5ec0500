"""Restore exported messages into parking queues: the same bytes, each once.

A message is restored when it is missing: its queue is read first, and the messages that were restored before are
recorded (`restore_record_file`). Both are multisets of all that a message holds, of one broker, virtual host and
queue. The reading lock is held from the look to the last confirm, so that of two restores one sees what the other did.

A parked message is equal to one of the file: is it that one? After a plain export it is. After a discard it is another
one, where the file says that RabbitMQ has taken the ack (`Discarded`); for the others it may be that one.

What if the process dies here? The record names a message before it is published. A confirm that was not recorded yet is
seen by the next run's look, unless the message left the queue meanwhile: then it is published again, at most WINDOW of
them, with the ids of the first.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from functools import partial
from typing import IO

from amqpflow.errors import AmqpflowError, BrokerUnavailableError
from amqpflow.parking.digest_multiset import DigestMultiset
from amqpflow.parking.export import ExportHead
from amqpflow.parking.restore_record import RestorePlace
from amqpflow.rabbitmq.observe import Broker
from amqpflow.services.reading.lock import reading_alone
from amqpflow.services.reading.options import ReadOptions

from .restore_check import check_export, exported_messages
from .restore_publisher import RestorePublisher
from .restore_record_file import open_record
from .restore_report import RestoreOptions, RestoreReport
from .restore_targets import require_queues, still_parked


async def restore_parked(
    broker: Broker,
    source: str | IO[bytes],
    reading: ReadOptions,
    options: RestoreOptions | None = None,
    *,
    on_step: Callable[[str], None] = lambda _: None,
) -> RestoreReport:
    """Publish the messages of an export that are missing from their parking queues, through the default exchange.

    The whole file is checked first. Exchange and routing key of the delivery change; those of the first publish in our
    own record stay. Publishes that are outstanding when stop is set are awaited.

    Arguments and errors are those of `Client.parked.restore`.
    """
    options = options or RestoreOptions()
    if isinstance(source, str):
        return await _restore(broker, source, source, reading, options, on_step)
    try:
        temporary = tempfile.TemporaryFile()  # noqa: SIM115 - it is read twice
    except OSError as error:
        raise AmqpflowError(
            f"cannot make a temporary file: {error.strerror}", hint="TMPDIR names a directory for them"
        ) from error
    with temporary as spooled:
        shutil.copyfileobj(source, spooled)
        return await _restore(broker, spooled, None, reading, options, on_step)


async def _restore(
    broker: Broker,
    source: str | IO[bytes],
    path: str | None,
    reading: ReadOptions,
    options: RestoreOptions,
    on_step: Callable[[str], None],
) -> RestoreReport:
    head, queues, report = check_export(source, broker.address.user, options)
    report.file = path or "-"
    place = RestorePlace(
        cluster=broker.connection.cluster_name,
        addresses=tuple(f"{node.host}:{node.port}" for node in broker.address.nodes),
        vhost=broker.address.vhost,
    )
    stop = reading.stop or asyncio.Event()
    with open_record(path, head.id, place, again=options.again) as record:
        async with AsyncExitStack() as stack:
            still: dict[str, DigestMultiset] = {}
            await require_queues(broker, queues)
            for queue in sorted(queues):
                waits = partial(reading.on_wait, queue) if reading.on_wait is not None else None
                lock = reading_alone(broker.connection, queue, on_wait=waits, stop=stop)
                if not await stack.enter_async_context(lock):
                    report.notes.append(
                        f"no permission to lock {queue}: two restores at once may restore messages twice"
                    )
                if not options.duplicates:
                    still[queue], notes = await still_parked(broker, queue, reading)
                    report.notes += [note for note in notes if note not in report.notes]
            on_step("looked")
            record.write()
            publisher = RestorePublisher(broker.connection, record, still, report, reading, stop, options, on_step)
            try:
                await publisher.publish_all(exported_messages(source))
            except BrokerUnavailableError as error:
                report.stopped = report.stopped or str(error)
            finally:
                await publisher.close()
                record.write()
    report.notes += _doubts(head, report, options)
    return report


def _doubts(head: ExportHead, report: RestoreReport, options: RestoreOptions) -> Iterator[str]:
    """Say for which messages a parked one was, or was not, taken."""
    if report.equal:
        yield (
            f"{report.equal} were restored although an equal message is parked: the discard took them out, so that one "
            "is another. Was it restored from a copy of the file, or without its record? `again` takes it for the same"
        )
    if not report.still_parked or options.again or head.discard is False:
        return
    why = (
        "the file does not say whether its messages were taken out of their queues (version 1)"
        if head.discard is None
        else "the discard, or an earlier restore, was killed, or the file was edited"
    )
    yield (
        f"{report.still_parked} are in doubt: {why}. An equal message is parked and was taken for each; if those are "
        "other messages, `duplicates` restores these too"
    )
