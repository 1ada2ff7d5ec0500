"""Whether a message is due is seen without decoding it, and never seen wrongly."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqpflow.delivery.incoming import Incoming
from amqpflow.model import headers as h
from amqpflow.model.content_header import ContentHeader
from amqpflow.model.wire import encode_table
from tests.deliveries import NOW, delivery, incoming
from tests.messages import header_tables

ENTRY = encode_table({h.DUE_AT: NOW + 1})[4:]


def is_due(headers: dict[str, Any] | None) -> bool:
    return incoming(headers).is_due(NOW)


@pytest.mark.parametrize(("due_at", "due"), [(NOW - 1, True), (NOW, True), (NOW + 1, False)])
def test_a_message_is_due_from_its_time_on(due_at: int, due: bool) -> None:
    for headers in ({h.DUE_AT: due_at}, {"a": 1, h.DUE_AT: due_at, "b": ["x"]}, {h.QUEUE: "orders", h.DUE_AT: due_at}):
        assert is_due(headers) is due


def test_a_message_that_never_failed_is_due() -> None:
    assert is_due(None)
    assert is_due({"theirs": 1})


@pytest.mark.parametrize("value", [5, "soon", None, 1.5, [NOW], {"at": NOW}, True])
def test_what_is_no_time_of_ours_is_left_to_a_closer_look(value: Any) -> None:
    assert not is_due({h.DUE_AT: value})


def test_a_value_that_looks_like_the_header_hides_no_later_one() -> None:
    looks_past = encode_table({h.DUE_AT: NOW - 1})[4:]
    for headers in (
        {"theirs": bytearray(looks_past), h.DUE_AT: NOW + 1},
        {h.DUE_AT: NOW + 1, "theirs": bytearray(looks_past)},
    ):
        assert not is_due(headers)
    assert not is_due({"theirs": bytearray(ENTRY)}), "it may be one: the closer look finds none"
    assert incoming({"theirs": bytearray(ENTRY)}).record is None


def test_a_time_that_is_cut_short_is_left_to_a_closer_look() -> None:
    name = bytes((len(h.DUE_AT),)) + h.DUE_AT.encode()
    whole = delivery()
    cut = ContentHeader(whole.header.payload + name + b"l\0")
    assert not Incoming(replace(whole, header=cut)).is_due(NOW)


@given(header_tables, st.integers(NOW - 2, NOW + 2))
def test_whatever_else_is_there_a_message_that_is_not_due_is_never_taken_for_one(
    headers: dict[str, Any], due_at: int
) -> None:
    message = incoming({**headers, h.QUEUE: "orders", h.DUE_AT: due_at})
    if message.is_due(NOW):
        assert message.record is not None
        assert message.record.due_at is not None
        assert message.record.due_at <= NOW
