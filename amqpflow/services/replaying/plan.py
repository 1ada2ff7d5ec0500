"""Plan a replay: count what it would take, and take nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from amqpflow.errors import UsageError
from amqpflow.model.headers import ParkReason
from amqpflow.model.routes import CompiledTopology, QueueRoutes
from amqpflow.parking.counters import own_counters
from amqpflow.parking.groups import OTHERS, count_group
from amqpflow.parking.identity import parked_digest
from amqpflow.parking.parked import ParkedMessage
from amqpflow.parking.sampling import Sampler
from amqpflow.rabbitmq.observe import Broker
from amqpflow.services.loading.topology import unknown_queue
from amqpflow.services.provisioning.verification import require_topology
from amqpflow.services.reading.messages import ParkedMessages
from amqpflow.services.reading.options import ReadOptions
from amqpflow.services.reading.target import ReadTarget

from .request import ReplayRequest, with_matcher

Group = tuple[str, str]  #: reason and error type; for reason `broker` what RabbitMQ says
OTHER_GROUPS: Group = (OTHERS, "")


NAMED_AT_MOST = 100_000  #: messages that a plan names one by one


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayPlan:
    """The messages that a replay would take."""

    queues: tuple[str, ...]  #: the work queues whose messages it takes
    parking_queues: tuple[str, ...]
    selected: int
    groups: tuple[tuple[Group, int], ...]  #: how many of which reason and error, most first
    destinations: tuple[tuple[str, int], ...]  #: how many to where, most first
    counters: tuple[tuple[str, int], ...]  #: in how many consumers count attempts by themselves, which a replay keeps
    others: int  #: messages of other work queues, or not selected, that stay
    misplaced: int  #: of these, those of work queues that are not parked here: no replay takes them
    unknown_origin: int  #: selected, and do not say where they failed: they stay, unless an origin is asserted
    only: Mapping[bytes, int] | None
    """How many of which digest are selected, so that the replay takes no other; None above `NAMED_AT_MOST` messages."""
    complete: bool
    ended_early: str | None
    notes: tuple[str, ...]

    @property
    def queue(self) -> str:
        """Name the work queues, for people."""
        return ", ".join(self.queues)

    @property
    def parking_queue(self) -> str:
        """Name the parking queues, for people."""
        return ", ".join(self.parking_queues)


def group_of(parked: ParkedMessage) -> Group:
    """Return the group by which people tell parked messages apart."""
    by_broker = parked.reason == ParkReason.BROKER.value
    return parked.reason, (parked.detail if by_broker else parked.error_type) or ""


def is_misplaced(parked: ParkedMessage, compiled: CompiledTopology) -> bool:
    """Tell whether it failed in a work queue that parks elsewhere, or is not in the file: no replay takes it."""
    routes = compiled.routes.get(parked.queue) if parked.queue is not None else None
    return parked.queue is not None and (routes is None or routes.parking_queue != parked.delivery.queue)


def is_allowed(allowed: Counter[bytes] | None, parked: ParkedMessage) -> bool:
    """Take the message from those that were requested one by one; of equal ones, only as many. None: any may be."""
    if allowed is None:
        return True
    digest = parked_digest(parked.delivery, parked.digest)
    allowed[digest] -= 1
    return allowed[digest] >= 0


async def plan_replay(
    broker: Broker,
    compiled: CompiledTopology,
    queue: str | Sequence[str] | None = None,
    *,
    choice: ReplayRequest | None = None,
    options: ReadOptions | None = None,
) -> ReplayPlan:
    """Count what `replay_parked` would take. Everything is requeued. Errors as for `Client.replay`."""
    choice = with_matcher(choice or ReplayRequest(), compiled)
    routes = await routes_of(broker, compiled, queue)
    counted = _Counted(compiled=compiled, choice=choice, everything=queue is None, routes=routes)
    target = ReadTarget(
        broker=broker,
        compiled=compiled,
        queues=tuple(dict.fromkeys(each.parking_queue for each in routes)),
        options=replace(options or ReadOptions(), origin=choice.origin),
    )
    ended: list[str] = []
    notes: list[str] = []
    for parking_queue in target.queues:
        if target.is_stopped or counted.enough():
            break
        async with ParkedMessages(target, parking_queue) as messages:
            async for parked in messages:
                messages.keep(parked)
                counted.count(parked, is_readable=messages.is_readable(parked))
                target.progress(parking_queue, messages.seen, messages.expected)
                if counted.enough():
                    messages.finish()
        notes += [note for note in messages.reader.notes if note not in notes]
        if messages.ended_early:
            ended.append(messages.ended_early)
    if counted.id_prefixes.problem:
        raise UsageError(counted.id_prefixes.problem, hint="write one of them in full")
    counted.finish()
    return ReplayPlan(
        queues=tuple(each.queue for each in routes),
        parking_queues=target.queues,
        selected=counted.groups.total(),
        groups=tuple(counted.groups.most_common()),
        destinations=tuple(counted.destinations.most_common()),
        counters=tuple(counted.counters.most_common()),
        others=counted.others,
        misplaced=counted.misplaced,
        unknown_origin=counted.unknown_origin,
        only=counted.only,
        complete=not ended,
        ended_early=ended[0] if ended else None,
        notes=tuple(notes),
    )


@dataclass(kw_only=True)
class _Counted:
    compiled: CompiledTopology
    choice: ReplayRequest
    everything: bool
    routes: Sequence[QueueRoutes]
    groups: Counter[Group] = field(default_factory=Counter)
    destinations: Counter[str] = field(default_factory=Counter)
    counters: Counter[str] = field(default_factory=Counter)
    only: Counter[bytes] | None = field(default_factory=Counter)
    others: int = 0
    misplaced: int = 0
    unknown_origin: int = 0

    def __post_init__(self) -> None:
        self._here = {(each.queue, each.parking_queue) for each in self.routes}
        self._queues = {each.queue for each in self.routes}
        choice = self.choice
        self.id_prefixes = choice.id_prefixes
        self._sampler: Sampler[tuple[Group, str, bytes, tuple[str, ...]]] | None = (
            Sampler(choice.sample, choice.seed) if choice.sample is not None and choice.only is None else None
        )
        self._allowed = Counter(choice.only) if choice.only is not None else None
        self._named = 0

    def enough(self) -> bool:
        """Tell whether enough are counted, and no further message can make an id prefix ambiguous."""
        return not self.id_prefixes and self._is_full()

    def _is_full(self) -> bool:
        return self.choice.limit is not None and self.groups.total() >= self.choice.limit

    def count(self, parked: ParkedMessage, *, is_readable: bool) -> None:
        if is_readable and self.choice.lacks_origin(parked, everything=self.everything):
            self.unknown_origin += 1
        elif (
            not is_readable
            or not self._is_here(parked)
            or not self.choice.selects(parked)
            or not is_allowed(self._allowed, parked)
        ):
            self.others += 1
            self.misplaced += is_misplaced(parked, self.compiled)
        else:
            self.id_prefixes.add(parked)
            if not self._is_full():
                self._take(parked)

    def _take(self, parked: ParkedMessage) -> None:
        label = self.choice.to.label if self.choice.to else parked.queue or ""
        if self._sampler is not None:
            digest = parked_digest(parked.delivery, parked.digest)
            self._sampler.offer((group_of(parked), label, digest, own_counters(parked)))
            return
        count_group(self.groups, group_of(parked), OTHER_GROUPS)
        self.destinations[label] += 1
        self.counters.update(own_counters(parked))
        if self.only is not None:
            self.only[parked_digest(parked.delivery, parked.digest)] += 1
            self._named += 1
            if self._named > NAMED_AT_MOST:
                self.only = None

    def finish(self) -> None:
        """Count the sample, when one is requested; messages that are not in it stay."""
        if self._sampler is None:
            return
        sample = self._sampler.items
        self.groups = Counter(group for group, _, _, _ in sample)
        self.destinations = Counter(label for _, label, _, _ in sample)
        self.counters = Counter(name for _, _, _, names in sample for name in names)
        self.only = Counter(digest for _, _, digest, _ in sample)
        self.others += self._sampler.offered - len(sample)

    def _is_here(self, parked: ParkedMessage) -> bool:
        if self.choice.to is not None:
            return self.everything or parked.queue in self._queues
        return (parked.queue, parked.delivery.queue) in self._here


async def routes_of(broker: Broker, compiled: CompiledTopology, queue: str | Sequence[str] | None) -> list[QueueRoutes]:
    """Return the routes of a work queue, of several, or (None) of all. Raises as `ready_to_replay`."""
    names = [queue] if isinstance(queue, str) else list(compiled.routes if queue is None else queue)
    return [await ready_to_replay(broker, compiled, each) for each in dict.fromkeys(names)]


async def ready_to_replay(broker: Broker, compiled: CompiledTopology, queue: str) -> QueueRoutes:
    """Return the routes of a work queue to which messages can be replayed.

    Raises:
        UsageError: the file has no such work queue. RefusedError: replaying to it is not supported yet.
        NotAppliedError: the queue or an exchange is missing on the broker.
    """
    routes = compiled.routes.get(queue)
    if routes is None:
        if queue in compiled.parking_queues:
            owners = [name for name, each in compiled.routes.items() if each.parking_queue == queue]
            raise UsageError(
                f"{queue} is a parking queue; `queue` takes the work queue to replay to",
                hint=f"it holds messages of {', '.join(owners)}",
            )
        raise unknown_queue(compiled, queue, tuple(compiled.routes))
    await require_topology(broker.connection, compiled, (queue,))
    return routes
