"""Show parked messages as a table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from amqpflow.cli.safe import safe
from amqpflow.services.parked.listing import ParkedListing, ParkedRow

from .table import table, terminal_width
from .values import rfc3339

_COLUMNS = ("PARKED AT", "WORK QUEUE", "REASON", "ERROR", "ATTEMPTS", "AGE", "SIZE", "ID")
_NARROW = ("AGE", "WORK QUEUE", "REASON", "ERROR", "ATTEMPTS", "ID")
_ROOMY = 130  #: columns of a terminal that all of the table fits into


def listing_lines(
    listing: ParkedListing, rows: Callable[[], Iterable[ParkedRow]], count: int, *, now: int
) -> Iterator[str]:
    """Yield a table, oldest first, and a total. `rows` is called twice; `now` is in ms since the epoch."""
    if count:
        terminal = terminal_width()
        columns = _COLUMNS if terminal is None or terminal >= _ROOMY else _NARROW
        yield from table(lambda: _all_cells(rows(), now, columns), stretched=columns.index("ERROR"))
        yield ""
    yield _sum(listing, count)


def _all_cells(rows: Iterable[ParkedRow], now: int, columns: Sequence[str]) -> Iterator[tuple[str, ...]]:
    yield tuple(columns)
    for row in rows:
        cells = _cells(row, now, whole=len(columns) == len(_COLUMNS))
        yield tuple(safe(cells[column]) for column in columns)


def _cells(row: ParkedRow, now: int, *, whole: bool) -> dict[str, object]:
    told = row.reason in ("broker", "foreign")
    kind = row.error_type if whole or not row.error_type else row.error_type.rpartition(".")[2]
    error = ": ".join(filter(None, (kind, row.error_message)))
    return {
        "PARKED AT": time_text(row.failed_at),
        "WORK QUEUE": row.queue or "unknown",
        "REASON": f"{row.reason}:{row.detail}" if told else row.reason,
        "ERROR": error or ("" if told else row.detail),
        "ATTEMPTS": row.attempts,
        "AGE": age_text(None if row.failed_at is None else now - row.failed_at),
        "SIZE": size_text(row.body_bytes),
        "ID": row.id,
    }


def _sum(listing: ParkedListing, count: int) -> str:
    messages = "1 parked message" if count == 1 else f"{count or 'No'} parked messages"
    ready = sum(each.ready for each in listing.queues)
    queues = ", ".join(safe(each.parking_queue) for each in listing.queues) or "no queue"
    of = f" of {ready}" if count and ready != count else ""
    return f"{messages}{of} in {queues}."


def time_text(milliseconds: int | None) -> str:
    """Write a time to the second, in UTC."""
    text = rfc3339(milliseconds)
    return text[:19] + "Z" if text else "-"


def age_text(milliseconds: int | None) -> str:
    """Write an age in the largest unit that fits: 45s, 12m, 3h, 5d."""
    if milliseconds is None:
        return "-"
    seconds = max(0, milliseconds // 1000)
    for unit, size in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def size_text(size: float) -> str:
    """Write the size of a body: 812 B, 1.5 KiB."""
    if size < 1024:
        return f"{size:.0f} B"
    for unit in ("KiB", "MiB"):
        size /= 1024
        if size < 1024:
            return f"{size:.1f} {unit}"
    return f"{size / 1024:.1f} GiB"
