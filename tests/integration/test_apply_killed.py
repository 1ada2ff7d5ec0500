"""Apply is killed before and after every step: what is there is safe, and applying again finishes."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys

from amqpflow import api
from amqpflow.model.resources import BrokerState
from amqpflow.rabbitmq.address import BrokerAddress
from amqpflow.rabbitmq.observe import observe, open_broker
from tests.integration.apply_and_die import small_shop


def kill_at(address: BrokerAddress, step: int, when: str) -> None:
    arguments = [address.url, address.management_candidates()[-1], str(step), when]
    done = subprocess.run(
        [sys.executable, "-m", "tests.integration.apply_and_die", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr


def look(address: BrokerAddress) -> BrokerState:
    async def once() -> BrokerState:
        async with open_broker(address) as broker:
            return (await observe(small_shop(address.vhost), broker)).state

    return asyncio.run(once())


def assert_safe(state: BrokerState) -> None:
    """Dead letters of every queue have a queue to go to, and whoever is let in finds retries and parking in place."""
    for queue in state.queues.values():
        target = queue.arguments.get("x-dead-letter-routing-key")
        assert target is None or target in state.queues
    if any(binding.source == "events" for binding in state.bindings):
        routes = {(binding.source, binding.routing_key) for binding in state.bindings}
        assert {
            ("shop.parking", "orders.parking"),
            ("shop.retry", "orders.retry.5s"),
            ("shop.retry", "orders"),
        } <= routes


def test_killed_after_each_step(vhost: BrokerAddress) -> None:
    """Twelve runs, each of which gets one step further: the first step of a new plan is what the last one left."""
    compiled = small_shop(vhost.vhost)
    steps = len(asyncio.run(api.plan(compiled, vhost)).changes)
    assert steps == 12
    for done in range(1, steps + 1):
        kill_at(vhost, 0, "after")
        assert_safe(look(vhost))
        rest = asyncio.run(api.plan(compiled, vhost))
        assert len(rest.changes) == steps - done
        assert rest.findings == ()


def test_killed_before_a_step_in_the_middle(vhost: BrokerAddress) -> None:
    for step in (0, 3, 3, 1):
        kill_at(vhost, step, "before")
        assert_safe(look(vhost))
    report = asyncio.run(api.apply(small_shop(vhost.vhost), vhost))
    assert len(report.done) == 12 - 7
    assert asyncio.run(api.plan(small_shop(vhost.vhost), vhost)).changes == ()
