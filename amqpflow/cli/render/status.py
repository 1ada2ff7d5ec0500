"""Show a status as a table, and as JSON. Text from the broker goes through safe()."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.style import Style
from rich.text import Text

from amqpflow.cli.safe import safe, said, with_options
from amqpflow.model.diagnostic import Severity
from amqpflow.model.queue_stats import QueueStats
from amqpflow.model.units import format_duration
from amqpflow.picture.measure import shortened
from amqpflow.planning.reports.status import ParkingStatus, Status, TierStatus, WorkStatus, total
from amqpflow.planning.values.findings import Finding

from .parked import age_text
from .values import picked, rfc3339

VERSION = 1

_WIDE = 116  #: columns from which retry queues have a column of their own
_WAITING_WIDTH = 36
_FIRST = "WORK QUEUE"
_HEADINGS = ("READY", "UNACKED", "RETRY", "RETAINED", "PARKED", "CONSUMERS", "IN/s", "OUT/s")
_SHORT_HEADINGS = ("READY", "UNACK", "RETRY", "KEPT", "PARKED", "CONS", "IN/s", "OUT/s")
_DIM, _RED, _YELLOW = Style(dim=True), Style(color="red"), Style(color="yellow")
_BOLD = Style(bold=True)


def status_view(status: Status, width: int, height: int | None = None) -> RenderableType:
    """Return the status for a terminal.

    Args:
        status: what to show.
        width: columns there are; names are shortened in their middle to fit.
        height: lines there are, for a live view; the busiest queues are shown then, and the others counted.
    """
    alerts = [_alert(each) for each in status.alerts]
    if height is not None and len(alerts) > max(3, height // 3):
        shown = max(3, height // 3) - 1
        alerts = [*alerts[:shown], Text(f"! and {len(alerts) - shown} more", style=_YELLOW)]
    queues, room = list(status.queues), None if height is None else max(1, height - len(alerts) * 2 - 9)
    below = 2 if room is not None and width < _WIDE else 1
    if room is not None and len(queues) * below > room:
        queues = sorted(queues, key=lambda work: _rank(status, work))[: max(1, room // below)]
    rest = len(status.queues) - len(queues)
    more = [Text(f"and {rest} quieter queue{'' if rest == 1 else 's'}", style=_DIM)] if rest else []
    title = safe(f"Topology {status.topology} on {status.broker}, virtual host {status.vhost}")
    taken = f"{(rfc3339(status.taken_at) or '')[:19]}Z"
    head = Text(shortened(title, width), style=_BOLD)
    if len(title) + len(taken) + 3 <= width:
        head.append(f"   {taken}", style=_DIM)
    return Group(head, *alerts, Text(), *_table(status, queues, width), *more, Text(), *_foot(status))


def _alert(finding: Finding) -> Text:
    style = _RED if finding.severity is Severity.ERROR else _YELLOW
    return Text.assemble(("! ", style + _BOLD), (said(finding), style))


def _table(status: Status, queues: Sequence[WorkStatus], width: int) -> Iterator[Text]:
    """Yield lines. On a narrow terminal retries have a line of their own, else a column."""
    wide = width >= _WIDE
    headings = _HEADINGS if wide else _SHORT_HEADINGS
    rows = [list(_cells(status, work)) for work in queues]
    widths = [
        max(len(heading), *(len(row[column]) for row in rows)) if rows else len(heading)
        for column, heading in enumerate(headings)
    ]
    room = max(10, width - sum(widths) - 2 * len(widths) - (_WAITING_WIDTH if wide else 0))
    names = [shortened(safe(work.queue), room) for work in queues]
    name_width = max([len(_FIRST), *map(len, names)])
    head = Text(_FIRST.ljust(name_width), style=_DIM)
    for heading, size in zip(headings, widths, strict=True):
        head.append("  " + heading.rjust(size))
    if wide:
        head.append("  WAITING FOR A RETRY")
    yield head
    used = name_width + sum(widths) + 2 * len(widths)
    for work, name, cells in zip(queues, names, rows, strict=True):
        line = Text(name.ljust(name_width))
        for cell, size in zip(cells, widths, strict=True):
            line.append(" " * (2 + size - len(cell)))
            line.append_text(cell)
        waiting = list(_waiting(work))
        if wide and waiting:
            line.append("  " + fitting(waiting, width - used - 2), style=_DIM)
        yield line
        if waiting and not wide:
            yield Text("  " + fitting(waiting, width - 2), style=_DIM)


def fitting(parts: Sequence[str], room: int) -> str:
    """Return as many parts as fit, and how many more there are."""
    for count in range(len(parts), 0, -1):
        text = ", ".join(parts[:count]) + (f" and {len(parts) - count} more" if count < len(parts) else "")
        if len(text) <= room or count == 1:
            return text
    return ""


def _cells(status: Status, work: WorkStatus) -> Iterator[Text]:
    if work.numbers is None:
        yield Text("missing", style=_RED)
        yield from (Text("-", style=_DIM) for _ in range(7))
        return
    numbers, parking = work.numbers, status.parked_of(work)
    yield _count(numbers.ready)
    yield _count(numbers.unacked)
    yield _count(work.waiting)
    yield _count(work.retained, _RED)
    yield _parked(status, parking)
    idle = numbers.consumers == 0 and bool(numbers.ready)
    yield Text("0", style=_YELLOW) if idle else _count(numbers.consumers)
    yield _rate(numbers.publish_rate)
    yield _rate(numbers.deliver_rate)


def _parked(status: Status, parking: ParkingStatus | None) -> Text:
    if parking is None:
        return Text("-", style=_DIM)
    if parking.numbers is None:
        return Text("missing", style=_RED)
    text = _count(parking.numbers.ready, _YELLOW)
    if len(parking.shared_by) > 1:
        text.append("*", style=_DIM)
    if parking.oldest_failed_at is not None:
        text.append(f" {age_text(status.taken_at - parking.oldest_failed_at)}", style=_DIM)
    return text


def _waiting(work: WorkStatus) -> Iterator[str]:
    steps: dict[tuple[int, bool], int] = {}
    for tier in work.tiers:
        if tier.numbers is not None and tier.numbers.ready:
            step = (tier.step_ms, tier.left)
            steps[step] = steps.get(step, 0) + tier.numbers.ready
    for (delay_ms, left), count in steps.items():
        yield f"{format_duration(delay_ms)}: {count:,}{' (left the file)' if left else ''}"
    if work.numbers is not None and work.numbers.delayed:
        due = (rfc3339(work.numbers.next_delayed_at) or "")[11:19]
        yield f"delayed: {work.numbers.delayed:,}{f', next at {due}Z' if due else ''}"


def _count(count: int | None, style: Style | None = None) -> Text:
    if count is None:
        return Text("?", style=_DIM)
    return Text(f"{count:,}", style=_DIM if not count else style or "")


def _rate(rate: float | None) -> Text:
    if rate is None:
        return Text("?", style=_DIM)
    return Text(f"{rate:,.0f}" if rate >= 100 else f"{rate:.1f}", style="" if rate else _DIM)


def _rank(status: Status, work: WorkStatus) -> tuple[int, int]:
    parking = status.parked_of(work)
    parked = (parking.numbers.ready or 0) if parking is not None and parking.numbers is not None else 0
    numbers = work.numbers
    if numbers is None or work.retained:
        return (0, 0)
    busy = (numbers.ready or 0) + (numbers.unacked or 0) + (work.waiting or 0)
    return (1, -busy) if busy else (2, -parked)


def _foot(status: Status) -> Iterator[Text]:
    works = status.queues
    seen = [work for work in works if work.numbers is not None]
    sums = (
        (total(work.numbers.ready for work in works if work.numbers), "ready"),
        (total(work.numbers.unacked for work in works if work.numbers), "unacked"),
        (total(work.waiting for work in seen), "waiting for a retry"),
        (total(each.numbers.ready for each in status.parking if each.numbers), "parked"),
    )
    counted = ", ".join(f"{count:,} {what}" for count, what in sums if seen and count is not None)
    yield Text(f"{len(works)} work queue{'' if len(works) == 1 else 's'}{f': {counted}' if counted else ''}.")
    remarks = []
    if any(len(each.shared_by) > 1 for each in status.parking):
        remarks.append("* is a parking queue that several work queues share.")
    if not status.complete:
        remarks.append(f"? cannot be seen over AMQP alone ({status.source}).")
    elif all(work.numbers.exact for work in works if work.numbers):
        remarks.append("READY and CONSUMERS of now; the other counts are up to 10 s old.")
    else:
        remarks.append("Counts are RabbitMQ's statistics, up to 10 s old.")
    yield Text(safe(" ".join(remarks)), style=_DIM)


def status_object(status: Status) -> dict[str, Any]:
    """Return the status for JSON, see docs/how-to/watch.md. `version` grows if a key changes or goes."""
    return {
        "version": VERSION,
        **picked(status, "topology", "vhost", "broker"),
        "taken_at": rfc3339(status.taken_at),
        **picked(status, "complete", "source"),
        "alerts": [
            {
                "code": each.code,
                "severity": each.severity.value,
                "object": each.object,
                "message": with_options(each.message),
                "hint": with_options(each.hint),
            }
            for each in status.alerts
        ],
        "queues": [
            {
                **picked(work, "queue", "external"),
                **_numbers(work.numbers),
                **picked(work, "waiting", "parking"),
                "retry_queues": [_tier(tier) for tier in work.tiers],
            }
            for work in status.queues
        ],
        "parking": [
            {
                "queue": each.queue,
                "work_queues": list(each.shared_by),
                **_numbers(each.numbers),
                "oldest_parked_at": rfc3339(each.oldest_failed_at),
            }
            for each in status.parking
        ],
    }


def _tier(tier: TierStatus) -> dict[str, Any]:
    return {
        "queue": tier.queue,
        "delay_ms": tier.delay_ms,
        "in_file": not tier.left,
        **_numbers(tier.numbers),
        "due_within_ms": tier.due_within_ms,
    }


def _numbers(numbers: QueueStats | None) -> dict[str, Any]:
    if numbers is None:
        return {"exists": False}
    return {
        "exists": True,
        **picked(numbers, "ready", "exact", "unacked"),
        "messages_dlx": numbers.retained,
        "messages_delayed": numbers.delayed,
        "next_delayed_at": rfc3339(numbers.next_delayed_at),
        **picked(numbers, "consumers", "publish_rate", "deliver_rate"),
        "growth_rate": numbers.growth,
    }
