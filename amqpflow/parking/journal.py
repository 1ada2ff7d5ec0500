"""The journal of a replay: what was about to be sent, and what RabbitMQ confirmed, one JSON value a line.

A line is whole or it is not there: what is cut off at the end was never acted on, since messages are sent only after
their line was written out. Format: docs/reference/journal.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

FORMAT = "amqpflow replay journal"
VERSION = 1

Key = tuple[str, str]  #: the hop id of the copy and a hash of the body; the hash is "" for messages without any id


class JournalUnreadable(ValueError):
    """A file that is no journal, or one of a later version, or damaged in the middle; the text says which."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalHead:
    """The first line: which replay this is."""

    id: str
    at: int  #: when it began, ms since the epoch
    by: str  #: user@host
    topology: str
    vhost: str
    cluster: str  #: the broker's cluster name; empty when it does not say
    parking_queues: tuple[str, ...]
    queue: str | None  #: as asked for; None: all
    selection: Mapping[str, Any] = field(default_factory=dict)  #: as asked for
    options: Mapping[str, Any] = field(default_factory=dict)  #: as asked for
    written_by: str = ""  #: version of amqpflow
    address: str = ""  #: of the broker, as host:port


@dataclass(slots=True, kw_only=True)
class JournalState:
    """What a journal says, as far as it still matters."""

    head: JournalHead
    sent: int = 0  #: intents
    confirmed: int = 0
    left: int = 0  #: certainly not sent
    unacked: set[Key] = field(default_factory=set)  #: confirmed, and perhaps still parked
    in_doubt: dict[int, Key] = field(default_factory=dict)  #: by number: about to be sent, and nothing came of it
    next_number: int = 1
    resumed: list[Mapping[str, Any]] = field(default_factory=list)  #: who and when
    end: Mapping[str, Any] | None = None  #: the summary of the last run that came to an end
    size: int = 0  #: bytes of whole lines; what follows was cut off

    @property
    def is_complete(self) -> bool:
        """Everything that was selected was replayed: nothing is left to go on with."""
        return self.end is not None and bool(self.end.get("complete"))


def head_line(head: JournalHead) -> bytes:
    """The first line of a journal."""
    return _line(
        {
            "format": FORMAT,
            "version": VERSION,
            "id": head.id,
            "at": head.at,
            "by": head.by,
            "topology": head.topology,
            "vhost": head.vhost,
            "cluster": head.cluster,
            "address": head.address,
            "parking_queues": list(head.parking_queues),
            "queue": head.queue,
            "selection": dict(head.selection),
            "options": dict(head.options),
            "written_by": head.written_by,
        }
    )


def intent_line(first: int, keys: Sequence[Key]) -> bytes:
    """These are about to be sent; they are numbered from `first`."""
    return _line({"send": first, "keys": keys})


def confirmed_line(numbers: Iterable[int]) -> bytes:
    """RabbitMQ has these, and they are about to be acked."""
    return _line({"confirmed": _ranges(numbers)})


def left_line(numbers: Iterable[int]) -> bytes:
    """These are certainly not in the destination."""
    return _line({"left": _ranges(numbers)})


def acked_line(number: int) -> bytes:
    """Whatever is confirmed up to this number is out of the parking queue."""
    return _line({"acked": number})


def resumed_line(at: int, by: str) -> bytes:
    """Somebody goes on with it."""
    return _line({"resumed": at, "by": by})


def end_line(summary: Mapping[str, Any]) -> bytes:
    """It came to an end, be it for now."""
    return _line({"end": dict(summary)})


def read_journal(lines: Iterable[bytes]) -> JournalState:
    """
    Read a journal.

    Args:
        lines: with their line ends.

    Raises:
        JournalUnreadable: what is wrong, with the number of the line. A last line that is cut off is none.
    """
    state: JournalState | None = None
    confirmed: dict[int, Key] = {}
    broken = 0
    for number, line in enumerate(lines, 1):
        if broken:
            raise JournalUnreadable(f"line {broken} is damaged")
        value = _value(line)
        if value is None:
            broken = number
            continue
        try:
            if state is None:
                state = JournalState(head=_head(value))
            else:
                _apply(state, confirmed, value)
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, JournalUnreadable):
                raise
            raise JournalUnreadable(f"line {number} is not understood: {type(error).__name__}: {error}") from None
        state.size += len(line)
    if state is None:
        raise JournalUnreadable("it has no first line")
    state.unacked = set(confirmed.values())
    return state


def _head(value: Mapping[str, Any]) -> JournalHead:
    if value.get("format") != FORMAT:
        raise JournalUnreadable("it is no journal of a replay")
    if value.get("version") != VERSION:
        raise JournalUnreadable(f"its version is {value.get('version')!r}; this amqpflow reads version {VERSION}")
    return JournalHead(
        id=str(value["id"]),
        at=int(value["at"]),
        by=str(value["by"]),
        topology=str(value["topology"]),
        vhost=str(value["vhost"]),
        cluster=str(value["cluster"]),
        parking_queues=tuple(map(str, value["parking_queues"])),
        queue=value["queue"],
        selection=value["selection"],
        options=value["options"],
        written_by=str(value["written_by"]),
        address=str(value.get("address", "")),
    )


def _apply(state: JournalState, confirmed: dict[int, Key], value: Mapping[str, Any]) -> None:
    if "send" in value:
        for number, (hop, body) in enumerate(value["keys"], int(value["send"])):
            state.in_doubt[number] = (hop, body)
            state.next_number = max(state.next_number, number + 1)
            state.sent += 1
    elif "confirmed" in value:
        for number in _numbers(value["confirmed"]):
            if (key := state.in_doubt.pop(number, None)) is not None:
                confirmed[number] = key
                state.confirmed += 1
    elif "left" in value:
        for number in _numbers(value["left"]):
            state.left += state.in_doubt.pop(number, None) is not None
    elif "acked" in value:
        for number in [each for each in confirmed if each <= value["acked"]]:
            del confirmed[number]
    elif "resumed" in value:
        state.resumed.append(value)
        state.end = None
    elif "end" in value:
        state.end = value["end"]
    # other lines are of a later version that kept the meaning of these


def _ranges(numbers: Iterable[int]) -> list[list[int]]:
    found: list[list[int]] = []
    for number in sorted(numbers):
        if found and found[-1][1] == number - 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return found


def _numbers(ranges: Iterable[Sequence[int]]) -> Iterable[int]:
    for first, last in ranges:
        yield from range(first, last + 1)


def _line(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


def _value(line: bytes) -> dict[str, Any] | None:
    if not line.endswith(b"\n"):
        return None
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
