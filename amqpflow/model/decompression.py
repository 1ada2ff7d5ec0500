"""Decompress bodies, gzip and deflate, up to a limit.

A producer chooses the body and how much it grows, so the work is bounded by bytes, whatever the body contains. zlib
copies what is behind a gzip member: one piece at most, not the rest of the body. Nothing is written past the limit.
"""

from __future__ import annotations

import zlib

LARGE = 8 * 1024
"""Bytes whose decompression may take long: 1 KiB grows to 1 MiB, which takes 2 to 5 ms. A thread costs about 0.1 ms."""

_MAX_MEMBERS = 10_000
_PIECE = 64 * 1024  #: bytes that zlib is given at once: each member copies those behind it in its piece
_WINDOW = {"gzip": 31, "x-gzip": 31, "deflate": 47}  # zlib's wbits; 47 takes zlib and gzip framing


def may_take_long(body: bytes, encoding: str | None) -> bool:
    """Return whether `decompress` could hold up an event loop for more than a few milliseconds."""
    return len(body) > LARGE and _window(encoding) is not None


def decompress(body: bytes, encoding: str | None, limit: int) -> bytes:
    """Return the body without its content encoding; as it is when there is none, or none that is known.

    Raises:
        ValueError: it is not what the encoding says, is cut short, or grows past `limit` bytes.
    """
    window = _window(encoding)
    if window is None:
        return body
    pieces = memoryview(body)
    at, end, room = 0, len(body), limit
    plain: list[bytes] = []
    try:
        # a gzip file may have several members, one after the other, and zeros behind them (RFC 1952)
        for _ in range(_MAX_MEMBERS):
            decompressor = zlib.decompressobj(window)
            while True:
                plain.append(decompressor.decompress(pieces[at : at + _PIECE], room + 1))
                at, room = min(at + _PIECE, end), room - len(plain[-1])
                if room < 0:
                    raise ValueError(f"the {encoding} body grows past {limit} bytes")
                if decompressor.eof:
                    break
                if at == end:
                    raise ValueError(f"the {encoding} body is cut short")
            at = _behind_zeros(pieces, at - len(decompressor.unused_data))
            if at == end:
                return plain[0] if len(plain) == 1 else b"".join(plain)
    except zlib.error as error:
        raise ValueError(f"the body is not {encoding}: {error}") from error
    raise ValueError(f"the {encoding} body has more than {_MAX_MEMBERS} members")


def _window(encoding: str | None) -> int | None:
    return _WINDOW.get(encoding.strip().lower()) if encoding else None


def _behind_zeros(body: memoryview, at: int) -> int:
    while at < len(body) and body[at] == 0:
        piece = bytes(body[at : at + _PIECE])
        at += len(piece) - len(piece.lstrip(b"\0"))
    return at
