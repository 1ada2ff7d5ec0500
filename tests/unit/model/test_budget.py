"""Of a record as much as fits is kept, the most useful first, and not a byte more than there is room for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqpflow.model import headers as h
from amqpflow.model.budget import OURS_MAX, fit_into_frame, headroom, shortened
from amqpflow.model.raw_headers import RawHeaders
from amqpflow.model.record import FailureRecord, PastAttempt
from amqpflow.model.record_table import encode_record, record_table
from amqpflow.model.wire import encode_table
from tests.unit.model.test_record_table import records

WHOLE = (h.ERROR_TYPE, h.ERROR_LOCATION, h.FINGERPRINT, h.VERSION, h.HOST)
CUT = (h.REASON_DETAIL, h.ERROR_MESSAGE, h.ERROR_STACK)


def decoded(entries: bytes) -> dict[str, Any]:
    return dict(RawHeaders(len(entries).to_bytes(4, "big") + entries, 0))


def size(table: dict[str, Any]) -> int:
    return len(encode_table(table)) - 4


@given(records, st.integers(-100, 6000) | st.floats(0, 1))
def test_what_is_kept_fits_and_is_a_part_of_the_record(record: FailureRecord, room: float) -> None:
    room = room if isinstance(room, int) else int(room * len(encode_record(record)))
    whole, encoded = decoded(encode_record(record)), shortened(record, room)
    kept = decoded(encoded)
    required = {name: value for name, value in whole.items() if name not in (*WHOLE, *CUT, h.HISTORY)}
    assert {name: kept[name] for name in required} == required
    assert len(encoded) <= max(room, size(required))
    for name in WHOLE:
        assert kept.get(name) in (None, whole.get(name))
    for name in CUT:
        if name in kept and kept[name] != whole[name]:
            text = kept[name].removeprefix("…") if name == h.ERROR_STACK else kept[name].removesuffix("…")
            assert text
            assert whole[name].endswith(text) if name == h.ERROR_STACK else whole[name].startswith(text)
    past = whole.get(h.HISTORY, [])
    assert kept.get(h.HISTORY, []) == past[len(past) - len(kept.get(h.HISTORY, [])) :]


@given(records, st.floats(0, 1))
def test_nothing_that_is_left_out_would_fit(record: FailureRecord, part: float) -> None:
    room = int(part * len(encode_record(record)))
    whole, encoded = record_table(record), shortened(record, room)
    kept, left = decoded(encoded), room - len(encoded)
    for name in WHOLE:
        if name in whole and name not in kept:
            assert size({name: whole[name]}) > left, name
    for name in CUT:
        if name in whole and name not in kept:
            assert 1 + len(name) + 5 + len("…".encode()) + len(whole[name][-4:].encode()[:1]) > left - 4, name
        elif name in whole and kept[name] != decoded(encode_table({name: whole[name]})[4:])[name]:
            assert left < 4 + len("…".encode()), f"{name} could be a character longer"
    if len(kept.get(h.HISTORY, [])) < len(whole.get(h.HISTORY, [])):
        more = whole[h.HISTORY][-len(kept.get(h.HISTORY, [])) - 1 :]
        assert size({h.HISTORY: more}) > left + (size({h.HISTORY: kept[h.HISTORY]}) if h.HISTORY in kept else 0)


@given(records)
def test_what_has_room_is_whole(record: FailureRecord) -> None:
    whole = encode_record(record)
    assert decoded(shortened(record, len(whole))) == decoded(whole)


FAILURE = FailureRecord(
    queue="orders",
    attempts=3,
    hop="m-1/0/3",
    exchange="events",
    routing_key="order.placed",
    first_failed_at=1,
    failed_at=2,
    reason="exhausted",
    error_type="httpx.ConnectError",
    error_message="the gateway did not answer " * 30,
    error_location="service.py:10",
    error_stack="".join(f'  File "service.py", line {number}, in charge\n' for number in range(170)),
    fingerprint="f" * 16,
    history=tuple(PastAttempt(at=at, tier="orders.retry.30s", error_type="httpx.ConnectError") for at in range(1, 11)),
    host="web-1",
    version="0.1.0",
)


def test_in_the_smallest_frame_of_amqp_a_record_says_what_failed_and_where() -> None:
    """4,096 bytes: a client may ask for it, and no peer may refuse it."""
    table = fit_into_frame(b"", FAILURE, others=60, frame_max=4096)
    assert table is not None
    kept = decoded(table[4:])
    assert (kept[h.ERROR_TYPE], kept[h.ERROR_MESSAGE]) == (FAILURE.error_type, FAILURE.error_message)
    assert kept[h.ERROR_LOCATION] == "service.py:10"
    assert kept[h.ERROR_STACK].endswith("line 169, in charge\n"), "of the stack the innermost end"
    assert 4096 - 1024 - 8 <= len(table) + 60 + 8 <= 4096 - 1024, "filled but for what the broker may add"


@pytest.mark.parametrize(("frame_max", "free"), [(4096, 1024), (8192, 2048), (16_384, 4096), (131_072, 4096)])
def test_room_is_left_for_what_the_broker_adds(frame_max: int, free: int) -> None:
    assert headroom(frame_max) == free


def test_a_stack_has_room_before_a_history() -> None:
    kept = decoded(shortened(FAILURE, 3000))
    assert h.ERROR_STACK in kept
    assert h.HISTORY not in kept
    without = decoded(shortened(replace(FAILURE, error_stack=None), 1700))
    times = [each["at"] for each in without[h.HISTORY]]
    assert times == list(range(11 - len(times), 11)), "the latest entries"
    assert 0 < len(times) < 10


def test_ours_are_16_kib_at_most_whatever_the_frame_is() -> None:
    long = tuple(PastAttempt(at=1, tier="t" * 250, error_type="e" * 250) for _ in range(10))
    record = replace(FAILURE, error_stack="s" * 8192, error_message="m" * 1024, reason_detail="d" * 1024, history=long)
    table = fit_into_frame(
        b"", replace(record, host="h" * 255, error_type="t" * 255, hop="r" * 255 + "/0/3"), others=0, frame_max=0
    )
    assert table is not None
    assert OURS_MAX - 600 < len(table) - 4 <= OURS_MAX
