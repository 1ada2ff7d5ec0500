"""Keep the headers of a copy within a frame.

Headers must fit one frame: the broker closes the whole connection on a larger one. Ours take at most 16 KiB; history,
stack, message and detail shrink in that order, a producer's headers never do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import headers as h
from .message import Properties, replace_properties
from .record import MAX_HISTORY
from .wire import encode_content_header, encode_table

OURS_MAX = 16 * 1024  #: bytes for our headers, what does not travel excepted
HEADROOM = 4 * 1024  #: bytes left free below frame_max
MESSAGE_MAX = 1024  #: bytes of an error message or a reason's detail
STACK_MAX = 8 * 1024  #: bytes of a stack
_FRAME_OVERHEAD = 8
_OTHER_PROPERTIES = 14 + 13 * 256  #: bytes that a content header takes at most without the header table
_UNLIMITED = 1 << 31
_SHALLOW = 8


def clip(text: str, limit: int) -> str:
    """
    At most `limit` bytes of UTF-8, cut between characters and marked with an ellipsis.

    Lone surrogates, which cannot be encoded, are written as escapes.
    """
    # four bytes a character at most: no need to encode a text of a megabyte to keep a kilobyte of it
    data = text[: limit + 1].encode("utf-8", "backslashreplace")
    if len(data) <= limit and len(text) <= limit + 1:
        return data.decode()
    return data[: max(0, limit - 3)].decode("utf-8", "ignore") + "…" if limit >= 3 else ""


def fit(
    properties: Properties, theirs: Mapping[str, Any], ours: Mapping[str, Any], frame_max: int
) -> Properties | None:
    """
    The properties with both sets of headers, ours shrunk until they fit.

    Args:
        properties: of the copy, its headers disregarded.
        theirs: the producer's headers, kept as they are.
        ours: the failure record.
        frame_max: the negotiated frame size in bytes, 0 for no limit.

    Returns:
        None when not even the shortest record fits beside the producer's headers.
    """
    limit = frame_max or _UNLIMITED
    whole = replace_properties(properties, headers={**theirs, **ours})
    if _OTHER_PROPERTIES + _at_most(theirs) + _at_most(ours) <= min(OURS_MAX, limit - HEADROOM):
        return whole  # nearly always: nothing has to shrink, which is seen without encoding it
    fixed = len(encode_content_header(replace_properties(properties, headers=dict(theirs)), 0)) + _FRAME_OVERHEAD
    kept = encode_table({h.ORIGINAL: ours[h.ORIGINAL]}) if h.ORIGINAL in ours else b""
    record = dict(ours)
    _shrink(record, min(OURS_MAX + len(kept), limit - HEADROOM - fixed))
    fitted = replace_properties(properties, headers={**theirs, **record})
    if len(encode_content_header(fitted, 0)) + _FRAME_OVERHEAD > limit:
        return None
    return fitted


def _at_most(value: Any, depth: int = 0) -> int:
    """More bytes than a header value takes; far too many for what it does not know or is nested deeply."""
    kind = type(value)
    if kind is str:
        return 5 + 4 * len(value)
    if kind is int or kind is bool or kind is float or value is None:
        return 9
    if kind is bytes:
        return 5 + len(value)
    if depth < _SHALLOW:
        if kind is dict:
            size = 5
            for name, each in value.items():
                size += 1 + 4 * len(name)
                size += 5 + 4 * len(each) if type(each) is str else _at_most(each, depth + 1)
            return size
        if kind is list:
            return 5 + sum([_at_most(each, depth + 1) for each in value])
    return _UNLIMITED


def _shrink(record: dict[str, Any], room: int) -> None:
    history = list(record.get(h.HISTORY, ()))[-MAX_HISTORY:]
    if history:
        record[h.HISTORY] = list(history)
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


_SHRINKING = (h.ERROR_STACK, h.ERROR_MESSAGE, h.REASON_DETAIL, h.FINGERPRINT, h.HOST, h.VERSION)
