"""What is read out of a parked message, whoever wrote its headers."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from amqpflow.model import headers as h
from amqpflow.model.content_header import ContentHeader
from amqpflow.model.message import Delivery
from amqpflow.model.properties import Properties
from amqpflow.parking.deaths import death_in, deaths_elsewhere, read_deaths
from amqpflow.parking.parked import read_parked
from tests.parked import NOW, delivered, parking_publish
from tests.topologies import topology

ONE = topology({"orders": [1000]}, vhost="/")
SHARED = topology({"a": [1000], "b": [1000]}, vhost="/", parking="shared.parking")
PARKED_AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def in_parking(delivery: Delivery, **changes: object) -> Delivery:
    """The delivery from the parking queue after a consumer parked this one."""
    publish = parking_publish(ONE, delivery)
    headers = {**(publish.properties.headers or {}), **changes}
    return Delivery(
        queue=publish.routing_key,
        delivery_tag=1,
        redelivered=False,
        exchange=publish.exchange,
        routing_key=publish.routing_key,
        header=ContentHeader.of(replace(publish.properties, headers=headers)),
        body=publish.body,
    )


def death(queue: str, reason: str, **more: object) -> dict[str, object]:
    return {
        "queue": queue,
        "reason": reason,
        "count": 1,
        "exchange": "events",
        "routing-keys": ["order.placed", "a-copy"],
        "time": PARKED_AT,
        **more,
    }


def foreign(headers: dict[str, object] | None, queue: str = "orders.parking", **properties: object) -> Delivery:
    return replace(delivered(queue, headers=headers, **properties), exchange="", routing_key=queue)  # type: ignore[arg-type]


def test_a_message_that_a_consumer_parked_tells_where_and_why() -> None:
    parked = read_parked(in_parking(delivered("orders")), ONE.routes)
    assert (parked.queue, parked.reason, parked.detail) == ("orders", "parked", "told so")
    assert (parked.attempts, parked.error_type, parked.error_message) == (1, "ValueError", "no")
    assert (parked.exchange, parked.routing_key) == ("events", "order.placed")
    assert parked.first_failed_at == parked.failed_at == NOW
    assert parked.replays == 0
    assert parked.hop == "m/0/1"


def test_a_work_queue_in_x_death_means_that_rabbitmq_parked_it_wherever_the_entry_stands() -> None:
    headers = {
        "x-death": [death("elsewhere", "expired"), death("orders.retry.1s", "expired"), death("orders", "maxlen")]
    }
    parked = read_parked(foreign(headers), ONE.routes)
    assert (parked.queue, parked.reason, parked.detail) == ("orders", "broker", "maxlen")
    assert parked.failed_at == int(PARKED_AT.timestamp() * 1000)
    assert (parked.exchange, parked.routing_key) == ("events", "order.placed")


def test_a_record_on_a_message_that_rabbitmq_parked_is_the_last_known_failure() -> None:
    headers = parking_publish(ONE, delivered("orders")).properties.headers or {}
    headers = {key: value for key, value in headers.items() if key not in (h.REASON, h.REASON_DETAIL)}
    again = foreign({**headers, "x-death": [death("orders", "delivery_limit", exchange="shop.retry")]})
    parked = read_parked(again, ONE.routes)
    assert (parked.reason, parked.detail) == ("broker", "delivery_limit")
    assert (parked.error_type, parked.attempts) == ("ValueError", 1)
    # and not where RabbitMQ last saw it come from, which was a retry
    assert (parked.exchange, parked.routing_key) == ("events", "order.placed")


def test_a_record_that_a_handler_forwarded_to_another_queue_is_not_that_queues() -> None:
    headers = parking_publish(SHARED, delivered("a")).properties.headers
    parked = read_parked(
        foreign({**(headers or {}), "x-death": [death("b", "rejected")]}, "shared.parking"), SHARED.routes
    )
    assert (parked.queue, parked.reason, parked.detail) == ("b", "broker", "rejected")
    assert parked.record is None
    assert parked.attempts == 0


def test_a_message_that_does_not_say_where_it_failed_belongs_to_no_work_queue() -> None:
    """Also where the file has one work queue alone that parks there: other services may park there too."""
    parked = read_parked(foreign({"their": "header"}), ONE.routes)
    assert (parked.queue, parked.reason) == (None, "unknown")
    assert read_parked(foreign(None), ONE.routes).queue is None
    assert read_parked(foreign(None, "shared.parking"), SHARED.routes).queue is None


def test_an_asserted_origin_is_that_of_messages_that_do_not_say_theirs_in_its_own_parking_queue() -> None:
    two = topology({"orders": [1000], "mail": [1000]}, vhost="/")
    assert read_parked(foreign(None), two.routes, origin="orders").queue == "orders"
    assert read_parked(foreign(None), two.routes, origin="mail").queue is None, "mail is not parked there"
    assert read_parked(foreign(None, "error"), two.routes, origin="mail").queue == "mail", "a queue of no file"
    assert read_parked(foreign(None, "shared.parking"), SHARED.routes, origin="a").queue == "a"
    says = foreign({"x-death": [death("billing", "rejected")]})
    assert read_parked(says, two.routes, origin="orders").queue == "billing", "RabbitMQ saw where it was rejected"
    recorded = in_parking(delivered("orders"), **{h.QUEUE: "renamed"})
    assert read_parked(recorded, two.routes, origin="orders").queue == "renamed"


def test_a_record_of_a_queue_that_left_the_file_is_shown_as_it_is() -> None:
    parked = read_parked(in_parking(delivered("orders"), **{h.QUEUE: "renamed"}), ONE.routes)
    assert parked.queue == "renamed"


def test_a_reason_that_nobody_defined_is_unknown() -> None:
    parked = read_parked(in_parking(delivered("orders"), **{h.REASON: "whim"}), ONE.routes)
    assert (parked.reason, parked.detail) == ("unknown", "whim")


def test_the_id_is_the_same_for_each_look_and_different_for_another_message() -> None:
    first = in_parking(delivered("orders", message_id="one"))
    looked_at = replace(
        first,
        delivery_tag=99,
        redelivered=True,
        header=ContentHeader.of(
            replace(first.properties, headers={"x-delivery-count": 7, **first.headers, "x-acquired-count": 8})
        ),
    )
    assert read_parked(first, ONE.routes).id == read_parked(looked_at, ONE.routes).id
    assert read_parked(first, ONE.routes).digest == read_parked(looked_at, ONE.routes).digest
    other = in_parking(delivered("orders", message_id="two"))
    assert read_parked(first, ONE.routes).id != read_parked(other, ONE.routes).id


def test_the_order_of_headers_is_no_part_of_what_a_message_is() -> None:
    one = foreign({"a": {"x": 1, "y": 2}, "b": [1]}, message_id=None)
    two = foreign({"b": [1], "a": {"x": 1, "y": 2}}, message_id=None)
    assert read_parked(one, ONE.routes).digest == read_parked(two, ONE.routes).digest


def test_messages_without_any_id_are_told_apart_by_what_they_hold() -> None:
    one, two = (read_parked(foreign({"n": n}, message_id=None), ONE.routes) for n in (1, 2))
    assert one.id != two.id
    assert len(one.id) == 10


def test_rabbitmq_4_says_which_death_was_the_last() -> None:
    deaths = {"x-death": [death("a", "expired"), death("b", "rejected")]}
    found = death_in({**deaths, "x-last-death-queue": "b"}, ("a", "b"))
    assert found is not None
    assert found.queue == "b"
    preferred = death_in(deaths, ("a", "b"), prefer=(None, "b"))
    assert preferred is not None
    assert preferred.queue == "b"


def test_deaths_of_foreign_queues_belong_to_the_message_and_ours_do_not() -> None:
    entries = [death("orders", "expired"), death("theirs", "rejected")]
    headers = {
        "x-death": entries,
        "x-first-death-queue": "theirs",
        "x-first-death-reason": "rejected",
        "x-first-death-exchange": "",
        "x-last-death-queue": "orders",
        "x-last-death-reason": "expired",
        "x-last-death-exchange": "",
    }
    assert deaths_elsewhere(headers, ("orders",)) == {
        "x-death": [entries[1]],
        "x-first-death-queue": "theirs",
        "x-first-death-reason": "rejected",
        "x-first-death-exchange": "",
    }
    assert deaths_elsewhere({"x-death": [death("orders", "expired")]}, ("orders",)) == {}


def test_an_x_death_that_is_no_table_of_ours_is_passed_over() -> None:
    assert read_deaths({"x-death": "dead"}) == ()
    assert read_deaths({"x-death": [1, {"queue": 5, "reason": "x"}, {"queue": "q"}, None]}) == ()
    assert (
        read_parked(foreign({"x-death": [{"queue": "orders", "reason": "expired", "time": 5}]}), ONE.routes).failed_at
        is None
    )


def test_properties_alone_make_a_parked_message() -> None:
    bare = Delivery(
        queue="orders.parking",
        delivery_tag=1,
        redelivered=False,
        exchange="",
        routing_key="orders.parking",
        header=ContentHeader.of(Properties()),
        body=b"",
    )
    assert read_parked(bare, ONE.routes).reason == "unknown"
