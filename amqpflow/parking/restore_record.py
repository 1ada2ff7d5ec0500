"""The record of a restore, `FILE.restored`: which messages were restored where, one JSON value a line.

Before messages are published, the record says so; when RabbitMQ confirmed or refused them, it says that. A
message that was published and has neither is in doubt: an equal one may be parked because of it.

A line names broker, virtual host and queue: a message that was restored into one place is missing in every other.
Messages are named by their `check` and counted, never by their number: an edited export has other numbers.
Format: docs/reference/export.md.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from .digest_multiset import DigestMultiset

FORMAT = "amqpflow.restore"
VERSION = 3
_READABLE = (2, 3)
_DIGITS = 16  #: of a check; `DigestMultiset` looks at no more


class UnreadableRecordError(ValueError):
    """The file is not a record of this export, or is damaged; the text says which."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RestorePlace:
    """Where messages are put back, but for the queue."""

    cluster: str  #: the broker's cluster name, which two clusters can share; empty when it has none
    addresses: tuple[str, ...]  #: host:port of the nodes in the URL
    vhost: str

    def is_same(self, other: RestorePlace) -> bool:
        """Tell whether the other one is surely this broker and virtual host."""
        return self.may_be_same(other) and bool(set(self.addresses) & set(other.addresses))

    def may_be_same(self, other: RestorePlace) -> bool:
        """Tell whether the other one has this virtual host in a cluster of this name, perhaps under another address."""
        return (self.cluster, self.vhost) == (other.cluster, other.vhost)


@dataclass(slots=True, kw_only=True)
class Restored:
    """What a record says of one place."""

    #: queue -> checks of messages that were confirmed there
    queues: dict[str, DigestMultiset] = field(default_factory=dict)
    #: queue -> checks of messages that may have been restored there
    doubtful: dict[str, DigestMultiset] = field(default_factory=dict)
    forgotten: bool = False  #: a line was voided: parked messages may be those that were restored before that
    elsewhere: dict[str, int] = field(default_factory=dict)
    """Addresses of a cluster of the same name -> messages put back there, or in doubt: the same broker, or not."""

    def take(self, queue: str, check: str) -> bool:
        """Take this message if it was restored into the queue. Each of several equal messages can be taken once."""
        return queue in self.queues and self.queues[queue].take(bytes.fromhex(check))

    def may_be_there(self, queue: str, check: str) -> bool:
        """Take this message if a restore may have put it into the queue without a record. Each can be taken once."""
        return self.forgotten or (queue in self.doubtful and self.doubtful[queue].take(bytes.fromhex(check)))


def head_line(export_id: str) -> bytes:
    """Write the first line of a record."""
    return _line({"format": FORMAT, "version": VERSION, "export": export_id})


def restored_line(place: RestorePlace, queue: str, checks: Sequence[str]) -> bytes:
    """Say that RabbitMQ confirmed these in this queue."""
    return _line({**_place(place), "queue": queue, "restored": [each[:_DIGITS] for each in checks]})


def publishing_line(place: RestorePlace, queue: str, checks: Sequence[str]) -> bytes:
    """Say that these are about to be published to this queue."""
    return _line({**_place(place), "queue": queue, "publishing": [each[:_DIGITS] for each in checks]})


def unpublished_line(place: RestorePlace, queue: str, checks: Sequence[str]) -> bytes:
    """Say that these were not published after all, or refused."""
    return _line({**_place(place), "queue": queue, "unpublished": [each[:_DIGITS] for each in checks]})


def forgotten_line(place: RestorePlace) -> bytes:
    """Void all lines above about this place, under whichever address."""
    return _line({**_place(place), "forgotten": True})


def read_restored(lines: Iterable[bytes], export_id: str, place: RestorePlace) -> Restored:
    """Return what a record says of one place.

    Raises:
        UnreadableRecordError: it belongs to another export, or was written by an earlier version, or is damaged.
    """
    found, settled, unsettled = Restored(), list[tuple[str, bytes]](), Counter[str]()
    for number, line in enumerate(lines, 1):
        try:
            value = json.loads(line)
        except ValueError:
            raise UnreadableRecordError(f"line {number} is damaged") from None
        if number == 1:
            _require(value, export_id)
            continue
        try:
            there = RestorePlace(cluster=value["cluster"], addresses=tuple(value["addresses"]), vhost=value["vhost"])
            if not there.may_be_same(place):
                continue
            if "forgotten" in value:
                found, settled, unsettled = Restored(forgotten=True), [], Counter()
                continue
            kind = next(each for each in ("restored", "publishing", "unpublished") if each in value)
            checks, queue = [bytes.fromhex(each) for each in value[kind]], str(value["queue"])
            if not there.is_same(place):
                label = ", ".join(there.addresses)
                unsettled[label] += len(checks) if kind == "publishing" else -len(checks)
                if kind == "restored":
                    found.elsewhere[label] = found.elsewhere.get(label, 0) + len(checks)
                continue
        except (KeyError, TypeError, ValueError, StopIteration):
            raise UnreadableRecordError(f"line {number} is damaged") from None
        if kind != "unpublished":
            known = (found.queues if kind == "restored" else found.doubtful).setdefault(queue, DigestMultiset())
            for check in checks:
                known.add(check)
        if kind != "publishing":
            settled += ((queue, check) for check in checks)
    for known in (*found.queues.values(), *found.doubtful.values()):
        known.recall()
    for label, count in unsettled.items():
        if count > 0:
            found.elsewhere[label] = found.elsewhere.get(label, 0) + count
    for queue, check in settled:
        if queue in found.doubtful:
            found.doubtful[queue].take(check)
    return found


def _require(head: Any, export_id: str) -> None:
    if not isinstance(head, dict) or head.get("format") != FORMAT:
        raise UnreadableRecordError("it is not a record of a restore")
    if head.get("version") == 1:
        raise UnreadableRecordError("an earlier amqpflow wrote it, which did not say into which broker it restored")
    if head.get("version") not in _READABLE:
        raise UnreadableRecordError(f"it has version {head.get('version')!r}, and this amqpflow reads 2 to {VERSION}")
    if head.get("export") != export_id:
        raise UnreadableRecordError("it belongs to another export")


def _place(place: RestorePlace) -> dict[str, Any]:
    return {"cluster": place.cluster, "addresses": list(place.addresses), "vhost": place.vhost}


def _line(value: Any) -> bytes:
    return json.dumps(value).encode("ascii") + b"\n"
