"""How long the texts of a failure record may be, whatever their source."""

from __future__ import annotations

NAME_MAX = 255  #: bytes of an error type, a host, a version; no name in AMQP is longer
MESSAGE_MAX = 1024  #: bytes of an error message or a reason's detail
STACK_MAX = 8 * 1024  #: bytes of a stack


def clip(text: str, limit: int) -> str:
    """Return at most `limit` bytes of UTF-8, marked with an ellipsis where cut; lone surrogates become escapes."""
    if 4 * len(text) <= limit and text.isascii():
        return text  # nearly always
    # four bytes a character at most: no need to encode a text of a megabyte to keep a kilobyte of it
    data = text[: limit + 1].encode("utf-8", "backslashreplace")
    if len(data) <= limit and len(text) <= limit + 1:
        return data.decode()
    return data[: max(0, limit - 3)].decode("utf-8", "ignore") + "…" if limit >= 3 else ""


def clip_start(text: str, limit: int) -> str:
    """Cut as `clip` does, at the start: of a stack and of a path the end says most."""
    if 4 * len(text) <= limit and text.isascii():
        return text
    data = text[-limit - 1 :].encode("utf-8", "backslashreplace") if limit > 0 else b""
    if len(data) <= limit and len(text) <= limit + 1:
        return data.decode()
    return "…" + data[len(data) - max(0, limit - 3) :].decode("utf-8", "ignore") if limit >= 3 else ""


def bounded(text: str | None, limit: int) -> str | None:
    """Return a text that came from elsewhere, cut to `limit` bytes if it has more than `limit` characters."""
    return text if text is None or len(text) <= limit else clip(text, limit)
