"""Parked messages for people: a table, or all of one message. What came from elsewhere goes through safe()."""

from __future__ import annotations

import shutil
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import fields

from amqpflow.cli.safe import safe
from amqpflow.model.headers import PREFIX
from amqpflow.parking.parked import ParkedMessage
from amqpflow.services.parking import ParkedListing, ParkedRow

from .body import body_lines
from .values import compact, rfc3339

_COLUMNS = ("ID", "WORK QUEUE", "REASON", "ATTEMPTS", "PARKED AT", "ROUTING KEY", "ERROR")
_WIDEST = 40  #: of a column but the last


def listing_lines(listing: ParkedListing) -> Iterator[str]:
    """A table, oldest first, and a sum below it."""
    rows = [_cells(row) for row in listing.messages]
    if rows:
        yield from _table((_COLUMNS, *rows), _terminal_width())
        yield ""
    yield _sum(listing)


def message_lines(parked: ParkedMessage) -> Iterator[str]:
    """Everything about one message."""
    yield f"Parked message {parked.id}"
    yield from _facts(parked)
    record = parked.record
    if record and record.history:
        yield from ("", "History, oldest first:")
        for each in record.history:
            what = f"  {safe(each.error_type)}" if each.error_type else ""
            yield f"  {_time(each.at):<24}  to {safe(each.tier) or 'nowhere that is known'}{what}"
    if record and record.error_stack:
        yield from ("", "Stack:")
        yield from (f"  {line}" for line in safe(record.error_stack, multiline=True).split("\n"))
    properties = parked.delivery.properties
    named = [(each.name, getattr(properties, each.name)) for each in fields(properties) if each.name != "headers"]
    if found := [(name, value) for name, value in named if value is not None]:
        yield from ("", "Properties:")
        yield from (f"  {name}: {safe(compact(value))}" for name, value in found)
    headers = properties.headers or {}
    for title, ours in (("Headers:", False), ("Headers of amqpflow:", True)):
        if some := {name: value for name, value in headers.items() if name.startswith(PREFIX) is ours}:
            yield from ("", title)
            yield from (f"  {safe(name)}: {safe(compact(value))}" for name, value in some.items())
    first, *rest = body_lines(parked.delivery.body, properties.content_type, properties.content_encoding)
    yield from ("", f"Body: {first}")
    yield from (f"  {line}" for line in rest)


def _facts(parked: ParkedMessage) -> Iterator[str]:
    record = parked.record
    last = "  (before RabbitMQ parked it)" if parked.death and record else ""
    published = None
    if parked.routing_key is not None:
        published = f"exchange {parked.exchange or '(default)'}, routing key {parked.routing_key or '(empty)'}"
    replay = record.replay if record else None
    facts = (
        ("parked in", parked.delivery.queue),
        ("work queue", parked.queue or "unknown"),
        ("reason", f"{parked.reason}: {parked.detail}" if parked.detail else parked.reason),
        ("first published", published),
        ("attempts", str(parked.attempts) + last),
        ("first failed at", _time(parked.first_failed_at)),
        ("parked at", _time(parked.failed_at)),
        ("error", f"{parked.error_type}{last}" if parked.error_type else None),
        ("message", parked.error_message),
        ("fingerprint", record.fingerprint if record else None),
        ("replayed", f"{replay.count} times, last by {replay.id} at {_time(replay.at)}" if replay else None),
        ("hop", parked.hop),
        ("parked by", f"{record.host or '?'}, amqpflow {record.version or '?'}" if record else None),
    )
    for name, value in facts:
        if value:
            yield f"  {name:<16} {safe(value)}"


def _cells(row: ParkedRow) -> tuple[str, ...]:
    broker = row.reason == "broker"
    error = ": ".join(filter(None, (row.error_type, row.error_message)))
    return tuple(
        map(
            safe,
            (
                row.id,
                row.queue or "unknown",
                f"{row.reason}: {row.detail}" if broker else row.reason,
                row.attempts,
                _time(row.failed_at),
                row.routing_key if row.routing_key is not None else "",
                error or ("" if broker else row.detail),
            ),
        )
    )


def _table(rows: Sequence[Sequence[str]], width: int | None) -> Iterator[str]:
    *columns, _ = zip(*rows, strict=True)
    widths = [min(_WIDEST, max(map(_width, column))) for column in columns]
    left = None if width is None else max(20, width - sum(widths) - 2 * len(widths))
    for *cells, last in rows:
        parts = [
            _cut(cell, wide) + " " * (wide - _width(_cut(cell, wide))) for cell, wide in zip(cells, widths, strict=True)
        ]
        yield "  ".join((*parts, last if left is None else _cut(last, left))).rstrip()


def _sum(listing: ParkedListing) -> str:
    count = len(listing.messages)
    messages = "1 parked message" if count == 1 else f"{count or 'No'} parked messages"
    ready = sum(each.ready for each in listing.queues)
    queues = ", ".join(safe(each.parking_queue) for each in listing.queues) or "no queue"
    of = f" of {ready}" if count and ready != count else ""
    return f"{messages}{of} in {queues}."


def _time(milliseconds: int | None) -> str:
    text = rfc3339(milliseconds)
    return text[:19] + "Z" if text else "-"


def _terminal_width() -> int | None:
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def _width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(each) in "WF" else 1 for each in text)


def _cut(text: str, width: int) -> str:
    if _width(text) <= width:
        return text
    while _width(text) > width - 1:
        text = text[:-1]
    return text + "…"
