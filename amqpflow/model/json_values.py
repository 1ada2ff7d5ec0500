"""Values of messages as JSON can hold them: times, headers."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any


def picked(thing: object, *names: str) -> dict[str, Any]:
    """Return attributes by their names, for a document that has them under the same names."""
    return {name: getattr(thing, name) for name in names}


def rfc3339(milliseconds: int | None) -> str | None:
    """Format a time as RFC 3339 in UTC, with milliseconds; None stays None, and so does what no calendar holds."""
    if milliseconds is None:
        return None
    try:
        moment = datetime.fromtimestamp(milliseconds / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return None
    return _zulu(moment, "milliseconds")


def json_value(value: Any) -> Any:
    """Convert a header's value to what JSON can hold: bytes to `{"base64": ...}`, a time to RFC 3339."""
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else str(value)
        case bytes() | bytearray():
            return {"base64": base64.b64encode(bytes(value)).decode("ascii")}
        case datetime():
            return _zulu(value, "auto")
        case Decimal():
            return str(value)
        case Mapping():
            return {str(key): json_value(each) for key, each in value.items()}
        case list() | tuple():
            return [json_value(each) for each in value]
        case _:
            return str(value)


def _zulu(moment: datetime, precision: str) -> str:
    aware = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    return aware.replace(tzinfo=None).isoformat(timespec=precision) + "Z"
