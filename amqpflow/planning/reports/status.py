"""A topology at one moment: how much is where, and what is hidden or stuck. Pure: numbers in, a `Status` out."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from amqpflow.model.diagnostic import Severity
from amqpflow.model.queue_stats import QueueStats
from amqpflow.model.routes import CompiledTopology, QueueRoutes
from amqpflow.model.units import format_duration, plural
from amqpflow.planning.values.findings import Finding, Ref, refuse, warn


@dataclass(frozen=True, slots=True, kw_only=True)
class TierStatus:
    """A retry queue. RabbitMQ does not say when its first message is due, and looking would disturb it."""

    queue: str
    delay_ms: int
    step_ms: int  #: the delay as the file has it; with jitter, several retry queues share one
    numbers: QueueStats | None  #: None: the queue is missing
    left: bool = False  #: it is not in the file any more, and drains

    @property
    def due_within_ms(self) -> int | None:
        """Return after how long all messages are back in the work queue, its delay; None when none waits."""
        return self.delay_ms if self.numbers is not None and self.numbers.ready else None


@dataclass(frozen=True, slots=True, kw_only=True)
class ParkingStatus:
    """A parking queue."""

    queue: str
    numbers: QueueStats | None
    shared_by: tuple[str, ...]  #: its work queues
    oldest_failed_at: int | None = None  #: ms since the epoch; only when it was read


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkStatus:
    """A work queue, with its retry queues."""

    queue: str
    numbers: QueueStats | None
    tiers: tuple[TierStatus, ...]
    parking: str
    external: bool = False

    @property
    def waiting(self) -> int | None:
        """Return messages that wait for a retry, in retry queues or in the broker; None: not known."""
        counts = [each.numbers.ready for each in self.tiers if each.numbers is not None]
        if self.numbers is not None and self.numbers.delayed is not None:
            counts.append(self.numbers.delayed)
        return total(counts) if counts or not self.tiers else None

    @property
    def retained(self) -> int | None:
        """Return messages that RabbitMQ keeps in this queue or its retry queues because it cannot dead-letter them.

        At least so many where not every count is known; None, never 0, when those that are known are 0.
        """
        counts = [each.retained for each in (self.numbers, *(tier.numbers for tier in self.tiers)) if each is not None]
        known = sum(count for count in counts if count is not None)
        return known or (0 if counts and None not in counts else None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """A topology on a broker, at one moment."""

    topology: str
    vhost: str
    broker: str  #: RabbitMQ 4.3.6
    taken_at: int  #: ms since the epoch
    complete: bool  #: False: over AMQP alone, ready messages and consumers are all that can be seen
    source: str  #: the management API's URL, or why there is none
    queues: tuple[WorkStatus, ...]
    parking: tuple[ParkingStatus, ...]
    alerts: tuple[Finding, ...]

    def parked_of(self, work: WorkStatus) -> ParkingStatus | None:
        """Return where a work queue's messages are parked; None for a queue of another topology."""
        return next((each for each in self.parking if each.queue == work.parking), None)


def total(counts: Iterable[int | None]) -> int | None:
    """Return the sum, None when one of the counts is not known."""
    known = list(counts)
    return None if None in known else sum(count for count in known if count is not None)


def assess(
    topology: CompiledTopology,
    numbers: Mapping[str, QueueStats],
    *,
    vhost: str,
    broker: str,
    taken_at: int,
    complete: bool,
    source: str,
    left: Mapping[str, tuple[str, int]] | None = None,
    oldest: Mapping[str, int] | None = None,
    foreign: Iterable[Finding] = (),
    earlier: Status | None = None,
) -> Status:
    """Put together what was seen.

    Args:
        numbers: by queue; a queue that is not in it is missing.
        left: retry queues of ours that the file has no more -> work queue and delay in ms.
        oldest: by parking queue, when its first message was parked.
        foreign: what preflight found.
        earlier: a status of the same topology, to see what grew since.
    """
    delaying = {routes.queue for routes in topology.routes.values() if routes.native is not None}
    numbers = {name: each if name in delaying else _all_retained(each) for name, each in numbers.items()}
    works = tuple(_work(routes, numbers, left or {}) for routes in topology.routes.values())
    parking = tuple(
        ParkingStatus(
            queue=name,
            numbers=numbers.get(name),
            shared_by=tuple(each.queue for each in topology.routes.values() if each.parking_queue == name),
            oldest_failed_at=(oldest or {}).get(name),
        )
        for name in topology.parking_queues
    )
    # what is retained is counted here, by queue and newer than preflight's reading
    others = (each for each in foreign if each.code != "retained")
    alerts = (*_missing(works, parking), *_hidden(works), *_idle(works), *_growing(parking, earlier), *others)
    return Status(
        topology=topology.name,
        vhost=vhost,
        broker=broker,
        taken_at=taken_at,
        complete=complete,
        source=source,
        queues=works,
        parking=parking,
        alerts=tuple(sorted(alerts, key=lambda each: each.severity is not Severity.ERROR)),
    )


def _all_retained(numbers: QueueStats) -> QueueStats:
    """Totals do not tell retained from delayed (fact 11.26); of a queue that delays nothing, what hides is retained."""
    if numbers.retained is not None or numbers.hidden is None:
        return numbers
    return replace(numbers, retained=numbers.hidden, delayed=0)


def _work(routes: QueueRoutes, numbers: Mapping[str, QueueStats], left: Mapping[str, tuple[str, int]]) -> WorkStatus:
    written = {tier.queue: step.delay_ms for step in routes.all_steps for tier in step.tiers}
    tiers = [
        TierStatus(
            queue=tier.queue, delay_ms=tier.delay_ms, step_ms=written[tier.queue], numbers=numbers.get(tier.queue)
        )
        for tier in routes.tiers
        if not routes.external or tier.queue in numbers
    ]
    tiers += [
        TierStatus(queue=name, delay_ms=delay_ms, step_ms=delay_ms, numbers=numbers.get(name), left=True)
        for name, (work, delay_ms) in sorted(left.items())
        if work == routes.queue and name in numbers
    ]
    return WorkStatus(
        queue=routes.queue,
        numbers=numbers.get(routes.queue),
        tiers=tuple(sorted(tiers, key=lambda tier: (tier.delay_ms, tier.queue))),
        parking=routes.parking_queue,
        external=routes.external,
    )


def _missing(works: Iterable[WorkStatus], parking: Iterable[ParkingStatus]) -> Iterator[Finding]:
    every: list[WorkStatus | TierStatus | ParkingStatus] = []
    for work in works:
        every += (work, *work.tiers)
    every += parking
    missing = [each.queue for each in every if each.numbers is None]
    if missing:
        text = f"{'it is' if len(missing) == 1 else 'they are'} not on the broker"
        yield refuse("missing", Ref.of("queue", missing), text, "apply the file")


def _hidden(works: Iterable[WorkStatus]) -> Iterator[Finding]:
    for work in works:
        for queue, numbers, target in (
            (work.queue, work.numbers, work.parking),
            *((tier.queue, tier.numbers, work.queue) for tier in work.tiers),
        ):
            if numbers is not None and numbers.retained:
                yield refuse(
                    "retained",
                    Ref("queue", queue),
                    f"RabbitMQ retains {plural(numbers.retained, 'message')} that it cannot dead-letter to {target}; "
                    "no other count shows them",
                    f"is {target} there, and not full? RabbitMQ tries again every 3 minutes",
                )


def _idle(works: Collection[WorkStatus]) -> Iterator[Finding]:
    idle = {
        work.queue: work.numbers.ready
        for work in works
        if work.numbers is not None and work.numbers.consumers == 0 and work.numbers.ready and not work.external
    }
    if idle:
        text = f"{plural(sum(idle.values()), 'message')} ready, and no consumer"
        yield warn("no-consumer", Ref.of("queue", list(idle)), text)
    for work in works:
        for tier in work.tiers:
            if tier.numbers is not None and tier.numbers.consumers:
                yield refuse(
                    "consumed-retry-queue",
                    Ref("queue", tier.queue),
                    f"a program consumes this retry queue: the messages that it takes do not come back after "
                    f"{format_duration(tier.delay_ms)}",
                    "stop that consumer",
                )


def _growing(parking: Iterable[ParkingStatus], earlier: Status | None) -> Iterator[Finding]:
    before = {each.queue: each.numbers for each in earlier.parking} if earlier else {}
    growing: dict[str, float] = {}
    more: dict[str, int] = {}
    for each in parking:
        now, then = each.numbers, before.get(each.queue)
        if now is None or now.ready is None:
            continue
        if then is not None and then.ready is not None:
            if now.ready > then.ready:
                more[each.queue] = now.ready - then.ready
        elif now.growth is not None and now.growth > 0:
            growing[each.queue] = now.growth
    if more:
        text = f"{plural(sum(more.values()), 'message')} more parked since the watch began"
        yield warn("parking-grows", Ref.of("queue", list(more)), text)
    if growing:
        text = f"{sum(growing.values()):.1f} messages a second are being parked"
        yield warn("parking-grows", Ref.of("queue", list(growing)), text)
