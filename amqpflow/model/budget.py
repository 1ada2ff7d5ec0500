"""Keep the headers of a copy within a frame.

Headers must fit one frame: the broker closes the whole connection on a larger one. Ours take at most 16 KiB; history,
stack, message and detail shrink in that order, a producer's headers never do.
"""

from __future__ import annotations

from typing import Any

from . import headers as h
from .clip import clip
from .record import Record
from .record_table import encode_record, record_table
from .wire import encode_table, sized

OURS_MAX = 16 * 1024  #: bytes for our headers, what does not travel excepted
HEADROOM = 4 * 1024  #: bytes left free below frame_max
_FRAME_OVERHEAD = 8
_LENGTH = 4  #: bytes before a table
_UNLIMITED = 1 << 31


def fit(theirs: bytes, record: Record, *, others: int, frame_max: int) -> bytes | None:
    """
    One table of the producer's headers and ours, ours shrunk until they fit.

    Args:
        theirs: the producer's headers, encoded and without a length, kept as they are.
        record: ours.
        others: bytes of the content header without its table.
        frame_max: the negotiated frame size in bytes, 0 for no limit.

    Returns:
        None when not even the shortest record fits beside the producer's headers.

    Raises:
        TypeError, ValueError: ours cannot be encoded.
    """
    limit = frame_max or _UNLIMITED
    fixed = others + _LENGTH + len(theirs) + _FRAME_OVERHEAD
    ours = encode_record(record)
    if len(ours) > min(OURS_MAX, limit - HEADROOM - fixed):
        original = len(encode_table({h.ORIGINAL: dict(record.original)})) if record.original else 0
        shrunk = record_table(record)
        _shrink(shrunk, min(OURS_MAX + original, limit - HEADROOM - fixed))
        ours = encode_table(shrunk)[_LENGTH:]
        if fixed + len(ours) > limit:
            return None
    return sized(theirs + ours)


def _shrink(record: dict[str, Any], room: int) -> None:
    history = list(record.get(h.HISTORY, ()))
    while len(encode_table(record)) > room:
        if history:
            history.pop(0)
            record[h.HISTORY] = list(history)
            if not history:
                del record[h.HISTORY]
        elif (name := next((each for each in _SHRINKING if record.get(each)), None)) is not None:
            excess = len(encode_table(record)) - room
            shorter = clip(record[name], len(record[name].encode("utf-8", "surrogatepass")) - excess)
            record[name] = shorter
            if not shorter:
                del record[name]
        else:
            return


_SHRINKING = (h.ERROR_STACK, h.ERROR_MESSAGE, h.REASON_DETAIL, h.FINGERPRINT, h.HOST, h.VERSION, h.ERROR_TYPE)
