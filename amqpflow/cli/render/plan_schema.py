"""The JSON Schema of `plan -o json` and `apply -o json`. Within one format keys are only added, so it allows any."""

from __future__ import annotations

from typing import Any

from .plan_json import VERSION

_TEXT = {"type": "string"}
_NAMES = {"type": "array", "items": _TEXT}
_COUNT = {"type": "integer", "minimum": 0}


def plan_schema() -> dict[str, Any]:
    """Return the schema as JSON values, draft 2020-12."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "amqpflow plan",
        "description": "What amqpflow plan and amqpflow apply print with -o json.",
        **record(
            {
                "version": {"const": VERSION, "description": "Within one version, keys are only added."},
                **dict.fromkeys(("topology", "file", "broker", "vhost"), _TEXT),
                "complete": {
                    "type": "boolean",
                    "description": "False: seen over AMQP alone, without bindings, policies and owners.",
                },
                "source": _TEXT,
                "summary": {
                    "type": "object",
                    "description": "How many of each action, and unchanged.",
                    "required": ["create", "update", "delete", "replace", "migrate", "ensure", "unchanged"],
                    "additionalProperties": _COUNT,
                },
                "changes": _list("change", "In the order in which they are carried out."),
                "replacements": _list("told", "What cannot be changed in place; apply refuses it."),
                "unchanged": {"type": "array", "items": record({"kind": _TEXT, "name": _TEXT})},
                "purpose": {
                    "type": "string",
                    "description": "What the plan is for: apply, prune, destroy, adopt, disown.",
                },
                "required": {
                    **_NAMES,
                    "description": "What has to be allowed: replace, delete, delete:binding NAME.",
                },
                "used": {
                    "type": "array",
                    "items": record({"exchange": _TEXT, "owner": {"type": ["string", "null"]}}),
                    "description": "Exchanges that another program created, used unchanged.",
                },
                "bindings": {
                    "type": "array",
                    "items": record({"name": _TEXT, "origin": {"enum": ["ours", "foreign", "unproven"]}}),
                    "description": "Bindings of the file that exist. Ours: made by apply or adopted; foreign: it was "
                    "there before and is never removed; unproven: it may be either.",
                },
                "refusals": _list("finding", "Why apply does nothing at all; empty when it may start."),
                "warnings": _list("finding", ""),
                "notes": _NAMES,
                "guarantees": {
                    "type": "array",
                    "items": record(
                        {"queue": _TEXT, "name": _TEXT, "holds": {"type": ["boolean", "null"]}, "why": _TEXT}
                    ),
                    "description": "What holds on each existing queue; null: it cannot be told.",
                },
            },
            {"result": {"$ref": "#/$defs/result"}},
        ),
        "$defs": {
            "told": record(_TOLD),
            "change": record(
                {**_TOLD, "step": {"type": "integer", "minimum": 1}},
                {
                    "before": {"type": ["object", "null"]},
                    "after": {"type": ["object", "null"]},
                    "at_stake": _list("stake", "Of a policy: queues whose messages it makes RabbitMQ drop or move."),
                },
            ),
            "stake": record(
                {
                    "queue": _TEXT,
                    "key": {"enum": ["dead-letter-strategy", "max-length", "max-length-bytes", "expires"]},
                    "before": {"type": ["integer", "null"]},
                    "after": {"type": ["integer", "null"]},
                    "messages": {"type": ["integer", "null"], "description": "How many leave; null is not known."},
                    "to": {"type": "string", "description": "Where they are dead-lettered to; empty: deleted."},
                    "allowed": {"type": "boolean"},
                }
            ),
            "finding": record({"code": _TEXT, "object": _TEXT, "message": _TEXT, "hint": _TEXT}),
            "named": record(_NAMED),
            "result": {
                "description": "Of apply: how far it got.",
                **record(
                    {
                        "complete": {"type": "boolean"},
                        "done": _list("named", ""),
                        "failed": {
                            "anyOf": [{"type": "null"}, record({**_NAMED, "reason": _TEXT, "hint": _TEXT})],
                        },
                        "interrupted": {"type": "array", "items": {"$ref": "#/$defs/named"}},
                        "remaining": _list("named", ""),
                        "postponed": _list("named", "Waits for messages to leave a retry queue."),
                    }
                ),
            },
        },
    }


def record(required: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the schema of an object with these keys."""
    return {"type": "object", "required": list(required), "properties": {**required, **(optional or {})}}


def _list(of: str, description: str) -> dict[str, Any]:
    described = {"description": description} if description else {}
    return {**described, "type": "array", "items": {"$ref": f"#/$defs/{of}"}}


_NAMED = {"action": _TEXT, "kind": _TEXT, "name": _TEXT}

_TOLD: dict[str, Any] = {
    **_NAMED,
    "step": {"type": ["integer", "null"], "minimum": 1},
    "symbol": {"type": "string", "description": "Terraform's: + ~ - -/+; ? is bound again, = taken over."},
    "danger": {"enum": ["none", "care", "danger"]},
    "attributes": {
        "type": "array",
        "items": record({"name": _TEXT, "before": {}, "after": {}}),
        "description": "What is there and what will be; null is not set.",
    },
    "reason": {"type": "string", "description": "Why it cannot be changed in place; empty when it can."},
    "how": _TEXT,
    "effects": {
        **record({"messages": _TEXT, "consumers": _TEXT, "bindings": _TEXT, "when": _TEXT}),
        "description": "The effect on existing messages and consumers; when: when it takes effect for "
        "messages that wait already.",
    },
    "queues": {**_NAMES, "description": "Of a policy: the queues of the topology that it works on."},
}
