"""Show a message body: JSON and XML indented, text as text, anything else as a hex dump."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator

from amqpflow.cli.safe import safe

from .markup import pretty_xml

SHOWN_BYTES = 64 * 1024  #: the rest is counted; -o json has all of it
_UNPACKED_BYTES = 1024 * 1024
_WINDOW = {"gzip": 31, "x-gzip": 31, "deflate": 47}  # zlib's wbits
_INDENT = "  "


def body_lines(body: bytes, content_type: str | None, content_encoding: str | None) -> Iterator[str]:
    """Yield lines that are safe to print: first what the body is, then the body."""
    unpacked, how = _unpacked(body, content_encoding)
    shown = unpacked[:SHOWN_BYTES]
    text = _text(shown)
    kind = content_type or "no content type"
    yield f"{len(body)} bytes, {safe(kind)}{how}"
    if not body:
        return
    if text is None:
        yield from _hex(shown)
    elif (pretty := _pretty_json(text) or pretty_xml(text)) is not None:
        yield from map(safe, pretty)
    else:
        yield from safe(text, multiline=True).split("\n")
    if len(unpacked) > len(shown):
        yield f"... {len(unpacked) - len(shown)} bytes more; -o json has them all"


def _unpacked(body: bytes, content_encoding: str | None) -> tuple[bytes, str]:
    window = _WINDOW.get((content_encoding or "").strip().lower())
    if window is None:
        return body, f", content encoding {safe(content_encoding)}" if content_encoding else ""
    try:
        unpacked = zlib.decompressobj(window).decompress(body, _UNPACKED_BYTES)
    except zlib.error as error:
        return body, f", said to be {safe(content_encoding)} but is not ({error})"
    return unpacked, f", {safe(content_encoding)} undone"


def _text(data: bytes) -> str | None:
    """Return UTF-8 text, cut between characters; None if the bytes look binary."""
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        # the cut may have gone through a character
        if len(data) < SHOWN_BYTES or error.start < len(data) - 4:
            return None
        text = data[: error.start].decode()
    controls = sum(character < " " and character not in "\t\n\r" for character in text)
    return None if controls * 10 > len(text) else text


def _pretty_json(text: str) -> list[str] | None:
    """Return JSON with line breaks, else None. Strings and numbers keep every byte; duplicate keys and 1e400 stay."""
    if not text.lstrip().startswith(("{", "[")):
        return None
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return None
    lines, depth, current, in_string, escaped = [], 0, "", False, False
    for character in text:
        if in_string:
            current += character
            in_string = escaped or character != '"'
            escaped = character == "\\" and not escaped
        elif character in " \t\r\n":
            continue
        elif character in "{[":
            lines.append(_INDENT * depth + current + character)
            current, depth = "", depth + 1
        elif character in "}]":
            if current:
                lines.append(_INDENT * depth + current)
            depth -= 1
            current = character
            if lines and lines[-1].rstrip().endswith(("{", "[")) and lines[-1].startswith(_INDENT * depth):
                current = lines.pop().lstrip() + character
        elif character == ",":
            lines.append(_INDENT * depth + current + ",")
            current = ""
        else:
            current += ": " if character == ":" else character
            in_string = character == '"'
    return [*lines, _INDENT * depth + current] if current else lines


def _hex(data: bytes) -> Iterator[str]:
    for at in range(0, len(data), 16):
        row = data[at : at + 16]
        printable = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
        yield f"{at:08x}  {row[:8].hex(' '):<23}  {row[8:].hex(' '):<23}  {printable}"
