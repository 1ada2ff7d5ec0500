"""Write parked messages and replays as JSON; docs/how-to/replay.md describes the fields."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator
from typing import Any

from amqpflow.cli.safe import with_options
from amqpflow.parking.parked import ParkedMessage
from amqpflow.services.parked.export import ExportReport
from amqpflow.services.parked.listing import ParkedListing, ParkedRow
from amqpflow.services.parked.restore_report import RestoreReport
from amqpflow.services.parked.scan import QueueReading
from amqpflow.services.replaying.plan import Group, ReplayPlan
from amqpflow.services.replaying.report import ReplayReport

from .values import as_document, as_line, json_value, picked, rfc3339


def listing_pieces(listing: ParkedListing, rows: Iterable[ParkedRow]) -> Iterator[str]:
    """Yield `parked list -o json` piece by piece, for any number of rows."""
    head = {
        "version": 1,
        "topology": listing.topology,
        "complete": listing.complete,
        "queues": [reading_object(each) for each in listing.queues],
        "notes": [with_options(each) for each in listing.notes],
    }
    yield as_document(head).removesuffix("\n}")
    yield ',\n  "messages": ['
    comma = ""
    for row in rows:
        yield f"{comma}\n    {as_line(row_object(row))}"
        comma = ","
    yield "\n  ]\n}\n" if comma else "]\n}\n"


def reading_object(reading: QueueReading) -> dict[str, Any]:
    """Return how a queue was read."""
    return {
        **picked(reading, "parking_queue", "ready", "read", "other_consumers", "complete"),
        "ended_early": reading.ended_early and with_options(reading.ended_early),
        "by_priority": reading.by_priority,
    }


def export_object(report: ExportReport) -> dict[str, Any]:
    """Return `parked export -o json` and `parked discard -o json`."""
    return {
        "version": 1,
        **picked(report, "topology", "file", "selected", "discarded", "complete"),
        "queues": [reading_object(each) for each in report.queues],
        "notes": [with_options(each) for each in report.notes],
    }


def restore_object(report: RestoreReport) -> dict[str, Any]:
    """Return `parked restore -o json`."""
    return {
        "version": 1,
        **picked(report, "file", "messages", "restored"),
        "restored_before": report.before,
        **picked(report, "still_parked", "taken_out", "changed", "failed", "in_doubt"),
        "left_behind": [
            {**picked(each, "number", "message_id"), "why": with_options(each.why), "in_doubt": each.in_doubt}
            for each in report.left_behind
        ],
        **picked(report, "finished", "cut_off", "complete", "interrupted"),
        "stopped": report.stopped and with_options(report.stopped),
        "queues": dict(report.queues),
        "notes": [with_options(each) for each in report.notes],
    }


def row_object(row: ParkedRow) -> dict[str, Any]:
    """Return one message of a list."""
    return {
        **picked(row, "id", "queue", "parking_queue", "parked_by", "reason", "detail", "attempts", "replays"),
        **picked(row, "error_type", "error_message", "error_location", "fingerprint"),
        "first_failed_at": rfc3339(row.first_failed_at),
        "failed_at": rfc3339(row.failed_at),
        **picked(row, "exchange", "routing_key", "message_id", "content_type", "priority", "body_bytes"),
    }


def message_object(parked: ParkedMessage) -> dict[str, Any]:
    """Return one message of `parked show -o json`, in full."""
    record, body = parked.record, parked.delivery.body
    text = _text(body)
    return {
        **picked(parked, "id", "queue"),
        "parking_queue": parked.delivery.queue,
        **picked(parked, "parked_by", "reason", "detail", "attempts", "replays", "hop"),
        **picked(parked, "error_type", "error_message", "error_location", "error_stack", "fingerprint"),
        "first_failed_at": rfc3339(parked.first_failed_at),
        "failed_at": rfc3339(parked.failed_at),
        **picked(parked, "exchange", "routing_key", "message_id"),
        "host": record.host if record else None,
        "version": record.version if record else None,
        "original": json_value(record.original) if record else {},
        "last_replay": _replay_mark(parked),
        "history": [
            {"at": rfc3339(each.at), "tier": each.tier, "error_type": each.error_type or None}
            for each in (record.history if record else ())
        ],
        "properties": json_value(parked.delivery.properties.present()),
        "headers": json_value(parked.delivery.properties.headers or {}),
        "body_bytes": len(body),
        "body": text,
        "body_base64": base64.b64encode(body).decode("ascii") if text is None else None,
    }


def plan_object(plan: ReplayPlan) -> dict[str, Any]:
    """Return `replay --dry-run -o json`."""
    return {
        "version": 1,
        "dry_run": True,
        "queues": list(plan.queues),
        "parking_queues": list(plan.parking_queues),
        "selected": plan.selected,
        "groups": [_group(group, count) for group, count in plan.groups],
        "destinations": [{"to": label, "count": count} for label, count in plan.destinations],
        "counters": [{"name": name, "count": count} for name, count in plan.counters],
        **picked(plan, "others", "misplaced", "unknown_origin", "complete"),
        "ended_early": plan.ended_early and with_options(plan.ended_early),
        "notes": [with_options(each) for each in plan.notes],
    }


def report_object(report: ReplayReport) -> dict[str, Any]:
    """Return `replay -o json`."""
    return {
        "version": 1,
        "topology": report.topology,
        "queues": list(report.queues),
        "parking_queues": list(report.parking_queues),
        **picked(report, "to", "replay_id", "journal", "replayed"),
        "groups": [_group(group, count) for group, count in report.groups.most_common()],
        **picked(report, "already", "sent_again", "failed", "in_doubt"),
        "left_behind": [
            {**picked(each, "id", "message_id"), "why": with_options(each.why), "in_doubt": each.in_doubt}
            for each in report.left_behind
        ],
        **picked(report, "others", "misplaced", "unknown_origin", "came_back", "remaining"),
        **picked(report, "complete", "interrupted", "guarded"),
        "stopped": report.stopped and with_options(report.stopped),
        "hint": with_options(report.hint) or None,
        "notes": [with_options(each) for each in report.notes],
        "seconds": round(report.seconds, 3),
    }


def _group(group: Group, count: int) -> dict[str, Any]:
    reason, what = group
    return {"reason": reason, "error": what or None, "count": count}


def _replay_mark(parked: ParkedMessage) -> dict[str, Any] | None:
    mark = parked.record.replay if parked.record else None
    return {"id": mark.id, "count": mark.count, "at": rfc3339(mark.at)} if mark else None


def _text(body: bytes) -> str | None:
    try:
        return body.decode()
    except UnicodeDecodeError:
        return None
