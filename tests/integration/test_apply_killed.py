"""Apply is killed before and after every step: what is there is safe, and applying again finishes."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from dataclasses import replace

import pytest

from amqpflow.api import functions as api
from amqpflow.model.names import applying_lock
from amqpflow.model.resources import BrokerState
from amqpflow.planning.values.changes import Change
from amqpflow.rabbitmq.address import BrokerAddress
from amqpflow.rabbitmq.observe import observe, open_broker
from amqpflow.services.provisioning import drain
from amqpflow.services.provisioning.planner import make_destruction, make_plan
from tests.brokers.management import Management
from tests.integration.apply_and_die import carry_out, changed_shop, small_shop, swapped_shop
from tests.plans import assert_nothing_dangles
from tests.waiting import until

ONCE = pytest.mark.one_broker


def kill_at(address: BrokerAddress, step: int, when: str, what: str = "apply") -> None:
    """Return when it is dead, and the broker has freed its lock: it deletes what was exclusive some time after that."""
    arguments = [address.url, address.management_candidates()[-1], str(step), when, what]
    done = subprocess.run(
        [sys.executable, "-m", "tests.integration.apply_and_die", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    lock, management = applying_lock("shop"), Management(address)
    asyncio.run(until(lambda: not management.has_queue(address.vhost, lock)))


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
    """Each run gets one step further: the first step of a new plan is what the last one left.

    The last step records that a binding was made. Killed before it, whether it was is not known, and it has none.
    """
    compiled = small_shop(vhost.vhost)
    steps = len(asyncio.run(api.plan(compiled, vhost)).changes)
    assert steps == 13
    for done in range(1, steps):
        kill_at(vhost, 0, "after")
        assert_safe(look(vhost))
        rest = asyncio.run(api.plan(compiled, vhost))
        assert len(rest.changes) == (steps - done if done < steps - 1 else 0)
        assert rest.findings == ()


def test_killed_before_a_step_in_the_middle(vhost: BrokerAddress) -> None:
    for step in (0, 3, 3, 1):
        kill_at(vhost, step, "before")
        assert_safe(look(vhost))
    report = asyncio.run(api.apply(small_shop(vhost.vhost), vhost))
    assert len(report.done) == 13 - 7
    assert asyncio.run(api.plan(small_shop(vhost.vhost), vhost)).changes == ()


@pytest.mark.parametrize("what", ["prune", pytest.param("swap", marks=ONCE), pytest.param("destroy", marks=ONCE)])
def test_a_removal_killed_after_each_step_goes_on(
    vhost: BrokerAddress, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each run is killed after the first step of what is left that changes something, so that all are died at in turn.

    A run whose first step is the manifest's is killed after its second: the first alone would be all there ever is.
    """
    monkeypatch.setattr(drain, "STATISTICS_LAG", 0.2)
    monkeypatch.setattr(drain, "POLL", 0.05)
    asyncio.run(api.apply(small_shop(vhost.vhost), vhost))
    total = len(_planned(what, vhost))
    for _ in range(2 * total):
        left = _planned(what, vhost)
        step = next((n for n, each in enumerate(left) if each.action != "drain" and each.kind != "manifest"), None)
        if step is None:
            break
        kill_at(vhost, step, "after", what)
        assert_nothing_dangles(_without_lock(look(vhost)))
        assert _removing(_planned(what, vhost)) < _removing(left)
    else:
        raise AssertionError("it does not get further")
    assert asyncio.run(carry_out(what, vhost)).complete
    assert _planned(what, vhost) == ()
    state = look(vhost)
    wanted = {"prune": changed_shop(vhost.vhost), "swap": swapped_shop(vhost.vhost)}.get(what)
    assert {each.name for each in state.queues.values() if not each.exclusive} == set(
        wanted.desired.queues if wanted else ()
    )


def _planned(what: str, address: BrokerAddress) -> tuple[Change, ...]:
    async def plan() -> tuple[Change, ...]:
        async with open_broker(address) as broker:
            match what:
                case "prune":
                    return (await make_plan(changed_shop(address.vhost), broker, prune=True)).changes
                case "swap":
                    return (await make_plan(swapped_shop(address.vhost), broker)).changes
                case _:
                    return (await make_destruction(small_shop(address.vhost), broker)).changes

    return asyncio.run(plan())


def _removing(changes: tuple[Change, ...]) -> int:
    return sum(change.kind != "manifest" for change in changes)


def _without_lock(state: BrokerState) -> BrokerState:
    return replace(state, queues={name: each for name, each in state.queues.items() if not each.exclusive})
