"""Messages that other frameworks parked: samples of their headers, and what is read in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqpflow.model.content_header import ContentHeader
from amqpflow.model.message import Delivery
from amqpflow.model.properties import Properties
from amqpflow.parking.counters import own_counters
from amqpflow.parking.dialects import DIALECTS, read_foreign
from amqpflow.parking.parked import read_parked
from amqpflow.parking.selection import Matcher, Selection
from tests.messages import field_values
from tests.parked import delivered, parking_publish
from tests.topologies import topology

DOCS = Path(__file__).parents[3] / "docs" / "how-to"
SAMPLES = sorted((Path(__file__).parents[2] / "data" / "dialects").glob("*.json"))
NAMES = sorted({name for path in SAMPLES for each in json.loads(path.read_text()) for name in each["headers"]})


def delivery(queue: str, headers: dict[str, Any], body: bytes = b"{}") -> Delivery:
    return Delivery(
        queue=queue,
        delivery_tag=1,
        redelivered=False,
        exchange="",
        routing_key=queue,
        header=ContentHeader.of(Properties(headers=headers)),
        body=body,
    )


@pytest.mark.parametrize(
    "sample",
    [each for path in SAMPLES for each in json.loads(path.read_text())],
    ids=lambda sample: f"{sample['read']['dialect']}: {sample['about']}",
)
def test_a_sample_is_recognised(sample: dict[str, Any]) -> None:
    message = delivery(sample["queue"], sample["headers"], json.dumps(sample.get("body", {})).encode())
    found = read_foreign(message)
    assert found is not None
    assert {name: getattr(found, name) for name in sample["read"]} == sample["read"]
    parked = read_parked(message, {})
    assert parked.queue == sample["read"]["queue"]
    assert parked.parked_by == sample["read"]["dialect"]
    assert parked.reason == ("broker" if "died_of" in sample["read"] else "foreign")
    assert (parked.attempts, parked.error_type) == (sample["read"]["attempts"], sample["read"].get("error_type"))
    assert own_counters(parked) == tuple(sample.get("counters", ()))


def test_every_dialect_has_samples_in_a_file_of_its_name() -> None:
    assert {path.stem for path in SAMPLES} == {
        each.__module__.rpartition(".")[2].replace("_", "-") for each in DIALECTS
    }


def test_every_dialect_is_in_the_documentation() -> None:
    page = (DOCS / "parked-messages.md").read_text()
    named = {each["read"]["dialect"] for path in SAMPLES for each in json.loads(path.read_text())}
    assert {name for name in named if f"`{name}`" not in page} == set()


def test_an_origin_is_taken_for_what_tells_none() -> None:
    sample = json.loads(next(path for path in SAMPLES if path.stem == "spring-amqp").read_text())[0]
    parked = read_parked(delivery("orders.error", sample["headers"]), {}, origin="orders")
    assert (parked.queue, parked.detail) == ("orders", "spring-amqp")
    assert read_parked(delivery("q", {}), {}, origin="orders").queue == "orders"
    matcher = Matcher(Selection(reasons=("foreign:spring-amqp",), queues=("orders",)), now=0, routes={})
    assert matcher(parked)


def test_an_origin_is_taken_for_what_only_waited_in_a_retry_queue() -> None:
    waited = {"x-retries": 4, "x-death": [{"queue": "orders.wait", "reason": "expired", "count": 4}]}
    assert read_parked(delivery("orders.dlq", waited), {}).queue is None
    assert read_parked(delivery("orders.dlq", waited), {}, origin="orders").queue == "orders"


def test_our_own_record_goes_before_any_dialect() -> None:
    compiled = topology({"orders": [1000]}, vhost="/")
    publish = parking_publish(compiled, delivered("orders", headers={"x-retry-count": 7, "MT-Reason": "fault"}))
    parked = read_parked(delivery("orders.parking", dict(publish.properties.headers or {})), compiled.routes)
    assert (parked.parked_by, parked.attempts, parked.dialect) == ("amqpflow", 1, None)


@given(st.dictionaries(st.sampled_from(NAMES), field_values, max_size=6), st.binary(max_size=50))
def test_no_header_is_too_odd_for_any_dialect(headers: dict[str, Any], body: bytes) -> None:
    for queue in ("dlq", "a_error", "b.XQ"):
        for read in DIALECTS:
            read(delivery(queue, headers, body))
        read_parked(delivery(queue, headers, body), {})
