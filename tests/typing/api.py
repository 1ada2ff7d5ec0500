"""Code as a user writes it, for type checkers alone: mypy and pyright read this file, nothing runs it.

`assert_type` says what a call returns. A line with `# type: ignore[code]` must be an error: both checkers report an
ignore that is not needed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, assert_type

import amqpflow
from amqpflow import (
    Ack,
    AmqpflowError,
    Breaker,
    CallNext,
    Client,
    Consumer,
    Discard,
    Event,
    Message,
    MessageParked,
    Outcome,
    OutgoingMessage,
    Park,
    ParkedClient,
    Pause,
    Publisher,
    ReadOptions,
    RefusedError,
    ReplayRequest,
    Retry,
    RetryState,
    Selection,
    Topology,
)

topology = Topology.load("topology.yaml")
assert_type(topology, Topology)
assert_type(amqpflow.__version__, str)

# -- consuming

consumer = Consumer(
    topology,
    url=lambda: "amqp://broker/",
    shutdown_timeout=25.0,
    health_port=8000,
    concurrency=50,
)


async def timed(message: Message, call_next: CallNext) -> Outcome | None:
    return await call_next(message)


@consumer.handler("orders", concurrency=20, timeout=30, middlewares=[timed], breaker=Breaker(failure_ratio=0.5))
async def charge(message: Message) -> None:
    assert_type(message.body, bytes)
    assert_type(message.json(), Any)
    assert_type(message.attempt, int)
    assert_type(message.message_id, str | None)
    assert_type(message.headers, Mapping[str, Any])
    assert_type(message.retry, RetryState | None)
    if message.attempt > 3:
        raise Park("no account")


@consumer.handler("invoices", rate="10/s", order_by="customer")
def invoice(message: Message) -> Outcome | None:  # runs in a thread
    if message.redelivered:
        return Retry(after=timedelta(seconds=5))
    if not message.body:
        return Discard("empty")
    return Pause(30) if message.priority else Ack()


consumer.handler("orders", timeuot=30)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


async def call_handler(message: Message) -> None:
    """A decorated handler keeps its type."""
    assert_type(await charge(message), None)
    assert_type(invoice(message), Outcome | None)


@consumer.on("message.parked", MessageParked)
def alert(event: Event) -> None:
    if isinstance(event, MessageParked):
        assert_type(event.queue, str)
        assert_type(event.error_type, str | None)


async def serve() -> None:
    await consumer.start()
    assert_type(consumer.healthy, bool)
    await consumer.wait()
    await consumer.stop()


# -- publishing


async def publish() -> None:
    async with Publisher(topology=topology) as publisher:
        message_id = await publisher.publish(b"{}", exchange="orders.events", routing_key="order.placed", priority=1)
        assert_type(message_id, str)
        await publisher.publish_many([OutgoingMessage(body=b"{}", routing_key="orders")])
        await publisher.publish("text")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


# -- the client


async def provision(path: Path) -> None:
    async with amqpflow.connect("amqp://broker/", management_url="http://broker:15672") as broker:
        assert_type(broker, Client)
        plan = await broker.plan(path, prune=True)
        report = await broker.apply(plan, lock_timeout=5)
        print(plan.changes, report)
        assert_type(broker.parked, ParkedClient)
        async for status in broker.watch(path, interval=1.0):
            print(status)


def watched(broker: Client) -> AsyncIterator[object]:
    return broker.watch(topology)


async def replay() -> None:
    how = ReadOptions(from_queues=["orders.parking"], prefetch=100)
    listing = await amqpflow.parked(topology, selection=Selection(queues=("orders",), limit=10), options=how)
    print(listing)
    report = await amqpflow.replay(topology, queue="orders", choice=ReplayRequest(rate=10.0, ramp=(1, 10)))
    print(report)
    await amqpflow.replay(topology, rate=10)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


# -- errors


async def refused() -> int:
    try:
        await amqpflow.apply(topology)
    except RefusedError as error:
        assert_type(error.hint, str)
        return error.exit_code
    except AmqpflowError as error:
        assert_type(error.exit_code, int)
    return 0
