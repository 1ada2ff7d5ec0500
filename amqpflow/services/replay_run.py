"""What all readings of one replay share: what it is asked for, its journal, its numbers, and its report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b

from amqpflow.model.routes import CompiledTopology
from amqpflow.parking.groups import count_group
from amqpflow.parking.journal import Key, acked_line, confirmed_line, intent_line, left_line
from amqpflow.parking.parked import ParkedMessage
from amqpflow.parking.replay import Destination, ReplayRun, is_anonymous, replayed_hop

from .journal import JournalFile
from .replay_choice import ReplayChoice
from .replay_outbox import Flight
from .replay_plan import OTHER_GROUPS, group_of
from .replay_report import LeftBehind, ReplayReport

REPORTED = 100  #: messages that are named in a report
UNREAD_NAMED = 10  #: messages that are named since they cannot be read


@dataclass(slots=True, kw_only=True)
class Known:
    """What interrupted replays sent of what is parked."""

    confirmed: set[Key] = field(default_factory=set)  #: RabbitMQ has the copy: they are only taken out
    in_doubt: set[Key] = field(default_factory=set)  #: a copy may have been sent
    passed_over: set[Key] = field(default_factory=set)  #: of these, what is parked and not selected

    def pass_over(self, key: Key) -> None:
        """A message is not selected: what is known of it has to be known to a later replay."""
        if key in self.confirmed or key in self.in_doubt:
            self.passed_over.add(key)


@dataclass(kw_only=True)
class Work:
    """One replay."""

    compiled: CompiledTopology
    run: ReplayRun
    choice: ReplayChoice
    report: ReplayReport
    place: tuple[str, str]  #: cluster name (empty when the broker does not say) and virtual host
    address: str  #: of the broker, as host:port
    queues: frozenset[str] | None  #: work queues whose messages are taken; None: all, and those of unknown origin
    destinations: Mapping[str, Destination] = field(default_factory=dict)  #: by work queue, for the present reading
    journal: JournalFile | None = None
    known: Known = field(default_factory=Known)
    next_number: int = 1
    on_step: Callable[[str], None] | None = None
    stopped: bool = False  #: no message after the present ones can be replayed

    def __post_init__(self) -> None:
        self._ordinals: Counter[int] = Counter()
        self._unresolved: dict[int, None] = {}  # numbers, in their order
        self._lines: list[bytes] = []
        self._mark = 0
        self._unread: set[str] = set()

    def step(self, name: str) -> None:
        """Tell a test where we are."""
        if self.on_step is not None:
            self.on_step(name)

    # -- which, and as what

    def destination(self, parked: ParkedMessage) -> Destination | None:
        """Where a message is replayed to; None when no replay of this kind takes it."""
        if self.choice.to is not None:
            return self.choice.to if self.queues is None or parked.queue in self.queues else None
        return self.destinations.get(parked.queue) if parked.queue is not None else None

    def name(self, parked: ParkedMessage) -> tuple[Key, int]:
        """By which a message is known in the journal, and which of those equal to it in everything it is."""
        if not is_anonymous(parked):
            body = blake2b(parked.delivery.body, digest_size=6).hexdigest()
            return (replayed_hop(parked, self.run), body), 0
        ordinal = self._ordinals[_short(parked)]
        return (replayed_hop(parked, self.run, ordinal), ""), ordinal

    def count(self, parked: ParkedMessage) -> None:
        """The message is about to be sent: the next one that is equal to it gets another ordinal."""
        if is_anonymous(parked):
            self._ordinals[_short(parked)] += 1

    def uncount(self, parked: ParkedMessage) -> None:
        """It is not sent after all."""
        if is_anonymous(parked):
            self._ordinals[_short(parked)] -= 1

    # -- the journal

    def number(self) -> int:
        """Of the next message."""
        number, self.next_number = self.next_number, self.next_number + 1
        return number

    def intend(self, flights: list[Flight]) -> None:
        """They are about to be sent."""
        self._unresolved.update((each.number, None) for each in flights)
        self._lines.append(intent_line(flights[0].number, [each.key for each in flights]))

    def confirm(self, flights: Iterable[Flight]) -> None:
        """RabbitMQ has them."""
        self._lines.append(confirmed_line(each.number for each in flights))

    def resolve(self, flights: Iterable[Flight], *, left: bool = False) -> None:
        """They are acked, or certainly not sent."""
        numbers = [each.number for each in flights]
        for number in numbers:
            self._unresolved.pop(number, None)
        if left:
            self._lines.append(left_line(numbers))

    @property
    def resolved_up_to(self) -> int:
        """Every number up to this one is resolved."""
        return next(iter(self._unresolved), self.next_number) - 1

    def prove(self, number: int) -> None:
        """RabbitMQ has taken the acks up to this number."""
        if number > self._mark:
            self._mark = number
            self._lines.append(acked_line(number))

    async def write(self) -> None:
        """Put on disk what was noted. Raises OSError."""
        data, self._lines = b"".join(self._lines), []
        if self.journal is not None and data:
            self.step("journal.before")
            await self.journal.written(data)
            self.step("journal.after")

    # -- the report

    def replayed(self, flights: Iterable[Flight]) -> None:
        """They are in their destination and out of the parking queue."""
        groups, report = self.report.groups, self.report
        for each in flights:
            report.replayed += 1
            count_group(groups, group_of(each.parked), OTHER_GROUPS)

    def leave(self, parked: ParkedMessage, why: str, *, in_doubt: bool = False) -> None:
        """It was to be replayed, and stays parked."""
        if in_doubt:
            self.report.in_doubt += 1
        else:
            self.report.failed += 1
        if len(self.report.left_behind) < REPORTED:
            self.report.left_behind.append(
                LeftBehind(id=parked.id, message_id=parked.message_id, why=why, in_doubt=in_doubt)
            )

    def leave_unread(self, parked: ParkedMessage, why: str) -> None:
        """A copy of it would lack its headers, and which work queue it failed in is not known: it stays parked."""
        self.report.others += 1
        if parked.id in self._unread or len(self._unread) == UNREAD_NAMED:
            return  # it may come by in each of several readings
        self._unread.add(parked.id)
        more = ", and perhaps more" if len(self._unread) == UNREAD_NAMED else ""
        self.report.notes.append(
            f"left behind in {parked.delivery.queue}: {parked.id}, whose headers cannot be read: {why}{more}"
        )

    def halt(self, why: str, hint: str = "") -> None:
        """No message after the present ones can be replayed. The first reason counts."""
        if not self.stopped:
            self.report.stopped, self.report.hint = why, hint
            self.stopped = True


def _short(parked: ParkedMessage) -> int:
    return int.from_bytes(parked.digest[:8], "big")
