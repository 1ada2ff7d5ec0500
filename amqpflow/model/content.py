"""What is in a body: the content encodings gzip and deflate undone, with a limit on what that may grow to."""

from __future__ import annotations

import zlib

_MAX_MEMBERS = 1000
_WINDOW = {"gzip": 31, "x-gzip": 31, "deflate": 47}  # zlib's wbits; 47 takes zlib and gzip framing


def decompressed(body: bytes, encoding: str | None, limit: int) -> bytes:
    """
    The body without its content encoding; as it is when there is none, or none that is known.

    Args:
        body: as it is in the message.
        encoding: the property content_encoding.
        limit: bytes that it may grow to.

    Raises:
        ValueError: it is not what the encoding says, is cut short, or grows past the limit.
    """
    window = _WINDOW.get((encoding or "").strip().lower())
    if window is None:
        return body
    plain = bytearray()
    try:
        # a gzip file may have several members, one after the other, and zeros behind them (RFC 1952)
        for _ in range(_MAX_MEMBERS):
            decompressor = zlib.decompressobj(window)
            plain += decompressor.decompress(body, limit + 1 - len(plain))
            if len(plain) > limit:
                raise ValueError(f"the {encoding} body grows past {limit} bytes")
            if not decompressor.eof:
                raise ValueError(f"the {encoding} body is cut short")
            body = decompressor.unused_data.lstrip(b"\0")
            if not body:
                return bytes(plain)
    except zlib.error as error:
        raise ValueError(f"the body is not {encoding}: {error}") from error
    raise ValueError(f"the {encoding} body has more than {_MAX_MEMBERS} members")
