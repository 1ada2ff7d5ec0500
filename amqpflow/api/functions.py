"""A function for each call of a client that is made once: it connects, calls and disconnects.

What each does, its arguments and its errors are with the method that it calls; `url` and `management_url` are those of
`connect`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, TypeVar, Unpack

from .client import Client, connect
from .connections import TopologyLike
from .options import OldReadOptions, merged
from .provisioning import ApplyOptions

if TYPE_CHECKING:
    from amqpflow.parking.parked import ParkedMessage
    from amqpflow.parking.selection import Selection
    from amqpflow.planning.reports.drift import DriftReport
    from amqpflow.planning.reports.explain import Explanation
    from amqpflow.planning.values.apply_report import ApplyReport
    from amqpflow.planning.values.plan import Plan
    from amqpflow.rabbitmq.address import BrokerAddress
    from amqpflow.services.parked.export import Chosen, ExportReport
    from amqpflow.services.parked.listing import ParkedListing, ParkedRow
    from amqpflow.services.parked.restore_report import RestoreReport
    from amqpflow.services.parked.stats import ParkedStats
    from amqpflow.services.reading.options import ReadOptions
    from amqpflow.services.replaying.plan import ReplayPlan
    from amqpflow.services.replaying.report import ReplayReport
    from amqpflow.services.replaying.request import ReplayRequest

T = TypeVar("T")


async def _once(
    url: str | BrokerAddress | None, management_url: str | None, call: Callable[[Client], Awaitable[T]]
) -> T:
    async with connect(url, management_url=management_url) as broker:
        return await call(broker)


async def plan(
    topology: TopologyLike,
    url: str | BrokerAddress | None = None,
    *,
    prune: bool = False,
    allow: Iterable[str] = (),
    management_url: str | None = None,
) -> Plan:
    """Return what `apply` would do on a broker, step by step; see `Client.plan`. Nothing is changed."""
    return await _once(url, management_url, lambda broker: broker.plan(topology, prune=prune, allow=allow))


async def drift(
    topology: TopologyLike, url: str | BrokerAddress | None = None, *, management_url: str | None = None
) -> DriftReport:
    """Return what differs between a broker and the file; see `Client.drift`. Nothing is changed."""
    return await _once(url, management_url, lambda broker: broker.drift(topology))


async def apply(
    plan: Plan | TopologyLike,
    url: str | BrokerAddress | None = None,
    *,
    prune: bool = False,
    allow: Iterable[str] = (),
    management_url: str | None = None,
    **options: Unpack[ApplyOptions],
) -> ApplyReport:
    """Create what a topology lacks on a broker; see `Client.apply`. A plan remembers the URL it was made for."""
    url = url or getattr(plan, "address", None)
    return await _once(url, management_url, lambda broker: broker.apply(plan, prune=prune, allow=allow, **options))


async def destroy(
    topology: TopologyLike,
    url: str | BrokerAddress | None = None,
    *,
    allow: Iterable[str] = (),
    management_url: str | None = None,
    **options: Unpack[ApplyOptions],
) -> ApplyReport:
    """Remove from a broker all that a topology owns; see `Client.destroy`."""
    return await _once(url, management_url, lambda broker: broker.destroy(topology, allow=allow, **options))


async def adopt(
    topology: TopologyLike,
    kind: str,
    names: Iterable[str],
    url: str | BrokerAddress | None = None,
    *,
    management_url: str | None = None,
    **options: Unpack[ApplyOptions],
) -> ApplyReport:
    """Take over existing queues, exchanges, bindings or policies; see `Client.adopt`."""
    return await _once(url, management_url, lambda broker: broker.adopt(topology, kind, names, **options))


async def disown(
    topology: TopologyLike,
    kind: str,
    names: Iterable[str],
    url: str | BrokerAddress | None = None,
    *,
    management_url: str | None = None,
    **options: Unpack[ApplyOptions],
) -> ApplyReport:
    """Give up what was adopted, or a binding that apply made; see `Client.disown`."""
    return await _once(url, management_url, lambda broker: broker.disown(topology, kind, names, **options))


async def explain(
    topology: TopologyLike, queue: str, url: str | BrokerAddress | None = None, *, management_url: str | None = None
) -> Explanation:
    """Return every setting in effect on a queue, and where it comes from; see `Client.explain`."""
    return await _once(url, management_url, lambda broker: broker.explain(topology, queue))


async def plan_replay(
    topology: TopologyLike,
    url: str | BrokerAddress | None = None,
    *,
    queue: str | Sequence[str] | None = None,
    choice: ReplayRequest | None = None,
    options: ReadOptions | None = None,
    management_url: str | None = None,
    **old: Unpack[OldReadOptions],
) -> ReplayPlan:
    """Count what `replay` would take; see `Client.plan_replay`. Nothing is changed."""
    how = merged(options, old)
    return await _once(
        url, management_url, lambda broker: broker.plan_replay(topology, queue=queue, choice=choice, options=how)
    )


async def replay(
    topology: TopologyLike,
    url: str | BrokerAddress | None = None,
    *,
    queue: str | Sequence[str] | None = None,
    choice: ReplayRequest | None = None,
    journal: str | Path | None = None,
    resume: str | None = None,
    options: ReadOptions | None = None,
    management_url: str | None = None,
    on_watch: Callable[[int, int], None] | None = None,
    **old: Unpack[OldReadOptions],
) -> ReplayReport:
    """Bring parked messages back to the work queue they failed in; see `Client.replay`."""
    how = merged(options, old)
    return await _once(
        url,
        management_url,
        lambda broker: broker.replay(
            topology, queue=queue, choice=choice, journal=journal, resume=resume, options=how, on_watch=on_watch
        ),
    )


async def parked(
    topology: TopologyLike | None,
    url: str | BrokerAddress | None = None,
    *,
    selection: Selection | None = None,
    options: ReadOptions | None = None,
    management_url: str | None = None,
    on_row: Callable[[ParkedRow], None] | None = None,
    **old: Unpack[OldReadOptions],
) -> ParkedListing:
    """List parked messages, one row each; see `ParkedClient.list`. They stay where they are."""
    how = merged(options, old)
    return await _once(
        url,
        management_url,
        lambda broker: broker.parked.list(topology, selection=selection, options=how, on_row=on_row),
    )


async def parked_message(
    topology: TopologyLike | None,
    wanted: str,
    url: str | BrokerAddress | None = None,
    *,
    selection: Selection | None = None,
    options: ReadOptions | None = None,
    management_url: str | None = None,
    **old: Unpack[OldReadOptions],
) -> tuple[ParkedMessage, ...]:
    """Find parked messages by id, message id or hop; see `ParkedClient.find`. They stay where they are."""
    how = merged(options, old)
    return await _once(
        url,
        management_url,
        lambda broker: broker.parked.find(topology, wanted, selection=selection, options=how),
    )


async def parked_stats(
    topology: TopologyLike | None,
    url: str | BrokerAddress | None = None,
    *,
    by: Sequence[str] = ("queue", "reason", "error-type"),
    selection: Selection | None = None,
    options: ReadOptions | None = None,
    management_url: str | None = None,
    **old: Unpack[OldReadOptions],
) -> ParkedStats:
    """Count parked messages by what they have in common; see `ParkedClient.stats`. They stay where they are."""
    how = merged(options, old)
    return await _once(
        url, management_url, lambda broker: broker.parked.stats(topology, by=by, selection=selection, options=how)
    )


async def export_parked(
    topology: TopologyLike | None,
    file: str | IO[bytes],
    url: str | BrokerAddress | None = None,
    *,
    selection: Selection | None = None,
    options: ReadOptions | None = None,
    management_url: str | None = None,
    **old: Unpack[OldReadOptions],
) -> ExportReport:
    """Write parked messages to a file; see `ParkedClient.export`. They stay where they are."""
    how = merged(options, old)
    return await _once(
        url, management_url, lambda broker: broker.parked.export(topology, file, selection=selection, options=how)
    )


async def choose_parked(
    topology: TopologyLike | None,
    url: str | BrokerAddress | None = None,
    *,
    selection: Selection | None = None,
    options: ReadOptions | None = None,
    management_url: str | None = None,
    **old: Unpack[OldReadOptions],
) -> Chosen:
    """Count what `discard_parked` would take, and remember it; see `ParkedClient.choose`."""
    how = merged(options, old)
    return await _once(
        url, management_url, lambda broker: broker.parked.choose(topology, selection=selection, options=how)
    )


async def discard_parked(
    topology: TopologyLike | None,
    file: str | None,
    url: str | BrokerAddress | None = None,
    *,
    selection: Selection | None = None,
    chosen: Chosen | None = None,
    options: ReadOptions | None = None,
    management_url: str | None = None,
    **old: Unpack[OldReadOptions],
) -> ExportReport:
    """Take parked messages out of their queues for good; see `ParkedClient.discard`."""
    how = merged(options, old)
    return await _once(
        url,
        management_url,
        lambda broker: broker.parked.discard(topology, file, selection=selection, chosen=chosen, options=how),
    )


async def restore_parked(
    file: str | IO[bytes],
    url: str | BrokerAddress | None = None,
    *,
    to: str | None = None,
    strip: bool = False,
    again: bool = False,
    duplicates: bool = False,
    options: ReadOptions | None = None,
    management_url: str | None = None,
    **old: Unpack[OldReadOptions],
) -> RestoreReport:
    """Put the messages of an export back into their parking queues; see `ParkedClient.restore`."""
    how = merged(options, old)
    return await _once(
        url,
        management_url,
        lambda broker: broker.parked.restore(file, to=to, strip=strip, again=again, duplicates=duplicates, options=how),
    )
