"""Export parked messages to a file, and discard them once they are in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import IO
from uuid import uuid4

from amqpflow.errors import UsageError
from amqpflow.parking.digest_multiset import DigestMultiset
from amqpflow.parking.export import ExportHead
from amqpflow.parking.identity import parked_digest
from amqpflow.parking.parked import ParkedMessage
from amqpflow.parking.selection import IdPrefixes, Selection
from amqpflow.services.reading.reader import ParkingReader
from amqpflow.services.reading.target import ReadTarget
from amqpflow.version import __version__

from .export_file import ExportWriter, export_writer
from .scan import Readings, scan

_WINDOW = 2000  #: messages that are with us at once, written and not yet acked

Step = Callable[[str], None]  #: called before each operation, for tests that die there


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportReport(Readings):
    """The result of an export or a discard."""

    topology: str
    file: str | None  #: None: a discard without a file
    selected: int  #: messages in the file
    discarded: int  #: taken out of their queue


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen(Readings):
    count: int
    only: DigestMultiset


async def choose(target: ReadTarget, selection: Selection, *, certain: bool = True) -> Chosen:
    """Find the messages to discard, and requeue everything. Arguments as `scan`. Raises UsageError: several ids begin
    with an id prefix. Else as `scan`.
    """
    only, limit = DigestMultiset(), selection.limit
    id_prefixes = IdPrefixes(selection if certain else None)
    if id_prefixes:
        selection = replace(selection, limit=None)

    def keep(digest: bytes) -> None:
        if limit is None or len(only) < limit:
            only.add(digest)

    def make(parked: ParkedMessage) -> bytes:
        id_prefixes.add(parked)
        return parked_digest(parked.delivery)

    done = await scan(target, selection, make=make, emit=keep, certain=certain)
    if id_prefixes.problem:
        raise UsageError(id_prefixes.problem, hint="write one of them in full")
    only.recall()
    return Chosen(count=len(only), only=only, queues=done.queues, notes=done.notes)


async def export_parked(target: ReadTarget, selection: Selection, file: str | IO[bytes]) -> ExportReport:
    """Write the selected messages to a file, or to a directory when `file` ends in a slash; requeue everything.

    Errors as for `Client.parked.export`. There is no file then.
    """
    writer = export_writer(file, _head(target, discard=False))
    try:
        only = None
        if selection.sample is not None:
            only = (await choose(target, selection, certain=False)).only
            selection = replace(selection, sample=None)
        done = await scan(target, selection, make=lambda parked: parked, emit=writer.write, only=only)
        writer.finish()
    finally:
        writer.abandon()
    return ExportReport(
        topology=target.compiled.name,
        file=file if isinstance(file, str) else "-",
        selected=done.selected,
        discarded=0,
        queues=done.queues,
        notes=done.notes,
    )


async def discard_parked(
    target: ReadTarget,
    selection: Selection,
    path: str | None,
    *,
    chosen: Chosen | None = None,
    on_step: Step = lambda _: None,
) -> ExportReport:
    """Remove the selected messages from their queues. Each is in the file, and that on the disk, before it is acked.

    What if the process dies here? Before the ack the message is in the file and in its queue, after it in the file
    alone. Once RabbitMQ has answered behind the acks of a reading, the file says that they are certain. Only where it
    does not say so, a restore takes an equal parked message for one of the file.

    Arguments and errors are those of `Client.parked.discard`.
    """
    if chosen is None and (selection.sample is not None or IdPrefixes(selection)):
        # a sample, or the messages of an id prefix, are known when all messages were read
        chosen = await choose(target, selection)
    if chosen is not None:
        selection = replace(selection, sample=None, limit=None)
    writer = ExportWriter(path, _head(target, discard=True), at_once=True) if path is not None else None
    pending: list[int] = []
    discarded = 0
    proven, all_proven = 0, True

    def settle(_: ParkingReader, parked: ParkedMessage) -> None:
        on_step("write")
        if writer is not None:
            writer.write(parked)
        pending.append(parked.delivery.delivery_tag)

    def after_batch(reader: ParkingReader) -> None:
        nonlocal discarded
        if not pending:
            return
        on_step("sync")
        if writer is not None:
            writer.checkpoint()
        on_step("ack")
        if reader.ack_all(pending):
            discarded += len(pending)
        pending.clear()
        on_step("acked")

    def after_reading(reader: ParkingReader) -> None:
        nonlocal proven, all_proven
        all_proven = all_proven and reader.unproven is None and not pending
        if all_proven and writer is not None and writer.count > proven:
            on_step("prove")
            writer.discarded()
            proven = writer.count

    try:
        done = await scan(
            target,
            selection,
            make=lambda _: None,
            emit=lambda _: None,
            settle=settle,
            after_batch=after_batch,
            after_reading=after_reading,
            window=_WINDOW,
            only=chosen.only if chosen else None,
            certain=True,
        )
        on_step("finish")
        if writer is not None:
            writer.finish()
    finally:
        if writer is not None:
            writer.abandon()
    return ExportReport(
        topology=target.compiled.name,
        file=path if writer is not None and writer.count else None,
        selected=writer.count if writer is not None else done.selected,
        discarded=discarded,
        queues=done.queues,
        notes=done.notes,
    )


def _head(target: ReadTarget, *, discard: bool) -> ExportHead:
    return ExportHead(
        id=uuid4().hex,
        vhost=target.broker.address.vhost,
        topology=target.compiled.name,
        version=__version__,
        discard=discard,
    )
