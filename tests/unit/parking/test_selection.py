"""Which parked messages are meant."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqpflow.model.content_header import ContentHeader
from amqpflow.model.message import Delivery
from amqpflow.model.properties import Properties
from amqpflow.parking.expression import BODY_LIMIT, Expression
from amqpflow.parking.parked import ParkedMessage, read_parked
from amqpflow.parking.sampling import Sampler
from amqpflow.parking.selection import InvalidSelectionError, Matcher, Selection
from tests.messages import properties
from tests.parked import NOW, delivered, parking_publish
from tests.topologies import topology

ROUTES = topology({"orders": [1000], "mail": [1000]}, vhost="/").routes
COMPILED = topology({"orders": [1000], "mail": [1000]}, vhost="/")
HOUR = 3_600_000


def parked(delivery: Delivery, *, error: str = "ValueError", now: int = NOW) -> ParkedMessage:
    """What lies in parking after a consumer parked the delivery."""
    publish = parking_publish(COMPILED, delivery, error=error, now=now)
    return read_parked(
        replace(
            delivery,
            queue=f"{delivery.queue}.parking",
            exchange=publish.exchange,
            routing_key=publish.routing_key,
            header=ContentHeader(publish.header),
            body=publish.body,
        ),
        ROUTES,
    )


def selects(message: ParkedMessage, *, now: int = NOW, **criteria: Any) -> bool:
    return Matcher(Selection(**criteria), now=now, routes=ROUTES)(message)


ORDER = parked(
    delivered(
        "orders",
        message_id="m-1",
        headers={"tenant": "acme", "n": 7, "ok": True, "raw": b"\xff", "deep": {"a": [1]}},
        body=json.dumps({"total": 120, "lines": [{"sku": "a"}]}).encode(),
        content_type="application/json",
    ),
    error="httpx.ConnectError",
)


def test_what_does_not_say_where_it_failed_is_shown_with_its_parking_queue_and_never_taken_for_certain() -> None:
    unknown = read_parked(replace(delivered("orders.parking"), exchange="", routing_key="orders.parking"), ROUTES)
    assert unknown.queue is None
    by_name, by_place = Selection(queues=("orders",)), Selection(queues=("orders.parking",))
    assert Matcher(by_name, now=NOW, routes=ROUTES)(unknown)
    assert not Matcher(by_name, now=NOW, routes=ROUTES, certain=True)(unknown)
    assert Matcher(by_place, now=NOW, routes=ROUTES, certain=True)(unknown)
    assert Matcher(by_name, now=NOW, routes=ROUTES, certain=True)(ORDER)


@pytest.mark.parametrize(
    ("criteria", "wanted"),
    [
        ({}, True),
        ({"queues": ("orders",)}, True),
        ({"queues": ("orders.parking",)}, True),
        ({"queues": ("mail",)}, False),
        ({"queues": ("mail", "orders")}, True),
        ({"reasons": ("parked",)}, True),
        ({"reasons": ("exhausted", "parked")}, True),
        ({"reasons": ("exhausted",)}, False),
        ({"reasons": ("parked:told so",)}, True),
        ({"reasons": ("parked:told",)}, False),
        ({"error_types": ("ConnectError",)}, True),
        ({"error_types": ("httpx.ConnectError",)}, True),
        ({"error_types": ("Error",)}, False),
        ({"fingerprints": ("f" * 16,)}, True),
        ({"fingerprints": ("ffff",)}, True),
        ({"fingerprints": ("fff",)}, False),
        ({"headers": ("tenant=acme",)}, True),
        ({"headers": ("tenant",)}, True),
        ({"headers": ("tenant=",)}, False),
        ({"headers": ("n=7", "ok=true")}, True),
        ({"headers": ("n=7", "ok=false")}, False),
        ({"headers": (r"raw=\xff",)}, True),
        ({"headers": ("deep={}",)}, False),
        ({"headers": ("missing",)}, False),
        ({"routing_keys": ("order.placed",)}, True),
        ({"routing_keys": ("order.*",)}, True),
        ({"routing_keys": ("#.placed",)}, True),
        ({"routing_keys": ("*",)}, False),
        ({"routing_keys": ("order",)}, False),
        ({"attempts": ("1",)}, True),
        ({"attempts": (">=1", "<2")}, True),
        ({"attempts": (">=1", "<1")}, False),
        ({"ids": ("m-1",)}, True),
        ({"ids": (ORDER.id[:4],)}, True),
        ({"ids": (ORDER.id[:3],)}, False),
        ({"older_than": "1h", "now": NOW + HOUR}, True),
        ({"older_than": "1h", "now": NOW + HOUR - 1}, False),
        ({"newer_than": "1h", "now": NOW + HOUR - 1}, True),
        ({"newer_than": "1h", "now": NOW + HOUR}, False),
        ({"match": "body.total > `100`"}, True),
        ({"match": "body.total > `120`"}, False),
        ({"match": "body.lines[?sku=='a']"}, True),
        ({"match": "body.lines[?sku=='b']"}, False),
        ({"match": "headers.tenant == 'acme' && record.queue == 'orders' && properties.message_id == 'm-1'"}, True),
        ({"match": "contains(record.error_type, 'Connect')"}, True),
        ({"match": "body.missing.deep"}, False),
        ({"match": "@.body.total"}, True),
        ({"reasons": ("parked",), "match": "body.total > `500`"}, False),
    ],
)
def test_criteria_are_combined(criteria: dict[str, Any], wanted: bool) -> None:
    assert selects(ORDER, **criteria) is wanted


@pytest.mark.parametrize("recorded", ["amqpflow.errors.Undecodable", "amqpflow.errors.UndecodableError"])
def test_an_error_of_ours_is_selected_by_its_old_name_and_by_its_new_one(recorded: str) -> None:
    message = parked(delivered("orders"), error=recorded)
    assert selects(message, error_types=("Undecodable",))
    assert selects(message, error_types=("UndecodableError",))
    assert not selects(message, error_types=("Unroutable",))
    for other in ("shop.UndecodableError", "UndecodableError"):  # the last as a service in JavaScript records it
        assert not selects(parked(delivered("orders"), error=other), error_types=("Undecodable",))
    of_others = parked(delivered("orders"), error="shop.Undecodable")
    assert selects(of_others, error_types=("Undecodable",))
    assert not selects(of_others, error_types=("UndecodableError",))


def test_zero_is_true_and_what_is_empty_is_not_as_jmespath_has_it() -> None:
    message = parked(delivered("orders", body=b'{"zero": 0, "none": null, "empty": {}, "text": ""}'))
    assert selects(message, match="body.zero")
    assert not any(selects(message, match=f"body.{each}") for each in ("none", "empty", "text", "missing"))


def test_every_problem_is_said_at_once_and_where_it_is() -> None:
    with pytest.raises(InvalidSelectionError) as raised:
        Selection(
            reasons=("tired",),
            headers=("=x",),
            older_than="5",
            attempts=("about 3",),
            match="body.total >",
            limit=1,
            sample=1,
        )
    told = raised.value.problems
    assert len(told) == 6
    assert "unknown reason; use exhausted," in told[0]
    assert "`older_than`: 5 has no unit" in told[2]
    assert told[4] == "`match`: column 13: it ends too early\n  body.total >\n              ^"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "it is empty"),
        ("body total", "column 6: unexpected 'total'"),
        ("body.total > `1", "column 14: ` is not closed"),
        ("body.%", "column 6: unexpected '%'"),
        ("headers.a && nope(body)", "column 14: there is no function nope; there are abs,"),
        ("length(body, headers)", r"column 1: length\(\) takes 1 arguments, not 2"),
        ("merge()", r"column 1: merge\(\) takes at least 1"),
        ("(" * 5000, "nested too deeply"),
    ],
)
def test_a_wrong_expression_is_told_before_anything_is_read(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Expression(text)


def test_an_expression_that_does_not_fit_a_message_does_not_select_it_and_is_counted() -> None:
    matcher = Matcher(Selection(match="length(body.total) > `1`"), now=NOW, routes=ROUTES)
    assert not matcher(ORDER)
    assert matcher.undecided == 1
    assert ORDER.id in matcher.notes[0]


@pytest.mark.parametrize(
    "body",
    [b"", b"\xff\xfe", b"not json", b"[" * 100_000, b"9" * 10_000, b'"' + b"x" * (BODY_LIMIT + 1) + b'"', b"NaN"],
)
def test_no_body_is_too_odd_to_be_asked_about(body: bytes) -> None:
    message = parked(delivered("orders", body=body))
    matcher = Matcher(Selection(match="body.total == `1` || body == 'not json'"), now=NOW, routes=ROUTES)
    assert matcher(message) is (body == b"not json")


def test_a_compressed_body_is_undone_and_a_bomb_is_none() -> None:
    import gzip

    packed = gzip.compress(b'{"total": 5}')
    assert selects(parked(delivered("orders", body=packed, content_encoding="gzip")), match="body.total == `5`")
    bomb = gzip.compress(b"0" * (BODY_LIMIT * 4))
    assert selects(parked(delivered("orders", body=bomb, content_encoding="gzip")), match="body == null")


@given(properties, st.binary(max_size=200))
def test_no_message_is_too_odd_to_be_asked_about(received: Properties, body: bytes) -> None:
    message = read_parked(
        Delivery(
            queue="orders.parking",
            delivery_tag=1,
            redelivered=False,
            exchange="",
            routing_key="",
            header=ContentHeader.of(received),
            body=body,
        ),
        ROUTES,
    )
    for criteria in (
        {"match": "headers.a || body.b || properties.timestamp || record.id"},
        {"match": "sort(keys(headers))"},
        {"headers": ("a=1", "b"), "routing_keys": ("#",), "attempts": (">=0",), "older_than": "1s"},
        {"error_types": ("A",), "fingerprints": ("abcd",), "ids": ("abcd",), "reasons": ("unknown",)},
    ):
        selects(message, **criteria)


@pytest.mark.parametrize(
    ("pattern", "key", "wanted"),
    [
        ("#", "", True),
        ("#", "a.b", True),
        ("*", "", False),
        ("*.#", "a", True),
        ("a.#.z", "a.z", True),
        ("a.#.z", "a.b.c.z", True),
        ("a.#.z", "a.b", False),
        ("#.#", "a", True),
        ("a*", "a*", True),
        ("a*", "ab", False),
        ("#." * 50 + "x", "a." * 200 + "y", False),
    ],
)
def test_routing_keys_match_as_in_a_topic_binding(pattern: str, key: str, wanted: bool) -> None:
    assert selects(parked(delivered("orders", routing_key=key)), routing_keys=(pattern,)) is wanted


def test_a_sample_is_even_ordered_and_repeatable() -> None:
    def sample(seed: int) -> list[int]:
        sampler: Sampler[int] = Sampler(10, seed)
        for number in range(100):
            sampler.offer(number)
        return sampler.items

    assert sample(1) == sample(1) == sorted(sample(1))
    assert sample(1) != sample(2)
    chosen = [0] * 100
    for seed in range(2000):
        for number in sample(seed):
            chosen[number] += 1
    assert 120 < min(chosen) < max(chosen) < 280  # 200 each is expected; six standard deviations are 81


def test_a_sample_of_fewer_than_asked_for_is_all_of_them() -> None:
    sampler: Sampler[str] = Sampler(5)
    for each in "abc":
        sampler.offer(each)
    assert sampler.items == ["a", "b", "c"]
