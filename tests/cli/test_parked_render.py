"""The table of parked messages fits into a terminal."""

from __future__ import annotations

import pytest

from amqpflow.cli.render import parked, table
from amqpflow.services.parked.listing import ParkedListing, ParkedRow

ROW = ParkedRow(
    id="c00efd87a9",
    queue="orders.payment",
    parking_queue="orders.payment.parking",
    parked_by="amqpflow",
    reason="undecodable",
    detail="the body is not JSON",
    attempts=1,
    error_type="amqpflow.errors.UndecodableError",
    error_message="the body is not JSON: Expecting value: line 1 column 1 (char 0)",
    fingerprint=None,
    first_failed_at=0,
    failed_at=0,
    exchange="orders.events",
    routing_key="order.placed",
    message_id="order-7",
    replays=0,
    content_type=None,
    body_bytes=16,
)


def listed(monkeypatch: pytest.MonkeyPatch, width: int | None) -> list[str]:
    for module in (parked, table):
        monkeypatch.setattr(module, "terminal_width", lambda: width)
    listing = ParkedListing(topology="orders", messages=(), queues=(), notes=())
    return list(parked.listing_lines(listing, lambda: iter([ROW]), 1, now=60_000))


@pytest.mark.parametrize("width", [80, 100, 110, 132, 200])
def test_no_line_is_wider_than_the_terminal_and_the_error_can_be_read(
    monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    head, row, *_ = listed(monkeypatch, width)
    assert max(len(head), len(row)) <= width
    assert "UndecodableError: the" in row
    assert row.endswith("c00efd87a9")


def test_a_narrow_terminal_gets_fewer_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    assert listed(monkeypatch, 80)[0].split("  ")[0] == "AGE"
    assert "1970-01-01T00:00:00Z" in listed(monkeypatch, 132)[1]


def test_off_a_terminal_all_columns_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    head, row, *_ = listed(monkeypatch, None)
    assert head.split() == ["PARKED", "AT", "WORK", "QUEUE", "REASON", "ERROR", "ATTEMPTS", "AGE", "SIZE", "ID"]
    assert "amqpflow.errors.UndecodableError: the body is not JSON: Expecting value" in row
