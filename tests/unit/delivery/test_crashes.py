"""Which message is suspected of killing its consumer, and which is parked for it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from amqpflow.delivery.crashes import Survived, Suspicion, carried, losses, suspicion
from amqpflow.delivery.incoming import Incoming
from amqpflow.delivery.settle import Circumstances, ToParking, decide, set_back
from amqpflow.delivery.verdict import Crashed
from amqpflow.model import headers as h
from amqpflow.model.content_header import ContentHeader
from amqpflow.model.headers import ParkReason
from amqpflow.model.message import Publish
from amqpflow.model.properties import Properties
from amqpflow.model.record import FailureRecord, read_record
from amqpflow.model.record_table import encode_record, record_table
from amqpflow.model.routes import NativeRetry, QueueRoutes
from amqpflow.model.wire import encode_table
from amqpflow.services.handling.message import Message
from tests.deliveries import NOW, QUEUE, at, delivery, incoming, retried, routes

WHERE = routes(5000)
OURS = {h.QUEUE: QUEUE}
DIED_ELSEWHERE = {"x-death": [{"queue": "theirs", "reason": "rejected", "count": 1}]}


def lost(count: int, native: bool = False, **headers: Any) -> Incoming:
    """Delivered again, after so many deliveries without an answer."""
    counted = {"x-delivery-count": count, **headers}
    return Incoming(replace(delivery(counted), redelivered=True), native=native)


def test_a_message_is_handled_alone_from_its_third_loss_on_and_parked_at_its_fifth() -> None:
    found = [suspicion(lost(count), WHERE) for count in range(7)]
    none, alone, crashed = Suspicion.NONE, Suspicion.ALONE, Suspicion.CRASHED
    assert found == [none, none, none, alone, alone, crashed, crashed]


def test_with_a_low_limit_it_is_handled_alone_at_least_once_before_it_is_parked() -> None:
    for limit in (2, 3, 4):
        where = replace(WHERE, crash_limit=limit)
        assert suspicion(lost(limit - 1), where) is Suspicion.ALONE
        assert suspicion(lost(limit), where) is Suspicion.CRASHED
    assert suspicion(lost(1), replace(WHERE, crash_limit=3)) is Suspicion.NONE


def test_a_first_delivery_is_lost_never_whatever_it_says() -> None:
    assert suspicion(incoming({"x-delivery-count": 50, "x-acquired-count": 50}), WHERE) is Suspicion.NONE


@pytest.mark.parametrize("count", [-1, "9", True, None, 1.5])
def test_what_is_no_count_counts_nothing(count: Any) -> None:
    assert suspicion(lost(count), WHERE) is Suspicion.NONE


def test_a_count_that_a_producer_wrote_is_not_believed_beyond_the_deliveries() -> None:
    """RabbitMQ 4.3 leaves it there while it counts nothing, but says how often it has handed the message out."""
    assert losses(lost(50, **{"x-acquired-count": 1}), WHERE) == 1
    assert losses(lost(2, **{"x-acquired-count": 9}), WHERE) == 2


def test_a_classic_queue_counts_nothing() -> None:
    assert suspicion(lost(50), replace(WHERE, queue_type="classic")) is Suspicion.NONE


def test_retries_of_a_native_queue_are_not_losses() -> None:
    where = replace(routes(), native=NativeRetry(min_ms=100, max_ms=100, retries=3))
    found = {count: suspicion(lost(count, native=True), where) for count in range(10)}
    assert {count for count, each in found.items() if each is Suspicion.NONE} == {0, 1, 2, 3}
    assert {count for count, each in found.items() if each is Suspicion.ALONE} == {4, 5, 6, 7}
    assert {count for count, each in found.items() if each is Suspicion.CRASHED} == {8, 9}


def test_losses_that_the_process_survived_park_nothing() -> None:
    held, unseen = Survived(held=2), Survived(unseen=2)
    for survived in (held, unseen):
        assert suspicion(lost(6), WHERE, survived=survived) is Suspicion.ALONE
        assert suspicion(lost(7), WHERE, survived=survived) is Suspicion.CRASHED
    assert suspicion(lost(4), WHERE, survived=held) is Suspicion.NONE, "and it is no suspect for them"
    assert suspicion(lost(4), WHERE, survived=unseen) is Suspicion.ALONE, "for those of which this is certain"


def test_what_was_beside_a_killer_gets_one_more_try_alone() -> None:
    assert suspicion(lost(9), WHERE, excused=True) is Suspicion.ALONE


@pytest.mark.parametrize("headers", [{}, OURS])
def test_a_count_of_another_queue_parks_nothing(headers: dict[str, Any]) -> None:
    """Once a copy of ours was made for this queue, and not for a retry queue, the count is this queue's."""
    elsewhere = lost(9, **DIED_ELSEWHERE, **headers)
    assert suspicion(elsewhere, WHERE) is Suspicion.UNCERTAIN
    assert carried(elsewhere, WHERE) == (4 if headers else 0), "after a retry queue one more loss is the last"
    publish, _ = moved(elsewhere, carried(elsewhere, WHERE))
    assert "x-death" not in header_of(publish)
    assert suspicion(lost(9, **headers), WHERE) is Suspicion.CRASHED


def test_a_count_of_requeues_parks_nothing_before_a_copy_of_ours_was_lost() -> None:
    """Before RabbitMQ 4.3 a requeue counts like a loss."""
    assert suspicion(lost(9), WHERE, requeues_count=True) is Suspicion.UNCERTAIN
    assert suspicion(lost(9), WHERE, requeues_count=True, excused=True) is Suspicion.ALONE
    assert carried(lost(9), WHERE) == 4
    copy = {**OURS, h.LOST: 4}
    assert suspicion(Incoming(delivery(copy)), WHERE, requeues_count=True) is Suspicion.ALONE
    assert suspicion(lost(1, **copy), WHERE, requeues_count=True) is Suspicion.ALONE, "it may have been beside a killer"
    assert carried(lost(1, **copy), WHERE) == 5, "it is moved once more, and forgets nothing"
    assert suspicion(lost(2, **copy), WHERE, requeues_count=True) is Suspicion.CRASHED
    assert suspicion(lost(1, **{**copy, h.LOST: 5}), WHERE, requeues_count=True) is Suspicion.CRASHED


def test_a_forged_count_alone_parks_nothing() -> None:
    for count in (4, 5, 1000):
        assert suspicion(Incoming(delivery({**OURS, h.LOST: count})), WHERE) is Suspicion.ALONE


def test_a_count_of_another_queue_is_not_carried_on() -> None:
    assert carried(lost(9, **DIED_ELSEWHERE), WHERE) == 0


def test_what_a_copy_says_of_losses_before_counts_with_those_since() -> None:
    copy = retried(0, lost=3)
    assert copy.may_have_been_lost
    assert suspicion(copy, WHERE) is Suspicion.ALONE
    assert suspicion(lost(1, **OURS, **{h.LOST: 3}), WHERE) is Suspicion.ALONE
    assert suspicion(lost(2, **OURS, **{h.LOST: 3}), WHERE) is Suspicion.CRASHED
    assert not incoming().may_have_been_lost


@pytest.mark.parametrize("forged", [5, 50, 1_000_000])
def test_a_forged_header_of_ours_parks_nothing_before_a_delivery_was_lost(forged: int) -> None:
    assert suspicion(retried(0, lost=forged), WHERE) is Suspicion.ALONE
    assert suspicion(incoming({h.LOST: forged}), WHERE) is Suspicion.NONE, "of another queue"


def test_headers_that_cannot_be_read_are_no_reason_for_anything() -> None:
    broken = ContentHeader(ContentHeader.of(Properties(headers={"a": 1})).payload[:-1])
    assert suspicion(Incoming(replace(delivery(), header=broken, redelivered=True)), WHERE) is Suspicion.NONE


# -- settling


def header_of(publish: Publish) -> dict[str, Any]:
    return dict(publish.properties.headers or {})


def parked(message: Incoming, where: QueueRoutes = WHERE) -> ToParking:
    settlement = decide(message, Crashed(deliveries=5), at(where))
    assert isinstance(settlement, ToParking)
    return settlement


def test_a_killer_is_parked_as_crashed_with_a_record() -> None:
    settlement = parked(lost(5))
    assert (settlement.reason, settlement.detail) == (
        ParkReason.CRASHED,
        "5 deliveries ended without an ack: the consumer crashed or lost its connection",
    )
    record = read_record(header_of(settlement.publish))
    assert record is not None
    assert (record.queue, record.reason, record.attempts, record.lost) == (QUEUE, "crashed", 1, 0)
    assert record.hop == "m/0/1"
    assert [each.tier for each in record.history] == ["parking"]


def test_counts_begin_afresh_in_the_parked_copy() -> None:
    record = read_record(header_of(parked(lost(2, **OURS, **{h.LOST: 3})).publish))
    assert record is not None
    assert record.lost == 0


def moved(message: Incoming, lost: int, where: Circumstances | None = None) -> tuple[Publish, FailureRecord]:
    publish = set_back(message, where or at(WHERE), lost=lost)
    assert publish is not None
    record = read_record(header_of(publish), QUEUE)
    assert record is not None
    return publish, record


def test_a_first_attempt_that_is_moved_stays_one() -> None:
    message = lost(3, tenant="acme", CC=["theirs"])
    publish, record = moved(message, 3)
    assert (publish.exchange, publish.routing_key) == ("shop.retry", QUEUE)
    assert (record.attempts, record.lost, record.hop, record.failed_at) == (0, 3, "m/0/0", None)
    assert (record.exchange, record.routing_key) == ("events", "order.placed")
    headers = header_of(publish)
    assert {name for name in headers if not name.startswith(h.PREFIX)} == {"tenant"}
    again = Incoming(replace(delivery(), header=ContentHeader(publish.header)))
    seen = Message(again)
    assert (seen.attempt, seen.hop, seen.retry) == (1, Message(message).hop, None)
    assert (seen.exchange, seen.routing_key, seen.headers) == ("events", "order.placed", Message(message).headers)


def test_a_retry_that_is_moved_keeps_its_record() -> None:
    before = retried(2, hop="m/1/2", failed_at=NOW - 5, error_type="OSError", replay={"id": "r", "count": 1, "at": 7})
    publish, record = moved(before, 4)
    assert record == replace(before.record, lost=4, exchange="events", routing_key="order.placed")  # type: ignore[type-var]
    assert publish.identity == "m/1/2"


def test_a_count_that_starts_afresh_is_written_by_our_being_there() -> None:
    publish, record = moved(lost(9, **DIED_ELSEWHERE), 0)
    assert record.lost == 0
    assert "x-death" not in header_of(publish)
    assert "x-death" in record.original
    again = Incoming(replace(delivery(), header=ContentHeader(publish.header), redelivered=True))
    assert not again.count_may_be_another_queue_s


def test_what_leaves_no_room_for_a_record_is_not_moved() -> None:
    assert set_back(lost(3, big="x" * 9000), at(WHERE, frame_max=8192), lost=3) is None


def test_the_header_survives_the_wire_both_ways() -> None:
    record = FailureRecord(queue=QUEUE, lost=4)
    assert record_table(record)[h.LOST] == 4
    assert encode_table(record_table(record))[4:].find(b"x-amqpflow-lost") > 0
    assert b"x-amqpflow-lost" in encode_record(record)
    assert b"x-amqpflow-lost" not in encode_record(replace(record, lost=0))
