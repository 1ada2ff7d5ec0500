"""docs/protocol.md is a contract: it names every header and every reason that the code can write."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from amqpflow.delivery.incoming import Incoming
from amqpflow.delivery.settle import Circumstances, ToParking, ToTier, decide
from amqpflow.delivery.verdict import ErrorRecord, Failed
from amqpflow.model import headers
from amqpflow.model.content_header import ContentHeader
from amqpflow.model.headers import NEVER_TRAVELS, PREFIX, ParkReason
from amqpflow.model.message import Delivery
from amqpflow.model.properties import Properties
from tests.topologies import topology

TEXT = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text()
HEADERS = sorted(
    value for value in vars(headers).values() if isinstance(value, str) and value.startswith(PREFIX) and value != PREFIX
)


def section(number: int) -> str:
    match = re.search(rf"^## {number}\..*?(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL)
    assert match, f"docs/protocol.md has no section {number}"
    return match[0]


def cells(text: str) -> list[list[str]]:
    rows = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows]


def test_there_are_headers_to_look_for() -> None:
    assert len(HEADERS) == 21


@pytest.mark.parametrize("name", HEADERS)
def test_every_header_has_a_row(name: str) -> None:
    assert [row for row in cells(section(3)) if row[0] == f"`{name}`"], f"{name} is not documented"


def test_no_header_is_documented_that_does_not_exist() -> None:
    assert set(re.findall(rf"{PREFIX}[a-z][a-z-]*[a-z]", TEXT)) <= {*HEADERS, "x-amqpflow-topology"}


def test_the_reasons_are_exactly_those_of_the_code() -> None:
    assert [row[0] for row in cells(section(7))[2:]] == [f"`{reason.value}`" for reason in ParkReason]


@pytest.mark.parametrize("name", sorted(NEVER_TRAVELS))
def test_what_never_travels_is_listed(name: str) -> None:
    listed = section(6).replace("x-first-death-{queue,reason,exchange}", "x-first-death-queue x-first-death-reason")
    listed = listed.replace("x-last-death-{queue,reason,exchange}", "x-last-death-queue x-last-death-reason")
    listed += " x-first-death-exchange x-last-death-exchange"
    assert name in listed


def delivered(attempt: int) -> Delivery:
    record = {headers.QUEUE: "orders", headers.ATTEMPT: attempt, headers.HOP: f"m-1/0/{attempt}"} if attempt else {}
    return Delivery(
        queue="orders",
        delivery_tag=1,
        redelivered=False,
        exchange="events",
        routing_key="order.placed",
        header=ContentHeader.of(Properties(message_id="m-1", expiration="50000", headers={"tenant": "acme", **record})),
        body=b"{}",
    )


def settled(attempt: int) -> ToTier | ToParking:
    at = Circumstances(
        routes=topology({"orders": [300, 600]}, vhost="/").routes["orders"],
        now=1000,
        choice=0.0,
        new_root="unused",
        frame_max=131_072,
        host="web-1",
        version="0.1.0",
    )
    error = ErrorRecord(
        type="TimeoutError",
        message="gateway did not answer",
        location="service.py:10",
        stack="...",
        fingerprint="82d0fb163e695ab1",
    )
    settlement = decide(Incoming(delivered(attempt)), Failed(error=error), at)
    assert isinstance(settlement, ToTier | ToParking)
    return settlement


@pytest.mark.parametrize(("column", "attempt"), [(2, 0), (3, 2)], ids=["tier", "parking"])
def test_always_and_never_are_what_a_settlement_writes(column: int, attempt: int) -> None:
    """The columns "in tiers" and "in parking" against the headers of a retry and of a parked message."""
    written = settled(attempt).publish.properties.headers or {}
    for row in cells(section(3))[2:]:
        name = row[0].strip("`")
        if row[column] == "always":
            assert name in written, f"{name} should always be there"
        elif row[column] == "never":
            assert name not in written, f"{name} should never be there"


def test_the_types_are_those_that_a_settlement_writes() -> None:
    kinds = {"int": int, "string": str, "table": dict, "array": list}
    written = {**(settled(0).publish.properties.headers or {}), **(settled(2).publish.properties.headers or {})}
    for row in cells(section(3))[2:]:
        value = written.get(row[0].strip("`"))
        assert value is None or isinstance(value, kinds[row[1]]), row[0]


def test_the_worked_example_shows_the_first_retry_as_it_is() -> None:
    settlement = settled(0)
    example = re.sub(r"\s+", " ", section(11))
    publish = settlement.publish
    assert f'exchange="{publish.exchange}" routing-key="{publish.routing_key}" mandatory' in example
    for name, value in (publish.properties.headers or {}).items():
        if name in (headers.ERROR_STACK, headers.HISTORY, headers.ORIGINAL):
            continue
        shown = f'"{value}"' if isinstance(value, str) else value
        assert f"{name}: {shown}" in example
    assert 'history: [{at: 1000, tier: "orders.retry.300ms", error-type: "TimeoutError"}]' in example
    assert f"x-amqpflow-due-at: {publish.properties.headers[headers.DUE_AT]}" in example  # type: ignore[index]
