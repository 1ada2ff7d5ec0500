"""Read our headers back: the failure record that a message carries from attempt to attempt and into parking.

Headers come from the network. A producer may forge them and a handler may forward them, so every value is checked and
what does not fit is treated as absent, a text that is longer than we write is cut; nothing here raises.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from . import headers as h
from .clip import MESSAGE_MAX, NAME_MAX, STACK_MAX, bounded
from .fast_dataclass import fast_init

MAX_ATTEMPTS = 1_000_000  #: a larger number is not a count of ours
MAX_HISTORY = 10  #: latest attempts that travel with a message
_MAX_MS = 1 << 53
_SHORT = 255  #: characters; no exchange, routing key or message id is longer (AMQP 0-9-1: 255 bytes)
_MAX_HOP = _SHORT + 2 * len(f"/{MAX_ATTEMPTS}")


@fast_init
@dataclass(frozen=True, slots=True, kw_only=True)
class PastAttempt:
    """One line of the history."""

    at: int | None  #: when it failed, ms since the epoch
    tier: str  #: where the message went then: a retry queue, or "parking"
    error_type: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayMark:
    """Which replay put the message back, and for which time."""

    id: str
    count: int
    at: int | None  #: ms since the epoch


@fast_init
@dataclass(frozen=True, slots=True, kw_only=True)
class FailureRecord:
    """The failure record in our headers; absent or malformed values are None, zero or empty."""

    queue: str  #: the work queue it failed in; "" for a message that is replayed to an unknown queue
    attempts: int = 0  #: attempts already made
    root: str | None = None  #: the first part of the hop id
    hop: str | None = None
    exchange: str | None = None  #: as first published
    routing_key: str | None = None  #: as first published
    original: Mapping[str, Any] = field(default_factory=dict)  #: expiration, user_id, and the headers in `KEPT`
    first_failed_at: int | None = None  #: ms since the epoch, as are the next two
    failed_at: int | None = None
    due_at: int | None = None
    lost: int = 0  #: deliveries that ended without an answer before this copy
    reason: str | None = None
    reason_detail: str | None = None
    error_type: str | None = None
    error_message: str | None = None
    error_location: str | None = None  #: service.py:10, the innermost line of the service's own code
    error_stack: str | None = None
    fingerprint: str | None = None
    history: tuple[PastAttempt, ...] = ()  #: oldest first
    replay: ReplayMark | None = None
    host: str | None = None
    version: str | None = None


def read_record(headers: Mapping[str, Any] | None, queue: str | None = None) -> FailureRecord | None:
    """Read the record of a message; None when it has none.

    A record of another queue than `queue` is not ours: a handler forwarded it or a producer forged it. None accepts the
    record of any queue, which is what parking needs.
    """
    if not headers:
        return None
    try:
        return _read(headers.get, queue)
    except ValueError:
        return _read(partial(_value_of, headers), queue)


def _read(get: Callable[[str], Any], queue: str | None) -> FailureRecord | None:
    failed_in = _short(get(h.QUEUE)) or None
    if failed_in is None or (queue is not None and failed_in != queue):
        return None
    hop = _short(get(h.HOP), _MAX_HOP) or None
    original = get(h.ORIGINAL)
    return FailureRecord(
        queue=failed_in,
        attempts=_count(get(h.ATTEMPT)),
        hop=hop,
        root=_root(hop),
        exchange=_short(get(h.EXCHANGE)),
        routing_key=_short(get(h.ROUTING_KEY)),
        original=dict(original) if isinstance(original, Mapping) else {},
        first_failed_at=_time(get(h.FIRST_FAILED_AT)),
        failed_at=_time(get(h.FAILED_AT)),
        due_at=_time(get(h.DUE_AT)),
        lost=_count(get(h.LOST)),
        reason=_text(get(h.REASON), NAME_MAX),
        reason_detail=_text(get(h.REASON_DETAIL), MESSAGE_MAX),
        error_type=_text(get(h.ERROR_TYPE), NAME_MAX),
        error_message=_text(get(h.ERROR_MESSAGE), MESSAGE_MAX),
        error_location=_text(get(h.ERROR_LOCATION), NAME_MAX),
        error_stack=_text(get(h.ERROR_STACK), STACK_MAX),
        fingerprint=_text(get(h.FINGERPRINT), NAME_MAX),
        history=_history(get(h.HISTORY)),
        replay=_replay(get(h.REPLAY)),
        host=_text(get(h.HOST), NAME_MAX),
        version=_text(get(h.VERSION), NAME_MAX),
    )


def _value_of(headers: Mapping[str, Any], name: str) -> Any:
    try:
        return headers.get(name)
    except ValueError:
        return None  # nested too deeply to be decoded (`RawHeaders`): not ours


def hop_id(root: str, replays: int, attempts: int) -> str:
    """Build ROOT/REPLAY/ATTEMPT: equal on the copies that settling one delivery twice writes, different otherwise."""
    return f"{root}/{replays}/{attempts}"


def _root(hop: str | None) -> str | None:
    parts = hop.rsplit("/", 2) if hop else []
    if len(parts) != 3 or not 0 < len(parts[0]) <= _SHORT or not (parts[1].isdecimal() and parts[2].isdecimal()):
        return None
    return parts[0]


def _text(value: Any, limit: int) -> str | None:
    return bounded(as_text(value), limit) or None


def as_text(value: Any) -> str | None:
    """Read a header value as text, "" included. Bytes that are not UTF-8 are read as those of short strings are."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    return value if isinstance(value, str) else None


def _short(value: Any, limit: int = _SHORT) -> str | None:
    text = as_text(value)
    return text if text is not None and len(text) <= limit else None


def as_int(value: Any) -> int | None:
    """Read a header value as a whole number; a truth value is not one."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _count(value: Any) -> int:
    whole = as_int(value)
    return whole if whole is not None and 0 <= whole <= MAX_ATTEMPTS else 0


def _time(value: Any) -> int | None:
    whole = as_int(value)
    return whole if whole is not None and 0 < whole < _MAX_MS else None


def _history(value: Any) -> tuple[PastAttempt, ...]:
    if not isinstance(value, list):
        return ()
    return tuple(
        PastAttempt(
            at=_time(each.get("at")),
            tier=_text(each.get("tier"), NAME_MAX) or "",
            error_type=_text(each.get("error-type"), NAME_MAX) or "",
        )
        for each in value[-MAX_HISTORY:]
        if isinstance(each, Mapping)
    )


def _replay(value: Any) -> ReplayMark | None:
    if not isinstance(value, Mapping):
        return None
    return ReplayMark(id=_short(value.get("id")) or "", count=_count(value.get("count")), at=_time(value.get("at")))
