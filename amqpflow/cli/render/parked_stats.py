"""Show counts of parked messages, as a table and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from amqpflow.cli.safe import safe, with_options
from amqpflow.services.parked.stats import ParkedStats

from .parked import size_text, time_text
from .parked_json import reading_object
from .table import table
from .values import picked, rfc3339


def stats_lines(stats: ParkedStats) -> Iterator[str]:
    """Yield a table, most messages first, and a total."""
    if stats.groups:
        columns = ("COUNT", *(each.upper() for each in stats.by), "FIRST", "LAST", "SAMPLE", "ERROR OF THE SAMPLE")
        rows = [
            (
                str(group.count),
                *("-" if value is None else safe(value) for value in group.key),
                time_text(group.first_at),
                time_text(group.last_at),
                safe(group.sample),
                safe(group.error or ""),
            )
            for group in stats.groups
        ]
        yield from table(lambda: (columns, *rows), stretched=len(columns) - 1)
        yield ""
    messages = "1 parked message" if stats.selected == 1 else f"{stats.selected or 'No'} parked messages"
    queues = ", ".join(safe(each.parking_queue) for each in stats.queues) or "no queue"
    yield f"{messages}, {size_text(stats.bytes)}, in {queues}."


def stats_object(stats: ParkedStats) -> dict[str, Any]:
    """Return `parked stats -o json`."""
    return {
        "version": 1,
        "topology": stats.topology,
        "by": list(stats.by),
        "selected": stats.selected,
        "body_bytes": stats.bytes,
        "complete": stats.complete,
        "queues": [reading_object(each) for each in stats.queues],
        "notes": [with_options(each) for each in stats.notes],
        "groups": [
            {
                "key": dict(zip(stats.by, group.key, strict=True)),
                "count": group.count,
                "body_bytes": group.bytes,
                "first_at": rfc3339(group.first_at),
                "last_at": rfc3339(group.last_at),
                **picked(group, "sample", "error"),
            }
            for group in stats.groups
        ],
    }
