"""Show one parked message in full. Foreign text goes through safe()."""

from __future__ import annotations

from collections.abc import Iterator

from amqpflow.cli.safe import safe
from amqpflow.model.headers import PREFIX
from amqpflow.parking.parked import ParkedMessage

from .body import body_lines
from .parked import time_text
from .values import compact


def message_lines(parked: ParkedMessage) -> Iterator[str]:
    """Yield all lines about one message."""
    yield f"Parked message {parked.id}"
    yield from _facts(parked)
    record = parked.record
    if record and record.history:
        yield from ("", "History, oldest first:")
        for each in record.history:
            what = f"  {safe(each.error_type)}" if each.error_type else ""
            yield f"  {time_text(each.at):<24}  to {safe(each.tier) or 'an unknown queue'}{what}"
    if parked.error_stack:
        yield from ("", "Stack:")
        yield from (f"  {line}" for line in safe(parked.error_stack, multiline=True).splitlines())
    properties = parked.delivery.properties
    if found := properties.present():
        yield from ("", "Properties:")
        yield from (f"  {name}: {safe(compact(value))}" for name, value in found.items())
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
        ("first failed at", time_text(parked.first_failed_at)),
        ("parked at", time_text(parked.failed_at)),
        ("error", f"{parked.error_type}{last}" if parked.error_type else None),
        ("message", parked.error_message),
        ("raised at", parked.error_location),
        ("fingerprint", record.fingerprint if record else None),
        ("replayed", f"{replay.count} times, last by {replay.id} at {time_text(replay.at)}" if replay else None),
        ("hop", parked.hop),
        ("parked by", _parker(parked)),
    )
    for name, value in facts:
        if value:
            yield f"  {name:<16} {safe(value)}"


def _parker(parked: ParkedMessage) -> str | None:
    record = parked.record
    if record is None or parked.death:
        return parked.parked_by
    return f"{record.host or '?'}, amqpflow {record.version or '?'}"
