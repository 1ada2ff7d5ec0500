"""Write parked messages and replays as JSON; docs/how-to/replay.md describes the fields."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator
from dataclasses import fields
from typing import Any

from amqpflow.cli.option_names import with_options
from amqpflow.model.properties import Properties
from amqpflow.parking.parked import ParkedMessage
from amqpflow.services.parked.export import ExportReport
from amqpflow.services.parked.listing import ParkedListing, ParkedRow
from amqpflow.services.parked.restore_report import RestoreReport
from amqpflow.services.parked.scan import QueueReading
from amqpflow.services.replaying.plan import Group, ReplayPlan
from amqpflow.services.replaying.report import ReplayReport

from .values import as_document, as_line, json_value, rfc3339


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
        "parking_queue": reading.parking_queue,
        "ready": reading.ready,
        "read": reading.read,
        "other_consumers": reading.other_consumers,
        "complete": reading.complete,
        "ended_early": reading.ended_early and with_options(reading.ended_early),
        "by_priority": reading.by_priority,
    }


def export_object(report: ExportReport) -> dict[str, Any]:
    """Return `parked export -o json` and `parked discard -o json`."""
    return {
        "version": 1,
        "topology": report.topology,
        "file": report.file,
        "selected": report.selected,
        "discarded": report.discarded,
        "complete": report.complete,
        "queues": [reading_object(each) for each in report.queues],
        "notes": [with_options(each) for each in report.notes],
    }


def restore_object(report: RestoreReport) -> dict[str, Any]:
    """Return `parked restore -o json`."""
    return {
        "version": 1,
        "file": report.file,
        "messages": report.messages,
        "restored": report.restored,
        "restored_before": report.before,
        "still_parked": report.still_parked,
        "taken_out": report.taken_out,
        "changed": report.changed,
        "failed": report.failed,
        "in_doubt": report.in_doubt,
        "left_behind": [
            {
                "number": each.number,
                "message_id": each.message_id,
                "why": with_options(each.why),
                "in_doubt": each.in_doubt,
            }
            for each in report.left_behind
        ],
        "finished": report.finished,
        "cut_off": report.cut_off,
        "complete": report.complete,
        "interrupted": report.interrupted,
        "stopped": report.stopped and with_options(report.stopped),
        "queues": dict(report.queues),
        "notes": [with_options(each) for each in report.notes],
    }


def row_object(row: ParkedRow) -> dict[str, Any]:
    """Return one message of a list."""
    return {
        "id": row.id,
        "queue": row.queue,
        "parking_queue": row.parking_queue,
        "parked_by": row.parked_by,
        "reason": row.reason,
        "detail": row.detail,
        "attempts": row.attempts,
        "replays": row.replays,
        "error_type": row.error_type,
        "error_message": row.error_message,
        "error_location": row.error_location,
        "fingerprint": row.fingerprint,
        "first_failed_at": rfc3339(row.first_failed_at),
        "failed_at": rfc3339(row.failed_at),
        "exchange": row.exchange,
        "routing_key": row.routing_key,
        "message_id": row.message_id,
        "content_type": row.content_type,
        "priority": row.priority,
        "body_bytes": row.body_bytes,
    }


def message_object(parked: ParkedMessage) -> dict[str, Any]:
    """Return one message of `parked show -o json`, in full."""
    record, body = parked.record, parked.delivery.body
    text = _text(body)
    return {
        "id": parked.id,
        "queue": parked.queue,
        "parking_queue": parked.delivery.queue,
        "parked_by": parked.parked_by,
        "reason": parked.reason,
        "detail": parked.detail,
        "attempts": parked.attempts,
        "replays": parked.replays,
        "hop": parked.hop,
        "error_type": parked.error_type,
        "error_message": parked.error_message,
        "error_location": parked.error_location,
        "error_stack": parked.error_stack,
        "fingerprint": parked.fingerprint,
        "first_failed_at": rfc3339(parked.first_failed_at),
        "failed_at": rfc3339(parked.failed_at),
        "exchange": parked.exchange,
        "routing_key": parked.routing_key,
        "message_id": parked.message_id,
        "host": record.host if record else None,
        "version": record.version if record else None,
        "original": json_value(record.original) if record else {},
        "last_replay": _replay_mark(parked),
        "history": [
            {"at": rfc3339(each.at), "tier": each.tier, "error_type": each.error_type or None}
            for each in (record.history if record else ())
        ],
        "properties": _properties(parked.delivery.properties),
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
        "others": plan.others,
        "misplaced": plan.misplaced,
        "unknown_origin": plan.unknown_origin,
        "complete": plan.complete,
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
        "to": report.to,
        "replay_id": report.replay_id,
        "journal": report.journal,
        "replayed": report.replayed,
        "groups": [_group(group, count) for group, count in report.groups.most_common()],
        "already": report.already,
        "sent_again": report.sent_again,
        "failed": report.failed,
        "in_doubt": report.in_doubt,
        "left_behind": [
            {"id": each.id, "message_id": each.message_id, "why": with_options(each.why), "in_doubt": each.in_doubt}
            for each in report.left_behind
        ],
        "others": report.others,
        "misplaced": report.misplaced,
        "unknown_origin": report.unknown_origin,
        "came_back": report.came_back,
        "remaining": report.remaining,
        "complete": report.complete,
        "interrupted": report.interrupted,
        "guarded": report.guarded,
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


def _properties(properties: Properties) -> dict[str, Any]:
    """Return the properties that are set."""
    named = {each.name: getattr(properties, each.name) for each in fields(properties) if each.name != "headers"}
    return {name: json_value(value) for name, value in named.items() if value is not None}


def _text(body: bytes) -> str | None:
    try:
        return body.decode()
    except UnicodeDecodeError:
        return None
