"""Wiring: the functions of the api that look at parked messages, and put them elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from .parking.selection import Selection
from .services.loading.opening import opened
from .services.loading.topology import Topology

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Callable
    from typing import IO

    from .model.routes import CompiledTopology
    from .parking.parked import ParkedMessage
    from .rabbitmq.address import BrokerAddress
    from .services.parked.export import Chosen, ExportReport
    from .services.parked.listing import ParkedListing, ParkedRow
    from .services.parked.restore import RestoreReport
    from .services.parked.stats import ParkedStats
    from .services.reading.options import Progress, ReadOptions
    from .services.reading.target import ReadTarget


async def parked(
    topology: Topology | CompiledTopology | None,
    url: str | BrokerAddress | None = None,
    *,
    selection: Selection | None = None,
    from_queues: Sequence[str] = (),
    origin: str | None = None,
    management_url: str | None = None,
    unverified: bool = False,
    prefetch: int | None = None,
    on_row: Callable[[ParkedRow], None] | None = None,
    stop: asyncio.Event | None = None,
    on_progress: Progress | None = None,
    on_wait: Callable[[str], None] | None = None,
) -> ParkedListing:
    """
    List parked messages, one row each, the oldest of each parking queue first.

    They stay where they are, in their order, also when this is killed.

    Args:
        topology: as `Topology.load` returns it; None when `from_queues` are in no file.
        url: as for `plan`.
        selection: which messages; None: all of them.
        from_queues: read these queues, which need not be in the file, instead of the topology's parking queues.
        origin: the work queue of messages that do not tell where they failed.
        management_url: as for `plan`. Without the management API policies that would make reading unsafe stay unseen.
        unverified: read also where it cannot be found out whether that is safe.
        prefetch: hold at most so many messages at once, for a broker that allows no more; None: all that are read.
            RabbitMQ delivers first what was requeued, so of messages that stay it shows so many, and the
            result says that not all was read.
        on_row: is given each row, in the order of delivery, and `messages` stays empty: a million rows fill the memory.
            Where a queue is `by_priority`, that is not the order of age.
        stop: set it to end the reading; what was seen so far is returned.
        on_progress: told the parking queue, messages seen and messages expected.
        on_wait: told the parking queue once, when another command is reading it.

    Raises:
        UsageError: the file has no such queue. NotAppliedError: a parking queue is missing.
        RefusedError: reading could use messages up, because of the queue's delivery limit; or another command reads it.
        AmqpflowError: as for `plan`.
    """
    from .services.parked.listing import list_parked

    options = _options(from_queues, origin, unverified, prefetch, stop, on_progress, on_wait)
    async with _target(topology, url, management_url, selection, options) as (target, chosen):
        return await list_parked(target, chosen, on_row=on_row)


async def parked_message(
    topology: Topology | CompiledTopology | None,
    wanted: str,
    url: str | BrokerAddress | None = None,
    *,
    selection: Selection | None = None,
    from_queues: Sequence[str] = (),
    origin: str | None = None,
    management_url: str | None = None,
    unverified: bool = False,
    prefetch: int | None = None,
    stop: asyncio.Event | None = None,
    on_progress: Progress | None = None,
    on_wait: Callable[[str], None] | None = None,
) -> tuple[ParkedMessage, ...]:
    """
    Find parked messages, body and all, by id, the beginning of an id, message id or hop. They stay where they are.

    Args as for `parked`; of `selection` only the queues count.

    Returns:
        Every match, at most 20: two copies of one settlement have one id, and a message id may be used twice.

    Raises:
        UsageError: the beginning of several ids. Else as `parked`.
    """
    from .services.parked.listing import find_parked

    options = _options(from_queues, origin, unverified, prefetch, stop, on_progress, on_wait)
    async with _target(topology, url, management_url, selection, options) as (target, _):
        return await find_parked(target, wanted)


async def parked_stats(
    topology: Topology | CompiledTopology | None,
    url: str | BrokerAddress | None = None,
    *,
    by: Sequence[str] = ("queue", "reason", "error-type"),
    selection: Selection | None = None,
    from_queues: Sequence[str] = (),
    origin: str | None = None,
    management_url: str | None = None,
    unverified: bool = False,
    prefetch: int | None = None,
    stop: asyncio.Event | None = None,
    on_progress: Progress | None = None,
    on_wait: Callable[[str], None] | None = None,
) -> ParkedStats:
    """
    Count parked messages by what they have in common. They stay where they are.

    Args:
        by: of queue, parking-queue, reason, error-type, fingerprint, routing-key, parked-by, hour.

    The others are as for `parked`, and so are errors; UsageError also when `by` has another word.
    """
    from .services.parked.stats import count_parked

    options = _options(from_queues, origin, unverified, prefetch, stop, on_progress, on_wait)
    async with _target(topology, url, management_url, selection, options) as (target, chosen):
        return await count_parked(target, chosen, by=by)


async def export_parked(
    topology: Topology | CompiledTopology | None,
    file: str | IO[bytes],
    url: str | BrokerAddress | None = None,
    *,
    selection: Selection | None = None,
    from_queues: Sequence[str] = (),
    origin: str | None = None,
    management_url: str | None = None,
    unverified: bool = False,
    prefetch: int | None = None,
    stop: asyncio.Event | None = None,
    on_progress: Progress | None = None,
    on_wait: Callable[[str], None] | None = None,
) -> ExportReport:
    """
    Write parked messages to a file from which `restore_parked` puts back the same bytes. They stay where they are.

    The file exists once it is whole and on the disk, and not before. Instead of a path it can be a binary file that is
    open, such as a pipe: it is whole when it has its end line. The other arguments are as for `parked`.

    Raises:
        RefusedError: the file exists. AmqpflowError: it cannot be written. Else as `parked`.
    """
    from .services.parked.export import export_parked as export

    options = _options(from_queues, origin, unverified, prefetch, stop, on_progress, on_wait)
    async with _target(topology, url, management_url, selection, options) as (target, chosen):
        return await export(target, chosen, file)


async def choose_parked(
    topology: Topology | CompiledTopology | None,
    url: str | BrokerAddress | None = None,
    *,
    selection: Selection | None = None,
    from_queues: Sequence[str] = (),
    origin: str | None = None,
    management_url: str | None = None,
    unverified: bool = False,
    prefetch: int | None = None,
    stop: asyncio.Event | None = None,
    on_progress: Progress | None = None,
    on_wait: Callable[[str], None] | None = None,
) -> Chosen:
    """Count what `discard_parked` would take, and remember it. Nothing is changed. Arguments as for `parked`."""
    from .services.parked.export import choose

    options = _options(from_queues, origin, unverified, prefetch, stop, on_progress, on_wait)
    async with _target(topology, url, management_url, selection, options) as (target, chosen):
        return await choose(target, chosen)


async def discard_parked(
    topology: Topology | CompiledTopology | None,
    file: str | None,
    url: str | BrokerAddress | None = None,
    *,
    selection: Selection | None = None,
    chosen: Chosen | None = None,
    from_queues: Sequence[str] = (),
    origin: str | None = None,
    management_url: str | None = None,
    unverified: bool = False,
    prefetch: int | None = None,
    stop: asyncio.Event | None = None,
    on_progress: Progress | None = None,
    on_wait: Callable[[str], None] | None = None,
) -> ExportReport:
    """
    Take parked messages out of their queues for good.

    Each is in the file, and the file on the disk, before it leaves its queue. Killed at any point, every message is in
    its queue or in the file; some may be in both.

    Args:
        file: where they are kept; None: nowhere.
        chosen: no others than these, as `choose_parked` returned them.

    The other arguments are as for `parked`.

    Raises:
        RefusedError: the file exists. AmqpflowError: it cannot be written; what is not in it is in its queue.
        Else as `parked`.
    """
    from .services.parked.export import discard_parked as discard

    options = _options(from_queues, origin, unverified, prefetch, stop, on_progress, on_wait)
    async with _target(topology, url, management_url, selection, options) as (target, selected):
        return await discard(target, selected, file, chosen=chosen)


async def restore_parked(
    file: str | IO[bytes],
    url: str | BrokerAddress | None = None,
    *,
    to: str | None = None,
    strip: bool = False,
    again: bool = False,
    duplicates: bool = False,
    prefetch: int | None = None,
    management_url: str | None = None,
    stop: asyncio.Event | None = None,
    on_progress: Progress | None = None,
    on_wait: Callable[[str], None] | None = None,
) -> RestoreReport:
    """
    Put the messages of an export back into the parking queues they were in: the same properties, headers and body.

    A message that is still parked there is left alone: the queues are looked at first, and no other command reads them
    until all is confirmed. What was confirmed is recorded in `FILE.restored` by broker, virtual host and queue, so that
    after a crash the same call finishes the restore. Messages that left their queue before their confirm was recorded
    are put back again then: at most 500, with equal ids.

    Args:
        file: the export, of `export_parked` or `discard_parked`: a path, or a binary file to read it from, for which
            nothing is recorded.
        url: as for `plan`; the virtual host is that of the URL.
        to: put all of them into this queue.
        strip: leave out user_id, CC, BCC and x-opt-delivery-time, on which RabbitMQ would act.
        again: forget what was restored before. What is still parked is left alone all the same.
        duplicates: restore also what is still parked; the queues are not looked at.
        management_url, prefetch, stop, on_progress, on_wait: as for `parked`.

    Raises:
        RefusedError: the file is damaged, or holds what cannot be put back as it is; it cannot be found out what is
            still parked; or another restore is running. NotAppliedError: a queue is missing. Nothing was done.
        AmqpflowError: as for `plan`, or a file cannot be read or written.
    """
    from .services.parked.restore import RestoreOptions
    from .services.parked.restore import restore_parked as restore

    reading = _options((), None, False, prefetch, stop, on_progress, on_wait)
    async with opened(None, url, management_url, "restore") as (broker, _):
        options = RestoreOptions(to=to, strip=strip, again=again, duplicates=duplicates)
        return await restore(broker, file, reading, options)


def _options(
    from_queues: Sequence[str],
    origin: str | None,
    unverified: bool,
    prefetch: int | None,
    stop: asyncio.Event | None,
    on_progress: Progress | None,
    on_wait: Callable[[str], None] | None,
) -> ReadOptions:
    import asyncio

    from .services.reading.options import ReadOptions

    return ReadOptions(
        from_queues=from_queues,
        origin=origin,
        unverified=unverified,
        prefetch=prefetch,
        stop=stop or asyncio.Event(),
        on_progress=on_progress,
        on_wait=on_wait,
    )


@asynccontextmanager
async def _target(
    topology: Topology | CompiledTopology | None,
    url: str | BrokerAddress | None,
    management_url: str | None,
    selection: Selection | None,
    options: ReadOptions,
) -> AsyncIterator[tuple[ReadTarget, Selection]]:
    from .services.reading.target import read_target

    selection = selection or Selection()
    async with opened(topology, url, management_url, "parked") as (broker, compiled):
        yield read_target(broker, compiled, selection.queues, options), selection
