"""Apply, prune, swap or destroy in a process that kills itself.

`apply_and_die.py URL MANAGEMENT_URL STEP before|after [apply|prune|swap|destroy|borrowed]`
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

from amqpflow.api import functions as api
from amqpflow.model.resources import STAMP, Binding, Exchange
from amqpflow.model.routes import CompiledTopology
from amqpflow.planning.values.apply_report import ApplyReport
from amqpflow.planning.values.changes import Change
from amqpflow.rabbitmq.address import BrokerAddress
from amqpflow.services.provisioning import drain
from amqpflow.services.provisioning.applier import OnStep
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


def changed_shop(vhost: str) -> CompiledTopology:
    """The small shop, with another delay, and without its exchange: something of every kind to remove."""
    return topology({"orders": [7000]}, vhost=vhost)


def swapped_shop(vhost: str) -> CompiledTopology:
    """The small shop with a classic retry queue."""
    made = small_shop(vhost)
    tier = made.desired.queues["orders.retry.5s"]
    arguments = {key: value for key, value in tier.arguments.items() if key in KEPT}
    classic = replace(tier, arguments={**arguments, "x-queue-type": "classic"})
    return with_objects(made, queues={**made.desired.queues, tier.name: classic})


KEPT = ("x-message-ttl", "x-dead-letter-exchange", "x-dead-letter-routing-key", STAMP)


def carry_out(what: str, address: BrokerAddress, on_step: OnStep | None = None) -> Coroutine[Any, Any, ApplyReport]:
    """One of the four, with all that it takes."""
    vhost = address.vhost
    match what:
        case "prune":
            return api.apply(changed_shop(vhost), address, prune=True, allow=["delete"], wait=True, on_step=on_step)
        case "swap":
            return api.apply(swapped_shop(vhost), address, allow=["replace"], wait=True, on_step=on_step)
        case "borrowed":
            from tests.integration.test_ownership import BORROWED
            from tests.integration.test_ownership import topology as of_file

            return api.apply(of_file(BORROWED, address), address, on_step=on_step)
        case "destroy":
            return api.destroy(small_shop(vhost), address, allow=["delete"], wait=True, on_step=on_step)
        case _:
            return api.apply(small_shop(vhost), address, on_step=on_step)


def main() -> None:
    url, management_url, step, when, *what = sys.argv[1:]
    address = BrokerAddress(url=url, source="test", management_url=management_url)
    drain.STATISTICS_LAG = 0.2  # no messages here: how long statistics are waited for is tested by itself
    drain.POLL = 0.05

    def on_step(number: int, change: Change, done: bool) -> None:
        if number == int(step) and done is (when == "after"):
            os.kill(os.getpid(), signal.SIGKILL)

    asyncio.run(carry_out(what[0] if what else "apply", address, on_step))


if __name__ == "__main__":
    main()
