"""Read the journal of a replay: the messages that were about to be sent, confirmed, and acked, one JSON value a line.

A line that is cut off at the end was never acted on: messages are sent, and acked, only after their line was written.
Format: docs/reference/journal.md.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

FORMAT = "amqpflow replay journal"
VERSION = 2
OLD_VERSION = 1  #: names a message by hop and body alone, which two messages can share: it is shown, and never believed

Key = tuple[str, str]
"""
The hop id of the copy, and the name of the message: hex digits of the message and its queue (`parked_digest`), then
those of the destination. In the old version a hash of the body.
"""

PARKED_DIGITS = 32  #: of a name, those of the message and its queue


class UnreadableJournalError(ValueError):
    """The file is not a journal, or one of a later version, or damaged in the middle; the text says which."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalHead:
    """The first line: which replay this is, and its request."""

    id: str
    at: int  #: when it began, ms since the epoch
    by: str  #: user@host
    topology: str
    vhost: str
    cluster: str  #: the broker's cluster name; empty when it does not say
    parking_queues: tuple[str, ...]
    queues: tuple[str, ...] | None  #: work queues, as asked for; None: all
    selection: Mapping[str, Any] = field(default_factory=dict)  #: as asked for
    options: Mapping[str, Any] = field(default_factory=dict)  #: as asked for
    written_by: str = ""  #: version of amqpflow
    address: str = ""  #: of the broker, as host:port
    version: int = VERSION  #: of the format

    @property
    def queue(self) -> str | None:
        """Name the work queues, for people; None: all."""
        return None if self.queues is None else ", ".join(self.queues)


@dataclass(slots=True, kw_only=True)
class JournalState:
    """What a journal says, as far as it still matters."""

    head: JournalHead
    sent: int = 0  #: intents
    confirmed: int = 0
    left: int = 0  #: certainly not sent
    again: int = 0  #: of those sent, how many had been dealt with before, by an earlier run of this replay
    in_doubt: dict[int, Key] = field(default_factory=dict)  #: by number: about to be sent, with no confirm
    unacked: dict[int, Key] = field(default_factory=dict)
    """Confirmed, and not acked: as many messages of that name are parked that need not be sent."""
    leaving: dict[int, Key] = field(default_factory=dict)  #: confirmed, and perhaps acked: still parked, or not
    only: Counter[str] | None = None  #: `PARKED_DIGITS` of all that it may still take, when it has a list
    next_number: int = 1
    resumed: list[Mapping[str, Any]] = field(default_factory=list)  #: who and when
    end: Mapping[str, Any] | None = None  #: the summary of the last run that came to an end
    size: int = 0  #: bytes of whole lines; what follows was cut off

    @property
    def is_complete(self) -> bool:
        """Tell whether everything that was selected was replayed: nothing is left to resume."""
        return self.end is not None and bool(self.end.get("complete"))

    @property
    def done(self) -> int:
        """Count the messages that were confirmed, acked or not. Each counts once."""
        return self.sent - self.again - self.left - len(self.in_doubt)

    def unsettled(self) -> Iterable[Key]:
        """Yield all that may be parked and in the destination too."""
        for each in (self.in_doubt, self.unacked, self.leaving):
            yield from each.values()

    def totals(self) -> dict[str, Any]:
        """Return what the last line says, so that a finished journal is read by it alone."""
        resumed = [dict(each) for each in self.resumed]
        return {"sent": self.sent, "confirmed": self.confirmed, "left": self.left, "resumed": resumed}


def read_head(line: bytes) -> JournalHead:
    """Read the first line alone. Raises UnreadableJournalError."""
    value = _value(line)
    if value is None:
        raise UnreadableJournalError("it has no first line")
    try:
        return _head(value)
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, UnreadableJournalError):
            raise
        raise UnreadableJournalError(f"line 1 cannot be read: {type(error).__name__}: {error}") from None


def finished(head: JournalHead, last_line: bytes) -> JournalState | None:
    """Return what the journal of a finished replay says, from its first line and its last.

    Returns:
        None when it has to be read whole: the replay is not complete, or the last line does not count.
    """
    if (end := _complete_end(last_line)) is None:
        return None
    counts = {name: end[name] for name in ("sent", "confirmed", "left") if type(end.get(name)) is int}
    resumed = end.get("resumed")
    if len(counts) < 3 or not isinstance(resumed, list):
        return None
    return JournalState(head=head, resumed=resumed, end=end, **counts)


def is_finished(last_line: bytes) -> bool:
    """Tell whether the last line ends a complete replay. Then nothing before it matters to another replay."""
    return _complete_end(last_line) is not None


def _complete_end(last_line: bytes) -> dict[str, Any] | None:
    end = (_value(last_line) or {}).get("end")
    return end if isinstance(end, dict) and end.get("complete") else None


def read_journal(lines: Iterable[bytes]) -> JournalState:
    """Read a journal.

    Args:
        lines: with their line ends.

    Raises:
        UnreadableJournalError: what is wrong, with the number of the line. A last line may be cut off.
    """
    state: JournalState | None = None
    broken = 0
    for number, line in enumerate(lines, 1):
        if broken:
            raise UnreadableJournalError(f"line {broken} is damaged")
        value = _value(line)
        if value is None:
            broken = number
            continue
        try:
            if state is None:
                state = JournalState(head=_head(value))
            else:
                _apply(state, value)
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, UnreadableJournalError):
                raise
            raise UnreadableJournalError(f"line {number} cannot be read: {type(error).__name__}: {error}") from None
        state.size += len(line)
    if state is None:
        raise UnreadableJournalError("it has no first line")
    return state


def _head(value: Mapping[str, Any]) -> JournalHead:
    if value.get("format") != FORMAT:
        raise UnreadableJournalError("it is not a journal of a replay")
    version = value.get("version")
    if version not in (VERSION, OLD_VERSION):
        raise UnreadableJournalError(
            f"its version is {version!r}; this amqpflow reads versions {OLD_VERSION} and {VERSION}"
        )
    if version == OLD_VERSION:
        queues = None if value["queue"] is None else tuple(str(value["queue"]).split(", "))
    else:
        queues = None if value["queues"] is None else tuple(map(str, value["queues"]))
    return JournalHead(
        id=str(value["id"]),
        at=int(value["at"]),
        by=str(value["by"]),
        topology=str(value["topology"]),
        vhost=str(value["vhost"]),
        cluster=str(value["cluster"]),
        parking_queues=tuple(map(str, value["parking_queues"])),
        queues=queues,
        selection=dict(value["selection"]),
        options=dict(value["options"]),
        written_by=str(value["written_by"]),
        address=str(value.get("address", "")),
        version=int(version),
    )


def _apply(state: JournalState, value: Mapping[str, Any]) -> None:
    old = state.head.version == OLD_VERSION  # an ack followed `confirmed`; `acked`: all up to this number are gone
    if "send" in value:
        _intend(state, value)
    elif "confirmed" in value:
        for number in _numbers(value["confirmed"]):
            if (key := state.in_doubt.pop(number, None)) is not None:
                (state.leaving if old else state.unacked)[number] = key
                state.confirmed += 1
            elif not old and (key := state.leaving.pop(number, None)) is not None:
                state.unacked[number] = key  # it could not be acked after all
    elif "left" in value:
        for number in _numbers(value["left"]):
            state.left += state.in_doubt.pop(number, None) is not None
    elif "acking" in value:
        for number in _numbers(value["acking"]):
            if (key := state.unacked.pop(number, None)) is not None:
                state.leaving[number] = key
    elif "acked" in value:
        for first, last in [(0, value["acked"])] if old else value["acked"]:
            for number in [each for each in state.leaving if first <= each <= last]:
                _, name = state.leaving.pop(number)
                if state.only is not None:
                    state.only[name[:PARKED_DIGITS]] -= 1
    elif "only" in value:
        names = str(value["only"])
        state.only = Counter(names[at : at + PARKED_DIGITS] for at in range(0, len(names), PARKED_DIGITS))
    elif "resumed" in value:
        state.resumed.append(value)
        state.end = None
    elif "end" in value:
        state.end = dict(value["end"])
    # other lines are of a later version that kept the meaning of these


def _intend(state: JournalState, value: Mapping[str, Any]) -> None:
    for number in _numbers(value.get("again", ())):
        state.unacked.pop(number, None)
        state.leaving.pop(number, None)
        state.again += 1
    for number, (hop, name) in enumerate(value["keys"], int(value["send"])):
        state.in_doubt[number] = (str(hop), str(name))
        state.next_number = max(state.next_number, number + 1)
        state.sent += 1


def _numbers(ranges: Iterable[Sequence[int]]) -> Iterable[int]:
    for first, last in ranges:
        yield from range(first, last + 1)


def _value(line: bytes) -> dict[str, Any] | None:
    if not line.endswith(b"\n"):
        return None
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
