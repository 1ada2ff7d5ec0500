"""Handlers that do what handlers should not, headers that nobody of ours wrote, and messages that kill consumers."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from amqpflow import InvalidHandlerError, Message, Park, Retry
from amqpflow.model import headers as h
from amqpflow.rabbitmq.address import BrokerAddress
from amqpflow.services.handling import thread_pool as threads
from tests.shop import Shop, shop
from tests.waiting import until

GOOD = ("good 1", "good 2", "good 3")


class NobodyExpectsThis(BaseException):
    """As gevent's Timeout is one."""


def raises(error: BaseException) -> Callable[[], None]:
    def misbehave() -> None:
        raise error

    return misbehave


def cancels_itself() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()


MISBEHAVIOURS: dict[str, tuple[Callable[[], None], str]] = {
    "raises a BaseException": (raises(NobodyExpectsThis("boo")), "exhausted"),
    "raises a group of them": (raises(BaseExceptionGroup("two", [NobodyExpectsThis()])), "exhausted"),
    "raises CancelledError": (raises(asyncio.CancelledError()), "exhausted"),
    "cancels itself": (cancels_itself, "exhausted"),
    "parks with an exception for a reason": (raises(Park(ValueError("why"))), "parked"),  # type: ignore[arg-type]
    "retries with an exception for a reason": (raises(Retry(reason=ValueError("why"))), "exhausted"),  # type: ignore[arg-type]
}


@pytest.mark.one_broker
@pytest.mark.parametrize("what", MISBEHAVIOURS)
def test_a_handler_that_misbehaves_harms_its_own_message_alone(vhost: BrokerAddress, what: str) -> None:
    misbehave, reason = MISBEHAVIOURS[what]

    async def scenario() -> None:
        async with shop(vhost) as scene:

            async def handle(message: Message) -> None:
                if message.message_id == "bad":
                    misbehave()
                    await asyncio.sleep(0)
                scene.done.append(str(message.message_id))

            consumer = scene.consumer(orders=handle)
            async with consumer:
                await scene.publish("bad", *GOOD)
                parked = await scene.take_one("orders.parking")
                await until(lambda: set(scene.done) == set(GOOD))
                assert consumer.healthy
            assert parked.header.properties.headers[h.REASON] == reason
            assert sorted(scene.done) == sorted(GOOD), "the good ones were handled once"

    asyncio.run(scenario())


@pytest.mark.one_broker
def test_a_timed_out_thread_does_not_use_up_the_time_of_others(
    vhost: BrokerAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three calls hang: two are replaced by fresh threads, and the third one keeps a place.

    What waits for the other place has not begun, and so cannot be late.
    """
    monkeypatch.setattr(threads, "SPARE", 2)
    let_go = threading.Event()
    hanging = {f"hangs {number}" for number in range(3)}
    running, most_at_once = list[Message](), list[int]()

    async def scenario() -> None:
        async with shop(vhost, {"orders": ()}) as scene:

            def handle(message: Message) -> None:
                if message.message_id in hanging:
                    let_go.wait(30)
                else:
                    running.append(message)
                    most_at_once.append(len(running))
                    time.sleep(1.1)  # two of them one after the other take longer than the timeout
                    running.remove(message)
                    scene.done.append(str(message.message_id))

            consumer = scene.consumer()
            consumer.add_handler("orders", handle, concurrency=2, prefetch=10, timeout=2.0)
            try:
                async with consumer:
                    await scene.publish(*hanging)
                    await until(lambda: consumer.totals["parked"] == 3)
                    await scene.publish(*GOOD)
                    await until(lambda: len(scene.done) == len(GOOD))
                    let_go.set()
            finally:
                let_go.set()
            assert max(most_at_once) == 1, "they waited for one place"
            parked = {each.header.properties.message_id for each in await scene.take("orders.parking")}
            assert parked == hanging

    asyncio.run(scenario())


@pytest.mark.one_broker
def test_what_a_handler_does_to_its_headers_does_not_travel(vhost: BrokerAddress) -> None:
    async def scenario() -> None:
        async with shop(vhost) as scene:
            seen: list[Any] = []

            async def handle(message: Message) -> None:
                seen.append({"table": dict(message.headers["table"]), "list": list(message.headers["list"])})
                message.headers["table"]["key"] = "changed"
                message.headers["list"].append("more")
                if message.attempt == 1:
                    raise Retry
                scene.done.append("m")

            async with scene.consumer(orders=handle):
                await scene.publish("m", headers={"table": {"key": "as sent"}, "list": [1]})
                await until(lambda: scene.done)
            assert seen == [{"table": {"key": "as sent"}, "list": [1]}] * 2

    asyncio.run(scenario())


FORGED: dict[str, dict[str, Any]] = {
    "no hop": {},
    "a history of 20,000": {h.HOP: "root/0/1", h.HISTORY: [True] * 20_000},
    "numbers for text": {h.HOP: "root/0/1", h.ERROR_STACK: 5, h.ERROR_MESSAGE: [1], h.REASON_DETAIL: {}},
    "a million attempts": {h.HOP: "root/0/1", h.ATTEMPT: 1 << 62},
}


@pytest.mark.one_broker
@pytest.mark.parametrize("queue_type", ["quorum", "classic"])
@pytest.mark.parametrize("what", FORGED)
def test_forged_headers_of_a_message_that_is_not_due_do_no_harm(
    vhost: BrokerAddress, what: str, queue_type: str
) -> None:
    """Who writes our headers can make a message wait as long as it says, and nothing else."""
    now = time.time_ns() // 1_000_000
    forged = {h.QUEUE: "orders", h.FAILED_AT: now - 1000, h.DUE_AT: now + 1000, **FORGED[what]}

    async def scenario() -> None:
        async with shop(vhost, queue_type=queue_type) as scene:

            async def handle(message: Message) -> None:
                scene.done.append(str(message.message_id))

            consumer = scene.consumer(orders=handle)
            async with consumer:
                await scene.publish("forged", headers=forged)
                await scene.publish(*GOOD)
                await until(lambda: set(scene.done) == {"forged", *GOOD})
                assert consumer.healthy
            assert len(scene.done) == 1 + len(GOOD)

    asyncio.run(scenario())


@pytest.mark.parametrize("kind", ["def", "async def"])
def test_a_generator_is_no_handler(kind: str) -> None:
    names: dict[str, Any] = {}
    exec(f"{kind} handle(message):\n    yield message", names)
    from amqpflow.services.handling.handler import make_handler

    with pytest.raises(InvalidHandlerError, match="generator"):
        make_handler("orders", names["handle"], concurrency=1, prefetch=None, timeout=None, keep_stack=False)


# -- messages that kill their consumers


async def lost_deliveries(scene: Shop, *ids: str, times: int) -> None:
    """Let each of these be in `times` crashes: taken, and lost with the channel."""
    for _ in range(times):
        channel = await scene.connection.admin_channel()
        for _ in ids:
            assert (await channel.basic_get("orders")).delivery.name == "Basic.GetOk"
        await channel.close()
        await until(lambda: _all_ready(scene, len(ids)))


async def _all_ready(scene: Shop, count: int) -> bool:
    return await scene.depth("orders") >= count


def test_a_message_that_was_in_three_crashes_is_handled_alone(vhost: BrokerAddress) -> None:
    """Were it to crash once more, no neighbour would be running, nor, where a nack is not counted, be unacked."""

    async def scenario() -> None:
        async with shop(vhost) as scene:
            running = 0
            beside: dict[str, int] = {}

            async def handle(message: Message) -> None:
                nonlocal running
                running += 1
                await asyncio.sleep(0.05)
                beside[str(message.message_id)] = running - 1
                if message.message_id == "poison" and scene.connection.version >= (4, 3):
                    # nothing else is unacked: all that was published is ready or done, but this one. Before, what has
                    # not been lost is held: to requeue it would be counted as well
                    await until(lambda: _all_ready(scene, len(GOOD) - len(scene.done)))
                await asyncio.sleep(0.05)
                running -= 1
                scene.done.append(str(message.message_id))

            await scene.publish("poison")
            await lost_deliveries(scene, "poison", times=3)
            await scene.publish(*GOOD)
            consumer = scene.consumer()
            consumer.add_handler("orders", handle, concurrency=4, prefetch=10)
            async with consumer:
                await until(lambda: set(scene.done) == {"poison", *GOOD})
            assert beside["poison"] == 0
            assert scene.done[0] == "poison", "it came first, and the others waited for it"
            assert len(scene.done) == 1 + len(GOOD)

    asyncio.run(scenario())


@pytest.mark.one_broker
def test_the_prefetch_is_the_concurrency_until_acks_have_gone_out(vhost: BrokerAddress) -> None:
    """A process that dies on its first messages has counted few neighbours with them."""

    async def scenario() -> None:
        async with shop(vhost) as scene:
            go_on = asyncio.Semaphore(0)

            async def handle(message: Message) -> None:
                await go_on.acquire()
                scene.done.append(str(message.message_id))

            ids = [f"m{number}" for number in range(20)]
            await scene.publish(*ids)
            consumer = scene.consumer()
            consumer.add_handler("orders", handle, concurrency=2, prefetch=15)
            async with consumer:
                await until(lambda: _ready_at_most(scene, 18))
                assert await scene.depth("orders") == 18
                for _ in range(2):
                    go_on.release()
                await until(lambda: _ready_at_most(scene, 20 - 2 - 15))
                for _ in ids:
                    go_on.release()
                await until(lambda: sorted(scene.done) == sorted(ids))

    asyncio.run(scenario())


async def _ready_at_most(scene: Shop, count: int) -> bool:
    return await scene.depth("orders") <= count
