"""A failure of a handler is in the events and in the log: what was raised, where, and what becomes of the message."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from amqpflow import Consumer, Message, Park, Retry
from amqpflow.model.event import Event, MessageHandled, MessageParked, MessageRetried
from amqpflow.model.routes import NativeRetry
from amqpflow.rabbitmq.address import BrokerAddress
from amqpflow.services.loading.topology import Topology
from tests.shop import shop
from tests.waiting import until

HERE = "tests/integration/test_failures_told.py"
NATIVE = NativeRetry(min_ms=50, max_ms=100, retries=1)
KEY = ("message_id", "event_name", "attempt")
Failure = MessageHandled | MessageRetried | MessageParked


def fails(message: Message) -> Any:
    """What each message id comes to."""
    error = OSError("gateway")
    match message.message_id:
        case "error":
            raise error
        case "group":
            raise ExceptionGroup("tasks", [error, KeyError("sku")])
        case "retry":
            raise Retry(after=0.05, reason="busy") from error
        case "park":
            raise Park("sold out") from error
        case "json":
            message.json()
        case "result":
            return 5
    return None


async def in_loop(message: Message) -> Any:
    return fails(message)


@pytest.mark.parametrize(
    ("function", "native"),
    [
        pytest.param(in_loop, None, marks=pytest.mark.one_broker),
        pytest.param(fails, None, marks=pytest.mark.one_broker),
        pytest.param(in_loop, NATIVE, marks=pytest.mark.releases(">=4.3")),
    ],
    ids=["async", "thread", "native"],
)
def test_a_failure_is_told_with_its_exception_and_its_line(
    vhost: BrokerAddress, caplog: pytest.LogCaptureFixture, function: Any, native: NativeRetry | None
) -> None:
    heard: dict[tuple[str, str, int], Failure] = {}
    ids = ("error", "group", "retry", "park", "json", "result")

    def listen(event: Event) -> None:
        assert isinstance(event, Failure)
        heard[str(event.message_id), event.name, event.attempt] = event

    async def scenario() -> None:
        async with shop(vhost, {"orders": (50,)}, native=native) as scene:
            consumer = Consumer(Topology(compiled=scene.compiled), vhost.url, tracebacks=True)
            consumer.add_handler("orders", function)
            consumer.subscribe(listen, MessageHandled, MessageRetried, MessageParked)
            async with consumer:
                await scene.publish(*ids, body=b"{no")
                await until(lambda: consumer.totals["parked"] == len(ids))

    caplog.set_level(logging.INFO, "amqpflow.consumer")
    asyncio.run(scenario())
    told = {name: heard[name, "message.parked", 2 if name in ("error", "group", "retry") else 1] for name in ids}
    types = {name: event.error_type for name, event in told.items()}
    assert types == {
        "error": "OSError",
        "group": "OSError",
        "retry": "OSError",
        "park": "OSError",
        "json": "amqpflow.errors.UndecodableError",
        "result": None,
    }
    for name, event in told.items():
        assert str(event.error_location).startswith(f"{HERE}:"), name
        handled = heard[name, "message.handled", event.attempt]
        assert handled.error is event.error, name
        assert (type(event.error).__name__ == "NoneType") == (name == "result")
    assert isinstance(told["group"].error, ExceptionGroup), "as it was raised"
    assert told["group"].error_message == "gateway (and 1 more in the group: KeyError)"
    first = heard["retry", "message.retried", 1]
    assert isinstance(first, MessageRetried)
    assert (first.reason, str(first.error)) == ("busy", "gateway")
    logged = {tuple(map(record.__dict__.get, KEY)): record for record in caplog.records}
    for key, event in heard.items():
        if key[1] != "message.handled" and event.error is not None:
            record = logged[key]
            assert record.exc_info is not None
            assert record.exc_info[1] is event.error, "what Sentry and its like look for"
            assert f"({event.error_location})" in record.getMessage()
    assert "(and 1 more in the group: KeyError)" in caplog.text


@pytest.mark.one_broker
def test_a_missing_retry_queue_does_not_flood_the_log(vhost: BrokerAddress, caplog: pytest.LogCaptureFixture) -> None:
    ids = [f"m{number}" for number in range(60)]

    async def scenario() -> None:
        async with shop(vhost, {"orders": (50,)}) as scene:
            scene.delete("queues", "orders.retry.50ms")
            async with scene.consumer(orders=in_loop) as consumer:
                await scene.publish(*ids, *("error" for _ in ids))
                await until(lambda: consumer.totals["acked"] + consumer.totals["parked"] == 2 * len(ids), timeout=30)
            assert consumer.totals["parked"] == len(ids)

    caplog.set_level(logging.INFO, "amqpflow.consumer")
    asyncio.run(scenario())
    lines = [record.getMessage() for record in caplog.records]
    missing = (
        "orders: retry queue orders.retry.50ms accepts no messages (missing, full or not bound): "
        "they take the next longer delay or are parked"
    )
    assert lines.count(missing) == 20
    assert sum(line.startswith("parked error: no-route: ") for line in lines) == 20
    (counted,) = [line for line in lines if " more parked within " in line]
    assert counted.startswith("orders: 40 more parked within ")
