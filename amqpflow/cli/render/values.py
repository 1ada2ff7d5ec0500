"""Write values of messages as JSON and as text: times, headers, bodies. The output is safe for a terminal."""

from __future__ import annotations

import json
from typing import Any

from amqpflow.model.json_values import json_value, picked, rfc3339

__all__ = ["as_document", "as_line", "compact", "json_value", "picked", "rfc3339"]

_ESCAPED = str.maketrans({"\x7f": "\\u007f", "<": "\\u003c", ">": "\\u003e", "&": "\\u0026"})
"""What is ASCII, and yet acts: on a terminal, or in a page that shows the document."""


def compact(value: Any) -> str:
    """Write a header value in one line: text as it is, everything else as JSON."""
    return value if isinstance(value, str) else json.dumps(json_value(value), ensure_ascii=False)


def as_document(value: Any) -> str:
    """Write one JSON document in ASCII: escape sequences, bidirectional marks and HTML are escaped."""
    return json.dumps(value, indent=2, ensure_ascii=True, allow_nan=False).translate(_ESCAPED)


def as_line(value: Any) -> str:
    """Write the same in one line."""
    return json.dumps(value, ensure_ascii=True, allow_nan=False).translate(_ESCAPED)
