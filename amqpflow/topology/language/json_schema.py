"""The JSON Schema of topology files, for editors; made from keys.py.

It is draft-07, which the YAML language server reads. It refuses less than `amqpflow validate`, and nothing that
validate takes: wherever a single value stands, a text with `${` may stand as well.
"""

from __future__ import annotations

import json
from typing import Any, assert_never

from amqpflow.model.names import ADDRESSABLE, MAX_NAME_BYTES

from .keys import TOPOLOGY
from .types import (
    Boolean,
    Choice,
    Duration,
    Free,
    Integer,
    Key,
    ListOf,
    Number,
    Percent,
    Record,
    ScalarOr,
    Shape,
    Single,
    Size,
    Table,
    Text,
)

_VARIABLE = {"type": "string", "pattern": r"\$\{"}
_NAMES = {"pattern": f"^(?:{ADDRESSABLE})+$", "maxLength": MAX_NAME_BYTES}


def topology_schema() -> dict[str, Any]:
    """Return the schema as JSON values."""
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "amqpflow topology",
        "description": "A RabbitMQ retry and parking topology.",
        **_of(TOPOLOGY),
    }


def schema_text() -> str:
    """Return the schema as it is shipped and printed."""
    return json.dumps(topology_schema(), indent=2, ensure_ascii=False) + "\n"


def _of(shape: Shape) -> dict[str, Any]:
    match shape:
        case Record():
            return _record(shape)
        case Table():
            names = _NAMES if shape.names in ("queue", "exchange") else {"minLength": 1}
            return {"type": ["object", "null"], "propertyNames": names, "additionalProperties": _of(shape.of)}
        case ListOf():
            least = {"minItems": shape.at_least} if shape.at_least else {}
            return {"type": "array", "items": _of(shape.of), **least}
        case ScalarOr():
            return {"anyOf": [_of(shape.scalar), _of(shape.record)]}
        case Free():
            return {"type": ["string", "number", "boolean", "array", "object"]}
        case _:
            return _single(shape)


def _record(shape: Record) -> dict[str, Any]:
    required = [key.name for key in shape.keys if key.required]
    return {
        "type": "object" if required else ["object", "null"],
        "additionalProperties": False,
        "properties": {key.name: _key(key) for key in shape.keys},
        **({"required": required} if required else {}),
    }


def _key(key: Key) -> dict[str, Any]:
    default = f" Default: {key.default}." if key.default else ""
    described: dict[str, Any] = {"description": key.help + default}
    if key.example is not None:
        described["examples"] = [key.example]
    return described | _of(key.shape)


def _single(shape: Single) -> dict[str, Any]:
    match shape:
        case Text():
            return {"type": "string"} if shape.empty else {"type": "string", "minLength": 1}
        case Choice():
            words = {"enum": list(shape.words)}
            more = [{"type": "string", "pattern": f"^{shape.more}$"}] if shape.more else []
            return {"anyOf": [words, *more, _VARIABLE]}
        case Boolean():
            return {"anyOf": [{"type": "boolean"}, _VARIABLE]}
        case Integer() | Number():
            kind = "integer" if isinstance(shape, Integer) else "number"
            return {"anyOf": [{"type": kind, "minimum": shape.minimum, "maximum": shape.maximum}, _VARIABLE]}
        case Duration():
            return _pattern(r"(?:[0-9]+(?:ms|[dhms]))+")
        case Size():
            return _pattern(r"[0-9]+(?:B|[KMGT]i?B)")
        case Percent():
            return _pattern(r"[0-9]{1,3}(?:\.[0-9]{1,6})?%")
    assert_never(shape)


def _pattern(whole: str) -> dict[str, Any]:
    return {"type": "string", "pattern": rf"^{whole}$|\$\{{"}
