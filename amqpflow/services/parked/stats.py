"""Count parked messages by what they have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from amqpflow.errors import UsageError
from amqpflow.parking.groups import GROUPS_AT_MOST, OTHERS
from amqpflow.parking.parked import ParkedMessage
from amqpflow.parking.selection import Selection, parked_at
from amqpflow.services.reading.target import ReadTarget

from .scan import Readings, scan

_KEY_LENGTH = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class ParkedGroup:
    """Messages with the same values of `ParkedStats.by`."""

    key: tuple[str | None, ...]  #: one value for each of `ParkedStats.by`; None where a message has none
    count: int
    bytes: int  #: of bodies
    first_at: int | None  #: when the first was parked, ms since the epoch
    last_at: int | None
    sample: str  #: the id of the oldest
    error: str | None  #: of that one: type and message


@dataclass(frozen=True, slots=True, kw_only=True)
class ParkedStats(Readings):
    """The numbers of parked messages, by group."""

    topology: str
    by: tuple[str, ...]
    selected: int
    bytes: int
    groups: tuple[ParkedGroup, ...]  #: most messages first


@dataclass(frozen=True, slots=True)
class _Item:
    key: tuple[str | None, ...]
    sample: str
    error: str | None
    size: int
    at: int | None


@dataclass(slots=True)
class _Group:
    sample: str
    error: str | None
    count: int = 0
    bytes: int = 0
    first_at: int | None = None
    last_at: int | None = None

    def add(self, item: _Item) -> None:
        self.count += 1
        self.bytes += item.size
        if (at := item.at) is not None:
            if self.first_at is None or at < self.first_at:  # priorities are delivered before what is older
                self.sample, self.error = item.sample, item.error
            self.first_at = at if self.first_at is None else min(self.first_at, at)
            self.last_at = at if self.last_at is None else max(self.last_at, at)


def _hour(parked: ParkedMessage) -> str | None:
    at = parked_at(parked)
    try:
        return None if at is None else datetime.fromtimestamp(at / 1000, UTC).strftime("%Y-%m-%dT%H:00Z")
    except (ValueError, OverflowError, OSError):
        return None


def _reason(parked: ParkedMessage) -> str:
    return f"{parked.reason}:{parked.detail}" if parked.death or parked.dialect else parked.reason


DIMENSIONS: Mapping[str, Callable[[ParkedMessage], str | None]] = {
    "queue": lambda parked: parked.queue,
    "parking-queue": lambda parked: parked.delivery.queue,
    "reason": _reason,
    "error-type": lambda parked: parked.error_type,
    "fingerprint": lambda parked: parked.fingerprint,
    "routing-key": lambda parked: parked.routing_key,
    "parked-by": lambda parked: parked.parked_by,
    "hour": _hour,
}


async def count_parked(target: ReadTarget, selection: Selection, *, by: Sequence[str]) -> ParkedStats:
    """Count messages by names of DIMENSIONS, and requeue everything. Raises UsageError: `by` names none; as `scan`."""
    if unknown := [each for each in by if each not in DIMENSIONS]:
        raise UsageError(f"cannot group by {', '.join(unknown)}", hint=f"there are {', '.join(DIMENSIONS)}")
    dimensions = [DIMENSIONS[each] for each in by]
    groups: dict[tuple[str | None, ...], _Group] = {}

    def make(parked: ParkedMessage) -> _Item:
        values = (dimension(parked) for dimension in dimensions)
        key = tuple(value if value is None else value[:_KEY_LENGTH] for value in values)
        error = ": ".join(filter(None, (parked.error_type, parked.error_message)))[:_KEY_LENGTH]
        return _Item(key, parked.id, error or None, len(parked.delivery.body), parked_at(parked))

    def emit(item: _Item) -> None:
        key = item.key
        if key not in groups and len(groups) >= GROUPS_AT_MOST:
            key = (OTHERS,) * len(dimensions)
        if (group := groups.get(key)) is None:
            group = groups[key] = _Group(item.sample, item.error)
        group.add(item)

    done = await scan(target, selection, make=make, emit=emit)
    ordered = sorted(groups.items(), key=lambda each: -each[1].count)
    return ParkedStats(
        topology=target.compiled.name,
        by=tuple(by),
        selected=done.selected,
        bytes=sum(group.bytes for _, group in ordered),
        groups=tuple(
            ParkedGroup(
                key=key,
                count=group.count,
                bytes=group.bytes,
                first_at=group.first_at,
                last_at=group.last_at,
                sample=group.sample,
                error=group.error,
            )
            for key, group in ordered
        ),
        queues=done.queues,
        notes=done.notes,
    )
