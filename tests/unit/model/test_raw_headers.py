"""Headers that are decoded when they are asked for: the same values and the same errors as decoded at once."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given

from amqpflow.model.content_header import ContentHeader
from amqpflow.model.raw_headers import RawHeaders
from amqpflow.model.wire import MAX_DEPTH, encode_table
from amqpflow.model.wire_decode import decode_content_header
from tests.messages import header_tables, nested


def table(entries: bytes) -> bytes:
    return struct.pack(">I", len(entries)) + entries


def content_header(entries: bytes) -> bytes:
    """A content header frame's payload with this header table and nothing else."""
    return struct.pack(">HHQH", 60, 0, 0, 1 << 13) + table(entries)


def test_what_is_nested_as_deep_as_it_may_be_is_read() -> None:
    payload = content_header(b"\x01a" + nested(MAX_DEPTH - 1) + b"\x01bt\x01")
    header = ContentHeader(payload)
    assert isinstance(header.headers, RawHeaders)
    assert dict(header.headers) == decode_content_header(payload).headers


@pytest.mark.parametrize(
    "entry",
    [
        pytest.param(nested(MAX_DEPTH + 1), id="nested too deeply"),
        pytest.param(b"F" + table(b"\x01k?"), id="an unknown type"),
        pytest.param(b"A" + table(b"l\x00"), id="cut short"),
        pytest.param(b"F" + table(b"\x01kS\x00\x00\xff\xff"), id="a text that is cut short"),
    ],
)
def test_what_is_nested_and_cannot_be_decoded_is_told_when_it_is_asked_for(entry: bytes) -> None:
    payload = content_header(b"\x01a" + entry + b"\x01bS" + table(b"text"))
    with pytest.raises(ValueError) as wanted:
        decode_content_header(payload)
    header = ContentHeader(payload)
    assert header.headers["b"] == "text"
    for ask in (lambda: header.headers["a"], lambda: header.headers.get("a")):
        with pytest.raises(ValueError) as found:
            ask()
        assert str(found.value) == str(wanted.value)
    assert isinstance(header.headers, RawHeaders)
    header.make_readable()
    assert dict(header.headers) == {"a": bytearray(entry), "b": "text"}
    assert header.headers.encoded(without=(), prefix="x-") == payload[18:], "a copy takes it over as it came"


@pytest.mark.parametrize(
    "entries",
    [
        pytest.param(b"\x01a?", id="an unknown type"),
        pytest.param(b"\x01aS\x00\x00\x00\x09text", id="a text that is cut short"),
        pytest.param(b"\x01al\x00", id="a number that is cut short"),
        pytest.param(b"\x01a", id="no value"),
        pytest.param(b"\x09a", id="a name that is cut short"),
        pytest.param(b"\x01aS\x00", id="a length that is cut short"),
    ],
)
@pytest.mark.parametrize("more", [b"", b"\x00" * 40])
def test_an_entry_that_is_not_whole_is_told_before_any_is_read(entries: bytes, more: bytes) -> None:
    """Whether or not there are more bytes behind the table."""
    header = ContentHeader(content_header(entries) + more)
    for ask in (lambda: header.headers, lambda: header.properties, header.make_readable):
        with pytest.raises(ValueError):
            ask()


@given(header_tables)
def test_values_and_their_order_are_those_of_a_table_that_was_decoded(headers: dict[str, object]) -> None:
    data = encode_table(headers)
    raw = RawHeaders(b"before" + data + b"behind", 6)
    wanted = decode_content_header(struct.pack(">HHQH", 60, 0, 0, 1 << 13) + data).headers
    assert list(raw) == list(wanted or {})
    assert {name: raw[name] for name in raw} == (wanted or {})
    assert (len(raw), "no such name" in raw, raw.get("no such name", 7)) == (len(headers), False, 7)


def test_of_two_entries_with_one_name_the_later_counts() -> None:
    """As for every table that is decoded."""
    raw = RawHeaders(table(b"\x01at\x00\x01bt\x01\x01at\x01"), 0)
    assert (dict(raw), raw.encoded(without=(), prefix="x-")) == ({"a": True, "b": True}, b"\x01at\x01\x01bt\x01")


@given(header_tables)
def test_what_is_left_out_of_a_copy_is_all_that_is_missing_there(headers: dict[str, object]) -> None:
    raw = RawHeaders(encode_table({"x-ours-a": 1, **headers, "CC": ["q"]}), 0)
    kept = raw.encoded(without={"CC"}, prefix="x-ours-")
    assert dict(RawHeaders(table(kept), 0)) == {
        name: raw[name] for name in raw if name != "CC" and not name.startswith("x-ours-")
    }
