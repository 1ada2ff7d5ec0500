"""Apply a topology in a process that kills itself: `apply_and_die.py URL MANAGEMENT_URL STEP before|after`."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from amqpflow import api
from amqpflow.model.resources import STAMP, Binding, Exchange
from amqpflow.model.routes import CompiledTopology
from amqpflow.planning.changes import Change
from amqpflow.rabbitmq.address import BrokerAddress
from tests.plans import limits, with_objects
from tests.topologies import topology


def small_shop(vhost: str) -> CompiledTopology:
    """Every kind of change at least once."""
    made = topology({"orders": [5000]}, vhost=vhost)
    events = Exchange(name="events", type="topic", arguments={STAMP: made.name})
    entry = Binding(source="events", destination="orders", routing_key="order.*")
    policy = limits("orders")
    return with_objects(
        made,
        exchanges={**made.desired.exchanges, "events": events},
        bindings=(*made.desired.bindings, entry),
        policies={policy.name: policy},
    )


def main() -> None:
    url, management_url, step, when = sys.argv[1:]
    address = BrokerAddress(url=url, source="test", management_url=management_url)

    def on_step(number: int, change: Change, done: bool) -> None:
        if number == int(step) and done is (when == "after"):
            os.kill(os.getpid(), signal.SIGKILL)

    asyncio.run(api.apply(small_shop(address.vhost), address, on_step=on_step))


if __name__ == "__main__":
    main()
