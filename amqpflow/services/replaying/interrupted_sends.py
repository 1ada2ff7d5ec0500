"""The parked messages that interrupted replays sent, as far as their journals tell.

A message is not sent, and only taken out, when a journal says that its copy was confirmed and that it was not acked:
then it is still parked, or one that is equal to it in every byte. That is believed

* of that parking queue, on that broker, and of a copy to the same exchange with the same routing key: whether another
  way leads to the same queue is not known;
* once: a line in that journal says, on the disk and before the ack, that it was used, so that a further crash at any
  point cannot use it twice;
* of a journal that no other process is writing: it is locked as long as it is believed;
* of messages that a consumer parked. Their failure records hold the time in milliseconds, and they came through the
  parking exchange: nothing that is put there later, by a restore or in a queue of the same name, can equal them.

Whatever else a journal has of a message, a copy of it may have been sent: it is sent again with the same hop id, or
held.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

from amqpflow.model.routes import CompiledTopology
from amqpflow.parking.journal import OLD_VERSION, PARKED_DIGITS, JournalState
from amqpflow.parking.journal_lines import acked_line, acking_line, confirmed_line
from amqpflow.parking.parked import ParkedMessage
from amqpflow.parking.replay import is_anonymous

from .journal_file import JournalFile


@dataclass(slots=True, kw_only=True, eq=False)
class InterruptedReplay:
    state: JournalState
    file: JournalFile | None  #: None: a process is writing it
    is_believed: bool  #: it is of this very broker, and no other process is writing it
    lines: list[bytes] = field(default_factory=list)  #: to be written to it
    used: list[int] = field(default_factory=list)  #: numbers whose messages were taken out on its word
    passed_over: bool = False  #: a message that it knows of is parked, and was not selected


@dataclass(frozen=True, slots=True, kw_only=True)
class InterruptedSend:
    """The entry of a journal for one message."""

    by: InterruptedReplay
    number: int
    hop: str
    is_unacked: bool  #: its copy was confirmed, and it was not acked, so far as that is believed
    is_parked: bool  #: it was certainly not acked when the reading began


class InterruptedSends:
    """The entries of the journals of interrupted replays, for one replay."""

    def __init__(self, compiled: CompiledTopology) -> None:
        self._parking_exchanges = {each.parking_exchange for each in compiled.routes.values()}
        self._all: dict[str, InterruptedReplay] = {}
        # by message and parking queue, then by destination; entries whose messages are still to come in this reading
        self._left: dict[str, dict[str, deque[InterruptedSend]]] = {}
        self._parked: dict[str, list[InterruptedSend]] = {}  # by message and parking queue
        self._old_hops: Counter[str] = Counter()

    def __bool__(self) -> bool:
        return bool(self._left or self._old_hops)

    def __iter__(self) -> Iterator[InterruptedReplay]:
        return iter(tuple(self._all.values()))

    def add(self, interrupted: InterruptedReplay) -> None:
        self._all[interrupted.state.head.id] = interrupted

    def forget(self, replay_id: str) -> None:
        """Drop a replay that is not interrupted, or that was running and has ended."""
        self._all.pop(replay_id, None)

    def begin_reading(self) -> None:
        """Begin another reading: the parking queue is read from its beginning."""
        left: dict[str, dict[str, deque[InterruptedSend]]] = {}
        parked: defaultdict[str, list[InterruptedSend]] = defaultdict(list)
        self._old_hops = Counter()
        for each in self._all.values():
            state = each.state
            if state.head.version == OLD_VERSION:
                self._old_hops.update(hop for hop, _ in state.unsettled())
                continue
            for numbers, is_unacked in (
                (state.unacked, each.is_believed),
                (state.leaving, False),
                (state.in_doubt, False),
            ):
                for number, (hop, name) in numbers.items():
                    sent = InterruptedSend(
                        by=each, number=number, hop=hop, is_unacked=is_unacked, is_parked=numbers is not state.leaving
                    )
                    what, where_to = name[:PARKED_DIGITS], name[PARKED_DIGITS:]
                    alike = left.setdefault(what, {}).setdefault(where_to, deque())
                    (alike.appendleft if is_unacked else alike.append)(sent)
                    parked[what].append(sent)
        self._left, self._parked = left, dict(parked)

    def pass_over(self, parked_where: str) -> None:
        """Leave the entries of a message that is not selected to a later replay."""
        for sent in self._parked.get(parked_where, ()):
            sent.by.passed_over = True

    def take(self, name: str) -> InterruptedSend | None:
        """Take one entry of a message, or None. Each entry can be taken once a reading.

        A copy that went another way is in doubt, however it ended: it may be in the queue that this one is sent to.
        """
        what, where_to = name[:PARKED_DIGITS], name[PARKED_DIGITS:]
        ways = self._left.get(what)
        if not ways:
            return None
        way = where_to if where_to in ways else next(iter(ways))
        sent = ways[way].popleft()
        if not ways[way]:
            del ways[way]
        if not ways:
            del self._left[what]
        return sent if way == where_to else replace(sent, is_unacked=False)

    def was_sent_of_old(self, hop: Callable[[], str]) -> bool:
        """Tell whether a journal of the old version has this hop id, which may be that of another message."""
        return bool(self._old_hops) and hop() in self._old_hops

    def ordinals(self, parked_where: str) -> tuple[list[int], int]:
        """Return the ordinals of copies of messages that have no id and are equal in everything: of those whose
        messages are certainly still parked, and the first that no copy has. A message whose ack may have been taken
        gets a new one: with the old one it would count as the copy of another message.
        """
        known = self._parked.get(parked_where, ())
        parked = {_ordinal(sent.hop) for sent in known if sent.is_parked}
        return sorted(parked), max((_ordinal(sent.hop) + 1 for sent in known), default=0)

    def proves(self, sent: InterruptedSend, parked: ParkedMessage) -> bool:
        """Tell whether an entry proves that this message need not be sent."""
        record = parked.record
        return (
            sent.is_unacked
            and not is_anonymous(parked)
            and record is not None
            and record.failed_at is not None
            and parked.death is None
            and parked.delivery.redelivered  # it was delivered to the replay that sent it
            and parked.delivery.exchange in self._parking_exchanges
        )

    # -- for the journals

    def use(self, sent: Iterable[InterruptedSend]) -> None:
        """Void entries whose messages are about to be acked, or sent again: they are not believed later."""
        for by, numbers in _by_journal(each for each in sent if each.by.file and each.number in each.by.state.unacked):
            for number in numbers:
                by.state.leaving[number] = by.state.unacked.pop(number)
            by.lines.append(acking_line(numbers))

    def acked(self, sent: Iterable[InterruptedSend]) -> None:
        """Note that their messages were acked."""
        for by, numbers in _by_journal(sent):
            by.used += numbers

    def not_acked(self, sent: Iterable[InterruptedSend]) -> None:
        """Note that no ack could be given: their messages are still parked."""
        for by, numbers in _by_journal(sent):
            for number in numbers:
                by.state.unacked[number] = by.state.leaving.pop(number)
            by.lines.append(confirmed_line(numbers))

    def prove(self) -> None:
        """Note that RabbitMQ has taken all acks that were given."""
        for each in self._all.values():
            for number in each.used:
                each.state.leaving.pop(number, None)
                each.lines.append(acked_line(number, number))
            each.used.clear()

    async def write(self) -> None:
        """Put on disk what became of it. Raises OSError."""
        for each in self._all.values():
            if each.lines and each.file is not None:
                data, each.lines = b"".join(each.lines), []
                await each.file.written(data)


def _by_journal(sent: Iterable[InterruptedSend]) -> list[tuple[InterruptedReplay, list[int]]]:
    found: dict[InterruptedReplay, list[int]] = {}
    for each in sent:
        found.setdefault(each.by, []).append(each.number)
    return list(found.items())


def _ordinal(hop: str) -> int:
    digits = hop.split("/", 1)[0].partition("-")[2]
    return int(digits) if digits.isdecimal() else 0
