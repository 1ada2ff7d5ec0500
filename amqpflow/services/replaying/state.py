"""The state of one replay over all its readings: request, journal, numbers, and report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from amqpflow.model.routes import CompiledTopology
from amqpflow.parking.digest_multiset import DigestMultiset
from amqpflow.parking.groups import count_group
from amqpflow.parking.identity import digest_of_text, parked_digest
from amqpflow.parking.journal import JournalState
from amqpflow.parking.journal_lines import acked_line, acking_line, confirmed_line, intent_line, left_line
from amqpflow.parking.parked import ParkedMessage
from amqpflow.parking.replay import Destination, ReplayContext, is_anonymous

from .interrupted_sends import InterruptedSends
from .journal_file import JournalFile
from .outbox import Address, PendingReplay
from .plan import OTHER_GROUPS, group_of
from .report import NotReplayed, ReplayReport
from .request import ReplayRequest

REPORTED = 100  #: messages that are named in a report
UNREAD_NAMED = 10  #: messages that are named since they cannot be read


@dataclass(kw_only=True)
class ReplayState:
    """The state of one replay."""

    compiled: CompiledTopology
    context: ReplayContext
    choice: ReplayRequest
    report: ReplayReport
    place: tuple[str, str]  #: cluster name (empty when the broker does not say) and virtual host
    address: str  #: of the broker, as host:port
    queues: frozenset[str] | None  #: work queues whose messages are taken; None: all, and those of unknown origin
    destinations: Mapping[str, Destination] = field(default_factory=dict)  #: by work queue, for the present reading
    journal: JournalFile | None = None
    next_number: int = 1
    on_step: Callable[[str], None] | None = None
    stopped: bool = False  #: no message after the present ones can be replayed
    addresses: frozenset[Address] = frozenset()  #: of all destinations
    remaining: dict[str, int | None] = field(default_factory=dict)  #: ready messages after the last reading, by queue
    closed: dict[Address, str] = field(default_factory=dict)  #: those that take no messages now, and why

    def __post_init__(self) -> None:
        self.interrupted = InterruptedSends(self.compiled)
        self.totals: dict[str, Any] = {"sent": 0, "confirmed": 0, "left": 0, "resumed": []}
        """For the journal, of all runs of this replay."""
        self._only = Counter(self.choice.only) if self.choice.only is not None else None
        self._ordinals: Counter[bytes] = Counter()
        self._destinations: dict[tuple[str, str], str] = {}  # their part of a name
        self._unresolved: dict[int, None] = {}  # numbers, in their order
        self._lines: list[bytes] = []
        self._mark = 0
        self._unread: set[str] = set()
        self._left = DigestMultiset()

    def resume(self, state: JournalState) -> None:
        """Continue the numbers and totals of an earlier run of this replay."""
        self.next_number, self._mark = state.next_number, state.next_number - 1
        self.totals = state.totals()

    def step(self, name: str) -> None:
        if self.on_step is not None:
            self.on_step(name)

    def begin_reading(self) -> None:
        """Begin another reading: the parking queue is read from its beginning."""
        self.interrupted.begin_reading()
        self._left.recall()

    # -- which, and as what

    def destination(self, parked: ParkedMessage) -> Destination | None:
        """Return where a message is replayed to; None when this replay does not take it."""
        if self.choice.to is not None:
            return self.choice.to if self.queues is None or parked.queue in self.queues else None
        return self.destinations.get(parked.queue) if parked.queue is not None else None

    def name(self, parked: ParkedMessage) -> str:
        """Return the name of a message in journals: a hash of all of it, its parking queue, and its destination.
        Messages of one name are equal in every byte.
        """
        destination = self.destination(parked)
        assert destination is not None  # noqa: S101 - it was selected
        address = (destination.exchange, destination.routing_key)
        where_to = self._destinations.get(address)
        if where_to is None:
            where_to = self._destinations[address] = digest_of_text(*address, size=8).hex()
        return parked_digest(parked.delivery).hex() + where_to

    def ordinal(self, parked: ParkedMessage) -> int:
        """Return which of those equal to it in everything it is: for the hop id of a message that has no other
        identity. The hop ids of copies that interrupted replays may have sent are used again first.
        """
        if not is_anonymous(parked):
            return 0
        digest = parked_digest(parked.delivery)
        index, (known, unused) = self._ordinals[digest], self.interrupted.ordinals(digest.hex())
        return known[index] if index < len(known) else index - len(known) + unused

    def count(self, parked: ParkedMessage, by: int = 1) -> None:
        self.pass_ordinal(parked, by)
        if self._only is not None:
            self._only[parked_digest(parked.delivery)] -= by

    def uncount(self, parked: ParkedMessage) -> None:
        """Undo `count`: the message is not sent after all."""
        self.count(parked, -1)

    def pass_ordinal(self, parked: ParkedMessage, by: int = 1) -> None:
        """Give the next message that is equal to it another ordinal."""
        if is_anonymous(parked):
            self._ordinals[parked_digest(parked.delivery)] += by

    def allowed(self) -> Counter[bytes] | None:
        """Return how many messages of which digest may still be sent; None: any."""
        return None if self._only is None else self._only.copy()

    # -- the journal

    def number(self) -> int:
        number, self.next_number = self.next_number, self.next_number + 1
        return number

    def intend(self, pendings: list[PendingReplay], again: Iterable[int] = ()) -> None:
        """Note messages that are about to be sent; `again`: their numbers in an earlier run of this replay."""
        self._unresolved.update((each.number, None) for each in pendings)
        self.totals["sent"] += len(pendings)
        self._lines.append(intent_line(pendings[0].number, [each.key for each in pendings], again))

    def confirm(self, pendings: Iterable[PendingReplay]) -> None:
        numbers = [each.number for each in pendings]
        self.totals["confirmed"] += len(numbers)
        self._lines.append(confirmed_line(numbers))

    def acking(self, pendings: Iterable[PendingReplay]) -> None:
        self._lines.append(acking_line(each.number for each in pendings))

    def not_acked(self, pendings: Iterable[PendingReplay]) -> None:
        """Note messages that could not be acked: they are still parked."""
        self._lines.append(confirmed_line(each.number for each in pendings))

    def resolve(self, pendings: Iterable[PendingReplay], *, left: bool = False) -> None:
        """Note messages that are acked, or (`left`) certainly not sent."""
        numbers = [each.number for each in pendings]
        for number in numbers:
            self._unresolved.pop(number, None)
        if left:
            self.totals["left"] += len(numbers)
            self._lines.append(left_line(numbers))

    @property
    def resolved_up_to(self) -> int:
        """Return the number up to which all are resolved."""
        return next(iter(self._unresolved), self.next_number) - 1

    def prove(self, number: int) -> None:
        """Note that RabbitMQ has taken the acks up to this number."""
        if number > self._mark:
            self._lines.append(acked_line(self._mark + 1, number))
            self._mark = number

    async def write(self) -> None:
        """Write what was noted to the disk. Raises OSError: it is not known to be there."""
        data, self._lines = b"".join(self._lines), []
        if self.journal is not None:
            await self.interrupted.write()
            if data:
                self.step("journal.before")
                await self.journal.written(data)
                self.step("journal.after")

    # -- the report

    def replayed(self, pendings: Iterable[PendingReplay]) -> None:
        """Report messages that are in their destination and out of the parking queue."""
        groups, report = self.report.groups, self.report
        for each in pendings:
            report.replayed += 1
            count_group(groups, group_of(each.parked), OTHER_GROUPS)

    def leave(self, parked: ParkedMessage, why: str, *, in_doubt: bool = False) -> None:
        """Report a message that stays parked: later readings pass it over."""
        self._left.add(parked_digest(parked.delivery))
        if in_doubt:
            self.report.in_doubt += 1
        else:
            self.report.failed += 1
        if len(self.report.left_behind) < REPORTED:
            self.report.left_behind.append(
                NotReplayed(id=parked.id, message_id=parked.message_id, why=why, in_doubt=in_doubt)
            )

    def was_left(self, parked: ParkedMessage) -> bool:
        """Tell whether an earlier reading left it. Of equal messages, as many as were left."""
        return bool(self._left) and self._left.take(parked_digest(parked.delivery))

    def leave_unread(self, parked: ParkedMessage, why: str) -> None:
        """Report a message whose headers cannot be read. It stays parked: a copy would lack them."""
        self.report.others += 1
        if parked.id in self._unread or len(self._unread) == UNREAD_NAMED:
            return  # each of several readings may deliver it
        self._unread.add(parked.id)
        more = ", and perhaps more" if len(self._unread) == UNREAD_NAMED else ""
        self.report.notes.append(
            f"left behind in {parked.delivery.queue}: {parked.id}, whose headers cannot be read: {why}{more}"
        )

    def addresses_here(self) -> Iterator[Address]:
        """Yield the destinations of the present reading."""
        for each in self.destinations.values() if self.choice.to is None else (self.choice.to,):
            yield each.exchange, each.routing_key

    def close(self, address: Address, why: str, hint: str) -> None:
        """Send nothing more there in this replay; halt it when no other destination is left."""
        if address in self.closed:
            return
        self.closed[address] = why
        if self.addresses <= self.closed.keys():
            self.halt(why, hint)
        else:
            self.report.notes.append(f"{why}: {hint}" if hint else why)

    def halt(self, why: str, hint: str = "") -> None:
        """Stop after the present messages. The first reason counts."""
        if not self.stopped:
            self.report.stopped, self.report.hint = why, hint
            self.stopped = True
