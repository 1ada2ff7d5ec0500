"""Encoding and decoding are each other's inverse, and pamqp reads what we write."""

from __future__ import annotations

import struct
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pamqp.decode
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pamqp.header import ContentHeader

from amqpflow.model.properties import Properties
from amqpflow.model.wire import MAX_DEPTH, encode_content_header, encode_table, encode_value
from amqpflow.model.wire_decode import decode_content_header
from tests.messages import field_values, properties, tables


def same(left: Any, right: Any) -> bool:
    """Equal, and of one type, all the way down: True is not 1 here, and 1.50 is not 1.5."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(str(left) == str(right) if isinstance(left, Decimal) else left == right)


def round_trip(value: Any) -> Any:
    header = encode_content_header(Properties(headers={"k": value}), 0)
    return decode_content_header(header).headers["k"]  # type: ignore[index]


@given(field_values)
@example((1 << 64) - 1)
@example({"caf\udce9": 1})
@example(Decimal("-0.10"))
@example(Decimal(10))
@example(float("inf"))
def test_a_value_is_read_as_it_was_written(value: Any) -> None:
    assert same(round_trip(value), value)


@given(properties)
def test_properties_are_read_as_they_were_written(value: Properties) -> None:
    assert decode_content_header(encode_content_header(value, 7)) == value


def test_text_that_is_no_utf8_is_written_as_the_bytes_it_came_as() -> None:
    raw = b"caf\xe9"
    assert round_trip(raw) == raw
    assert round_trip("caf\udce9") == raw
    assert decode_content_header(encode_content_header(Properties(message_id="caf\udce9"), 0)).message_id == "caf\udce9"


def test_a_number_that_is_not_a_number_stays_one() -> None:
    assert round_trip(float("nan")) != round_trip(float("nan"))


@given(tables)
@example({"d": 0.1, "i": -(1 << 63), "n" * 255: "long name", "b": b"\xff\xfe", "x": bytearray(b"\x00")})
def test_pamqp_reads_the_same_table(table: dict[str, Any]) -> None:
    """Timestamps apart: past the year 2106 pamqp takes seconds for milliseconds, which is why it is not asked."""
    consumed, read = pamqp.decode.field_table(encode_table(table))
    assert consumed == len(encode_table(table))
    assert without_times(read) == without_times(table)


def without_times(value: Any) -> Any:
    match value:
        case dict():
            return {key: without_times(each) for key, each in value.items()}
        case list():
            return [without_times(each) for each in value]
        case datetime():
            return "a time"
        case _:
            return value


@given(properties, st.integers(0, 1 << 40))
def test_pamqp_reads_the_same_content_header(value: Properties, body_size: int) -> None:
    if isinstance(value.timestamp, int) or value.headers:
        return  # the one it refuses, the other has a test of its own
    header = ContentHeader()
    header.unmarshal(encode_content_header(value, body_size))
    read = header.properties
    assert header.body_size == body_size
    for name in ("content_type", "priority", "correlation_id", "expiration", "message_id", "user_id", "app_id"):
        assert getattr(read, name) == getattr(value, name)
    assert read.message_type == value.type
    assert (read.cluster_id or None) == (value.cluster_id or None)


@given(st.binary(max_size=200))
@example(b"\x20\x00" + struct.pack(">I", 9) + b"\x01k" + b"F" + struct.pack(">I", 1 << 31) + b"\x00\x00")
@example(b"\x20\x00" + struct.pack(">I", 3) + b"\x01k" + b"?")
@example(b"\x80\x00\xff")
def test_whatever_comes_is_read_or_told_of(rest: bytes) -> None:
    try:
        decode_content_header(struct.pack(">HHQ", 60, 0, 0) + rest)
    except ValueError:
        pass


def test_tables_are_nested_to_a_limit_on_the_way_in_and_out() -> None:
    value: Any = {}
    for _ in range(MAX_DEPTH - 2):
        value = {"k": value}
    assert round_trip(value) == value
    for deeper in ({"k": value}, [value]):
        with pytest.raises(ValueError, match="nested"):
            round_trip(deeper)
    raw = b"V"
    for _ in range(5000):
        raw = b"F" + struct.pack(">I", len(raw) + 2) + b"\x01k" + raw
    header = struct.pack(">HHQH", 60, 0, 0, 1 << 13) + raw[1:]
    with pytest.raises(ValueError, match="nested"):
        decode_content_header(header)
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(ValueError, match="nested"):
        encode_value(endless)


def test_timestamps_are_whole_seconds_and_what_no_datetime_holds_stays_a_number() -> None:
    berlin = datetime(2026, 7, 1, 12, 0, 0, 999_999, tzinfo=timezone(timedelta(hours=2)))
    assert round_trip(berlin) == datetime(2026, 7, 1, 10, tzinfo=UTC)
    assert round_trip(datetime(2026, 7, 1, 10)) == datetime(2026, 7, 1, 10, tzinfo=UTC)  # noqa: DTZ001
    for raw in (1_790_000_000_000, 1_790_000_000_000_000, (1 << 64) - 1):
        header = encode_content_header(Properties(timestamp=raw), 0)
        assert header.endswith(struct.pack(">Q", raw))
        assert decode_content_header(header).timestamp == raw
    with pytest.raises(ValueError, match="1970"):
        encode_value(datetime(1969, 12, 31, tzinfo=UTC))


@pytest.mark.parametrize(
    ("headers", "problem"),
    [
        ({"k": object()}, "k: AMQP has no type for object"),
        ({"k": [1, {"in": {1, 2}}]}, "in: AMQP has no type for set"),
        ({1: "x"}, "a header name is text, not int"),
        ({"k" * 256: 1}, "AMQP allows 255"),
        ({"k": 1 << 64}, "does not fit 64 bits"),
        ({"k": -(1 << 63) - 1}, "does not fit 64 bits"),
        ({"k": Decimal("1e400")}, "does not fit"),
        ({"k": Decimal("NaN")}, "is not a number"),
        ({"k": Decimal(1 << 31)}, "does not fit"),
        ({"k": "\ud800"}, "surrogates"),
    ],
)
def test_what_amqp_cannot_say_is_refused_with_the_reason(headers: dict[Any, Any], problem: str) -> None:
    with pytest.raises(ValueError, match="property headers: ") as refused:
        encode_content_header(Properties(headers=headers), 0)
    assert problem in str(refused.value)


@pytest.mark.parametrize(
    "wrong",
    [
        Properties(priority=256),
        Properties(priority=-1),
        Properties(message_id="x" * 256),
        Properties(correlation_id=7),  # type: ignore[arg-type]
        Properties(timestamp="now"),  # type: ignore[arg-type]
    ],
)
def test_a_property_that_does_not_fit_is_named(wrong: Properties) -> None:
    with pytest.raises(ValueError, match=r"property (priority|message_id|correlation_id|timestamp): "):
        encode_content_header(wrong, 0)


def test_absent_is_not_empty_and_not_zero() -> None:
    empty = Properties(content_type="", priority=0, headers={}, message_id="")
    assert decode_content_header(encode_content_header(empty, 0)) == empty
    assert decode_content_header(encode_content_header(Properties(), 0)) == Properties()


@given(tables)
def test_the_size_of_a_table_is_that_of_its_entries(table: dict[str, Any]) -> None:
    assert len(encode_table(table)) == 4 + sum(len(encode_table({key: value})) - 4 for key, value in table.items())
