"""Headers that are decoded when they are asked for: the same values and the same errors as decoded at once."""

from __future__ import annotations

import struct

import pytest

from amqpflow.model.raw_headers import RawHeaders, decode_content_header_lazily
from amqpflow.model.wire import MAX_DEPTH
from amqpflow.model.wire_decode import decode_content_header


def table(entries: bytes) -> bytes:
    return struct.pack(">I", len(entries)) + entries


def content_header(entries: bytes) -> bytes:
    """A content header frame's payload with this header table and nothing else."""
    return struct.pack(">HHQH", 60, 0, 0, 1 << 13) + table(entries)


def nested(levels: int) -> bytes:
    value = b"V"
    for _ in range(levels):
        value = b"F" + table(b"\x01k" + value)
    return value


def test_what_is_nested_as_deep_as_it_may_be_is_read() -> None:
    payload = content_header(b"\x01a" + nested(MAX_DEPTH - 1) + b"\x01bt\x01")
    headers = decode_content_header_lazily(payload).headers
    assert isinstance(headers, RawHeaders)
    assert dict(headers) == decode_content_header(payload).headers


@pytest.mark.parametrize(
    "entry",
    [
        pytest.param(nested(MAX_DEPTH + 1), id="nested too deeply"),
        pytest.param(b"F" + table(b"\x01k?"), id="an unknown type"),
        pytest.param(b"A" + table(b"l\x00"), id="cut short"),
        pytest.param(b"F" + table(b"\x01kS\x00\x00\xff\xff"), id="a text that is cut short"),
    ],
)
def test_what_is_nested_and_cannot_be_decoded_is_told_at_once(entry: bytes) -> None:
    payload = content_header(b"\x01a" + entry)
    with pytest.raises(ValueError) as wanted:
        decode_content_header(payload)
    with pytest.raises(ValueError) as found:
        decode_content_header_lazily(payload)
    assert str(found.value)
    assert str(wanted.value)
