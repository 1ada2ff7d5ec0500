"""Write our headers: a record as entries of a header table, the counterpart of `read_record`.

Most of a record is the same for all messages of a queue that fail alike, and is encoded once.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from operator import attrgetter
from typing import Any

from . import headers as h
from .record import MAX_HISTORY, FailureRecord, PastAttempt, ReplayMark
from .wire import encode_table

_LENGTH = 4  #: bytes before the entries of a table
_CACHED = 128  #: few, since a forged record may have texts as long as a frame
_TIME = struct.Struct(">cq")
_SIZE = struct.Struct(">cI")
_SHARED = (
    "queue",
    "exchange",
    "routing_key",
    "error_type",
    "error_location",
    "fingerprint",
    "host",
    "version",
    "reason",
)
_shared = attrgetter(*_SHARED)


def record_table(record: FailureRecord) -> dict[str, Any]:
    """Return our headers; what is None, zero or empty is left out, but for the address it was published to."""
    table: dict[str, Any] = {
        h.ATTEMPT: record.attempts,
        h.HOP: record.hop,
        h.ORIGINAL: dict(record.original),
        h.FIRST_FAILED_AT: record.first_failed_at,
        h.FAILED_AT: record.failed_at,
        h.DUE_AT: record.due_at,
        h.LOST: record.lost,
        h.REASON: record.reason,
        h.REASON_DETAIL: record.reason_detail,
        h.ERROR_MESSAGE: record.error_message,
        h.ERROR_STACK: record.error_stack,
        h.HISTORY: [_past(each) for each in record.history[-MAX_HISTORY:]],
        h.REPLAY: _mark(record.replay),
        h.QUEUE: record.queue,
        h.ERROR_TYPE: record.error_type,
        h.ERROR_LOCATION: record.error_location,
        h.FINGERPRINT: record.fingerprint,
        h.HOST: record.host,
        h.VERSION: record.version,
    }
    table = {name: value for name, value in table.items() if value}
    address = {h.EXCHANGE: record.exchange, h.ROUTING_KEY: record.routing_key}
    return table | {name: value for name, value in address.items() if value is not None}


def encode_record(record: FailureRecord) -> bytes:
    """Encode our headers, without a length. Raises TypeError, ValueError: `original` cannot be encoded."""
    parts = [_same_for_many(*_shared(record))]
    if record.attempts:
        parts.append(_attempts(record.attempts))
    if record.lost:
        parts.append(encode_table({h.LOST: record.lost})[_LENGTH:])
    for name, text in (
        (_HOP, record.hop),
        (_ERROR_MESSAGE, record.error_message),
        (_ERROR_STACK, record.error_stack),
        (_REASON_DETAIL, record.reason_detail),
    ):
        if text:
            data = text.encode("utf-8", "surrogateescape")
            parts += (name, _SIZE.pack(b"S", len(data)), data)
    if record.failed_at:
        parts += (_FAILED_AT, _TIME.pack(b"l", record.failed_at))
    if record.first_failed_at:
        parts += (_FIRST_FAILED_AT, _TIME.pack(b"l", record.first_failed_at))
    if record.due_at:
        parts += (_DUE_AT, _TIME.pack(b"l", record.due_at))
    if record.history:
        lines = b"".join([_encoded_past(each) for each in record.history[-MAX_HISTORY:]])
        parts += (_HISTORY, _SIZE.pack(b"A", len(lines)), lines)
    if record.replay:
        parts.append(_replayed(record.replay))
    if record.original:
        parts.append(encode_table({h.ORIGINAL: dict(record.original)})[_LENGTH:])
    return b"".join(parts)


@lru_cache(maxsize=_CACHED)
def _same_for_many(*values: Any) -> bytes:
    record = FailureRecord(**dict(zip(_SHARED, values, strict=True)))
    return encode_table(record_table(record))[_LENGTH:]


@lru_cache(maxsize=_CACHED)
def _attempts(attempts: int) -> bytes:
    return encode_table({h.ATTEMPT: attempts})[_LENGTH:]


def _past(each: PastAttempt) -> dict[str, Any]:
    return {"at": each.at, "tier": each.tier, "error-type": each.error_type}


def _encoded_past(each: PastAttempt) -> bytes:
    if not each.at:
        return b"F" + encode_table(_past(each))
    at, where = _TIME.pack(b"l", each.at), _where(each.tier, each.error_type)
    return _SIZE.pack(b"F", len(_AT) + len(at) + len(where)) + _AT + at + where


@lru_cache(maxsize=_CACHED)
def _where(tier: str, error_type: str) -> bytes:
    return encode_table({"tier": tier, "error-type": error_type})[_LENGTH:]


@lru_cache(maxsize=_CACHED)
def _replayed(replay: ReplayMark) -> bytes:
    return encode_table({h.REPLAY: _mark(replay)})[_LENGTH:]


def _mark(replay: ReplayMark | None) -> dict[str, Any] | None:
    return None if replay is None else {"id": replay.id, "count": replay.count, "at": replay.at}


def _name(name: str) -> bytes:
    return bytes((len(name),)) + name.encode()


_AT = _name("at")
_HOP = _name(h.HOP)
_ERROR_MESSAGE, _ERROR_STACK, _REASON_DETAIL = map(_name, (h.ERROR_MESSAGE, h.ERROR_STACK, h.REASON_DETAIL))
_FAILED_AT, _FIRST_FAILED_AT, _DUE_AT = map(_name, (h.FAILED_AT, h.FIRST_FAILED_AT, h.DUE_AT))
_HISTORY = _name(h.HISTORY)
