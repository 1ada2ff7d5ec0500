"""The calls of a client that read parked messages, and move them elsewhere."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import IO, TYPE_CHECKING

from amqpflow.parking.selection import Selection
from amqpflow.services.reading.options import ReadOptions

from .connections import Connections, TopologyLike
from .options import refuse_places

if TYPE_CHECKING:
    from amqpflow.parking.parked import ParkedMessage
    from amqpflow.services.parked.export import Chosen, ExportReport
    from amqpflow.services.parked.listing import ParkedListing, ParkedRow
    from amqpflow.services.parked.restore_report import RestoreReport
    from amqpflow.services.parked.stats import ParkedStats
    from amqpflow.services.reading.target import ReadTarget


class ParkedClient:
    """The parked messages of a broker: `parked` of a client.

    Everywhere `topology` is a `Topology` or the path of its file, or None when the queues of `options.from_queues` are
    in no file; `selection` says which messages, None all of them; `options` says how to read. Without the management
    API policies that would make reading unsafe stay unseen. Errors besides those of a call are those of `Client.plan`.
    """

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    async def list(
        self,
        topology: TopologyLike | None,
        *,
        selection: Selection | None = None,
        options: ReadOptions | None = None,
        on_row: Callable[[ParkedRow], None] | None = None,
    ) -> ParkedListing:
        """List parked messages, one row each, the oldest of each parking queue first.

        They stay where they are, in their order, even if the process is killed.

        Args:
            on_row: is given each row, in the order of delivery, and `messages` stays empty: a million rows fill the
                memory. Where a queue is `by_priority`, that is not the order of age.

        Raises:
            UsageError: the file has no such queue. NotAppliedError: a parking queue is missing.
            RefusedError: reading could use up messages, because of the queue's delivery limit; or another command
                reads it.
        """
        from amqpflow.services.parked.listing import list_parked

        async with self._target(topology, selection, options) as (target, chosen):
            return await list_parked(target, chosen, on_row=on_row)

    async def find(
        self,
        topology: TopologyLike | None,
        wanted: str,
        *,
        selection: Selection | None = None,
        options: ReadOptions | None = None,
    ) -> tuple[ParkedMessage, ...]:
        """Find parked messages, body and all, by id, the beginning of an id, message id or hop. They stay where they
        are.

        Args:
            wanted: what to look for.
            selection: of it only the queues count.

        Returns:
            Every match, at most 20: two copies of one settlement have one id, and a message id may be used twice.

        Raises:
            UsageError: the beginning of several ids. Else as `list`.
        """
        from amqpflow.services.parked.listing import find_parked

        async with self._target(topology, selection, options) as (target, _):
            return await find_parked(target, wanted)

    async def stats(
        self,
        topology: TopologyLike | None,
        *,
        by: Sequence[str] = ("queue", "reason", "error-type"),
        selection: Selection | None = None,
        options: ReadOptions | None = None,
    ) -> ParkedStats:
        """Count parked messages by what they have in common. They stay where they are.

        Args:
            by: of queue, parking-queue, reason, error-type, fingerprint, routing-key, parked-by, hour.

        Raises:
            UsageError: `by` has an unknown word. Else as `list`.
        """
        from amqpflow.services.parked.stats import count_parked

        async with self._target(topology, selection, options) as (target, chosen):
            return await count_parked(target, chosen, by=by)

    async def export(
        self,
        topology: TopologyLike | None,
        file: str | IO[bytes],
        *,
        selection: Selection | None = None,
        options: ReadOptions | None = None,
    ) -> ExportReport:
        """Write parked messages to a file from which `restore` puts back the same bytes. They stay where they are.

        The file exists once it is whole and on the disk, and not before. Instead of a path it can be an open binary
        file, such as a pipe: it is whole when it has its end line.

        Raises:
            RefusedError: the file exists. AmqpflowError: it cannot be written. Else as `list`.
        """
        from amqpflow.services.parked.export import export_parked

        async with self._target(topology, selection, options) as (target, chosen):
            return await export_parked(target, chosen, file)

    async def choose(
        self,
        topology: TopologyLike | None,
        *,
        selection: Selection | None = None,
        options: ReadOptions | None = None,
    ) -> Chosen:
        """Count what `discard` would take, and remember it. Nothing is changed. Errors as for `list`."""
        from amqpflow.services.parked.export import choose

        async with self._target(topology, selection, options) as (target, chosen):
            return await choose(target, chosen)

    async def discard(
        self,
        topology: TopologyLike | None,
        file: str | None,
        *,
        selection: Selection | None = None,
        chosen: Chosen | None = None,
        options: ReadOptions | None = None,
    ) -> ExportReport:
        """Take parked messages out of their queues for good.

        Each is in the file, and the file on the disk, before it leaves its queue. Killed at any point, every message is
        in its queue or in the file; some may be in both.

        Args:
            file: where they are kept; None: nowhere.
            chosen: no others than these, as `choose` returned them.

        Raises:
            RefusedError: the file exists. AmqpflowError: it cannot be written; what is not in it is in its queue.
            Else as `list`.
        """
        from amqpflow.services.parked.export import discard_parked

        async with self._target(topology, selection, options) as (target, selected):
            return await discard_parked(target, selected, file, chosen=chosen)

    async def restore(
        self,
        file: str | IO[bytes],
        *,
        to: str | None = None,
        strip: bool = False,
        again: bool = False,
        duplicates: bool = False,
        options: ReadOptions | None = None,
    ) -> RestoreReport:
        """Put the messages of an export back into the parking queues they were in: the same properties, headers and
        body.

        A message that is still parked there is left alone: the queues are read first, and no other command reads them
        until all is confirmed. What was confirmed is recorded in `FILE.restored` by broker, virtual host and queue, so
        that after a crash the same call finishes the restore. Messages that left their queue before their confirm was
        recorded are put back again then: at most 500, with equal ids.

        Args:
            file: the export, of `export` or `discard`: a path, or a binary file to read it from, for which nothing is
                recorded. The virtual host is that of the URL.
            to: put all of them into this queue.
            strip: leave out user_id, CC, BCC and x-opt-delivery-time, on which RabbitMQ would act.
            again: forget what was restored before. What is still parked is left alone all the same.
            duplicates: restore also what is still parked; the queues are not read.
            options: prefetch, stop, on_progress and on_wait count.

        Raises:
            RefusedError: the file is damaged, or holds what cannot be put back as it is; amqpflow cannot find out what
                is still parked; or another restore is running. NotAppliedError: a queue is missing. Nothing was done.
            AmqpflowError: a file cannot be read or written.
        """
        from amqpflow.errors import UsageError
        from amqpflow.services.parked.restore import restore_parked
        from amqpflow.services.parked.restore_report import RestoreOptions

        options = refuse_places(options)
        if options.unverified:
            raise UsageError(
                "ReadOptions.unverified is not for a restore, which must see what is still parked",
                hint="`duplicates` restores without looking",
            )
        how = RestoreOptions(to=to, strip=strip, again=again, duplicates=duplicates)
        async with self._connections.broker(None, "restore") as (broker, _):
            return await restore_parked(broker, file, options, how)

    @asynccontextmanager
    async def _target(
        self, topology: TopologyLike | None, selection: Selection | None, options: ReadOptions | None
    ) -> AsyncIterator[tuple[ReadTarget, Selection]]:
        from amqpflow.services.reading.target import read_target

        selection = selection or Selection()
        async with self._connections.broker(topology, "parked") as (broker, compiled):
            yield read_target(broker, compiled, selection.queues, options), selection
