"""Keep the headers of a copy within one frame: the broker closes the whole connection on a larger one.

Of ours as much as fits is kept, the most useful first, and at most 16 KiB. A producer's headers are never cut.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import headers as h
from .clip import clip, clip_start
from .record import FailureRecord
from .record_table import encode_record, record_table
from .wire import encode_table, encode_value, length_prefixed

OURS_MAX = 16 * 1024  #: bytes for our headers, without `ORIGINAL`
HEADROOM_MAX = 4 * 1024  #: bytes left free below frame_max
_FRAME_OVERHEAD = 8
_LENGTH = 4  #: bytes before a table
_TYPE_AND_LENGTH = 5  #: bytes before a text or an array
_UNLIMITED = 1 << 31

_KEPT_WHOLE = (h.ERROR_TYPE, h.ERROR_LOCATION, h.FINGERPRINT, h.VERSION, h.HOST)
_CUT: tuple[tuple[str, Callable[[str, int], str]], ...] = (
    (h.REASON_DETAIL, clip),
    (h.ERROR_MESSAGE, clip),
    (h.ERROR_STACK, clip_start),
)
_OPTIONAL = {*_KEPT_WHOLE, *(name for name, _ in _CUT), h.HISTORY}


def headroom(frame_max: int) -> int:
    """Return the bytes of a frame that are left free for what the broker adds: 4 KiB, of a small frame a quarter."""
    return min(HEADROOM_MAX, frame_max // 4)


def fit_into_frame(theirs: bytes, record: FailureRecord, *, others: int, frame_max: int) -> bytes | None:
    """Encode one table of the producer's headers, kept as they are, and as much of our record as fits.

    `theirs` is encoded and has no length, `others` are the bytes of the content header without its table. None: not
    even the shortest record fits into `frame_max` bytes (0: no limit). Raises TypeError, ValueError as `encode_record`.
    """
    limit = frame_max or _UNLIMITED
    fixed = others + _LENGTH + len(theirs) + _FRAME_OVERHEAD
    room = limit - headroom(limit) - fixed
    ours = encode_record(record)
    if len(ours) > min(OURS_MAX, room):
        original = len(encode_table({h.ORIGINAL: dict(record.original)})) if record.original else 0
        ours = shortened(record, min(OURS_MAX + original, room))
        if fixed + len(ours) > limit:
            return None
    return length_prefixed(theirs + ours)


def shortened(record: FailureRecord, room: int) -> bytes:
    """Encode as much of a record as fits into `room` bytes, without a length.

    What identifies and routes the message is always there. A shorter header may fit where a more useful one does not.
    """
    table = record_table(record)
    parts = [encode_table({name: value for name, value in table.items() if name not in _OPTIONAL})[_LENGTH:]]
    left = room - len(parts[0])
    for name in _KEPT_WHOLE:
        if (value := table.get(name)) and len(entry := _entry(name, value)) <= left:
            parts.append(entry)
            left -= len(entry)
    for name, cut in _CUT:
        if value := table.get(name):
            entry = _entry(name, value)
            if len(entry) > left:
                shorter = cut(value, left - _overhead(name))
                entry = _entry(name, shorter) if len(shorter) > 1 else b""  # more than an ellipsis
            parts.append(entry)
            left -= len(entry)
    parts.append(_history(table.get(h.HISTORY, []), left))
    return b"".join(parts)


def _history(past: list[dict[str, Any]], room: int) -> bytes:
    room -= _overhead(h.HISTORY)
    count = 0
    for each in reversed(past):
        room -= len(encode_value(each))
        if room < 0:
            break
        count += 1
    return _entry(h.HISTORY, past[len(past) - count :]) if count else b""


def _entry(name: str, value: Any) -> bytes:
    return encode_table({name: value})[_LENGTH:]


def _overhead(name: str) -> int:
    """Return the bytes of an entry beside its text."""
    return 1 + len(name) + _TYPE_AND_LENGTH
