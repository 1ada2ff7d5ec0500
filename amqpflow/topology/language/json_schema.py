"""The JSON Schema of topology files, for editors; made from keys.py.

It is draft-07, which the YAML language server reads. It refuses less than `amqpflow validate`, and nothing that
validate takes: wherever a single value stands, a text with `${` may stand as well.
"""

from __future__ import annotations

import json
from typing import Any, assert_never

from amqpflow.model.names import ADDRESSABLE, MAX_NAME_BYTES

from . import types
from .keys import TOPOLOGY

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


def _of(shape: types.Shape) -> dict[str, Any]:
    match shape:
        case types.Record():
            return _record(shape)
        case types.Table():
            names = _NAMES if shape.names in ("queue", "exchange") else {"minLength": 1}
            return {"type": ["object", "null"], "propertyNames": names, "additionalProperties": _of(shape.of)}
        case types.ListOf():
            least = {"minItems": shape.at_least} if shape.at_least else {}
            return {"type": "array", "items": _of(shape.of), **least}
        case types.ScalarOr():
            return {"anyOf": [_of(shape.scalar), _of(shape.record)]}
        case types.Free():
            return {"type": ["string", "number", "boolean", "array", "object"]}
        case _:
            return _single(shape)


def _record(shape: types.Record) -> dict[str, Any]:
    required = [key.name for key in shape.keys if key.required]
    return {
        "type": "object" if required else ["object", "null"],
        "additionalProperties": False,
        "properties": {key.name: _key(key) for key in shape.keys},
        **({"required": required} if required else {}),
    }


def _key(key: types.Key) -> dict[str, Any]:
    default = f" Default: {key.default}." if key.default else ""
    described: dict[str, Any] = {"description": key.help + default}
    if key.example is not None:
        described["examples"] = [key.example]
    return described | _of(key.shape)


def _single(shape: types.Single) -> dict[str, Any]:
    match shape:
        case types.Text():
            return {"type": "string"} if shape.empty else {"type": "string", "minLength": 1}
        case types.Choice():
            words = {"enum": list(shape.words)}
            more = [{"type": "string", "pattern": f"^{shape.more}$"}] if shape.more else []
            return {"anyOf": [words, *more, _VARIABLE]}
        case types.Boolean():
            return {"anyOf": [{"type": "boolean"}, _VARIABLE]}
        case types.Integer() | types.Number():
            kind = "integer" if isinstance(shape, types.Integer) else "number"
            return {"anyOf": [{"type": kind, "minimum": shape.minimum, "maximum": shape.maximum}, _VARIABLE]}
        case types.Duration():
            return _pattern(r"(?:[0-9]+(?:ms|[dhms]))+")
        case types.Size():
            return _pattern(r"[0-9]+(?:B|[KMGT]i?B)")
        case types.Percent():
            return _pattern(r"[0-9]{1,3}(?:\.[0-9]{1,6})?%")
    assert_never(shape)


def _pattern(whole: str) -> dict[str, Any]:
    return {"type": "string", "pattern": rf"^{whole}$|\$\{{"}
