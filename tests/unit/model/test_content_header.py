"""A content header, decoded as far as it is asked for: the values that decoding all gives, and copies of what came."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqpflow.model.content_header import ContentHeader
from amqpflow.model.properties import Properties
from amqpflow.model.wire import encode_content_header, encode_table
from amqpflow.model.wire_decode import decode_content_header
from tests.messages import header_tables, properties


@given(properties)
def test_it_says_what_decoding_it_whole_says(value: Properties) -> None:
    payload = encode_content_header(value, 5)
    header = ContentHeader(payload)
    assert header.content_encoding == value.content_encoding
    assert header.properties == decode_content_header(payload)
    assert dict(header.headers) == (decode_content_header(payload).headers or {})


@given(properties, header_tables, st.integers(0, 1 << 40))
def test_a_copy_is_persistent_with_other_headers_and_without_what_the_broker_would_act_on(
    value: Properties, table: dict[str, object], body_size: int
) -> None:
    header = ContentHeader(encode_content_header(value, 5))
    copy = header.copy(encode_table(table), body_size)
    wanted = replace(value, headers=table, delivery_mode=2, expiration=None, user_id=None)
    assert copy == encode_content_header(wanted, body_size)
    assert len(copy) - len(encode_table(table)) <= header.size_without_headers


@given(properties)
def test_without_some_headers_and_the_user_all_else_is_as_it_came(value: Properties) -> None:
    named = replace(value, headers={**(value.headers or {}), "CC": ["a"], "BCC": "b"})
    header = ContentHeader(encode_content_header(named, 5))
    kept = {name: each for name, each in (named.headers or {}).items() if name not in ("CC", "BCC")}
    assert header.without(("CC", "BCC")) == encode_content_header(replace(named, headers=kept, user_id=None), 5)
    bare = replace(value, headers=None)
    assert ContentHeader(encode_content_header(bare, 5)).without(("CC",)) == encode_content_header(
        replace(bare, user_id=None), 5
    )


@given(properties, st.data())
def test_what_is_cut_short_is_told_and_never_copied_in_part(value: Properties, data: st.DataObject) -> None:
    value = replace(value, cluster_id="last")
    payload = encode_content_header(value, 5)
    header = ContentHeader(payload[: data.draw(st.integers(0, len(payload) - 1))])
    with pytest.raises(ValueError):
        header.make_readable()
    if value.expiration is not None or value.user_id is not None:
        with pytest.raises(ValueError):
            header.copy(b"\0\0\0\0", 0)


def test_what_is_shown_unread_keeps_its_bytes() -> None:
    broken = ContentHeader(struct.pack(">HHQH", 60, 0, 0, 1 << 13) + b"\0\0\0\3\1a?")
    bare = broken.unread()
    bare.make_readable()
    assert (bare.payload, bare.properties, dict(bare.headers)) == (broken.payload, Properties(), {})
    assert bare == broken


def test_the_same_bytes_are_the_same_header() -> None:
    one, two = (ContentHeader.of(Properties(message_id=name)) for name in ("one", "two"))
    assert one == ContentHeader(one.payload)
    assert hash(one) == hash(ContentHeader(one.payload))
    assert one != two
    assert repr(one.payload) in repr(one)
