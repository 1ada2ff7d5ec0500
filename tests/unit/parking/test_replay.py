"""The publish that replays a parked message."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from amqpflow.delivery.incoming import Incoming
from amqpflow.model import headers as h
from amqpflow.model.content_header import ContentHeader
from amqpflow.model.message import Delivery, Publish
from amqpflow.model.properties import Properties
from amqpflow.model.wire import encode_content_header
from amqpflow.parking.parked import read_parked
from amqpflow.parking.replay import ReplayContext, replay_publish
from tests.parked import NOW, delivered, parking_publish
from tests.topologies import topology

TOPOLOGY = topology({"orders": [1000, 2000]}, vhost="/")
ROUTES = TOPOLOGY.routes["orders"]
RUN = ReplayContext(
    id="run",
    at=NOW + 5000,
    host="here",
    version="1",
    frame_max=131_072,
    our_queues=frozenset(TOPOLOGY.desired.queues),
)


def arrived(publish: Publish, queue: str) -> Delivery:
    """The delivery of what was published, from a queue."""
    return Delivery(
        queue=queue,
        delivery_tag=1,
        redelivered=False,
        exchange=publish.exchange,
        routing_key=publish.routing_key,
        header=ContentHeader.of(publish.properties),
        body=publish.body,
    )


def parked(delivery: Delivery) -> Delivery:
    return arrived(parking_publish(TOPOLOGY, delivery), "orders.parking")


def replayed(delivery: Delivery, run: ReplayContext = RUN, ordinal: int = 0) -> Publish:
    publish = replay_publish(read_parked(delivery, TOPOLOGY.routes), ROUTES, run, ordinal=ordinal)
    assert publish is not None
    return publish


def headers(publish: Publish) -> dict[str, object]:
    return dict(publish.properties.headers or {})


FULL = delivered(
    "orders",
    message_id="m",
    headers={"their": "header", "CC": ["copy"], "x-death": [{"queue": "theirs", "reason": "expired"}]},
    content_type="application/json",
    content_encoding="gzip",
    delivery_mode=1,
    correlation_id="c",
    reply_to="r",
    expiration="60000",
    timestamp=datetime(2026, 1, 1, tzinfo=UTC),
    type="t",
    user_id="guest",
    app_id="app",
)


def test_it_goes_through_the_retry_exchange_to_the_queue_it_failed_in() -> None:
    publish = replayed(parked(FULL))
    assert (publish.exchange, publish.routing_key) == ("shop.retry", "orders")
    assert publish.body == FULL.body


def test_a_handler_sees_a_replayed_message_as_it_was_first_published() -> None:
    first = Incoming(FULL)
    again = Incoming(arrived(replayed(parked(FULL)), "orders"))
    assert again.properties == replace(first.properties, delivery_mode=2)
    assert (again.exchange, again.routing_key) == ("events", "order.placed")
    assert again.attempts_made == 0


def test_a_message_without_properties_gets_none() -> None:
    bare = delivered("orders", message_id=None)
    publish = replayed(parked(bare))
    assert replace(publish.properties, headers=None) == Properties(delivery_mode=2)
    assert Incoming(arrived(publish, "orders")).properties.headers == {}


def test_nothing_that_the_broker_would_act_on_travels() -> None:
    dead = {"queue": "orders", "reason": "delivery_limit", "exchange": "events", "routing-keys": ["order.placed"]}
    hostile = {
        "x-death": [dead],
        "x-first-death-queue": "orders",
        "x-delivery-count": 5,
        "x-acquired-count": 3,
        "x-stream-offset": 1,
        "CC": ["a"],
        "BCC": ["b"],
        "x-opt-delivery-time": 1 << 42,
        "their": 1,
    }
    delivery = replace(
        delivered("orders.parking", headers=hostile, expiration="5", user_id="u"), exchange="", routing_key="p"
    )
    publish = replayed(delivery)
    assert not headers(publish).keys() & h.NEVER_TRAVELS
    assert (publish.properties.expiration, publish.properties.user_id) == (None, None)
    assert publish.properties.delivery_mode == 2
    assert headers(publish)[h.ORIGINAL] == {
        "CC": ["a"],
        "x-opt-delivery-time": 1 << 42,
        "expiration": "5",
        "user_id": "u",
    }
    assert headers(publish)["their"] == 1


def test_an_expiration_that_rabbitmq_took_off_is_shown_again() -> None:
    dead = {
        "queue": "orders",
        "reason": "expired",
        "exchange": "events",
        "routing-keys": ["order.placed"],
        "original-expiration": "100",
    }
    publish = replayed(replace(delivered("orders.parking", headers={"x-death": [dead]}), exchange="", routing_key="p"))
    again = Incoming(arrived(publish, "orders"))
    assert again.properties.expiration == "100"
    assert (again.exchange, again.routing_key) == ("events", "order.placed")
    assert "x-death" not in (again.properties.headers or {})


def test_attempts_begin_anew_and_the_history_stays() -> None:
    second = arrived(parking_publish(TOPOLOGY, delivered("orders")), "orders")
    publish = replayed(parked(second))
    found = headers(publish)
    assert h.ATTEMPT not in found
    assert h.FIRST_FAILED_AT not in found
    assert not found.keys() & {h.REASON, h.REASON_DETAIL, h.DUE_AT}
    assert [each["tier"] for each in found[h.HISTORY]] == ["parking", "parking"]  # type: ignore[attr-defined]
    assert (found[h.ERROR_TYPE], found[h.ERROR_MESSAGE]) == ("ValueError", "no")
    assert found[h.ERROR_LOCATION] == "service.py:10"
    assert found[h.REPLAY] == {"id": "run", "count": 1, "at": NOW + 5000}
    assert found[h.HOP] == "m/1/0"


def test_attempts_go_on_when_they_are_kept() -> None:
    publish = replayed(parked(delivered("orders")), replace(RUN, keep_attempts=True))
    found = headers(publish)
    assert (found[h.ATTEMPT], found[h.FIRST_FAILED_AT], found[h.HOP]) == (1, NOW, "m/1/1")
    assert Incoming(arrived(publish, "orders")).attempts_made == 1


def test_replaying_one_parked_copy_twice_writes_the_same_hop() -> None:
    copy = parked(delivered("orders"))
    later = replace(RUN, id="another", at=NOW + 10_000, host="there")
    looked_at = replace(
        copy,
        redelivered=True,
        header=ContentHeader.of(replace(copy.properties, headers={**copy.headers, "x-delivery-count": 3})),
    )
    assert headers(replayed(copy))[h.HOP] == headers(replayed(looked_at, later))[h.HOP]


def test_every_replay_has_a_hop_of_its_own() -> None:
    hops = set()
    delivery = delivered("orders")
    for _ in range(3):
        publish = replayed(parked(delivery))
        hops.add(headers(publish)[h.HOP])
        delivery = arrived(publish, "orders")
    assert hops == {"m/1/0", "m/2/0", "m/3/0"}


def test_what_has_no_id_is_known_by_what_it_holds_and_equals_by_their_number() -> None:
    foreign = replace(delivered("orders.parking", message_id=None), exchange="", routing_key="orders.parking")
    hop = headers(replayed(foreign))[h.HOP]
    assert hop == headers(replayed(foreign))[h.HOP]
    assert hop != headers(replayed(foreign, ordinal=1))[h.HOP]
    assert hop != headers(replayed(replace(foreign, body=b"other")))[h.HOP]


def test_what_rabbitmq_parked_has_a_line_in_the_history() -> None:
    time = datetime(2026, 1, 1, tzinfo=UTC)
    dead = {"queue": "orders", "reason": "delivery_limit", "time": time}
    publish = replayed(replace(delivered("orders.parking", headers={"x-death": [dead]}), exchange="", routing_key="p"))
    assert headers(publish)[h.HISTORY] == [
        {"at": int(time.timestamp() * 1000), "tier": "parking", "error-type": "broker: delivery_limit"}
    ]


def test_headers_stay_within_the_frame_and_a_producers_are_never_cut() -> None:
    theirs = {f"h{n}": "x" * 100 for n in range(200)}
    delivery = parked(delivered("orders", headers=theirs))
    publish = replayed(delivery, replace(RUN, frame_max=32_768))
    assert {name: value for name, value in headers(publish).items() if name in theirs} == theirs
    assert len(encode_content_header(publish.properties, 0)) + 8 <= 32_768


def test_a_message_whose_own_headers_fill_a_frame_is_not_replayed() -> None:
    theirs = {f"h{n}": "x" * 100 for n in range(80)}
    copy = read_parked(parked(delivered("orders", headers=theirs)), TOPOLOGY.routes)
    assert replay_publish(copy, ROUTES, replace(RUN, frame_max=8192)) is None
