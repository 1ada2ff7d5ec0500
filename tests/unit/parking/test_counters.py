"""Counters that consumers keep in the message. Those of samples of other frameworks: test_dialects.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from amqpflow.parking.counters import HEADERS, IN_BODY, own_counters
from amqpflow.parking.parked import read_parked
from tests.parked import delivered, parking_publish
from tests.topologies import topology

REPLAY = Path(__file__).parents[3] / "docs" / "how-to" / "replay.md"


@pytest.mark.parametrize("header", HEADERS)
def test_a_counter_is_named_whatever_its_value(header: str) -> None:
    for value in (2, "many", None, {"attempts": 3}):
        assert own_counters(read_parked(delivered("orders.dlq", headers={header: value}), {})) == (HEADERS[header],)


@pytest.mark.parametrize("headers", [None, {}, {"X-Retries": 2, "x-retries-left": 1, "laravel.attempts": 3}])
def test_a_message_without_a_counter_has_none(headers: dict[str, Any] | None) -> None:
    assert own_counters(read_parked(delivered("orders.dlq", headers=headers), {})) == ()


def test_several_counters_are_all_named() -> None:
    message = delivered("orders.dlq", headers={"retries": 1, "HandledCount": 2, "x-attempts": 3})
    assert own_counters(read_parked(message, {})) == ("HandledCount", "retries", "x-attempts")


def test_a_counter_counts_also_on_what_amqpflow_parked() -> None:
    """A handler may count in a header of its own beside our record; its consumer goes by that after a replay."""
    compiled = topology({"orders": [1000]}, vhost="/")
    publish = parking_publish(compiled, delivered("orders", headers={"x-attempts": 7}))
    parked = read_parked(delivered("orders.parking", headers=publish.properties.headers), compiled.routes)
    assert (parked.parked_by, own_counters(parked)) == ("amqpflow", ("x-attempts",))


@pytest.mark.parametrize("counter", [*HEADERS.values(), IN_BODY])
def test_every_counter_is_in_the_documentation(counter: str) -> None:
    assert f"`{counter.partition(' ')[0]}`" in REPLAY.read_text()
