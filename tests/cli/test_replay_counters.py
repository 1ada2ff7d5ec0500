"""A replay starts amqpflow's count again, and says which other counters continue."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from amqpflow.rabbitmq.address import BrokerAddress
from tests.cli.parked_shop import amqpflow, fill, write_shop
from tests.parked import delivered


@pytest.mark.one_broker
def test_counters_that_consumers_keep_in_the_message_are_named_and_stay(vhost: BrokerAddress, tmp_path: Path) -> None:
    shop = write_shop(tmp_path)
    counted = [{"retries": 2}, {"retries": 3, "task": "charge"}, {"laravel": {"attempts": 3}}, {"other": 1}]
    fill(shop, vhost, [delivered("orders", message_id=f"m{n}", headers=each) for n, each in enumerate(counted)])
    done = amqpflow("replay", shop, vhost, "--queue", "orders", "--dry-run")
    assert "amqpflow counts their attempts from 1 again; the history stays." in done.out
    assert "  2 carry a counter of another framework, retries: it continues where it stopped." in done.out
    assert "  1 carry a counter of another framework, laravel.attempts: it continues where it stopped." in done.out
    for options in ((), ("--sample", "4")):
        done = amqpflow("replay", shop, vhost, "--queue", "orders", "--dry-run", "-o", "json", *options)
        assert json.loads(done.out)["counters"] == [
            {"name": "retries", "count": 2},
            {"name": "laravel.attempts", "count": 1},
        ]
    done = amqpflow("replay", shop, vhost, "--queue", "orders", "--dry-run", "--id", "m3")
    assert "counter of another framework" not in done.out
    done = amqpflow("replay", shop, vhost, "--queue", "orders", "--yes", "--set-header", "retries=0", "--limit", "2")
    assert (done.code, "Replayed 2 messages" in done.out) == (0, True)
