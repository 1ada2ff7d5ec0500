"""A handler that keeps the event loop is warned of by name, and a connection that is lost for it says so."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from dataclasses import replace

import pytest

from amqpflow import Message
from amqpflow.rabbitmq.address import BrokerAddress
from amqpflow.services.consuming import loop_monitor
from amqpflow.services.consuming.loop_monitor import LoopMonitor
from tests.shop import shop
from tests.waiting import until

pytestmark = [pytest.mark.one_broker, pytest.mark.timing]


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Warn after 0.4 s instead of 2 s."""
    monkeypatch.setattr(loop_monitor, "LIMIT", 0.4)
    monkeypatch.setattr(loop_monitor, "_EVERY", 0.05)


def nap(seconds: float) -> None:
    time.sleep(seconds)


def told(caplog: pytest.LogCaptureFixture, words: str) -> list[logging.LogRecord]:
    return [each for each in caplog.records if words in each.getMessage()]


def block_until_told(caplog: pytest.LogCaptureFixture, words: str) -> None:
    """A machine without time for the thread that watches is no fault of a handler, so that it may take a while."""
    deadline = time.monotonic() + 30
    while not told(caplog, words):
        assert time.monotonic() < deadline, "it is said while it happens"
        nap(0.1)


@pytest.mark.usefixtures("soon")
def test_a_handler_that_blocks_is_named_with_message_and_line_while_it_does(
    vhost: BrokerAddress, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with shop(vhost) as scene:

            async def handle(message: Message) -> None:
                if message.message_id == "slow":
                    block_until_told(caplog, "with message slow")
                await asyncio.sleep(0)
                scene.done.append(str(message.message_id))

            async with scene.consumer(orders=handle):
                await scene.publish("quick", "slow")
                await until(lambda: len(scene.done) == 2)
                await until(lambda: len(told(caplog, "with message slow")) > 1)
        first, second = told(caplog, "with message slow")
        named = r"handler tests\.\S+\.handle with message slow, at tests/integration/test_blocked_loop\.py:\d+"
        assert re.match(
            rf"orders: the event loop has been blocked for [\d.]+m?s by {named}: no other", first.getMessage()
        )
        again = rf"orders: the event loop runs again after [\d.]+m?s; it was blocked by {named}$"
        assert re.match(again, second.getMessage())
        assert first.levelname == second.levelname == "WARNING"

    asyncio.run(scenario())


def test_heartbeats_that_a_blocked_loop_missed_are_said_to_be_why_the_connection_is_lost(vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        impatient = replace(vhost, url=f"{vhost.url}?heartbeat=1")
        async with shop(vhost) as scene:
            scene.address = impatient

            async def handle(message: Message) -> None:
                if not message.redelivered:
                    nap(5)  # RabbitMQ resets the connection after 3 s
                scene.done.append(str(message.message_id))

            consumer = scene.consumer(orders=handle)
            reasons: list[str] = []
            consumer.subscribe(lambda event: reasons.append(event.reason), "connection.lost", "message.requeued")
            async with consumer:
                await scene.publish("slow")
                await until(lambda: scene.done[:2] == ["slow", "slow"])
                await until(lambda: consumer.healthy)
            why = (
                r"missed heartbeats: handler tests\.\S+\.handle with message slow, at \S+ blocked the event loop for \d"
            )
            assert any(re.match(why, each) for each in reasons), reasons
            assert all(re.search(why, each) for each in reasons), reasons

    asyncio.run(scenario())


@pytest.mark.usefixtures("soon")
def test_what_no_thread_could_see_is_said_afterwards(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop_monitor, "_EVERY", 0.15)  # the thread must not look twice before the loop turns again

    async def scenario() -> None:
        with LoopMonitor() as monitor:
            await asyncio.sleep(0.1)
            began = time.monotonic()
            sum(range(80_000_000))  # holds the interpreter's lock
            assert time.monotonic() - began > 0.5, "the machine became too fast for this test"
            await until(lambda: "runs again" in caplog.text)
            assert monitor.why_heartbeats_were_missed(60) == ""
            assert "blocked the event loop" in monitor.why_heartbeats_were_missed(0.2)
        assert "it was blocked by code that let no other thread run" in caplog.text

    asyncio.run(scenario())


@pytest.mark.usefixtures("soon")
def test_code_outside_handlers_is_said_by_its_line(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        with LoopMonitor():
            await asyncio.sleep(0.1)
            block_until_told(caplog, "has been blocked")
            await until(lambda: told(caplog, "runs again"))

    asyncio.run(scenario())
    (blocked,) = told(caplog, "has been blocked")
    assert blocked.getMessage().startswith("consumer: the event loop has been blocked")
    assert re.search(r"by code outside handlers, at tests/integration/test_blocked_loop\.py:\d+", blocked.getMessage())


@pytest.mark.usefixtures("soon")
def test_a_loop_that_turns_is_not_warned_of(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """For longer than the limit in all, which is far above one nap: a machine may be busy for a moment."""
    monkeypatch.setattr(loop_monitor, "LIMIT", 1.5)

    async def scenario() -> None:
        with LoopMonitor(), caplog.at_level(logging.DEBUG):
            for _ in range(20):
                nap(0.1)
                await asyncio.sleep(0)

    asyncio.run(scenario())
    assert not [each for each in caplog.messages if "event loop" in each]


def test_a_message_whose_handler_always_outlasts_the_heartbeat_is_parked(vhost: BrokerAddress) -> None:
    """Each of its deliveries is lost with the connection, and it would come back for ever."""

    async def scenario() -> None:
        async with shop(vhost, crash_limit=2) as scene:
            scene.address = replace(vhost, url=f"{vhost.url}?heartbeat=1")
            calls: list[str] = []

            async def handle(message: Message) -> None:
                calls.append(str(message.message_id))
                nap(5)

            consumer = scene.consumer(orders=handle)
            parked: list[str] = []
            consumer.subscribe(lambda event: parked.append(event.reason), "message.parked")
            async with consumer:
                await scene.publish("slow")
                await until(lambda: bool(parked), timeout=60)
            assert (set(calls), parked) == ({"slow"}, ["crashed"])
            assert 2 <= len(calls) <= 4, "before RabbitMQ 4.3 up to two more than crash_limit"
            assert (await scene.depth("orders"), await scene.depth("orders.parking")) == (0, 1)

    asyncio.run(scenario())
