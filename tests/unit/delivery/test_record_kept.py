"""The record that travels with a failed message: what is in it, whose it is, how long it may be."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqpflow.delivery import incoming as incoming_module
from amqpflow.delivery.incoming import Incoming
from amqpflow.delivery.settle import LeaveToBroker, decide
from amqpflow.delivery.verdict import Decided
from amqpflow.model import headers as h
from amqpflow.model.content_header import ContentHeader
from amqpflow.model.headers import NEVER_TRAVELS, ORIGINAL, PREFIX
from amqpflow.model.message import Delivery
from amqpflow.model.outcome import Park
from amqpflow.model.properties import Properties
from amqpflow.model.record import read_record
from amqpflow.model.wire import encode_content_header, encode_table
from tests.deliveries import (
    NOW,
    QUEUE,
    at,
    comes_back,
    decided,
    delivery,
    failed,
    headers_of,
    incoming,
    publish_of,
    retried,
    routes,
)
from tests.messages import field_values, properties

FRAME = 131_072
PARKED = Decided(outcome=Park("r" * 5000))


# -- what is in it


def test_a_first_failure_writes_the_record() -> None:
    headers = headers_of(
        decided(
            incoming({"theirs": 1}),
            failed(fingerprint="f" * 16, stack="at line 1", location="service.py:10"),
            routes(5000),
        )
    )
    history = headers.pop(h.HISTORY)
    assert headers == {
        "theirs": 1,
        h.ATTEMPT: 1,
        h.HOP: "m/0/1",
        h.QUEUE: "orders",
        h.EXCHANGE: "events",
        h.ROUTING_KEY: "order.placed",
        h.FIRST_FAILED_AT: NOW,
        h.FAILED_AT: NOW,
        h.DUE_AT: NOW + 5000,
        h.ERROR_TYPE: "ValueError",
        h.ERROR_MESSAGE: "no",
        h.ERROR_LOCATION: "service.py:10",
        h.ERROR_STACK: "at line 1",
        h.FINGERPRINT: "f" * 16,
        h.HOST: "host-1",
        h.VERSION: "1.2.3",
    }
    assert history == [{"at": NOW, "tier": "orders.retry.5s", "error-type": "ValueError"}]


def test_a_second_failure_keeps_where_and_when_it_began() -> None:
    first = decided(incoming(), failed("TimeoutError"), routes(5000, 9000))
    second = decided(comes_back(publish_of(first)), failed(), routes(5000, 9000), now=NOW + 5005)
    headers = headers_of(second)
    assert headers[h.ATTEMPT] == 2
    assert headers[h.HOP] == "m/0/2"
    assert (headers[h.EXCHANGE], headers[h.ROUTING_KEY]) == ("events", "order.placed")
    assert (headers[h.FIRST_FAILED_AT], headers[h.FAILED_AT]) == (NOW, NOW + 5005)
    assert [each["error-type"] for each in headers[h.HISTORY]] == ["TimeoutError", "ValueError"]
    assert headers[h.ERROR_TYPE] == "ValueError"


def test_what_a_failure_does_not_have_is_not_left_over_from_the_one_before() -> None:
    first = decided(incoming(), failed(stack="at line 1", fingerprint="f", location="service.py:10"), routes(5000))
    parked = headers_of(decided(comes_back(publish_of(first)), Decided(outcome=Park()), routes(5000)))
    left_over = {h.ERROR_TYPE, h.ERROR_MESSAGE, h.ERROR_LOCATION, h.ERROR_STACK, h.FINGERPRINT, h.DUE_AT}
    assert not left_over & parked.keys()


def test_the_history_keeps_the_latest_ten() -> None:
    where = routes(*range(1000, 20_000, 1000))
    message = incoming()
    for number in range(15):
        message = comes_back(publish_of(decided(message, failed(f"Error{number}"), where)))
    assert message.record is not None
    assert [each.error_type for each in message.record.history] == [f"Error{number}" for number in range(5, 15)]
    assert message.attempts_made == 15


# -- hop ids


def test_settling_one_delivery_twice_writes_the_same_hop() -> None:
    twice = [decided(incoming(), failed(), routes(5000), now=NOW + late, choice=late / 10) for late in (0, 7)]
    assert {headers_of(each)[h.HOP] for each in twice} == {"m/0/1"}
    assert headers_of(decided(incoming(), Decided(outcome=Park()), routes(5000)))[h.HOP] == "m/0/1"


def test_without_a_message_id_the_root_is_fixed_at_the_first_publish() -> None:
    first = decided(incoming(message_id=None), failed(), routes(5000, 9000))
    assert headers_of(first)[h.HOP] == "new-root/0/1"
    second = decided(comes_back(publish_of(first)), failed(), routes(5000, 9000), new_root="another")
    assert headers_of(second)[h.HOP] == "new-root/0/2"


def test_a_replayed_message_counts_its_attempts_anew_in_another_hop() -> None:
    back = retried(0, hop="m/2/0", replay={"id": "r1", "count": 2, "at": NOW})
    headers = headers_of(decided(back, failed(), routes(5000)))
    assert headers[h.HOP] == "m/2/1"
    assert headers[h.REPLAY] == {"id": "r1", "count": 2, "at": NOW}


@pytest.mark.parametrize("root", ["a/b/c", "x" * 255, "ünï", "caf\udce9", "/"])
def test_any_message_id_is_a_root_that_is_found_again(root: str) -> None:
    back = comes_back(publish_of(decided(incoming(message_id=root), failed(), routes(5000, 9000))))
    assert back.record is not None
    assert back.record.root == root


# -- whose it is


def test_a_record_of_another_queue_is_ignored_and_removed() -> None:
    theirs = {
        h.QUEUE: "billing",
        h.ATTEMPT: 7,
        h.HOP: "x/0/7",
        h.ROUTING_KEY: "elsewhere",
        PREFIX + "unknown": 1,
        "a": 1,
    }
    message = incoming(theirs)
    assert message.record is None
    assert message.attempts_made == 0
    assert message.routing_key == "order.placed"
    assert message.properties.headers == {"a": 1}
    headers = headers_of(decided(message, failed(), routes(5000)))
    assert headers[h.ATTEMPT] == 1
    assert headers[h.HOP] == "m/0/1"
    assert PREFIX + "unknown" not in headers


@pytest.mark.parametrize("attempts", [999, 1_000_000])
def test_a_forged_count_parks_at_the_next_failure(attempts: int) -> None:
    headers = headers_of(decided(retried(attempts), failed(), routes(5000)))
    assert headers[h.REASON] == "exhausted"


@pytest.mark.parametrize("attempts", [-1, 1_000_001, True, "2", 2.0, None, [1], {"a": 1}])
def test_a_count_that_is_none_is_zero(attempts: Any) -> None:
    assert retried(attempts).attempts_made == 0


@given(
    st.dictionaries(
        st.sampled_from([getattr(h, name) for name in dir(h) if str(getattr(h, name)).startswith(PREFIX)]), field_values
    )
)
def test_no_header_of_ours_is_too_strange_to_be_read(headers: dict[str, Any]) -> None:
    headers = {**headers, h.QUEUE: "orders"}
    record = read_record(headers, "orders")
    assert record is not None
    assert 0 <= record.attempts <= 1_000_000
    assert all(isinstance(each, str | None) for each in (record.hop, record.root, record.exchange, record.error_type))
    assert len(record.history) <= 10
    # and settling it works
    settlement = decided(incoming(headers), failed(), routes(5000))
    assert headers_of(settlement)[h.QUEUE] == "orders"


# -- what travels


@given(properties, st.sampled_from([failed(), Decided(outcome=Park("x")), failed("TimeoutError")]))
def test_no_copy_carries_what_never_travels(value: Properties, verdict: Any) -> None:
    message = Incoming(first_delivery(value))
    settlement = decided(message, verdict, routes(5000))
    publish = publish_of(settlement)
    assert publish.properties.delivery_mode == 2
    assert publish.properties.expiration is None
    assert publish.properties.user_id is None
    assert not NEVER_TRAVELS & headers_of(settlement).keys()
    assert publish.body == b"body"
    again = publish_of(decided(comes_back(publish), verdict, routes(5000, 9000)))
    assert not NEVER_TRAVELS & (again.properties.headers or {}).keys()


@pytest.mark.parametrize("name", ["x-opt-delivery-time", "x-opt-delivery-delay"])
@pytest.mark.parametrize("verdict", [failed(), Decided(outcome=Park("x"))], ids=["retried", "parked"])
def test_a_delivery_time_holds_back_no_copy_and_is_shown_to_the_handler(name: str, verdict: Any) -> None:
    """RabbitMQ 4.4 would keep the copy until then, where no reader sees it."""
    message = Incoming(first_delivery(Properties(message_id="m", headers={name: 1 << 42, "their": 1})))
    publish = publish_of(decided(message, verdict, routes(1000)))
    headers = publish.properties.headers or {}
    assert (name in headers, headers["their"], headers[ORIGINAL]) == (False, 1, {name: 1 << 42})
    assert comes_back(publish).properties.headers == {name: 1 << 42, "their": 1}


@pytest.mark.parametrize("header", [{"x-delay": 5000}, {"x-delay": -5000}, {"x-stream-filter-value": "a"}])
def test_what_only_other_exchanges_and_streams_read_travels(header: dict[str, Any]) -> None:
    """Tiers, parking and the exchanges before them are plain: there these are headers like any other."""
    message = Incoming(first_delivery(Properties(message_id="m", headers=header)))
    headers = publish_of(decided(message, failed(), routes(1000))).properties.headers or {}
    assert headers.items() >= header.items()


@given(properties)
def test_a_handler_sees_the_same_message_on_every_attempt(value: Properties) -> None:
    """But for delivery_mode, which is 2 from the first hop on, and BCC, which RabbitMQ removes before a delivery."""
    headers = {name: each for name, each in (value.headers or {}).items() if name != "BCC"}
    value = Properties(**{name: getattr(value, name) for name in value.__slots__} | {"headers": headers or None})
    message = Incoming(first_delivery(value))
    seen = [(message.properties, message.exchange, message.routing_key)]
    where = routes(1000, 2000, 3000)
    for _ in range(3):
        message = comes_back(publish_of(decided(message, failed(), where)), **{"x-delivery-count": 3})
        seen.append((message.properties, message.exchange, message.routing_key))
    first = (Properties(**{**as_dict(seen[0][0]), "delivery_mode": 2}), *seen[0][1:])
    assert seen[1:] == [first] * 3


def as_dict(value: Properties) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__slots__}


def first_delivery(value: Properties) -> Delivery:
    return Delivery(
        queue="orders",
        delivery_tag=1,
        redelivered=False,
        exchange="",
        routing_key="",
        header=ContentHeader.of(value),
        body=b"body",
    )


def test_an_absent_priority_stays_absent_and_zero_stays_zero() -> None:
    for priority in (None, 0, 9):
        copy = publish_of(decided(incoming(priority=priority), failed(), routes(5000)))
        assert copy.properties.priority == priority


# -- how long it may be


def test_our_headers_take_16_kib_at_most() -> None:
    settlement = decided(incoming(), failed("E" * 500, "m" * 1_000_000, stack="s" * 1_000_000), routes(5000))
    headers = headers_of(settlement)
    assert len(encode_table(headers)) <= 16 * 1024
    assert len(headers[h.ERROR_MESSAGE].encode()) <= 1024
    assert len(headers[h.ERROR_STACK].encode()) <= 8 * 1024
    assert len(headers[h.ERROR_TYPE].encode()) <= 255
    assert headers[h.ERROR_MESSAGE].endswith("…")
    assert headers[h.ERROR_STACK].startswith("…"), "the innermost frame is at its end"


@pytest.mark.parametrize(
    "forged",
    [
        {h.HOP: "r" * 60_000 + "/0/1"},
        {h.EXCHANGE: "x" * 60_000, h.ROUTING_KEY: "x"},
        {h.ROUTING_KEY: "x" * 60_000},
        {h.REPLAY: {"id": "x" * 60_000, "count": 1}},
        {h.HISTORY: [{"at": NOW, "tier": "x" * 60_000, "error-type": "x"}]},
    ],
    ids=lambda forged: next(iter(forged)),
)
def test_nor_do_they_take_more_when_a_producer_has_forged_long_ones(forged: dict[str, Any]) -> None:
    settlement = decided(incoming({h.QUEUE: QUEUE, h.ATTEMPT: 1, **forged}), failed(), routes(5000, 5000))
    assert headers_of(settlement)[h.ATTEMPT] == 2
    assert len(encode_table(headers_of(settlement))) <= 16 * 1024


def test_ours_shrink_in_order_history_stack_message_detail_and_theirs_never() -> None:
    """Seen by growing the producer's headers until nothing of the record is left to give."""
    verdict = Decided(outcome=Park("d" * 1000), error=failed(message="m" * 1000, stack="s" * 8000).error)
    history = [{"at": NOW, "tier": "t" * 100, "error-type": "E"} for _ in range(9)]
    order = [h.HISTORY, h.ERROR_STACK, h.ERROR_MESSAGE, h.REASON_DETAIL]
    whole = [10, 8000, 1000, 1000]  # the length of each when there is room
    seen = set()
    for size in range(FRAME - 20_000, FRAME - 5_000, 100):
        theirs = {"large": "x" * size}
        message = incoming({**theirs, h.QUEUE: "orders", h.ATTEMPT: 1, h.HISTORY: history})
        settlement = decided(message, verdict, routes(5000))
        headers = headers_of(settlement)
        assert headers["large"] == theirs["large"]
        assert frame_of(settlement) <= FRAME - 4096
        lengths = [len(headers.get(name, "")) for name in order]
        shrunk = [length < full for length, full in zip(lengths, whole, strict=True)]
        last = max((index for index in range(4) if shrunk[index]), default=0)
        assert not any(lengths[:last]), "something gave way before what comes earlier was gone"
        seen.add(last)
    assert seen == {0, 1, 2, 3}


def frame_of(settlement: Any) -> int:
    return len(encode_content_header(publish_of(settlement).properties, 0)) + 8


def test_headroom_is_given_up_before_a_message_is() -> None:
    """Below frame_max the copy is still possible, without the 4 KiB left free for others."""
    settlement = decided(incoming({"large": "x" * (FRAME - 3000)}), PARKED, routes(5000))
    assert FRAME - 4096 < frame_of(settlement) <= FRAME
    assert headers_of(settlement)[h.REASON] == "parked"


def test_without_room_for_any_record_the_message_is_left_to_the_broker() -> None:
    message = incoming({"large": "x" * (FRAME - 200)})
    for verdict in (PARKED, failed()):
        settlement = decided(message, verdict, routes(5000))
        assert isinstance(settlement, LeaveToBroker)
        assert "'m'" in settlement.why


def test_without_a_frame_limit_everything_fits() -> None:
    settlement = decided(incoming({"large": "x" * 1_000_000}), failed(), routes(5000), frame_max=0)
    assert headers_of(settlement)[h.ERROR_MESSAGE] == "no"


def test_tables_at_the_limit_of_nesting_are_left_to_the_broker() -> None:
    value: Any = 1
    for _ in range(63):
        value = [value]
    message = Incoming(delivery({"x-death": value}))
    assert isinstance(decided(message, failed(), routes(5000)), LeaveToBroker)


@given(properties, st.integers(4096, 20_000))
def test_a_copy_never_exceeds_the_frame(value: Properties, frame_max: int) -> None:
    settlement = decide(
        Incoming(first_delivery(value)), failed(stack="s" * 9000), at(routes(5000), frame_max=frame_max)
    )
    if not isinstance(settlement, LeaveToBroker):
        assert frame_of(settlement) <= frame_max


def test_the_record_is_whole_for_each_of_two_threads_that_ask_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A handler in a thread that is late by now asks for its attempt while its retry is decided."""
    reading, go_on = threading.Event(), threading.Event()
    late = threading.Thread(target=lambda: seen.append(message.attempts_made))

    def slow(*arguments: Any) -> Any:
        if threading.current_thread() is late:
            reading.set()
            assert go_on.wait(10)
        return read_record(*arguments)

    monkeypatch.setattr(incoming_module, "read_record", slow)
    message, seen = incoming({h.QUEUE: QUEUE, h.ATTEMPT: 3}), list[int]()
    late.start()
    assert reading.wait(10)
    seen.append(message.attempts_made)
    go_on.set()
    late.join()
    assert seen == [3, 3]
